"""TOML -> frozen Config of the aggregator: where it listens, who is pooled, on what terms."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from heatpool.errors import ConfigError
from heatpool.process import settings
from heatpool.setpoint import LEASE_DEFAULT_S

ENV_PREFIX = "HEATPOOL_AGGREGATOR"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
OfftakerKind = Literal[
    "greenhouse", "swimming_pool", "district_loop", "snow_melt", "hot_water", "process"
]


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Addresses; loopback only, until `init` or `[tls]` brings certificates."""

    grpc: str = "127.0.0.1:8443"
    http: str = "127.0.0.1:8080"


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Certificates as PEM files; empty: those that `init` made in STATE/identity/, if it did."""

    cert: str = ""
    key: str = ""
    ca: str = ""
    trust_domain: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9._-]{1,255}$")] = "heatpool"
    # Of a site's certificate; it renews itself at two thirds. Short ones are for tests.
    site_life_s: Annotated[int, msgspec.Meta(ge=5, le=7_776_000)] = 2_592_000


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the durable files lie, and which back ends hold them, by URL scheme."""

    dir: str = ""
    log: str = "sqlite:"
    store: str = "sqlite:"


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often sites send; three periods without a row make a member stale."""

    message_period_s: Positive = 60.0


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settlement grid, and how long a period waits for late registers.

    `return_s`: how long at most after an absence of the aggregator itself, until sites are back.
    """

    period_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    grace_s: NotNegative = 120.0
    return_s: NotNegative = 3600.0


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Terms of one heat purchase agreement; money is decimal text."""

    id: Name
    price_eur_mwh: Decimal
    round_eur: Decimal = Decimal("0.01")


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A site in a virtual source for [from, until); an open end is left out."""

    site_id: Name
    from_: datetime | None = msgspec.field(default=None, name="from")
    until: datetime | None = None


class VirtualSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sites offered to one offtaker as one heat source."""

    id: Name
    kind: OfftakerKind
    agreement: Agreement
    member: tuple[Member, ...] = ()
    version: Annotated[int, msgspec.Meta(ge=1)] = 1


class StandingSetpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A heat rate wished from one site for as long as this process lives and says so."""

    site_id: Name
    heat_rate_w: NotNegative
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=900)] = LEASE_DEFAULT_S
    reason: str = "standing setpoint"


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all streams of one owner's sites may send together; left out: no limit.

    The empty id stands for sites that nobody owns.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = ""
    streams: Annotated[int, msgspec.Meta(ge=1)] | None = None
    batches_s: Positive | None = None
    bytes_s: Positive | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one aggregator."""

    listen: Listen = Listen()
    tls: Tls = Tls()
    state: State = State()
    live: Live = Live()
    settlement: Settlement = Settlement()
    virtual_source: tuple[VirtualSource, ...] = ()
    setpoint: tuple[StandingSetpoint, ...] = ()
    tenant: tuple[Tenant, ...] = ()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings of this aggregator.

    Raises:
        ConfigError: with every mistake.
    """
    config = settings.load(path, Config, environ=environ, prefix=ENV_PREFIX)
    if mistakes := [*_doubles(config), *_zoneless(config), *_worthless(config)]:
        raise ConfigError(mistakes, file=str(path or ""))
    return config


def state_dir(config: Config, environ: Mapping[str, str]) -> Path:
    """Where the durable files lie: the settings, else systemd's directory, else the user's."""
    if named := config.state.dir or environ.get("STATE_DIRECTORY", ""):
        return Path(named)
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "heatpool-aggregator"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """What this server proves itself with, and which CA its callers must come from."""

    cert: Path
    key: Path
    ca: Path
    trust_domain: str


def tls_files(config: Config, state_dir: Path) -> TlsFiles | None:
    """The files to speak TLS with; None: there are none, and this machine alone is served.

    Raises:
        ConfigError: some are named or there, and others are not.
    """
    own, tls = state_dir / "identity", config.tls
    places = {
        "cert": Path(tls.cert or own / "server.pem"),
        "key": Path(tls.key or own / "server.key"),
        "ca": Path(tls.ca or own / "ca.pem"),
    }
    lacking = [name for name, path in places.items() if not path.is_file()]
    is_named = bool(tls.cert or tls.key or tls.ca)
    if not is_named and not places["cert"].is_file():
        return None
    if lacking:
        raise ConfigError(
            [
                f"tls.{name}: there is no file {places[name]}; name one, or run "
                "`heatpool-aggregator init`"
                for name in lacking
            ]
        )
    return TlsFiles(**places, trust_domain=tls.trust_domain)


def _doubles(config: Config) -> list[str]:
    """A site has one leaf virtual source at a time; an open-ended double can be seen here."""
    seen: dict[str, str] = {}
    mistakes = []
    for index, source in enumerate(config.virtual_source):
        if source.id in {other.id for other in config.virtual_source[:index]}:
            mistakes.append(f"virtual_source[{index}].id: {source.id!r} is there twice")
        for member in source.member:
            if member.from_ or member.until:
                continue
            if member.site_id in seen:
                mistakes.append(
                    f"virtual_source[{index}].member: site {member.site_id!r} is already a member "
                    f"of {seen[member.site_id]!r}; give one of them from or until"
                )
            seen[member.site_id] = source.id
    return mistakes


def _zoneless(config: Config) -> list[str]:
    return [
        f"virtual_source[{index}].member: {member.site_id!r} has a time without a zone, add Z"
        for index, source in enumerate(config.virtual_source)
        for member in source.member
        if any(t is not None and t.tzinfo is None for t in (member.from_, member.until))
    ]


def _worthless(config: Config) -> list[str]:
    """A price below 0 is cooling and allowed; what no amount can be made of is not."""
    mistakes = []
    for index, source in enumerate(config.virtual_source):
        key = f"virtual_source[{index}].agreement"
        price, step = source.agreement.price_eur_mwh, source.agreement.round_eur
        if not price.is_finite():
            mistakes.append(f"{key}.price_eur_mwh: {price} is no price, give a decimal number")
        if not step.is_finite() or step <= 0:
            mistakes.append(f"{key}.round_eur: {step} is no step of money, give one above 0")
    return mistakes
