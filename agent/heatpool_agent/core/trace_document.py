"""The document that `estimate` prints: schema `heatpool.estimate/1`, plain values for JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from heatpool.sample import QualityClass
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.trace import Trace
from heatpool_agent.core.trace_check import BAND_U, Check, Fit
from heatpool_agent.core.trace_columns import COLUMNS, REFERENCE, TIME
from heatpool_agent.core.trace_estimate import Row
from heatpool_agent.core.trace_inputs import Asked, Inputs
from heatpool_agent.core.trace_periods import Span

SCHEMA = "heatpool.estimate/1"


def band(value: float, u: float) -> tuple[float, float]:
    """Between these two the truth lies in 95 of 100 cases."""
    return value - BAND_U * u, value + BAND_U * u


def row_told(row: Row) -> dict[str, Any]:
    """One row."""
    heat = row.heat
    low_w, high_w = (None, None) if heat is None else band(heat.value, heat.u)
    return {
        "event_ns": row.event_ns,
        "heat_rate_w": None if heat is None else _short(heat.value),
        "heat_rate_w_u": None if heat is None else _short(heat.u),
        "lo95_w": None if low_w is None else _short(low_w),
        "hi95_w": None if high_w is None else _short(high_w),
        "quality_class": None if heat is None else heat.quality.name,
        "flags": list(row.flags),
    }


def span_told(span: Span) -> dict[str, Any]:
    """The total, or one period."""
    low_wh = high_wh = None
    if span.heat_wh is not None and span.heat_wh_u is not None:
        low_wh, high_wh = band(span.heat_wh, span.heat_wh_u)
    return {
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "heat_wh": span.heat_wh,
        "heat_wh_u": span.heat_wh_u,
        "lo95_wh": low_wh,
        "hi95_wh": high_wh,
        "quality_class": _name(span.quality),
        "coverage_frac": span.coverage_frac,
        "flags": list(span.flags),
    }


def inputs_told(
    trace: Trace, found: Inputs | None, asked: Asked, *, name: str, period_s: int
) -> dict[str, Any]:
    """What the estimate was made of: the file, its columns, and what was assumed."""
    dialect, kind, times_ns = trace.dialect, trace.time_kind, trace.event_ns
    return {
        "file": name,
        "rows_count": len(trace),
        "start_ns": times_ns[0] if times_ns else None,
        "end_ns": times_ns[-1] if times_ns else None,
        "sampling_period_s": found.period_s if found else None,
        "period_s": period_s,
        "delimiter": dialect.delimiter if dialect else None,
        "decimal": dialect.decimal if dialect else None,
        "header_line": dialect.header_line if dialect else None,
        "time": kind.name if kind else None,
        "columns": _columns_told(trace, found),
        "assumed": _assumed(found, asked),
        "counts": dict(trace.flags),
        "reason": trace.reason or (found.reason if found else None),
    }


def _columns_told(trace: Trace, found: Inputs | None) -> dict[str, Any]:
    used = () if found is None else found.columns
    told = {}
    for name, column in trace.columns.items():
        absent: Mapping[str, int] = trace.absent.get(name, {})
        cells = len(trace.values.get(name, ())) - sum(absent.values())
        told[name] = {
            "header": column.header,
            "factor": column.factor,
            "offset": column.offset,
            "is_used": name in used or name == TIME,
            "role": _role(name, used),
            "cells_count": cells if name != TIME else len(trace),
            "absent": dict(absent),
            "examples": {
                reason: text for (whose, reason), text in trace.examples.items() if whose == name
            },
        }
    return told


def _role(name: str, used: Sequence[str]) -> str:
    if name == TIME:
        return "time"
    if name == REFERENCE:
        return "reference: compared, not used"
    if name in used:
        return COLUMNS[name]
    return "not used: another column says it better, or alone it says no heat"


def _assumed(found: Inputs | None, asked: Asked) -> dict[str, Any]:
    told: dict[str, Any] = {
        "cooling": asked.cooling,
        "fluid": asked.model.fluid,
        "sensor_side": asked.model.sensor_side,
    }
    if found is None:
        return told
    power = found.power
    return told | {
        "capture_frac": found.priors.capture_frac,
        "capture_frac_u": found.priors.capture_frac_u,
        "power_u_frac": power.u_frac if power else None,
        "power_quality_class": power.quality.name if power else None,
        "flow_u_frac": found.model.flow_u_frac,
        "delta_k_u": found.model.delta_k_u,
        "lag_s": found.priors.lag_s,
        "computed_over_electric": found.ratio,
    }


def fault_told(fault: Fault) -> dict[str, Any]:
    """One fault."""
    return asdict(fault)


def check_told(check: Check | None, fit: Fit | None) -> dict[str, Any] | None:
    """The comparison with the reference; None without one."""
    if check is None:
        return None
    return {**check.told(), "fit": None if fit is None else asdict(fit)}


def flags_told(trace: Trace, found: Inputs | None, total: Span | None) -> list[str]:
    """What holds for the whole file."""
    power = found.power if found else None
    absent = [
        f"{reason}:{name}:{count}"
        for name, counts in trace.absent.items()
        for reason, count in counts.items()
    ]
    flags: Mapping[str, None] = dict.fromkeys(
        (
            *trace.flags,
            *(found.flags if found else ()),
            *(power.flags if power else ()),
            *absent,
            *(total.flags if total else ()),
        )
    )
    return list(flags)


def _name(quality: QualityClass | None) -> str | None:
    return None if quality is None else quality.name


def _short(value_w: float) -> float:
    # A hundredth of a watt is below every meter; a quarter of a million rows are not.
    return round(value_w, 2)
