"""What `estimate` found, as text for people."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from heatpool_agent.core.fault import FAULTS
from heatpool_agent.core.trace_check import LEAST_COUNT

_NS = 1_000_000_000
# As many rows as stand on a screen beside the summary.
MOST_PERIODS = 24
_SCALES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
# What holds for a whole file, in words.
WORDS: Mapping[str, str] = {
    "zone_assumed": "its stamps name no zone: read as UTC",
    "time_from_zero": "its times count from 0, not from a date",
    "unsorted_rows": "rows were not in the order of time: sorted",
    "duplicate_times": "times came twice: their cells were joined, later ones first",
    "rows_without_time": "lines without a time were left out",
    "duplicate_header": "a header stands twice: its first column was read",
    "facility_as_it": "only the whole site's power is there: the IT's share of it is assumed",
    "components": "power is made of components, with what they leave out assumed",
    "cpu_absent": "processors are not in it: their share is assumed",
    "gpu_absent": "accelerators are not in it: a site that has some draws far more",
    "coolant_only": "what leaves with the air is in no column: this is not all heat of the IT",
    "electric_partial": "the coolant carries more than the power shown: there is more in the loop",
    "coolant_part": "the coolant carries this share of the power; --cooling asks for that share",
    "heat_above_electricity": "the coolant carries this much more heat than power is shown",
    "it_above_facility": "rows in which the IT draws more than the whole site",
    "unit_error": "flow and power differ by a factor between two units",
    "empty_periods_omitted": "too many periods without a row: they are not listed",
    "partial": "not all of the time is covered",
    "swapped_sensors": "hot pipe colder than the cold one",
}


def told(inputs: Mapping[str, Any], rest: Mapping[str, Any]) -> Iterable[str]:
    """The lines of the summary."""
    yield from _head(inputs, rest)
    yield from _flags(rest["flags"])
    yield ""
    yield from _periods(rest["periods"])
    yield from _faults(rest["faults"])
    yield from _check(rest["check"])


def _head(inputs: Mapping[str, Any], rest: Mapping[str, Any]) -> Iterable[str]:
    columns = inputs["columns"].items()
    used = [name for name, one in columns if one["is_used"] and name != "time"]
    unused = [name for name, one in columns if not one["is_used"]]
    yield f"{inputs['file']}: {inputs['rows_count']} rows, {_pace(inputs['sampling_period_s'])}"
    yield f"  from      {_at(inputs['start_ns'])} to {_at(inputs['end_ns'])}"
    yield f"  made of   {', '.join(used)}" + (f"; not of {', '.join(unused)}" if unused else "")
    yield f"  method    {rest['method']}, {_assumed(inputs['assumed'], rest['method'])}"
    if learnt := rest["capture"]:
        share, half = 100 * learnt["frac"], 196 * learnt["frac_u"]
        yield f"  learnt    {share:.1f} ± {half:.1f} % of the power shown is in the coolant (95 %)"
    total = rest["total"]
    yield f"  heat      {_energy(total)}, class {total['quality_class'] or '-'}"
    yield f"  covered   {100 * total['coverage_frac']:.1f} % of the time"


def _pace(period_s: float | None) -> str:
    return "one row" if not period_s else f"one every {period_s:g} s"


def _assumed(assumed: Mapping[str, Any], method: str | None) -> str:
    if method == "computed":
        return "the heat in this coolant"
    if not assumed["cooling"]:
        return "all heat that leaves the IT"
    share = 100 * assumed["capture_frac"]
    return f"the share in the coolant, {assumed['cooling']}: {share:.0f} % of power at first"


def _energy(span: Mapping[str, Any]) -> str:
    if span["heat_wh"] is None:
        return "none known"
    size, unit = _scale(span["heat_wh"])
    half_wh = span["hi95_wh"] - span["heat_wh"]
    share = f", {100 * half_wh / abs(span['heat_wh']):.1f} %" if span["heat_wh"] else ""
    return f"{span['heat_wh'] / size:.4g} ± {half_wh / size:.2g} {unit}Wh (95 %{share})"


def _scale(value: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in _SCALES if abs(value) >= size), (1.0, ""))


def _flags(flags: Sequence[str]) -> Iterable[str]:
    for flag in flags:
        name, _, more = flag.partition(":")
        words = WORDS.get(name)
        if words:
            yield f"  ! {words}" + (f" ({more})" if more else "")
        elif more.count(":") == 1:
            column, _, count = more.partition(":")
            yield f"  ! {column}: {count} cells absent: {name.replace('_', ' ')}"
        else:
            yield f"  ! {flag.replace('_', ' ')}"


def _periods(periods: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    head = ("period from", "heat", "95 % from", "to", "class", "covered")
    shown = periods[:MOST_PERIODS]
    scale = _scale(max((one["heat_wh"] or 0.0 for one in shown), key=abs, default=0.0))
    rows = [_period(one, scale) for one in shown]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells)
    if len(periods) > MOST_PERIODS:
        left = len(periods) - MOST_PERIODS
        yield f"... and {left} more; --json gives all, --period 1d fewer"


def _period(span: Mapping[str, Any], scale: tuple[float, str]) -> tuple[str, ...]:
    size, unit = scale
    cells = [_at(span["start_ns"])]
    for name in ("heat_wh", "lo95_wh", "hi95_wh"):
        value = span[name]
        cells.append("-" if value is None else f"{value / size:.4g} {unit}Wh")
    cells += [span["quality_class"] or "-", f"{100 * span['coverage_frac']:.0f} %"]
    return tuple(cells)


def _faults(faults: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    yield ""
    if not faults:
        yield "faults: none found"
    for fault in faults:
        ended = "to the end" if fault["end_ns"] is None else f"to {_at(fault['end_ns'])}"
        yield f"fault: {fault['fault']}, {_at(fault['start_ns'])} {ended}"
        yield f"  {FAULTS.get(fault['fault'], fault['fault'])}"
        yield f"  {fault['evidence']}"


def _check(check: Mapping[str, Any] | None) -> Iterable[str]:
    if check is None:
        return
    yield ""
    fit = check["fit"]
    if not check["rows_count"]:
        after = f" from {_at(fit['until_ns'])} on, where --fit-until ends" if fit else ""
        yield f"check: no row{after} has both an estimate and heat_rate_w"
        return
    yield (
        f"check against heat_rate_w, {check['rows_count']} rows: bias {_share(check['bias_frac'])},"
        f" error {_share(check['rmse_frac'])} (rms); {100 * check['band_coverage_frac']:.0f} %"
        " of rows inside the 95 % band"
    )
    gains = {name: fit[name] for name in ("electric", "computed") if fit and fit[name]}
    if fit and not gains:
        yield (
            f"  nothing learnt before {_at(fit['until_ns'])}: that takes {LEAST_COUNT} rows with"
            " heat_rate_w and a heat of their own; see --fit-until"
        )
    for name, gain in gains.items():
        doubt = 100 * gain["value_u"]
        yield f"  learnt before: {name} heat x {gain['value']:.4f} (u {doubt:.1f} %)"


def _share(frac: float | None) -> str:
    return "-" if frac is None else f"{100 * frac:+.2f} %"


def _at(at_ns: int | None) -> str:
    if at_ns is None:
        return "-"
    try:
        return datetime.fromtimestamp(at_ns // _NS, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError):
        return f"{at_ns} ns"
