"""Answers for people: text tables in kW, kWh and EUR; and for programs: plain JSON values.

JSON keeps the names and units of the wire; kilo appears in tables alone.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from heatpool_aggregator.board import HeatView, SetpointView, SiteView, SourceView
from heatpool_aggregator.core.instant import utc
from heatpool_aggregator.core.settlement import Statement
from heatpool_aggregator.wire.query import GapView

ABSENT = "-"
NO_SITE = "no site to show: none has come yet, or none is yours"
NO_SOURCE = "no virtual source to show: none is set up, or sites of other owners are in it too"


def sites_table(views: Sequence[SiteView]) -> str:
    """A line per site."""
    header = ("site", "virtual source", *_HEAT_HEADER, "energy kWh", "asked kW", "state")
    return table(header, [_site_cells(view) for view in views], empty=NO_SITE)


def sources_table(views: Sequence[SourceView]) -> str:
    """A line per virtual source."""
    header = ("virtual source", "kind", *_HEAT_HEADER, "energy kWh", "members", "known %")
    rows = [
        (
            view.virtual_source_id,
            view.kind,
            *_heat_cells(view.heat),
            kilo(view.energy_wh, digits=3),
            f"{view.fresh_count}/{view.members_count}",
            f"{view.coverage_frac * 100:.0f}",
        )
        for view in views
    ]
    return table(header, rows, empty=NO_SOURCE)


def statement_table(closed: Statement | None) -> str:
    """The period, a line per meter, sums, and who is missing."""
    if closed is None:
        return "no settlement period was closed yet"
    header = ("virtual source", "site", "point", "meter", "opening Wh", "closing Wh", "energy Wh")
    rows = [
        (
            line.virtual_source_id,
            line.site_id,
            line.metering_point_id,
            line.meter_id,
            str(line.register_open_wh),
            str(line.register_close_wh),
            str(line.energy_wh),
            line.price_eur_mwh,
            line.amount_eur,
            line.agreement_id,
            ", ".join(line.flags) or ABSENT,
        )
        for line in closed.lines
    ]
    state = "complete" if closed.is_complete else "incomplete"
    parts = [
        f"period {utc(closed.start_ns)} to {utc(closed.end_ns)}, {state}",
        table(
            (*header, "EUR/MWh", "EUR", "agreement", "flags"), rows, empty="no energy was metered"
        ),
        *_sums(closed),
        *(f"missing: {plain(site_id)}: {plain(reason)}" for site_id, reason in closed.missing),
    ]
    return "\n".join(parts)


def gaps_table(views: Sequence[GapView]) -> str:
    """A line per gap."""
    header = ("site", "queue", "first", "last", "from", "until", "reason")
    rows = [
        (
            view.site_id,
            view.boot_id or ABSENT,
            str(view.first_seq),
            str(view.last_seq),
            when(view.start_ns),
            when(view.end_ns),
            view.reason,
        )
        for view in views
    ]
    return table(header, rows, empty="no gap is known")


def sites_json(views: Iterable[SiteView]) -> dict[str, Any]:
    """The sites as one document."""
    return {"schema": "heatpool.sites/1", "sites": [_site_json(view) for view in views]}


def sources_json(views: Iterable[SourceView]) -> dict[str, Any]:
    """The virtual sources as one document."""
    sources = [_source_json(view) for view in views]
    return {"schema": "heatpool.sources/1", "virtual_sources": sources}


def statement_json(closed: Statement | None) -> dict[str, Any]:
    """The statement as one document; `statement` is null where no period was closed yet."""
    return {
        "schema": "heatpool.statement/1",
        "statement": None if closed is None else _statement_json(closed),
    }


def gaps_json(views: Iterable[GapView]) -> dict[str, Any]:
    """The gaps as one document."""
    return {"schema": "heatpool.gaps/1", "gaps": [_fields(view) for view in views]}


_HEAT_HEADER = ("heat kW", "±2u kW", "class", "hot °C", "cold °C")


def _heat_cells(heat: HeatView) -> tuple[str, ...]:
    doubt_w = None if heat.heat_rate_w_u is None else 2 * heat.heat_rate_w_u
    return (
        kilo(heat.heat_rate_w, digits=3),
        kilo(doubt_w, digits=3),
        ABSENT if heat.quality is None else heat.quality.name,
        _number(heat.hot_c, digits=1),
        _number(heat.cold_c, digits=1),
    )


def _site_cells(view: SiteView) -> tuple[str, ...]:
    asked = view.setpoint
    return (
        view.site_id,
        view.virtual_source_id or ABSENT,
        *_heat_cells(view.heat),
        kilo(view.energy_wh, digits=3),
        ABSENT if asked is None else kilo(asked.heat_rate_w, digits=3),
        ", ".join((*_state(view.setpoint, is_stale=view.is_stale), *_clock(view))),
    )


def _state(asked: SetpointView | None, *, is_stale: bool) -> list[str]:
    words = ["stale" if is_stale else "fresh"]
    if asked is None:
        return words
    state = "nothing asked" if asked.asks_nothing else asked.state.name.lower().replace("_", " ")
    return [*words, state]


def _clock(view: SiteView) -> list[str]:
    off_s = view.clock_offset_s
    held = ["rows wait for its clock"] if view.is_clock_held else []
    if off_s is None:
        return held
    return [f"clock {abs(off_s):.0f} s {'behind' if off_s > 0 else 'ahead'}", *held]


def _sums(closed: Statement) -> list[str]:
    sums = []
    for source in dict.fromkeys(line.virtual_source_id for line in closed.lines):
        lines = [line for line in closed.lines if line.virtual_source_id == source]
        energy = kilo(sum(line.energy_wh for line in lines), digits=3)
        amount_eur = sum((Decimal(line.amount_eur) for line in lines), Decimal(0))
        sums.append(f"sum of {plain(source)}: {energy} kWh, {amount_eur:f} EUR")
    return sums


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    if not rows:
        return empty
    columns = list(zip(header, *([plain(cell) for cell in row] for row in rows), strict=True))
    rows = list(zip(*(column[1:] for column in columns), strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    is_number = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Others' words without line ends, and without commands that a terminal would follow."""
    return text if text.isprintable() else "".join(s if s.isprintable() else "?" for s in text)


