"""Board and ledger -> REST models: names and order of the wire, nothing computed but sums."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import groupby

import msgspec

from heatpool.sample import Provenance, QualityClass
from heatpool_aggregator.board import Board, SetpointView, SiteView, SourceView
from heatpool_aggregator.core import settlement
from heatpool_aggregator.core.instant import utc
from heatpool_aggregator.core.settlement import LedgerEntry
from heatpool_aggregator.web import models
from heatpool_aggregator.web.desk import Desk

# The agent that `make demo` starts on the machine itself has this id; others use the host's name.
_THIS_MACHINE = "this-machine"


def sites(desk: Desk) -> tuple[models.Site, ...]:
    """Every site on the board."""
    return tuple(site(view, desk) for view in desk.board.sites)


def site(view: SiteView, desk: Desk) -> models.Site:
    """One site, its three heats apart."""
    heat = view.heat
    return models.Site(
        site_id=view.site_id,
        virtual_source_id=view.virtual_source_id,
        is_this_machine=view.site_id in (_THIS_MACHINE, desk.host_name),
        heat_rate_w=heat.heat_rate_w,
        heat_rate_w_u=heat.heat_rate_w_u,
        hot_c=heat.hot_c,
        cold_c=heat.cold_c,
        volume_flow_m3_h=heat.volume_flow_m3_h,
        quality_class=_quality(heat.quality),
        provenance=_provenance(heat.provenance),
        electric_w=view.electric_w,
        reported_heat_w=view.reported_heat_w,
        computed_heat_w=view.computed_heat_w,
        electric_heat_w=view.electric_heat_w,
        rejection_capacity_w=view.rejection_capacity_w,
        event_ns=view.event_ns,
        is_stale=view.is_stale,
        energy_wh=view.energy_wh,
        meters=tuple(msgspec.convert(m, models.Meter, from_attributes=True) for m in view.meters),
        loop_ids=tuple(view.loop_ids),
        setpoint=_setpoint(view.setpoint),
        clock_offset_s=view.clock_offset_s,
        is_clock_held=view.is_clock_held,
    )


def source(view: SourceView) -> models.VirtualSource:
    """One virtual source."""
    heat = view.heat
    return models.VirtualSource(
        virtual_source_id=view.virtual_source_id,
        kind=view.kind,
        heat_rate_w=heat.heat_rate_w,
        heat_rate_w_u=heat.heat_rate_w_u,
        hot_c=heat.hot_c,
        cold_c=heat.cold_c,
        volume_flow_m3_h=heat.volume_flow_m3_h,
        quality_class=_quality(heat.quality),
        provenance=_provenance(heat.provenance),
        energy_wh=view.energy_wh,
        members_count=view.members_count,
        fresh_count=view.fresh_count,
        coverage_frac=view.coverage_frac,
        watermark_ns=view.watermark_ns,
        version=view.version,
    )


def statement(closed: settlement.Statement) -> models.Statement:
    """A statement as the settlement made it."""
    missing = tuple(models.Missing(site_id=who, reason=why) for who, why in closed.missing)
    return _statement(
        (closed.start_ns, closed.end_ns),
        closed.lines,
        missing=missing,
        is_complete=closed.is_complete,
    )


def statements(entries: Iterable[LedgerEntry]) -> list[models.Statement]:
    """The accounts of each period in the ledger, newest first, reversed lines taken out."""
    by_span = sorted(entries, key=_span)  # stable: posting order stays within a period
    return [
        _statement(span, _standing(group), missing=(), is_complete=None)
        for span, group in groupby(by_span, key=_span)
    ][::-1]


def status(board: Board) -> models.Status:
    """How far the aggregator is."""
    return models.Status(
        ingest=ingest(board),
        log_position=board.log_position,
        applied_position=board.applied_position,
        version=board.version,
    )


def ingest(board: Board) -> models.Ingest:
    """What came over the wire."""
    return msgspec.convert(board.ingest, models.Ingest, from_attributes=True)


def balance(board: Board) -> models.Balance:
    """The balance over closed periods; without one, nulls."""
    view = board.balance
    if view is None:
        return models.Balance(periods=0, balance_error_wh=None, worst=None)
    worst = view.worst
    return models.Balance(
        periods=view.periods_count,
        balance_error_wh=view.balance_error_wh,
        worst=None
        if worst is None
        else msgspec.convert(worst, models.WorstPeriod, from_attributes=True),
    )


def state(desk: Desk) -> models.State:
    """Everything the page shows, at the board's present version."""
    board = desk.board
    return models.State(
        version=board.version,
        at_ns=desk.clock.now_ns(),
        message_period_s=desk.config.live.message_period_s,
        period_s=desk.config.settlement.period_s,
        sites=sites(desk),
        virtual_sources=tuple(source(view) for view in board.sources),
        statement=None if board.statement is None else statement(board.statement),
        balance=balance(board),
        ingest=ingest(board),
        log_position=board.log_position,
        applied_position=board.applied_position,
        clock_suspect=board.clock_suspect,
    )


def _statement(
    span: tuple[int, int],
    lines: Sequence[settlement.StatementLine],
    *,
    missing: tuple[models.Missing, ...],
    is_complete: bool | None,
) -> models.Statement:
    return models.Statement(
        start_ns=span[0],
        end_ns=span[1],
        period_start=utc(span[0]),
        period_end=utc(span[1]),
        is_complete=is_complete,
        missing=missing,
        lines=tuple(
            msgspec.convert(line, models.StatementLine, from_attributes=True) for line in lines
        ),
        totals=_totals(lines),
    )


def _totals(lines: Sequence[settlement.StatementLine]) -> tuple[models.Total, ...]:
    names = dict.fromkeys(line.virtual_source_id for line in lines)
    mine = {name: [line for line in lines if line.virtual_source_id == name] for name in names}
    return tuple(
        models.Total(
            virtual_source_id=name,
            energy_wh=sum(line.energy_wh for line in own),
            amount_eur=f"{sum((Decimal(line.amount_eur) for line in own), Decimal(0)):f}",
        )
        for name, own in mine.items()
    )


def _standing(entries: Iterable[LedgerEntry]) -> list[settlement.StatementLine]:
    """Lines that no later entry reverses, in posting order."""
    lines: list[settlement.StatementLine] = []
    for entry in entries:
        if entry.sign > 0:
            lines.append(entry.line)
        elif entry.line in lines:
            lines.remove(entry.line)
    return lines


def _span(entry: LedgerEntry) -> tuple[int, int]:
    return entry.start_ns, entry.end_ns


def _quality(quality: QualityClass | None) -> str | None:
    return None if quality is None else quality.name


def _provenance(provenance: Provenance | None) -> str | None:
    return None if provenance is None else provenance.name.lower()


def _setpoint(view: SetpointView | None) -> models.Setpoint | None:
    if view is None:
        return None
    return models.Setpoint(
        setpoint_seq=view.setpoint_seq,
        heat_rate_w=view.heat_rate_w,
        applied_heat_rate_w=view.applied_heat_rate_w,
        state=view.state.name.lower(),
        detail=view.detail,
    )
