"""What REST and the event stream say, as msgspec Structs; names and units are those of the wire.

None is absent, never zero. Money is decimal text. Times are UTC.
"""

from typing import Annotated

import msgspec

QualityName = Annotated[str, msgspec.Meta(pattern="^[A-E]$")]
ProvenanceName = Annotated[
    str,
    msgspec.Meta(
        pattern="^(reported|computed|electric|fused|substituted|forecast|simulated)$",
    ),
]
MoneyText = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?$")]


class Setpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a site was asked, and what became of it; a heat rate of null: what ends an order."""

    setpoint_seq: int
    heat_rate_w: float | None
    applied_heat_rate_w: float | None
    state: str
    detail: str


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """A billing meter in place, and what it moved since its first reading."""

    metering_point_id: str
    meter_id: str
    energy_wh: int


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One edge data centre now; the three heats stay apart, `heat_rate_w` is the best figure."""

    site_id: str
    virtual_source_id: str | None
    is_this_machine: bool
    heat_rate_w: float | None
    heat_rate_w_u: float | None
    hot_c: float | None
    cold_c: float | None
    volume_flow_m3_h: float | None
    quality_class: QualityName | None
    provenance: ProvenanceName | None
    electric_w: float | None
    reported_heat_w: float | None
    computed_heat_w: float | None
    electric_heat_w: float | None
    rejection_capacity_w: float | None
    event_ns: int | None
    is_stale: bool
    energy_wh: int | None
    meters: tuple[Meter, ...]
    loop_ids: tuple[str, ...]
    setpoint: Setpoint | None
    clock_offset_s: float | None
    is_clock_held: bool


class VirtualSource(msgspec.Struct, frozen=True, kw_only=True):
    """Pooled sites as one heat source now."""

    virtual_source_id: str
    kind: str
    heat_rate_w: float | None
    heat_rate_w_u: float | None
    hot_c: float | None
    cold_c: float | None
    volume_flow_m3_h: float | None
    quality_class: QualityName | None
    provenance: ProvenanceName | None
    energy_wh: int
    members_count: int
    fresh_count: int
    coverage_frac: float
    watermark_ns: int | None
    version: int


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A metered member without a line in this period, and why."""

    site_id: str
    reason: str


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """Energy between two registers of one meter, and its price."""

    virtual_source_id: str
    site_id: str
    metering_point_id: str
    meter_id: str
    register_open_wh: int
    register_close_wh: int
    energy_wh: int
    price_eur_mwh: MoneyText
    amount_eur: MoneyText
    agreement_id: str
    flags: tuple[str, ...]


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one virtual source, added."""

    virtual_source_id: str
    energy_wh: int
    amount_eur: MoneyText


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts of one period [start, end); `is_complete` null: not known from the ledger alone."""

    start_ns: int
    end_ns: int
    period_start: str
    period_end: str
    is_complete: bool | None
    missing: tuple[Missing, ...]
    lines: tuple[StatementLine, ...]
    totals: tuple[Total, ...]


class Ingest(msgspec.Struct, frozen=True, kw_only=True):
    """What came over the wire since the process started."""

    batches_received: int
    batches_durable: int
    duplicates_ignored: int
    refused: int
    streams: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far the aggregator is."""

    ingest: Ingest
    log_position: int
    applied_position: int
    version: int


class WorstPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The closed period where registers, running sums and ledger lines lie furthest apart."""

    start_ns: int
    end_ns: int
    registers_wh: int
    sources_wh: int
    lines_wh: int
    error_wh: int


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """How far registers, running sums and ledger lie apart over the closed periods, Wh."""

    periods: int
    balance_error_wh: int | None
    worst: WorstPeriod | None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All of the page's figures at one version of the board; `at_ns` is the aggregator's clock.

    `clock_suspect` says what is wrong with it; empty: nothing.
    """

    version: int
    at_ns: int
    message_period_s: float
    period_s: int
    sites: tuple[Site, ...]
    virtual_sources: tuple[VirtualSource, ...]
    statement: Statement | None
    balance: Balance
    ingest: Ingest
    log_position: int
    applied_position: int
    clock_suspect: str


class Sites(msgspec.Struct, frozen=True, kw_only=True):
    """Every known site."""

    sites: tuple[Site, ...]


class VirtualSources(msgspec.Struct, frozen=True, kw_only=True):
    """Every virtual source."""

    virtual_sources: tuple[VirtualSource, ...]


class Statements(msgspec.Struct, frozen=True, kw_only=True):
    """Statements, newest first."""

    statements: tuple[Statement, ...]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str
