"""What a queue holds under each number, as arithmetic: a spool of millions of rows takes no room.

A stretch is a run of frames of one length and cadence; a queue is a few of them, one behind the
other. A frame is due once its last row is.
"""

from bisect import bisect_right
from dataclasses import dataclass

NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Frames from `first_seq` on; rows lie `step_ns` apart, the first one at `start_ns`."""

    first_seq: int
    start_ns: int
    n_rows: int
    step_ns: int

    def start_of(self, seq: int) -> int:
        """Event time of a frame's first row, ns."""
        return self.start_ns + (seq - self.first_seq) * self.n_rows * self.step_ns


class Course:
    """The stretches of one queue."""

    __slots__ = ("_stretches",)

    def __init__(self, *stretches: Stretch) -> None:
        self._stretches = list(stretches)

    @property
    def last(self) -> Stretch:
        """The stretch that goes on."""
        return self._stretches[-1]

    def at(self, seq: int) -> Stretch:
        """The stretch of a frame."""
        place = bisect_right(self._stretches, seq, key=lambda one: one.first_seq)
        return self._stretches[max(0, place - 1)]

    def due_ns(self, seq: int) -> int:
        """When a frame is complete, ns."""
        stretch = self.at(seq)
        return stretch.start_of(seq) + stretch.n_rows * stretch.step_ns

    def rows(self, first_seq: int, last_seq: int) -> int:
        """Rows of these frames, both included."""
        total = 0
        for place, stretch in enumerate(self._stretches):
            is_last = place + 1 == len(self._stretches)
            end = last_seq if is_last else min(last_seq, self._stretches[place + 1].first_seq - 1)
            total += max(0, end - max(first_seq, stretch.first_seq) + 1) * stretch.n_rows
        return total

    def go_on(self, next_seq: int, *, n_rows: int, step_ns: int) -> None:
        """From this frame on another length and cadence; no row is left out or doubled."""
        last = self.last
        if (n_rows, step_ns) == (last.n_rows, last.step_ns):
            return
        start_ns = last.start_of(next_seq)
        new = Stretch(first_seq=next_seq, start_ns=start_ns, n_rows=n_rows, step_ns=step_ns)
        if last.first_seq == next_seq:
            self._stretches[-1] = new
        else:
            self._stretches.append(new)


def backlog(at_ns: int, *, length_s: float, n_rows: int, step_s: float) -> Stretch | None:
    """History that ends at this time, as whole frames from number 1; None for none."""
    step_ns = int(step_s * NS)
    count = int(length_s * NS) // (n_rows * step_ns)
    if count < 1:
        return None
    start_ns = at_ns - count * n_rows * step_ns
    return Stretch(first_seq=1, start_ns=start_ns, n_rows=n_rows, step_ns=step_ns)


def frames_in(stretch: Stretch | None, at_ns: int) -> int:
    """Frames of a stretch that are complete at this time."""
    if stretch is None:
        return 0
    return (at_ns - stretch.start_ns) // (stretch.n_rows * stretch.step_ns)
