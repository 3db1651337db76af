"""Periods: they tile time without holes, and their energy sums to the register exactly."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from heatpool.period import (
    Period,
    align_down_ns,
    align_up_ns,
    gaps,
    period_containing,
    register_at_wh,
    share_wh,
)

SECOND_NS = 10**9
QUARTER_S = 900

instants_ns = st.integers(0, 2 * 10**18)
lengths_s = st.sampled_from([10, 60, 900, 3600])


@given(at_ns=instants_ns, length_s=lengths_s)
def test_every_instant_lies_in_exactly_one_period(at_ns: int, length_s: int) -> None:
    period = period_containing(at_ns, length_s)
    assert period.contains(at_ns)
    assert period.start_ns % (length_s * SECOND_NS) == 0
    assert period.end_ns - period.start_ns == length_s * SECOND_NS
    assert period_containing(period.end_ns, length_s).start_ns == period.end_ns


@given(at_ns=instants_ns, length_s=lengths_s)
def test_alignment_brackets_the_instant_and_leaves_boundaries(at_ns: int, length_s: int) -> None:
    down_ns, up_ns = align_down_ns(at_ns, length_s), align_up_ns(at_ns, length_s)
    assert down_ns <= at_ns <= up_ns
    assert up_ns - down_ns == (0 if at_ns == down_ns else length_s * SECOND_NS)
    assert align_up_ns(down_ns, length_s) == down_ns == align_down_ns(down_ns, length_s)


def test_a_utc_day_is_96_quarters_from_midnight_to_midnight() -> None:
    day_ns = 86_400 * SECOND_NS
    starts_ns = {
        period_containing(20_000 * day_ns + at_s * SECOND_NS, QUARTER_S).start_ns
        for at_s in range(0, 86_400, 60)
    }
    assert len(starts_ns) == 96
    assert min(starts_ns) == 20_000 * day_ns


def test_an_end_belongs_to_the_next_period() -> None:
    period = Period(start_ns=0, end_ns=10)
    assert period.contains(0)
    assert not period.contains(10)


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Period(start_ns=10, end_ns=10)


@pytest.mark.parametrize("length_s", [0, -900])
def test_a_length_that_is_not_positive_is_refused(length_s: int) -> None:
    with pytest.raises(ValueError, match="length_s"):
        period_containing(0, length_s)


def test_gaps_are_the_spans_longer_than_allowed() -> None:
    assert gaps([0, 10, 40, 50, 81], 30) == (Period(start_ns=50, end_ns=81),)
    assert gaps([], 30) == gaps([7], 30) == ()


def test_gaps_of_unsorted_times_are_refused() -> None:
    with pytest.raises(ValueError, match="sort"):
        gaps([10, 5], 30)


@given(
    before_ns=instants_ns,
    span_ns=st.integers(1, 86_400 * SECOND_NS),
    before_wh=st.integers(0, 10**12),
    gained_wh=st.integers(0, 10**9),
    length_s=lengths_s,
)
def test_periods_sum_to_the_register_exactly(
    before_ns: int, span_ns: int, before_wh: int, gained_wh: int, length_s: int
) -> None:
    assume(span_ns < 2000 * length_s * SECOND_NS)
    starts_ns = range(align_down_ns(before_ns, length_s), before_ns + span_ns, length_s * SECOND_NS)
    shares_wh = [
        share_wh(
            period_containing(start_ns, length_s),
            before_ns=before_ns,
            before_wh=before_wh,
            after_ns=before_ns + span_ns,
            after_wh=before_wh + gained_wh,
        )
        for start_ns in starts_ns
    ]
    assert sum(shares_wh) == gained_wh
    assert min(shares_wh) >= 0


@given(
    ends_ns=st.lists(instants_ns, min_size=2, max_size=2, unique=True),
    ends_wh=st.lists(st.integers(0, 10**15), min_size=2, max_size=2),
    places=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_an_apportioned_register_is_monotone_and_off_by_less_than_one_watt_hour(
    ends_ns: list[int], ends_wh: list[int], places: list[float]
) -> None:
    (before_ns, after_ns), (before_wh, after_wh) = sorted(ends_ns), sorted(ends_wh)
    found_wh = []
    for place in sorted(places):
        at_ns = min(before_ns + int((after_ns - before_ns) * place), after_ns)
        at_wh = register_at_wh(
            before_ns=before_ns,
            before_wh=before_wh,
            after_ns=after_ns,
            after_wh=after_wh,
            at_ns=at_ns,
        )
        # Cross-multiplied, so that the check is in whole numbers too.
        ideal = (after_wh - before_wh) * (at_ns - before_ns)
        assert 0 <= ideal - (at_wh - before_wh) * (after_ns - before_ns) < after_ns - before_ns
        found_wh.append(at_wh)
    assert before_wh <= found_wh[0] <= found_wh[1] <= after_wh


def test_readings_keep_their_own_value() -> None:
    readings = {"before_ns": 3, "before_wh": 100, "after_ns": 10, "after_wh": 201}
    assert register_at_wh(**readings, at_ns=3) == 100
    assert register_at_wh(**readings, at_ns=10) == 201
    assert register_at_wh(**readings, at_ns=4) == 114


def test_a_period_beside_the_readings_gets_nothing() -> None:
    readings = {"before_ns": 100, "before_wh": 0, "after_ns": 200, "after_wh": 50}
    assert share_wh(Period(start_ns=0, end_ns=100), **readings) == 0
    assert share_wh(Period(start_ns=200, end_ns=300), **readings) == 0
    assert share_wh(Period(start_ns=150, end_ns=300), **readings) == 25


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"at_ns": 11}, "instants"),
        ({"at_ns": 2}, "instants"),
        ({"after_ns": 3, "at_ns": 3}, "instants"),
        ({"after_wh": 99}, "falls"),
    ],
)
def test_a_register_is_not_stretched_beyond_its_readings(
    changed: dict[str, int], text: str
) -> None:
    readings = {"before_ns": 3, "before_wh": 100, "after_ns": 10, "after_wh": 201, "at_ns": 5}
    with pytest.raises(ValueError, match=text):
        register_at_wh(**(readings | changed))
