"""A board with something on it, a real SQLite store, and a real server of the query services."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from heatpool.sample import (
    AgreementId,
    BootId,
    MeterId,
    MeteringPointId,
    Provenance,
    QualityClass,
    RegisterReason,
    RegisterRow,
    SiteId,
    VirtualSourceId,
)
from heatpool.setpoint import SetpointState
from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.board import (
    BalanceView,
    Board,
    HeatView,
    IngestCounts,
    MeterView,
    SetpointView,
    SiteView,
    SourceView,
)
from heatpool_aggregator.config import Agreement, Config, Member, VirtualSource
from heatpool_aggregator.core.settlement import PeriodBalance, Statement, StatementLine
from heatpool_aggregator.ports import Store, StoredRegister
from heatpool_aggregator.rpc import query, registry
from heatpool_aggregator.rpc.door import Door
from heatpool_aggregator.rpc.guard import Guard
from heatpool_aggregator.rpc.tenants import Tenants
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities
from heatpool_aggregator.stores.sqlite import open_store

S = 10**9
T0 = 1_790_000_100 * S  # a quarter of an hour begins here

SOURCE = VirtualSourceId("vs-greenhouse")
HEAT = HeatView(
    heat_rate_w=41_250.0,
    heat_rate_w_u=820.5,
    hot_c=58.25,
    cold_c=41.5,
    volume_flow_m3_h=3.6,
    quality=QualityClass.B,
    provenance=Provenance.FUSED,
)
LINE = StatementLine(
    virtual_source_id=SOURCE,
    site_id=SiteId("site-1"),
    metering_point_id=MeteringPointId("meter"),
    meter_id=MeterId("ACW.12345678.1.4"),
    register_open_wh=99_999_000,
    register_close_wh=9_312,
    energy_wh=10_312,
    price_eur_mwh="45.00",
    amount_eur="0.46",
    agreement_id=AgreementId("hpa-1"),
    flags=("roll-over",),
)
STATEMENT = Statement(
    start_ns=T0,
    end_ns=T0 + 900 * S,
    lines=(LINE,),
    missing=((SiteId("site-2"), "point meter has no register at the end of the period"),),
)
SITES = (
    SiteView(
        site_id=SiteId("site-1"),
        virtual_source_id=SOURCE,
        heat=HEAT,
        electric_w=44_000.0,
        reported_heat_w=41_000.0,
        computed_heat_w=41_500.0,
        electric_heat_w=40_900.0,
        rejection_capacity_w=60_000.0,
        event_ns=T0 + 890 * S,
        is_stale=False,
        energy_wh=1_234_567,
        meters=(
            MeterView(
                metering_point_id=MeteringPointId("meter"),
                meter_id=LINE.meter_id,
                energy_wh=1_234_567,
            ),
        ),
        loop_ids=("rack",),
        setpoint=SetpointView(
            setpoint_seq=7,
            heat_rate_w=30_000.0,
            applied_heat_rate_w=None,
            state=SetpointState.EFFECT_SEEN,
            detail="",
        ),
    ),
    SiteView(
        site_id=SiteId("site-2"),
        virtual_source_id=None,
        heat=HeatView(),
        electric_w=None,
        reported_heat_w=None,
        computed_heat_w=None,
        electric_heat_w=None,
        rejection_capacity_w=None,
        event_ns=None,
        is_stale=True,
        energy_wh=None,
        clock_offset_s=-43_200.5,
        is_clock_held=True,
    ),
)
SOURCES = (
    SourceView(
        virtual_source_id=SOURCE,
        kind="greenhouse",
        heat=HEAT,
        energy_wh=1_234_567,
        members_count=2,
        fresh_count=1,
        coverage_frac=0.5,
        watermark_ns=T0 + 890 * S,
        version=3,
    ),
    SourceView(
        virtual_source_id=VirtualSourceId("vs-swimming"),
        kind="swimming_pool",
        heat=HeatView(),
        energy_wh=0,
        members_count=0,
        fresh_count=0,
        coverage_frac=0.0,
        watermark_ns=None,
        version=1,
    ),
)
BALANCE = BalanceView(
    periods_count=12,
    balance_error_wh=2,
    worst=PeriodBalance(
        start_ns=T0, end_ns=T0 + 900 * S, registers_wh=10_312, sources_wh=10_312, lines_wh=10_310
    ),
)
CONFIG = Config(
    virtual_source=(
        VirtualSource(
            id=SOURCE,
            kind="greenhouse",
            agreement=Agreement(id="hpa-1", price_eur_mwh=Decimal("45.00")),
            member=(
                Member(site_id="site-1", from_=datetime(2026, 1, 1, tzinfo=UTC)),
                Member(site_id="site-2"),
            ),
            version=3,
        ),
    )
)


def full_board() -> Board:
    """A board on which every kind of value has been posted."""
    board = Board()
    board.post(
        sites=SITES,
        sources=SOURCES,
        statement=STATEMENT,
        balance=BALANCE,
        ingest=IngestCounts(
            batches_received=31, batches_durable=30, duplicates_ignored=2, refused=1, streams=4
        ),
        log_position=17,
        applied_position=16,
    )
    return board


def register(site: str, at_s: int, raw: int) -> StoredRegister:
    """A register that came at once."""
    return StoredRegister(
        site_id=SiteId(site),
        boot_id=BootId("b1"),
        seq=at_s,
        index=0,
        received_ns=T0 + at_s * S,
        row=RegisterRow(
            metering_point_id=MeteringPointId("meter"),
            meter_id=MeterId(f"meter.{site}"),
            event_ns=T0 + at_s * S,
            raw=raw,
            exponent=0,
            modulus=10**8,
            reason=RegisterReason.PERIODIC,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A server that answers at `address`, and what it answers from."""

    address: str
    board: Board
    store: Store

    async def registers(self, site: str, *marks: tuple[int, int]) -> None:
        """Stores registers of a site: seconds after T0, and the count."""
        rows = [register(site, at_s, raw) for at_s, raw in marks]
        await self.store.registers.put(rows)


@pytest.fixture
def board() -> Board:
    """A board on which every kind of value has been posted."""
    return full_board()


@pytest.fixture
async def rig(tmp_path: Path, board: Board) -> AsyncIterator[Rig]:
    """The query services on a free port of the loopback, over a real store."""
    clock = SystemClock()
    async with (
        open_store("", tmp_path) as opened,
        open_identities(tmp_path, trust_domain="heatpool", clock=clock) as identities,
        open_audit(tmp_path) as audit,
    ):
        store: Any = opened
        guard = Guard(
            identities=identities,
            audit=audit,
            clock=clock,
            turned_away=board.turned_away,
            trust_domain=None,
            members=frozenset(),
        )
        tenants = Tenants(guard, identities)
        server = grpc.aio.server(interceptors=(Door(guard),))
        query.add_to(server, query.Query(board, store, CONFIG, tenants))
        registry.add_to(server, registry.Registry(board, CONFIG, tenants, None))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield Rig(address=f"127.0.0.1:{port}", board=board, store=store)
        finally:
            await server.stop(grace=None)
