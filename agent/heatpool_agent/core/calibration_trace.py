"""A log of a host beside a meter, as lessons: columns by name, a row each or the mean of 10 s.

`power_w` is the meter's; `cpu_w`, `gpu_w`, `fan_rpm` and `busy_frac` are what the host shows of
itself. A row in which one of these is no number is left out. Source: agent.md 2.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

from heatpool_agent.core import attribution, trace_columns
from heatpool_agent.core.attribution import PSU_EFFICIENCY
from heatpool_agent.core.calibrate import (
    SERVED_FRAC,
    Learner,
    Lesson,
    coefficients,
    observed,
    of_components,
    of_load,
)
from heatpool_agent.core.coefficients import Coefficients
from heatpool_agent.core.levels import HostLoad

POWER = "power_w"
INPUTS = ("cpu_w", "gpu_w", "fan_rpm", "busy_frac")
TIME = "time"
# What the agent calls the parts that these columns show.
_PARTS = {"cpu_w": "package", "gpu_w": "gpu", "fan_rpm": "fan_cube_frac"}
STEP_S = 10.0
_DELIMITERS = (",", ";", "\t")
_NS = 1_000_000_000
# Seconds below that many are counted from the log's begin, not from 1970.
_RELATIVE_S = 1e8
# No host draws more, W, and no log is of a later second.
_MOST = 4e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Where the log is from: the host, its logical CPUs, and how well the meter knows power."""

    host: str
    logical_cpu_count: int
    u_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The rows of a log: seconds and a figure per column; `left_out` counts rows of no use."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    times_s: tuple[float, ...]
    left_out: int

    def values(self, name: str) -> tuple[float, ...]:
        """One column."""
        at = self.columns.index(name)
        return tuple(row[at] for row in self.rows)


def read(lines: Iterable[str]) -> Log:
    """The log in these lines of CSV.

    Raises:
        ValueError: it has no column of a meter, or none that the host shows of itself.
    """
    told = [line for line in lines if line.strip() and not line.startswith("#")]
    if not told:
        raise ValueError("the file holds no line")
    delimiter = max(_DELIMITERS, key=told[0].count)
    try:
        headers, *body = csv.reader(told, delimiter=delimiter)
    except csv.Error as error:
        raise ValueError(f"is no CSV: {error}") from error
    names = [header.strip().lower().lstrip("\ufeff") for header in headers]
    columns = tuple(name for name in (POWER, *INPUTS) if name in names)
    if POWER not in columns or not {"cpu_w", "gpu_w", "busy_frac"} & set(columns):
        shown = trace_columns.shown(names) or "nameless"
        raise ValueError(f"columns are {shown}; needed are {POWER}, and cpu_w, gpu_w or busy_frac")
    places = [names.index(name) for name in columns]
    at = names.index(TIME) if TIME in names else None
    rows, times_s = [], []
    for number, cells in enumerate(body):
        if delimiter != ",":
            cells = [cell.replace(",", ".") for cell in cells]
        row = tuple(_number(cells[place]) if place < len(cells) else None for place in places)
        time_s = number * STEP_S if at is None else _time_s(cells[at] if at < len(cells) else "")
        if time_s is None or None in row:
            continue
        rows.append(tuple(one for one in row if one is not None))
        times_s.append(time_s)
    if "busy_frac" in columns:
        most = max((row[columns.index("busy_frac")] for row in rows), default=0.0)
        if most > 1.0:
            raise ValueError(f"busy_frac: is up to {most:g}, must be 0 to 1; divide it by 100")
    return Log(
        columns=columns, rows=tuple(rows), times_s=tuple(times_s), left_out=len(body) - len(rows)
    )


