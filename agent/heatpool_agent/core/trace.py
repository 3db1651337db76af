"""A recorded trace out of the lines of a CSV file: columns in our units, in the order of time.

Comma, semicolon or tab; either decimal sign; lines of a title before the header and of units after
it; comments and blanks. What cannot be read is absent and counted; nothing is made up.
"""

import csv
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice, pairwise
from math import nan

from heatpool_agent.core import trace_cell, trace_columns, trace_time
from heatpool_agent.core.median import median
from heatpool_agent.core.trace_cell import Cell
from heatpool_agent.core.trace_columns import COLUMNS, TIME, Column, Mapped
from heatpool_agent.core.trace_time import ZONE_ASSUMED, TimeKind

# Lines by which the file's dialect is told: two days of 15 min, and every title we met.
_LOOK_COUNT = 200
_TITLE_COUNT = 50
# Half a gigabyte of columns: ten years of 10 s.
MOST_ROWS = 32_000_000
_SHOWN_LETTERS = 40
VOLUME_FLOW = "volume_flow_m3_h"
# Above 95 of 100 rows in which water flows; a pump's whole range is 1 to 10. Our choice.
SPIKE, SPIKE_TIMES, _SPIKE_LEAST_COUNT = "spike", 5.0, 20
# So many rows on end are not a spike alone.
_SURGE_ROWS = 6
_DELIMITERS = (";", "\t", ",", "|")

UNSORTED = "unsorted_rows"
DUPLICATE = "duplicate_times"
NO_TIME = "rows_without_time"
DUPLICATE_HEADER = "duplicate_header"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the file is written; `header_line` counts from 1."""

    delimiter: str
    decimal: str
    header_line: int
    headers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surge:
    """Rows on end whose flow was far above all others', and how many times the flow before."""

    first: int
    last: int
    times: float


@dataclass(slots=True, kw_only=True)
class Trace:
    """Columns of equal length by name, NaN is absent, and what was odd about the file.

    `absent` counts the cells of each column by the reason why they are. `reason` says why the file
    is of no use, where it is of none.
    """

    dialect: Dialect | None = None
    time_kind: TimeKind | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    event_ns: "array[int]" = field(default_factory=lambda: array("q"))
    values: "dict[str, array[float]]" = field(default_factory=dict)
    absent: "dict[str, Counter[str]]" = field(default_factory=dict)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)
    flags: "Counter[str]" = field(default_factory=Counter)
    # Why cells of a row are absent, as a place in `reasons`: few combinations, many rows.
    marks: "array[int]" = field(default_factory=lambda: array("H"))
    reasons: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    places: dict[tuple[str, ...], int] = field(default_factory=lambda: {(): 0})
    surges: list[Surge] = field(default_factory=list)
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.event_ns)

    def mark_of(self, reasons: tuple[str, ...]) -> int:
        """The place of these reasons in `reasons`, made where they are new."""
        found = self.places.get(reasons)
        if found is None:
            found = self.places[reasons] = len(self.reasons)
            self.reasons.append(reasons)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """One column on its way in."""

    name: str
    index: int
    cell: Cell
    append: Callable[[float], None]


def encoding(first: bytes) -> str:
    """The encoding of a file that begins with these bytes: by its mark, else UTF-8, else cp1252."""
    for mark, name in (
        (b"\xef\xbb\xbf", "utf-8-sig"),
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
    ):
        if first.startswith(mark):
            return name
    try:
        # A character may be cut at the end of the look.
        first[:-3].decode("utf-8") if len(first) > 3 else first.decode("utf-8")
    except UnicodeDecodeError as error:
        return "utf-8" if error.start >= len(first) - 6 else "cp1252"
    return "utf-8"


def read(lines: Iterable[str], mapping: Sequence[Mapped] = (), *, fluid: str = "water") -> Trace:
    """The trace in these lines; one of no use says why in `reason`.

    Raises:
        ValueError: a column that the user named is not in the file, or there are too many rows.
    """
    trace = Trace()
    told = (line.removeprefix("\ufeff") for line in lines)
    numbered = ((n, line) for n, line in enumerate(told, start=1) if _is_told(line))
    ahead = list(islice(numbered, _LOOK_COUNT))
    if not ahead:
        trace.reason = "the file holds no line"
        return trace
    dialect, body = _dialect(ahead, mapping)
    trace.dialect = dialect
    trace.columns = trace_columns.found(dialect.headers, mapping)
    trace.reason = _lacking(trace)
    if trace.reason is None:
        _note_doubles(trace)
        rows = (_cells(line, dialect.delimiter) for _, line in chain(ahead[body:], numbered))
        _fill(trace, rows, fluid)
        _sort(trace)
        _refuse_pairs(trace)
        _refuse_spikes(trace)
    return trace


def _is_told(line: str) -> bool:
    text = line.strip()
    return bool(text.strip(';,\t|"')) and not text.startswith("#")


