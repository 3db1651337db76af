"""A trace's heat as a line that can be drawn: few points, each the mean of rows side by side.

A gap is a point without values, so that no line crosses it.
"""

from dataclasses import dataclass, field

from heatpool_agent.core.trace_document import band
from heatpool_agent.core.trace_estimate import GAP_BEFORE, Row

# As many as a picture has columns.
POINTS_COUNT = 1200
_COLUMNS = ("heat_w", "low_w", "high_w", "electric_w", "computed_w")


@dataclass(slots=True)
class Points:
    """Columns of one length; None is no value."""

    at_ns: list[int] = field(default_factory=list)
    heat_w: list[float | None] = field(default_factory=list)
    low_w: list[float | None] = field(default_factory=list)
    high_w: list[float | None] = field(default_factory=list)
    electric_w: list[float | None] = field(default_factory=list)
    computed_w: list[float | None] = field(default_factory=list)


class Curve:
    """Takes every row of a trace of `rows_count` rows, and keeps some thousand points."""

    def __init__(self, rows_count: int) -> None:
        self._size = max(1, -(-rows_count // POINTS_COUNT))
        self._points = Points()
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._sum_ns = 0
        self._sums = [0.0] * len(_COLUMNS)
        self._counts = [0] * len(_COLUMNS)

    def add(self, row: Row) -> None:
        """One row, in the order of time."""
        if row.heat is None or GAP_BEFORE in row.flags:
            self._put()
            self._open(row.event_ns)
        if row.heat is None:
            return
        low_w, high_w = band(row.heat.value, row.heat.u)
        values = (row.heat.value, low_w, high_w, row.electric_w, row.computed_w)
        for place, value in enumerate(values):
            if value is not None:
                self._sums[place] += value
                self._counts[place] += 1
        self._sum_ns += row.event_ns
        self._count += 1
        if self._count >= self._size:
            self._put()

    def points(self) -> Points:
        """All of it so far."""
        self._put()
        return self._points

    def _open(self, at_ns: int) -> None:
        heats = self._points.heat_w
        if heats and heats[-1] is not None:
            self._points.at_ns.append(at_ns)
            for name in _COLUMNS:
                getattr(self._points, name).append(None)

    def _put(self) -> None:
        if self._count:
            self._points.at_ns.append(self._sum_ns // self._count)
            for name, total, count in zip(_COLUMNS, self._sums, self._counts, strict=True):
                getattr(self._points, name).append(total / count if count else None)
        self._clear()
