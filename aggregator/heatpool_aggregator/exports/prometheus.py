"""The aggregator's /metrics: one set of figures per virtual source, in Prometheus' base units.

Absent figures are left out, never 0. Sites are not here: their number is not bounded.
"""

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from heatpool.units import J_PER_WH, NS_PER_S
from heatpool_aggregator.board import Board, SiteView, SourceView
from heatpool_aggregator.core.settlement import Statement

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SOURCE = ("virtual_source_id",)

# Name without its prefix, what it is, and where to find it in a view: one row per figure.
_GAUGES: tuple[tuple[str, str, Callable[[SourceView], float | None]], ...] = (
    ("heat_watts", "Heat rate that its members give now.", lambda v: v.heat.heat_rate_w),
    (
        "heat_uncertainty_watts",
        "Standard uncertainty (k=1) of the heat rate.",
        lambda v: v.heat.heat_rate_w_u,
    ),
    ("hot_celsius", "Mixed temperature of the hot pipe.", lambda v: v.heat.hot_c),
    ("cold_celsius", "Mixed temperature of the cold pipe.", lambda v: v.heat.cold_c),
    (
        "flow_cubic_meters_per_second",
        "Volume flow of its members.",
        lambda v: None if v.heat.volume_flow_m3_h is None else v.heat.volume_flow_m3_h / 3600,
    ),
    (
        "quality_class",
        "Quality class of the heat rate, 1 (A) is best, 5 (E) worst.",
        lambda v: v.heat.quality,
    ),
    ("coverage_ratio", "Share of its members' heat that is known.", lambda v: v.coverage_frac),
    ("members", "Members now.", lambda v: v.members_count),
    ("fresh_members", "Members that are not stale.", lambda v: v.fresh_count),
    (
        "watermark_seconds",
        "Event time up to which all fresh members have reported, since 1970.",
        lambda v: None if v.watermark_ns is None else v.watermark_ns / NS_PER_S,
    ),
)
_INGEST = (
    ("batches_received", "Batches taken from streams."),
    ("batches_durable", "Batches that are on disk."),
    ("duplicates_ignored", "Batches that had come before."),
    ("refused", "Frames kept aside because they cannot be used."),
)


def render(board: Board) -> bytes:
    """The page, in the text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Board(board))
    return generate_latest(registry)


class _Board:
    """The board as a collector."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of the page."""
        board = self._board
        yield from _sources(sorted(board.sources, key=lambda view: view.virtual_source_id))
        yield from _ingest(board)
        yield _refused(board)
        yield GaugeMetricFamily(
            "heatpool_contested_sites",
            "Sites that came three times within two hours while they were here.",
            value=board.turned_away.contested_count,
        )
        yield from _clocks(board.sites)
        yield GaugeMetricFamily(
            "heatpool_clock_suspect",
            "1 while the aggregator's own clock is not believed: nothing is corrected or closed.",
            value=bool(board.clock_suspect),
        )
        if board.statement is not None:
            yield from _statement(board.statement)
        yield from _balance(board)
        yield _build_info()


def _sources(views: Iterable[SourceView]) -> Iterator[Metric]:
    views = tuple(views)
    for name, text, figure in _GAUGES:
        family = GaugeMetricFamily(f"heatpool_source_{name}", text, labels=_SOURCE)
        for view in views:
            if (value := figure(view)) is not None:
                family.add_metric((view.virtual_source_id,), float(value))
        yield family
    energy = CounterMetricFamily(
        "heatpool_source_energy_joules", "Heat energy by billing registers.", labels=_SOURCE
    )
    for view in views:
        energy.add_metric((view.virtual_source_id,), view.energy_wh * J_PER_WH)
    yield energy


def _ingest(board: Board) -> Iterator[Metric]:
    for name, text in _INGEST:
        value = getattr(board.ingest, name)
        yield CounterMetricFamily(f"heatpool_ingest_{name}", text, value=value)
    yield GaugeMetricFamily(
        "heatpool_ingest_streams", "Open telemetry streams.", value=board.ingest.streams
    )
    for name, text in (
        ("log_position", "Newest position of the durable inbox."),
        ("applied_position", "Position up to which the inbox is applied."),
    ):
        yield GaugeMetricFamily(f"heatpool_ingest_{name}", text, value=getattr(board, name))


def _refused(board: Board) -> Metric:
    family = CounterMetricFamily(
        "heatpool_refused", "Calls turned away at the doors, by reason.", labels=("reason",)
    )
    for reason, count in board.turned_away.counts.items():
        family.add_metric((reason,), count)
    return family


def _clocks(sites: Iterable[SiteView]) -> Iterator[Metric]:
    off_count = held_count = 0
    for site in sites:
        off_count += site.clock_offset_s is not None
        held_count += site.is_clock_held
    for name, text, count in (
        ("off", "Sites whose clocks are more than two seconds off.", off_count),
        ("held", "Sites whose rows wait for their clock.", held_count),
    ):
        yield GaugeMetricFamily(f"heatpool_site_clocks_{name}", text, value=count)


def _statement(closed: Statement) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "heatpool_statement_end_seconds",
        "End of the last closed settlement period, since 1970.",
        value=closed.end_ns / NS_PER_S,
    )
    yield GaugeMetricFamily(
        "heatpool_statement_missing_sites",
        "Metered members without a register in the last closed period.",
        value=len({site_id for site_id, _ in closed.missing}),
    )
    energy = GaugeMetricFamily(
        "heatpool_statement_energy_joules", "Heat energy of the last closed period.", labels=_SOURCE
    )
    amount = GaugeMetricFamily(
        "heatpool_statement_amount_euros", "Amount of the last closed period.", labels=_SOURCE
    )
    for source in sorted({line.virtual_source_id for line in closed.lines}):
        lines = [line for line in closed.lines if line.virtual_source_id == source]
        energy.add_metric((source,), sum(line.energy_wh for line in lines) * J_PER_WH)
        amount.add_metric((source,), float(sum(Decimal(line.amount_eur) for line in lines)))
    yield from (energy, amount)


def _balance(board: Board) -> Iterator[Metric]:
    if board.balance is None:
        return
    yield GaugeMetricFamily(
        "heatpool_settlement_periods", "Closed periods.", value=board.balance.periods_count
    )
    yield GaugeMetricFamily(
        "heatpool_settlement_balance_error_joules",
        "How far registers, running sums and ledger lie apart in the worst closed period.",
        value=board.balance.balance_error_wh * J_PER_WH,
    )


def _build_info() -> Metric:
    family = GaugeMetricFamily(
        "heatpool_build_info", "Version of this program; always 1.", labels=("program", "version")
    )
    family.add_metric(("heatpool-aggregator", _version()), 1)
    return family


def _version() -> str:
    try:
        return version("heatpool")
    except PackageNotFoundError:
        return "unknown"
