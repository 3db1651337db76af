"""Numbers of a queue as sorted ranges, ends included, that neither overlap nor touch."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from heatpool_sim.wire.down import Range


class Ranges:
    """A set of numbers that is a few ranges, normally one."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[Range] = ()) -> None:
        self.pairs: list[Range] = []
        for first, last in pairs:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Takes in first to last, both included."""
        if last < first:
            return
        # Those that touch [first, last] lie between these two places.
        low = bisect_left(self.pairs, first - 1, key=lambda pair: pair[1])
        high = bisect_right(self.pairs, last + 1, key=lambda pair: pair[0])
        if low < high:
            first = min(first, self.pairs[low][0])
            last = max(last, self.pairs[high - 1][1])
        self.pairs[low:high] = [(first, last)]

    def holds(self, seq: int) -> bool:
        """Whether this number is in a range."""
        place = bisect_right(self.pairs, seq, key=lambda pair: pair[0]) - 1
        return place >= 0 and seq <= self.pairs[place][1]

    def next_missing(self, seq: int) -> int:
        """The first number from here on that is in no range."""
        place = bisect_right(self.pairs, seq, key=lambda pair: pair[0]) - 1
        if place >= 0 and seq <= self.pairs[place][1]:
            return self.pairs[place][1] + 1
        return seq

    def count(self, first: int, last: int) -> int:
        """How many numbers of first to last are in a range."""
        return sum(max(0, min(last, b) - max(first, a) + 1) for a, b in self.pairs)

    def lacking_in(self, other: "Ranges", first: int) -> int:
        """How many numbers of ours, from `first` on, the other has not."""
        ours = sum(max(0, b - max(a, first) + 1) for a, b in self.pairs)
        shared = sum(other.count(max(a, first), b) for a, b in self.pairs if b >= first)
        return ours - shared
