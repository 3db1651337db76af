"""Which sequence numbers of a queue are known to be durable elsewhere."""

from collections.abc import Iterable


class SeqRanges:
    """Sequence numbers as sorted ranges, ends included, that neither overlap nor touch."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._pairs: list[tuple[int, int]] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Takes in first to last, both included; blind to order and repetition."""
        if last < first:
            return
        touched = [(a, b) for a, b in self._pairs if a <= last + 1 and b >= first - 1]
        apart = [(a, b) for a, b in self._pairs if not (a <= last + 1 and b >= first - 1)]
        joined = [(first, last), *touched]
        apart.append((min(a for a, _ in joined), max(b for _, b in joined)))
        self._pairs = sorted(apart)

    def remove(self, first: int, last: int) -> None:
        """Takes out first to last, both included: they are missed after all."""
        left = [(a, min(b, first - 1)) for a, b in self._pairs]
        right = [(max(a, last + 1), b) for a, b in self._pairs]
        self._pairs = sorted({(a, b) for a, b in (*left, *right) if a <= b})

    def holds(self, first: int, last: int) -> bool:
        """Whether all of first to last is in."""
        return any(a <= first and last <= b for a, b in self._pairs)

    def contiguous_from(self, first: int) -> int:
        """The last number without a hole from `first` on; first - 1 if there is none."""
        return next((b for a, b in self._pairs if a <= first <= b), first - 1)

    def count(self, first: int, last: int) -> int:
        """How many of first to last, both included, are in."""
        return sum(max(0, min(b, last) - max(a, first) + 1) for a, b in self._pairs)
