"""The grid of half-open settlement periods, gaps in time, and energy apportioned to periods.

The grid is UTC, counted from 1970, so that all sites agree. Civil days and months belong to
the agreements that need them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from heatpool.units import NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Period:
    """A half-open span [start_ns, end_ns) of UTC nanoseconds, never empty."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns <= self.start_ns:
            span = f"[{self.start_ns}, {self.end_ns})"
            raise ValueError(f"period: {span} is empty; the end must lie after the start")

    def contains(self, at_ns: int) -> bool:
        """Whether the instant lies in the span; its end belongs to the next one."""
        return self.start_ns <= at_ns < self.end_ns


def _length_ns(length_s: int) -> int:
    if length_s <= 0:
        raise ValueError(f"period: length_s is {length_s}; use whole seconds above 0")
    return length_s * NS_PER_S


def align_down_ns(at_ns: int, length_s: int) -> int:
    """The last boundary of the grid at or before the instant, ns."""
    return at_ns - at_ns % _length_ns(length_s)


def align_up_ns(at_ns: int, length_s: int) -> int:
    """The first boundary of the grid at or after the instant, ns."""
    return at_ns + -at_ns % _length_ns(length_s)


def period_containing(at_ns: int, length_s: int) -> Period:
    """The period of the grid in which the instant lies."""
    start_ns = align_down_ns(at_ns, length_s)
    return Period(start_ns=start_ns, end_ns=start_ns + _length_ns(length_s))


def gaps(event_ns: Sequence[int], longest_ns: int) -> tuple[Period, ...]:
    """The spans between consecutive times, in order, that last longer than longest_ns.

    Raises: ValueError if a time lies before the one ahead of it.
    """
    found = []
    for start, end in pairwise(event_ns):
        if end < start:
            raise ValueError(f"period: time {end} comes after {start}; sort the times first")
        if end - start > longest_ns:
            found.append(Period(start_ns=start, end_ns=end))
    return tuple(found)


def register_at_wh(
    *, before_ns: int, before_wh: int, after_ns: int, after_wh: int, at_ns: int
) -> int:
    """The register at an instant between two readings of it, whole Wh, linear, rounded down.

    Exact integers: monotone, equal to the readings at their own times, so differences taken
    at common boundaries sum to the register's own.
    Raises: ValueError outside the readings, or if time does not rise or the register falls.
    Source: physics.md 17, settlement rule 2.
    """
    if after_ns <= before_ns or not before_ns <= at_ns <= after_ns:
        order = f"{before_ns} <= {at_ns} <= {after_ns}"
        raise ValueError(f"period: instants {order} do not hold; take the readings around it")
    if after_wh < before_wh:
        fall = f"from {before_wh} to {after_wh} Wh"
        raise ValueError(f"period: register falls {fall}; settle a reset or exchange first")
    return before_wh + (after_wh - before_wh) * (at_ns - before_ns) // (after_ns - before_ns)


def share_wh(
    period: Period, *, before_ns: int, before_wh: int, after_ns: int, after_wh: int
) -> int:
    """The part of the energy between two readings that falls into the period, whole Wh.

    The shares of periods that tile [before_ns, after_ns) sum to after_wh - before_wh exactly.
    Raises: ValueError as `register_at_wh`.
    """
    ends_wh = [
        register_at_wh(
            before_ns=before_ns,
            before_wh=before_wh,
            after_ns=after_ns,
            after_wh=after_wh,
            at_ns=min(max(boundary_ns, before_ns), after_ns),
        )
        for boundary_ns in (period.start_ns, period.end_ns)
    ]
    return ends_wh[1] - ends_wh[0]
