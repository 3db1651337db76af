"""A board with three virtual sources and 13 sites, for tests of the web room and for looking at it.

`python tests/data/filled_board.py 8080` serves the page with moving figures until Ctrl-C.
"""

import asyncio
import math
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from heatpool.sample import (
    AgreementId,
    MeterId,
    MeteringPointId,
    Provenance,
    QualityClass,
    SiteId,
    VirtualSourceId,
)
from heatpool.setpoint import SetpointState
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
from heatpool_aggregator.config import Config, Listen, Live, Settlement
from heatpool_aggregator.core.settlement import LedgerEntry, Statement, StatementLine
from heatpool_aggregator.exports import prometheus
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.web.app import serve

PERIOD_NS = 60 * 1_000_000_000
SOURCES = (
    ("glasshouse-nord", "greenhouse", 18_000.0, 52.0, 38.0, "62.50"),
    ("lido-hall", "swimming_pool", 9_500.0, 44.0, 33.0, "48.00"),
    ("altstadt-loop", "district_loop", 31_000.0, 61.0, 46.0, "71.25"),
)


@dataclass(slots=True)
class StoppedClock:
    """A clock that stands until it is moved."""

    at_ns: int = 1_760_000_000 * 1_000_000_000

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.at_ns

    def boot_ns(self) -> int:
        """The same: nothing here steps."""
        return self.at_ns


class WallClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot."""
        return time.monotonic_ns()


def settings(*, port: int = 0, message_period_s: float = 1.0) -> Config:
    """A configuration on loopback."""
    return Config(
        listen=Listen(http=f"127.0.0.1:{port}"),
        live=Live(message_period_s=message_period_s),
        settlement=Settlement(period_s=60),
    )


def fill(board: Board, at_ns: int, *, seconds: float = 0.0) -> None:
    """Posts a whole state as of `at_ns`; figures move with `seconds`."""
    sites = [site for number in range(3) for site in _sites(number, at_ns, seconds)]
    board.post(
        sites=(*sites, _this_machine(at_ns, seconds)),
        sources=tuple(_source(number, sites, at_ns, seconds) for number in range(3)),
        statement=statement(at_ns - at_ns % PERIOD_NS),
        balance=BalanceView(periods_count=41, balance_error_wh=0, worst=None),
        ingest=IngestCounts(
            batches_received=int(5_120 + 13 * seconds),
            batches_durable=int(5_118 + 13 * seconds),
            duplicates_ignored=2,
            refused=0,
            streams=12,
        ),
        log_position=int(884 + seconds),
        applied_position=int(884 + seconds),
    )


def statement(end_ns: int) -> Statement:
    """Eleven metered members and one that is missing."""
    lines = tuple(
        line(number, member, end_ns)
        for number in range(3)
        for member in range(4)
        if (number, member) != (1, 3)
    )
    return Statement(
        start_ns=end_ns - PERIOD_NS,
        end_ns=end_ns,
        lines=lines,
        missing=((SiteId("lido-hall-4"), "no register after the period's end"),),
    )


def line(number: int, member: int, end_ns: int) -> StatementLine:
    """One line of a virtual source's member."""
    name, _, rate_w, _, _, price = SOURCES[number]
    energy_wh = int(rate_w / 4 / 60 * (1 + member / 10))
    opened_wh = 41_200_000 + 1_000_003 * member + end_ns // PERIOD_NS % 1000 * energy_wh
    return StatementLine(
        virtual_source_id=VirtualSourceId(name),
        site_id=SiteId(f"{name}-{member + 1}"),
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId(f"KAM.7104{number}{member}88.1B.04"),
        register_open_wh=opened_wh,
        register_close_wh=opened_wh + energy_wh,
        energy_wh=energy_wh,
        price_eur_mwh=price,
        amount_eur=f"{energy_wh / 1e6 * float(price):.2f}",
        agreement_id=AgreementId(f"hpa-{name}-2025"),
        flags=("interpolated",) if (number, member) == (2, 1) else (),
    )


def entry(number: int, member: int, end_ns: int, *, sign: int = 1) -> LedgerEntry:
    """A posting of that line."""
    return LedgerEntry(
        key=f"{number}.{member}.{end_ns}.{sign}",
        start_ns=end_ns - PERIOD_NS,
        end_ns=end_ns,
        posted_ns=end_ns,
        sign=sign,
        line=line(number, member, end_ns),
        reason="settled",
    )


def _sites(number: int, at_ns: int, seconds: float) -> list[SiteView]:
    name, _, rate_w, hot_c, cold_c, _ = SOURCES[number]
    return [
        _site(
            SiteId(f"{name}-{member + 1}"),
            VirtualSourceId(name),
            HeatView(
                heat_rate_w=rate_w / 4 * (1 + 0.12 * math.sin(seconds / 40 + member + number)),
                heat_rate_w_u=rate_w / 4 * (0.021 + 0.01 * member),
                hot_c=hot_c + 0.6 * math.sin(seconds / 25 + member),
                cold_c=cold_c + 0.3 * math.cos(seconds / 25 + member),
                volume_flow_m3_h=rate_w / 4 / 1160 / (hot_c - cold_c),
                quality=QualityClass(min(5, 1 + (member + number) % 3)),
                provenance=Provenance.FUSED,
            ),
            (member, number),
            at_ns,
        )
        for member in range(4)
    ]