def fitted(log: Log, meter: Meter, *, now_ns: int) -> list[Coefficients]:
    """What the log teaches of its host, by components and by load.

    A log that counts its seconds from 0 is taken to end now.
    """
    fan_full_rpm = max(log.values("fan_rpm"), default=0.0) if "fan_rpm" in log.columns else 0.0
    learners = _learners(log, meter)
    if not log.rows:
        return []
    shift_s = now_ns / _NS - log.times_s[-1] if log.times_s[-1] < _RELATIVE_S else 0.0
    for time_s, span_s, row in _means(log):
        values = dict(zip(log.columns, row, strict=True))
        event_ns = round((time_s + shift_s) * _NS)
        learners = [
            observed(one, _lesson(one, values, meter, event_ns, span_s, fan_full_rpm))
            for one in learners
        ]
    found = [(one, coefficients(one)) for one in learners]
    return [
        replace(known, fan_full_rpm=fan_full_rpm or None) if one.kind == "components" else known
        for one, known in found
        if known is not None
    ]


def _learners(log: Log, meter: Meter) -> list[Learner]:
    parts = tuple(sorted(_PARTS[name] for name in _PARTS if name in log.columns))
    found = []
    if {"package", "gpu"} & set(parts):
        found.append(of_components(meter.host, parts, _base_w()))
    if "busy_frac" in log.columns:
        count = meter.logical_cpu_count
        idle_w, full_w = attribution.IDLE_PER_CPU_W, attribution.FULL_PER_CPU_W
        found.append(of_load(meter.host, count * idle_w, count * full_w))
    return found


def _base_w() -> float:
    """What lies behind the supply of a server of one socket, at the wall."""
    return (attribution.DRAM_PER_PACKAGE_W + attribution.BOARD_PER_PACKAGE_W) / PSU_EFFICIENCY


def _means(log: Log) -> Iterable[tuple[float, float, tuple[float, ...]]]:
    """Time, span and mean of each ten seconds, or of each row where these are further apart."""
    held: list[tuple[float, ...]] = []
    first_s = log.times_s[0]
    for at, (time_s, row) in enumerate(zip(log.times_s, log.rows, strict=True)):
        held.append(row)
        is_last = at + 1 == len(log.rows)
        next_s = time_s + STEP_S if is_last else log.times_s[at + 1]
        if next_s - first_s >= STEP_S - 0.05 or next_s < time_s:
            span_s = max(STEP_S, next_s - first_s) if next_s >= time_s else STEP_S
            yield time_s, span_s, tuple(sum(one) / len(held) for one in zip(*held, strict=True))
            held, first_s = [], next_s


def _lesson(
    learner: Learner,
    values: dict[str, float],
    meter: Meter,
    event_ns: int,
    span_s: float,
    fan_full_rpm: float,
) -> Lesson:
    if learner.kind == "load":
        busy_frac = values["busy_frac"]
        load = HostLoad(busy_frac=busy_frac, logical_cpu_count=meter.logical_cpu_count)
        inputs: tuple[float, ...] = (busy_frac,)
        prior_w = attribution.host_power_w(load)
    else:
        fan_frac = values.get("fan_rpm", 0.0) / fan_full_rpm if fan_full_rpm else 0.0
        inputs = (values.get("cpu_w", 0.0), values.get("gpu_w", 0.0), fan_frac**3)
        prior_w = _base_w() + SERVED_FRAC * (inputs[0] + inputs[1])
    return Lesson(
        event_ns=event_ns,
        span_s=span_s,
        inputs=inputs,
        measured_w=values[POWER],
        measured_u_frac=meter.u_frac,
        reference="meter",
        quality=2,
        prior_w=prior_w,
    )


def _number(cell: str) -> float | None:
    try:
        number = float(cell.strip())
    except ValueError:
        return None
    return number if isfinite(number) and 0 <= number <= _MOST else None


def _time_s(cell: str) -> float | None:
    """Seconds since 1970, or since the log's begin; a stamp without zone is UTC."""
    try:
        return _number(str(float(cell)))
    except ValueError:
        pass
    try:
        told = datetime.fromisoformat(cell.strip())
        return max(0.0, (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None


def moved_frac(values: Sequence[float]) -> float:
    """How far a figure moved, relative to its largest."""
    return (max(values) - min(values)) / max(values) if values and max(values) > 0 else 0.0
