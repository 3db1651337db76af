"""Ranges of sequence numbers against a plain set of numbers."""

from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.ranges import SeqRanges

SPAN = st.tuples(st.integers(1, 40), st.integers(0, 10)).map(lambda it: (it[0], it[0] + it[1]))
ACTS = st.lists(st.tuples(st.booleans(), SPAN), max_size=20)


@given(ACTS, SPAN)
def test_ranges_are_a_set_of_numbers(
    acts: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]
) -> None:
    ranges, numbers = SeqRanges(), set[int]()
    for is_added, (first, last) in acts:
        if is_added:
            ranges.add(first, last)
            numbers |= set(range(first, last + 1))
        else:
            ranges.remove(first, last)
            numbers -= set(range(first, last + 1))
    first, last = asked
    wanted = set(range(first, last + 1))
    assert ranges.count(first, last) == len(numbers & wanted)
    assert ranges.holds(first, last) is (wanted <= numbers)
    end = first - 1
    while end + 1 in numbers:
        end += 1
    assert ranges.contiguous_from(first) == end


def test_live_rows_that_are_durable_let_no_backlog_go() -> None:
    ranges = SeqRanges([(1, 10), (500, 560)])
    assert ranges.contiguous_from(1) == 10
    ranges.add(11, 499)
    assert ranges.contiguous_from(1) == 560
