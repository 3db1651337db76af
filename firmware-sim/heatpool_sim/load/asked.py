"""What a run of the load generator was asked for."""

from dataclasses import dataclass, field
from pathlib import Path

DAY_S = 86_400.0
BACKLOG_STEP_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """So many agents lose their streams at one instant and connect again at once."""

    agents: int
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """All agents send so many times as much for a while."""

    factor: float
    at_s: float
    length_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, and how often; shares are of agents or of batches, 0 to 1."""

    bad_clock_frac: float = 0.0
    duplicates_frac: float = 0.0
    reorder_frac: float = 0.0
    garbage_frac: float = 0.0
    noisy_factor: float | None = None
    kill_every_s: float | None = None
    storms: tuple[Storm, ...] = ()
    bursts: tuple[Burst, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomers:
    """Where agents get certificates: the aggregator's web port, a fleet's token, the CA's hash."""

    url: str
    token: str = field(repr=False)
    ca_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where to send, and by which certificates; without `ca` there is no TLS."""

    grpc: str = "127.0.0.1:8443"
    http: str | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    folder: Path | None = None  # SITE_ID.pem of every agent
    newcomers: Newcomers | None = None  # who has none in the folder joins there
    operator: Path | None = None  # key, certificate and CA of who may read, for the witness
    streams_per_connection: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """All of a run; the period is that of one agent's message."""

    agents: int
    rows: int = 6
    period_s: float = 60.0
    register_period_s: float = 900.0
    seconds: float | None = None
    ramp_s: float | None = None
    drain_s: float = 60.0
    backlog_s: float = 0.0
    backlog_rows: int = 360
    spool_batches: int = 100_000
    site_prefix: str = "load"
    seed: int = 1
    is_quiet: bool = False
    is_verified: bool = False
    progress_s: float = 5.0
    faults: Faults = field(default_factory=Faults)
    doors: Doors = field(default_factory=Doors)

    def site_id(self, number: int) -> str:
        """Name of one site."""
        return f"{self.site_prefix}-{number:05d}"
