"""Sets of sequence numbers as short lists of ranges, both ends included, in order and apart."""

from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]


def added(ranges: Iterable[Range], first: int, last: int) -> tuple[Range, ...]:
    """The set with these numbers too; ranges that touch become one."""
    if last < first:
        return tuple(ranges)
    apart: list[Range] = []
    for start, end in ranges:
        if end < first - 1 or start > last + 1:
            apart.append((start, end))
        else:
            first, last = min(first, start), max(last, end)
    return tuple(sorted([*apart, (first, last)]))


def holds(ranges: Iterable[Range], first: int, last: int | None = None) -> bool:
    """Whether the number, or each one from first to last, is in the set."""
    end = first if last is None else last
    return any(start <= first and end <= stop for start, stop in ranges)


def holes(ranges: Iterable[Range], first: int, last: int) -> Iterator[Range]:
    """What is missing of the set from first to last."""
    for start, end in ranges:
        if start > last:
            break
        if start > first:
            yield first, start - 1
        first = max(first, end + 1)
    if first <= last:
        yield first, last


def above(ranges: Iterable[Range], number: int) -> tuple[Range, ...]:
    """The set without what is at or below a number."""
    return tuple((max(start, number + 1), end) for start, end in ranges if end > number)


def without(ranges: Iterable[Range], first: int, last: int) -> tuple[Range, ...]:
    """The set without these numbers."""
    pairs = tuple(ranges)
    below = ((start, min(end, first - 1)) for start, end in pairs if start < first)
    return (*below, *above(pairs, last))


def both(ranges: Iterable[Range], others: Iterable[Range]) -> tuple[Range, ...]:
    """What is in both sets."""
    own = tuple(ranges)
    pairs = (
        (max(start, first), min(end, last)) for first, last in others for start, end in own
    )  # fmt: skip
    return of_pairs((first, last) for first, last in pairs if first <= last)


def of(numbers: Iterable[int]) -> tuple[Range, ...]:
    """Rising numbers as a set."""
    found: list[Range] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def fewer(ranges: Sequence[Range], most: int) -> tuple[Range, ...]:
    """At most so many ranges that hold all of these numbers: the nearest neighbours are joined."""
    found = list(ranges)
    while len(found) > most:
        gaps = [found[i + 1][0] - found[i][1] for i in range(len(found) - 1)]
        nearest = gaps.index(min(gaps))
        found[nearest : nearest + 2] = [(found[nearest][0], found[nearest + 1][1])]
    return tuple(found)


def of_pairs(pairs: Iterable[Range]) -> tuple[Range, ...]:
    """Any ranges as a set."""
    found: tuple[Range, ...] = ()
    for first, last in pairs:
        found = added(found, first, last)
    return found


class SeqRanges:
    """Such a set that grows and shrinks: what of a queue the other end says is durable."""

    def __init__(self, pairs: Iterable[Range] = ()) -> None:
        self._pairs: tuple[Range, ...] = ()
        for first, last in pairs:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Takes in first to last; blind to order and repetition."""
        self._pairs = added(self._pairs, first, last)

    def remove(self, first: int, last: int) -> None:
        """Takes out first to last: they are missed after all."""
        self._pairs = without(self._pairs, first, last)

    def holds(self, first: int, last: int) -> bool:
        """Whether all of first to last is in."""
        return holds(self._pairs, first, last)

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

    def holes(self, first: int, last: int) -> Iterator[Range]:
        """What of first to last is not in."""
        return holes(self._pairs, first, last)