def _site(
    site_id: SiteId, source: VirtualSourceId, heat: HeatView, place: tuple[int, int], at_ns: int
) -> SiteView:
    member, number = place
    rate_w = heat.heat_rate_w or 0.0
    view = SiteView(
        site_id=site_id,
        virtual_source_id=source,
        heat=heat,
        electric_w=rate_w * 1.22,
        reported_heat_w=rate_w * 1.13,
        computed_heat_w=rate_w * 1.01,
        electric_heat_w=rate_w * 0.97,
        rejection_capacity_w=12_000.0,
        event_ns=at_ns,
        is_stale=False,
        energy_wh=184_301 + 997 * member,
        meters=(
            MeterView(
                metering_point_id=MeteringPointId("meter"),
                meter_id=MeterId(f"KAM.7104{number}{member}88.1B.04"),
                energy_wh=184_301 + 997 * member,
            ),
        ),
        loop_ids=("rack",),
        setpoint=_setpoint(place, rate_w),
    )
    if place == (3, 1):
        gone = HeatView()
        return replace(
            view, heat=gone, is_stale=True, event_ns=at_ns - 94_000_000_000, electric_w=None,
            reported_heat_w=None, computed_heat_w=None, electric_heat_w=None,
        )  # fmt: skip
    return replace(view, reported_heat_w=None) if member == 2 else view


def _setpoint(place: tuple[int, int], rate_w: float) -> SetpointView | None:
    states = {
        (0, 0): SetpointState.EFFECT_SEEN,
        (1, 0): SetpointState.APPLIED,
        (2, 1): SetpointState.REFUSED,
        (3, 1): SetpointState.EXPIRED,
        (0, 2): SetpointState.OVERRIDDEN,
    }
    if place == (1, 1):
        return SetpointView(
            setpoint_seq=8,
            heat_rate_w=None,
            applied_heat_rate_w=0.0,
            state=SetpointState.APPLIED,
            detail="ended by person/anna: warm enough",
        )
    if place not in states:
        return None
    took = states[place] in (SetpointState.EFFECT_SEEN, SetpointState.APPLIED)
    return SetpointView(
        setpoint_seq=7,
        heat_rate_w=round(rate_w, -2),
        applied_heat_rate_w=round(rate_w, -2) if took else None,
        state=states[place],
        detail="" if took else "above the site's limit of 2 kW",
    )


def _this_machine(at_ns: int, seconds: float) -> SiteView:
    electric_w = 61.0 + 8 * math.sin(seconds / 7)
    return SiteView(
        site_id=SiteId("this-machine"),
        virtual_source_id=None,
        heat=HeatView(
            heat_rate_w=electric_w,
            heat_rate_w_u=electric_w * 0.15,
            quality=QualityClass.D,
            provenance=Provenance.ELECTRIC,
        ),
        electric_w=electric_w,
        reported_heat_w=None,
        computed_heat_w=None,
        electric_heat_w=electric_w,
        rejection_capacity_w=None,
        event_ns=at_ns,
        is_stale=False,
        energy_wh=None,
    )


def _source(number: int, sites: list[SiteView], at_ns: int, seconds: float) -> SourceView:
    name, kind, _, hot_c, cold_c, _ = SOURCES[number]
    fresh = [s.heat for s in sites if s.virtual_source_id == name and not s.is_stale]
    spread_w = math.sqrt(sum((heat.heat_rate_w_u or 0.0) ** 2 for heat in fresh))
    return SourceView(
        virtual_source_id=VirtualSourceId(name),
        kind=kind,
        heat=HeatView(
            heat_rate_w=sum(heat.heat_rate_w or 0.0 for heat in fresh),
            heat_rate_w_u=spread_w,
            hot_c=hot_c + 0.4 * math.sin(seconds / 25),
            cold_c=cold_c,
            volume_flow_m3_h=sum(heat.volume_flow_m3_h or 0.0 for heat in fresh),
            quality=QualityClass.C if number == 1 else QualityClass.B,
            provenance=Provenance.FUSED,
        ),
        energy_wh=743_186 + 120_000 * number + int(5 * seconds),
        members_count=4,
        fresh_count=len(fresh),
        coverage_frac=len(fresh) / 4,
        watermark_ns=at_ns,
        version=1,
    )


async def _show(port: int) -> None:
    board, clock = Board(), WallClock()
    fill(board, clock.now_ns())
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_store("sqlite:", Path(folder)) as store,
            serve(
                settings(port=port), board, store, clock, render_metrics=prometheus.render
            ) as address,
        ):
            await _move(board, clock, address)


async def _move(board: Board, clock: WallClock, address: str) -> None:
    started_s = time.monotonic()
    sys.stdout.write(f"http://{address}/\n")
    sys.stdout.flush()
    while True:
        await asyncio.sleep(1)
        fill(board, clock.now_ns(), seconds=time.monotonic() - started_s)


if __name__ == "__main__":
    asyncio.run(_show(int(sys.argv[1])))
