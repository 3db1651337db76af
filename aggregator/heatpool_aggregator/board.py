"""What loops tell each other, and what rpc and web read: frozen values, each posted by one loop."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from heatpool.sample import (
    MeterId,
    MeteringPointId,
    Provenance,
    QualityClass,
    SiteId,
    VirtualSourceId,
)
from heatpool.setpoint import SetpointState
from heatpool_aggregator.core.settlement import PeriodBalance, Statement
from heatpool_aggregator.core.turned_away import TurnedAway


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatView:
    """A heat quantity, whole; None is absent, never zero."""

    heat_rate_w: float | None = None
    heat_rate_w_u: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    volume_flow_m3_h: float | None = None
    quality: QualityClass | None = None
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetpointView:
    """What a site was asked, and what became of it; a heat rate of None: what ends an order."""

    setpoint_seq: int
    heat_rate_w: float | None
    applied_heat_rate_w: float | None
    state: SetpointState
    detail: str

    @property
    def asks_nothing(self) -> bool:
        """Whether the site was told that nothing is asked any more, and did not refuse that."""
        is_idle = self.heat_rate_w is None and not self.applied_heat_rate_w
        return is_idle and self.state is not SetpointState.REFUSED


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterView:
    """A metering point with the meter in place and the Wh moved since its first reading."""

    metering_point_id: MeteringPointId
    meter_id: MeterId
    energy_wh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteView:
    """State of one site as people see it."""

    site_id: SiteId
    virtual_source_id: VirtualSourceId | None
    heat: HeatView
    electric_w: float | None
    reported_heat_w: float | None
    computed_heat_w: float | None
    electric_heat_w: float | None
    rejection_capacity_w: float | None
    event_ns: int | None
    is_stale: bool
    energy_wh: int | None
    meters: tuple[MeterView, ...] = ()
    loop_ids: tuple[str, ...] = ()
    setpoint: SetpointView | None = None
    # What its clock is behind ours, where that is more than two seconds; s.
    clock_offset_s: float | None = None
    is_clock_held: bool = False  # so far off that its rows wait until that is sure


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceView:
    """State of one virtual source as people see it."""

    virtual_source_id: VirtualSourceId
    kind: str
    heat: HeatView
    energy_wh: int
    members_count: int
    fresh_count: int
    coverage_frac: float
    watermark_ns: int | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestCounts:
    """What came over the wire since the process started."""

    batches_received: int = 0
    batches_durable: int = 0
    duplicates_ignored: int = 0
    refused: int = 0
    streams: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceView:
    """How far registers, running sums and ledger lie apart over the closed periods, Wh.

    `worst` is the period where they lie furthest apart; None where no period was closed.
    """

    periods_count: int
    balance_error_wh: int
    worst: PeriodBalance | None


@dataclass(slots=True)
class Board:
    """The last value of each kind; `changed` wakes whoever waits for the next one."""

    sites: tuple[SiteView, ...] = ()
    sources: tuple[SourceView, ...] = ()
    statement: Statement | None = None
    balance: BalanceView | None = None
    ingest: IngestCounts = field(default_factory=IngestCounts)
    log_position: int = 0
    applied_position: int = 0
    version: int = 0
    # Kept by the doors themselves: a refusal must wake nobody, or a stranger could.
    turned_away: TurnedAway = field(default_factory=TurnedAway)
    # What is wrong with our own clock, for people; empty while it is believed.
    clock_suspect: str = ""
    # Who cannot write, and why; empty while all can.
    disk_errors: Mapping[str, str] = field(default_factory=dict)
    _waiters: asyncio.Event = field(default_factory=asyncio.Event)

    def post(self, **values: object) -> None:
        """Replaces the named values and wakes the waiters."""
        for name, value in values.items():
            setattr(self, name, value)
        self.version += 1
        self._waiters.set()
        self._waiters = asyncio.Event()

    def note_disk(self, name: str, error: str) -> None:
        """Notes why a part cannot write; empty once it can again."""
        if self.disk_errors.get(name, "") != error:
            others = {one: why for one, why in self.disk_errors.items() if one != name}
            self.post(disk_errors={**others, name: error} if error else others)

    async def changed(self) -> None:
        """Returns at the next post."""
        await self._waiters.wait()
