"""TOML -> frozen Config of the aggregator: where it listens, who is pooled, on what terms."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from heatpool.errors import ConfigError
from heatpool.process import settings

ENV_PREFIX = "HEATPOOL_AGGREGATOR"

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
OfftakerKind = Literal[
    "greenhouse", "swimming_pool", "district_loop", "snow_melt", "hot_water", "process"
]


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Addresses; loopback only, until enrolment brings certificates."""

    grpc: str = "127.0.0.1:8443"
    http: str = "127.0.0.1:8080"


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the durable files lie, and which back ends hold them, by URL scheme."""

    dir: str = ""
    log: str = "sqlite:"
    store: str = "sqlite:"


class Live(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often sites send; three periods without a row make a member stale."""

    message_period_s: Positive = 60.0


class Settlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settlement grid, and how long a period waits for late registers."""

    period_s: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    grace_s: NotNegative = 120.0


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
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=900)] = 120.0
    reason: str = "standing setpoint"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of one aggregator."""

    listen: Listen = Listen()
    state: State = State()
    live: Live = Live()
    settlement: Settlement = Settlement()
    virtual_source: tuple[VirtualSource, ...] = ()
    setpoint: tuple[StandingSetpoint, ...] = ()


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The settings of this aggregator.

    Raises:
        ConfigError: with every mistake.
    """
    config = settings.load(path, Config, environ=environ, prefix=ENV_PREFIX)
    if mistakes := [*_doubles(config), *_zoneless(config), *_worthless(config)]:
        raise ConfigError(mistakes, file=str(path or ""))
    return config


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
