"""Ranges behave as the sets of numbers that they stand for."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core import ranges
from heatpool_agent.core.ranges import Range

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def numbers(found: tuple[Range, ...]) -> set[int]:
    return {number for first, last in found for number in range(first, last + 1)}


def made(wanted: list[Range]) -> tuple[Range, ...]:
    return ranges.of_pairs(wanted)


@given(pairs)
def test_adding_is_the_union(wanted: list[Range]) -> None:
    found = made(wanted)
    assert numbers(found) == {n for first, last in wanted for n in range(first, last + 1)}
    assert found == tuple(sorted(found))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(found))


@given(pairs, st.integers(0, 60), st.integers(0, 60))
def test_holes_are_the_rest(wanted: list[Range], first: int, last: int) -> None:
    missing = numbers(tuple(ranges.holes(made(wanted), first, last)))
    assert missing == set(range(first, last + 1)) - numbers(made(wanted))


@given(pairs, st.integers(0, 60))
def test_above_forgets_what_is_below(wanted: list[Range], number: int) -> None:
    found = ranges.above(made(wanted), number)
    assert numbers(found) == {n for n in numbers(made(wanted)) if n > number}


@given(pairs, st.integers(0, 60), st.integers(0, 60))
def test_held_is_held_whole(wanted: list[Range], first: int, last: int) -> None:
    asked = set(range(first, last + 1))
    if asked:
        assert ranges.holds(made(wanted), first, last) == (asked <= numbers(made(wanted)))


@given(st.sets(st.integers(0, 60)))
def test_rising_numbers_become_ranges(wanted: set[int]) -> None:
    assert numbers(ranges.of(sorted(wanted))) == wanted


@given(pairs, st.integers(1, 4))
def test_fewer_ranges_hold_at_least_the_same(wanted: list[Range], most: int) -> None:
    found = ranges.fewer(made(wanted), most)
    assert len(found) <= most
    assert numbers(found) >= numbers(made(wanted))
