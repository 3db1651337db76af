"""Fine rows become coarse ones, in whole fixed-point cells: a mean that loses no energy.

A row's figures hold for a span that ends with its event time. Of the rows that end within one
step of time, those with the same channels become one: its span is the sum of theirs, so that
energy = mean * span for each channel, whatever was absent when. What is absent in all of them
stays absent. Rows may then be irregular; `span_s` says what each stands for.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from heatpool.codec import Columns, check, event_times_ns
from heatpool.sample import Channel, Row

STEPS_S = (10, 60, 900)
# Which time a coarse row stands for. A fine row has no such cell: it stands for its step.
SPAN = Channel("", "span_s", -9)
# A frame's columns and the channels that they are of.
Framed = tuple[Columns, Sequence[Channel]]
_NS = 1_000_000_000
QUALITY, PROVENANCE = "quality", "provenance"
_COUNTERS = ("_wh", "_j")


@dataclass(frozen=True, slots=True)
class Spanned:
    """One row in cells: what it says of the `span_ns` before `event_ns`."""

    event_ns: int
    span_ns: int
    cells: Mapping[Channel, int]


def spanned(frames: Sequence[Framed], *, before_ns: int | None, most_ns: int) -> list[Spanned]:
    """The rows of neighbouring frames with their spans, none longer than `most_ns` unless told.

    `before_ns` is the event time of the row before them.

    Raises:
        WireError: the counts do not fit the channels.
    """
    rows: list[tuple[int, dict[Channel, int]]] = []
    for columns, channels in frames:
        check(columns, len(channels))
        rows += zip(event_times_ns(columns), _rows(columns, channels), strict=True)
    earlier_ns = [before_ns, *(event_ns for event_ns, _ in rows)]
    step_ns = min(most_ns, step_of([ns for ns in earlier_ns if ns is not None]))
    found = []
    for (event_ns, cells), past_ns in zip(rows, earlier_ns, strict=False):
        told_ns = cells.pop(SPAN, None)
        own_ns = step_ns if past_ns is None else event_ns - past_ns
        # Rows further apart than usual leave a gap of which nobody knows anything.
        own_ns = own_ns if 0 < own_ns < step_ns else step_ns
        found.append(Spanned(event_ns, own_ns if told_ns is None else told_ns, cells))
    return found


def step_of(times_ns: Sequence[int]) -> int:
    """The usual distance of rows, ns; a second where there is no pair to tell it."""
    steps = sorted(after - before for before, after in pairwise(times_ns) if after > before)
    return steps[(len(steps) - 1) // 2] if steps else _NS


def _rows(columns: Columns, channels: Sequence[Channel]) -> list[dict[Channel, int]]:
    rows: list[dict[Channel, int]] = [{} for _ in range(columns.n_rows)]
    bits, position = columns.valid_bits, 0
    for channel in channels:
        cell = 0
        for row in rows:
            cell += columns.cells[position]
            if not bits or bits[position >> 3] >> (position & 7) & 1:
                row[channel] = cell
            position += 1
    return rows


def rolled(rows: Sequence[Spanned], step_ns: int) -> list[Spanned]:
    """Coarse rows, one per step and set of channels, in the order of their last fine row."""
    found: list[Spanned] = []
    for _, within in groupby(rows, key=lambda row: (row.event_ns - 1) // step_ns):
        alike: dict[frozenset[Channel], list[Spanned]] = defaultdict(list)
        for row in within:
            # The newest set goes last: so do its rows.
            same = alike.pop(frozenset(row.cells), [])
            alike[frozenset(row.cells)] = [*same, row]
        found += [_one(same) for same in alike.values()]
    return found


def _one(rows: Sequence[Spanned]) -> Spanned:
    last = rows[-1]
    if len(rows) == 1:
        return last
    cells = {channel: _way(channel)(channel, rows) for channel in last.cells}
    return Spanned(last.event_ns, sum(row.span_ns for row in rows), cells)


def _way(channel: Channel) -> Callable[[Channel, Sequence[Spanned]], int]:
    name = channel.quantity
    if name == QUALITY or name.endswith("_max"):
        return _most
    if name.endswith("_min"):
        return _least
    if name == PROVENANCE:
        return _of_the_worst
    return _last if name.endswith(_COUNTERS) else _mean


def _mean(channel: Channel, rows: Sequence[Spanned]) -> int:
    """By time. Of a doubt too: rows of one sensor err alike, and no number of them helps."""
    total = sum(row.cells[channel] * row.span_ns for row in rows)
    span_ns = sum(row.span_ns for row in rows)
    return (2 * total + span_ns) // (2 * span_ns)


def _most(channel: Channel, rows: Sequence[Spanned]) -> int:
    return max(row.cells[channel] for row in rows)


def _least(channel: Channel, rows: Sequence[Spanned]) -> int:
    return min(row.cells[channel] for row in rows)


def _last(channel: Channel, rows: Sequence[Spanned]) -> int:
    return rows[-1].cells[channel]


def _of_the_worst(channel: Channel, rows: Sequence[Spanned]) -> int:
    """The origin of the newest figure of the worst class."""
    quality = Channel(channel.loop_id, QUALITY, 0)
    worst = max(rows, key=lambda row: (row.cells.get(quality, 0), row.event_ns))
    return worst.cells[channel]


def as_rows(rows: Sequence[Spanned]) -> Iterator[Row]:
    """The same in units, each with its span, to be packed."""
    for row in rows:
        cells = {channel: _value(cell, channel) for channel, cell in row.cells.items()}
        yield Row(event_ns=row.event_ns, cells={**cells, SPAN: row.span_ns / _NS})


def _value(cell: int, channel: Channel) -> float:
    if channel.exponent < 0:
        return cell / 10.0**-channel.exponent
    return float(cell * 10**channel.exponent)