def _is_number(cell: str) -> bool:
    return cell == ABSENT or cell.lstrip("-").replace(".", "", 1).isdigit()


def kilo(value: float | None, *, digits: int) -> str:
    """A value in thousands, as kW of W; absent is a dash."""
    return _number(None if value is None else value / 1000, digits=digits)


def _number(value: float | None, *, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def when(at_ns: int | None) -> str:
    """An instant as people read it; absent is a dash."""
    return ABSENT if at_ns is None else utc(at_ns)


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _heat_json(heat: HeatView) -> dict[str, Any]:
    quality, provenance = heat.quality, heat.provenance
    return {
        "heat_rate_w": heat.heat_rate_w,
        "heat_rate_w_u": heat.heat_rate_w_u,
        "hot_c": heat.hot_c,
        "cold_c": heat.cold_c,
        "volume_flow_m3_h": heat.volume_flow_m3_h,
        "quality_class": None if quality is None else quality.name,
        "provenance": None if provenance is None else provenance.name.lower(),
    }


def _site_json(view: SiteView) -> dict[str, Any]:
    left_out = {"heat", "setpoint", "meters", "loop_ids", "rejection_capacity_w"}
    setpoint = None
    if view.setpoint is not None:
        setpoint = {**_fields(view.setpoint), "state": view.setpoint.state.name.lower()}
    plain = {name: value for name, value in _fields(view).items() if name not in left_out}
    return {**plain, **_heat_json(view.heat), "setpoint": setpoint}


def _source_json(view: SourceView) -> dict[str, Any]:
    plain = {name: value for name, value in _fields(view).items() if name != "heat"}
    return {**plain, **_heat_json(view.heat)}


def _statement_json(closed: Statement) -> dict[str, Any]:
    return {
        "start_ns": closed.start_ns,
        "end_ns": closed.end_ns,
        "period_start": utc(closed.start_ns),
        "period_end": utc(closed.end_ns),
        "is_complete": closed.is_complete,
        "lines": [_fields(line) for line in closed.lines],
        "missing": [{"site_id": who, "reason": why} for who, why in closed.missing],
    }
