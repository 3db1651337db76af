"""Which sequence numbers of a queue the other end of a line says are durable."""

from collections.abc import Iterable, Iterator

from heatpool_agent.core import ranges


class SeqRanges:
    """A set of sequence numbers that grows and shrinks, as ranges with both ends included."""

    def __init__(self, pairs: Iterable[ranges.Range] = ()) -> None:
        self._pairs: tuple[ranges.Range, ...] = ()
        for first, last in pairs:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Takes in first to last; blind to order and repetition."""
        self._pairs = ranges.added(self._pairs, first, last)

    def remove(self, first: int, last: int) -> None:
        """Takes out first to last: they are missed after all."""
        self._pairs = ranges.without(self._pairs, first, last)

    def holds(self, first: int, last: int) -> bool:
        """Whether all of first to last is in."""
        return ranges.holds(self._pairs, first, last)

    def contiguous_from(self, first: int) -> int:
        """The last number without a hole from `first` on; first - 1 if there is none."""
        return next((end for start, end in self._pairs if start <= first <= end), first - 1)

    def count(self, first: int, last: int) -> int:
        """How many of first to last are in."""
        return sum(max(0, min(end, last) - max(start, first) + 1) for start, end in self._pairs)

    @property
    def first(self) -> int | None:
        """The lowest number; None: there is none."""
        return self._pairs[0][0] if self._pairs else None

    def holes(self, first: int, last: int) -> Iterator[ranges.Range]:
        """What of first to last is not in."""
        return ranges.holes(self._pairs, first, last)