def _cells(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.rstrip("\r\n").split(delimiter)
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except (csv.Error, StopIteration):
        return []


def _dialect(ahead: Sequence[tuple[int, str]], mapping: Sequence[Mapped]) -> tuple[Dialect, int]:
    """The dialect, and how many of the lines ahead stand before the data."""
    wanted = {name.lower() for name in (TIME, *COLUMNS)}
    wanted |= {one.told.lower() for one in mapping}
    best, best_hits = (0, _DELIMITERS[0]), -1
    for place, (_, line) in enumerate(ahead[:_TITLE_COUNT]):
        for delimiter in _DELIMITERS:
            told = [cell.strip().lower() for cell in _cells(line, delimiter)]
            hits = 1000 * sum(_is_wanted(cell, wanted) for cell in told) + len(told)
            # A title has few cells and a header many; the first of equals is it.
            if hits > best_hits + (0 if hits >= 1000 or not place else 1000):
                best, best_hits = (place, delimiter), hits
    place, delimiter = best
    headers = tuple(cell.strip() for cell in _cells(ahead[place][1], delimiter))
    body = [_cells(line, delimiter) for _, line in ahead[place + 1 :]]
    numbers = (cell for row in body for cell in row)
    decimal = trace_cell.decimal_sign(numbers, is_comma_free=delimiter == ",")
    number = ahead[place][0]
    return Dialect(
        delimiter=delimiter, decimal=decimal, header_line=number, headers=headers
    ), place + 1


def _is_wanted(cell: str, wanted: set[str]) -> bool:
    return cell in wanted or any(
        told.startswith((f"{cell}*", f"{cell}/")) for told in wanted if cell
    )


def _lacking(trace: Trace) -> str | None:
    assert trace.dialect is not None
    headers = trace.dialect.headers
    shown = trace_columns.shown(headers)
    if TIME not in trace.columns:
        likely = trace_columns.likely_time(headers)
        hint = f"; try --column 'time={likely}'" if likely else "; name one by --column time=HEADER"
        return f"no column 'time' among {shown}{hint}"
    if not trace.columns.keys() - {TIME}:
        return f"no column of power, flow or temperature among {shown}; name one by --column"
    return None


def _note_doubles(trace: Trace) -> None:
    assert trace.dialect is not None
    counts = Counter(trace.dialect.headers)
    doubles = sum(counts[column.header] > 1 for column in trace.columns.values())
    if doubles:
        trace.flags[DUPLICATE_HEADER] = doubles


def _fill(trace: Trace, rows: Iterator[list[str]], fluid: str) -> None:
    assert trace.dialect is not None
    decimal, at = trace.dialect.decimal, trace.columns[TIME].index
    ahead = list(islice(rows, _LOOK_COUNT))
    # A day that tells the order of day and month may come late.
    kind, more = None, [*ahead]
    while kind is None and more:
        kind = trace_time.time_kind([row[at] for row in ahead if len(row) > at], decimal=decimal)
        more = list(islice(rows, 100 * _LOOK_COUNT)) if kind is None else []
        ahead += more
        if len(ahead) > MOST_ROWS // 100:
            break
    if kind is None:
        trace.reason = _unread_time(trace, [row[at] for row in ahead if len(row) > at])
        return
    trace.time_kind = kind
    _take_rows(trace, chain(ahead, rows), kind, fluid)


def _unread_time(trace: Trace, stamps: Sequence[str]) -> str:
    assert trace.dialect is not None
    sample = next((stamp for stamp in stamps if stamp.strip()), "")[:_SHOWN_LETTERS]
    if not stamps:
        return "no row follows its header"
    told = f"column {trace.columns[TIME].header!r} shows {sample!r}"
    if trace_time.is_ambiguous(stamps):
        return f"{told}: day and month cannot be told apart; write 2026-01-31T23:59:00Z"
    if trace_time.is_in_days(stamps, decimal=trace.dialect.decimal):
        return f"{told}: days of a spreadsheet; show them as 2026-01-31 23:59:00 before the export"
    if trace_time.is_time_of_day(stamps):
        return f"{told}: a time of day alone; join date and time in one column"
    return f"{told}: no time; write it as 2026-01-31T23:59:00Z, or as seconds"


def _take_rows(trace: Trace, rows: Iterable[list[str]], kind: TimeKind, fluid: str) -> None:
    assert trace.dialect is not None
    decimal, at = trace.dialect.decimal, trace.columns[TIME].index
    readers = [_reader(trace, one, fluid) for name, one in trace.columns.items() if name != TIME]
    assumed = without = 0
    for row in rows:
        stamp = trace_time.event_ns(row[at], kind, decimal=decimal) if len(row) > at else None
        if stamp is None:
            without += 1
            continue
        if len(trace.event_ns) >= MOST_ROWS:
            raise ValueError(f"more than {MOST_ROWS} rows; split the file")
        assumed += stamp[1]
        trace.event_ns.append(stamp[0])
        trace.marks.append(trace.mark_of(_take_row(trace, row, readers)))
    counts = {**dict.fromkeys(kind.flags, 1), ZONE_ASSUMED: assumed, NO_TIME: without}
    trace.flags.update({flag: count for flag, count in counts.items() if count})
    if not trace.event_ns:
        trace.reason = "no row has a time and a figure"


def _reader(trace: Trace, column: Column, fluid: str) -> _Reader:
    assert trace.dialect is not None
    name = column.name
    trace.values[name], trace.absent[name] = array("d"), Counter()
    cell = trace_cell.cell_of(
        name,
        fluid,
        factor=column.factor,
        offset=column.offset,
        decimal=trace.dialect.decimal,
    )
    return _Reader(name=name, index=column.index, cell=cell, append=trace.values[name].append)


def _take_row(trace: Trace, row: list[str], readers: Sequence[_Reader]) -> tuple[str, ...]:
    """Puts the row's cells behind the others; why some are absent."""
    reasons = []
    for reader in readers:
        told = row[reader.index] if reader.index < len(row) else ""
        value = trace_cell.value_of(told, reader.cell)
        if isinstance(value, str):
            trace.absent[reader.name][value] += 1
            if value != trace_cell.EMPTY:
                trace.examples.setdefault((reader.name, value), told.strip()[:_SHOWN_LETTERS])
            reasons.append(f"{value}:{reader.name}")
            value = nan
        reader.append(value)
    return tuple(reasons)


def _sort(trace: Trace) -> None:
    """Rows in the order of time; those of one time become one, later cells before earlier ones."""
    backwards = sum(later < earlier for earlier, later in pairwise(trace.event_ns))
    if backwards:
        trace.flags[UNSORTED] = backwards
        order = sorted(range(len(trace)), key=trace.event_ns.__getitem__)
        trace.event_ns = array("q", (trace.event_ns[index] for index in order))
        trace.marks = array("H", (trace.marks[index] for index in order))
        for name, cells in trace.values.items():
            trace.values[name] = array("d", (cells[index] for index in order))
    repeated = sum(later == earlier for earlier, later in pairwise(trace.event_ns))
    if repeated:
        trace.flags[DUPLICATE] = repeated
        _merge(trace)


def _merge(trace: Trace) -> None:
    times_ns, kept = trace.event_ns, -1
    for index, at_ns in enumerate(times_ns):
        if kept < 0 or at_ns != times_ns[kept]:
            kept += 1
            times_ns[kept], trace.marks[kept] = at_ns, trace.marks[index]
            for cells in trace.values.values():
                cells[kept] = cells[index]
            continue
        for cells in trace.values.values():
            cells[kept] = cells[index] if cells[index] == cells[index] else cells[kept]
    del times_ns[kept + 1 :], trace.marks[kept + 1 :]
    for cells in trace.values.values():
        del cells[kept + 1 :]


def _refuse_pairs(trace: Trace) -> None:
    """Both pipes at exactly 0: a meter without its sensors, not a loop full of ice."""
    hot, cold = trace.values.get("hot_c"), trace.values.get("cold_c")
    if hot is None or cold is None:
        return
    for index, (hot_c, cold_c) in enumerate(zip(hot, cold, strict=True)):
        if hot_c == 0.0 == cold_c:
            _refuse(trace, index, "hot_c", trace_cell.SENTINEL)
            _refuse(trace, index, "cold_c", trace_cell.SENTINEL)


def _refuse_spikes(trace: Trace) -> None:
    """Flow far above all but a few rows': one such cell would outweigh the heat of a day."""
    flows_m3_h = trace.values.get(VOLUME_FLOW)
    running = sorted(value for value in flows_m3_h or () if value > 0.0)
    if flows_m3_h is None or len(running) < _SPIKE_LEAST_COUNT:
        return
    most_m3_h = SPIKE_TIMES * running[len(running) * 95 // 100]
    if running[-1] <= most_m3_h:
        return
    for is_above, run in groupby(range(len(flows_m3_h)), lambda at: flows_m3_h[at] > most_m3_h):
        if is_above:
            rows = list(run)
            _refuse_run(trace, flows_m3_h, rows, usual_m3_h=running[len(running) // 2])


def _refuse_run(
    trace: Trace, flows_m3_h: "array[float]", rows: Sequence[int], *, usual_m3_h: float
) -> None:
    """Takes out rows on end of such a flow; many of them are no spike, and kept to be told."""
    trace.examples.setdefault((VOLUME_FLOW, SPIKE), f"{flows_m3_h[rows[0]]:g} m3/h")
    if len(rows) >= _SURGE_ROWS:
        before_m3_h = median(value for value in flows_m3_h[: rows[0]][-_SURGE_ROWS:] if value > 0)
        times = median(flows_m3_h[index] for index in rows) / (before_m3_h or usual_m3_h)
        trace.surges.append(Surge(first=rows[0], last=rows[-1], times=times))
    for index in rows:
        _refuse(trace, index, VOLUME_FLOW, SPIKE)


def _refuse(trace: Trace, index: int, name: str, reason: str) -> None:
    """Takes one cell that was read back out, with its reason."""
    trace.values[name][index] = nan
    trace.absent[name][reason] += 1
    reasons = trace.reasons[trace.marks[index]]
    trace.marks[index] = trace.mark_of((*reasons, f"{reason}:{name}"))
