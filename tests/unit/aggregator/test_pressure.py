"""Histories come in as fast as live rows bear, and each stream gets as much as the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core.pressure import (
    APPLY_WAIT_S,
    LEAST_BYTES_S,
    LESS,
    LIVE_WAIT_S,
    LOOK_NS,
    MORE,
    MOST_BYTES_S,
    REST_NS,
    SETTLE_NS,
    START_BYTES_S,
    STREAM_LEAST_BYTES_S,
    Pressure,
    is_other,
)

BEHIND_S = 2 * LIVE_WAIT_S


class Driven:
    """A pressure that is looked at as often as it changes."""

    def __init__(self) -> None:
        self.pressure, self.at_ns = Pressure(), 10**12
        self.pressure.look(self.at_ns)

    def turn(self, *, rate: float, live_s: float = 0.1, apply_s: float = 0.1) -> float:
        self.at_ns += SETTLE_NS
        self.pressure.came(round(rate * SETTLE_NS / 1e9))
        self.pressure.waited(live_s)
        self.pressure.applied_after(apply_s)
        self.pressure.look(self.at_ns)
        return self.pressure.budget_bytes_s


def test_a_calm_crowd_goes_ever_faster_and_a_pressing_one_slower_than_it_came() -> None:
    driven = Driven()
    assert driven.turn(rate=4e6) == MORE * START_BYTES_S
    assert driven.turn(rate=4e6, live_s=BEHIND_S) == LESS * 4e6
    assert driven.turn(rate=4e6, live_s=0.2) == LESS * 4e6, "between calm and behind it stays"
    assert driven.turn(rate=4e6) == MORE * LESS * 4e6


def test_a_crowd_that_only_just_came_is_not_taken_at_its_first_word() -> None:
    assert Driven().turn(rate=1.0, live_s=BEHIND_S) == LESS * START_BYTES_S / 2


@given(st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 100), st.floats(0, 1e4)), max_size=60))
def test_whatever_is_seen_the_pace_stays_within_its_bounds(
    seen: list[tuple[float, float, float]],
) -> None:
    driven = Driven()
    for rate, live_s, apply_s in seen:
        budget = driven.turn(rate=rate, live_s=live_s, apply_s=apply_s)
        assert LEAST_BYTES_S <= budget <= MOST_BYTES_S


def test_where_no_history_comes_nothing_is_slowed_however_slow_the_disk_is() -> None:
    driven = Driven()
    assert {driven.turn(rate=0, live_s=10.0) for _ in range(9)} == {START_BYTES_S}
    driven.pressure.waited(10.0)
    assert driven.pressure.look(driven.at_ns + SETTLE_NS) is False
    assert driven.pressure.look(driven.at_ns + SETTLE_NS + 1) is None, "too soon to tell"


def test_a_crowd_that_is_borne_for_long_has_a_pace_that_ends() -> None:
    driven = Driven()
    assert [driven.turn(rate=1e6) for _ in range(40)][-1] == MOST_BYTES_S


def test_a_log_that_waits_to_be_applied_slows_until_it_shrinks() -> None:
    driven = Driven()
    grown = driven.turn(rate=4e6, apply_s=APPLY_WAIT_S + 1)
    assert grown == LESS * 4e6
    assert driven.turn(rate=4e6, apply_s=APPLY_WAIT_S + 0.5) == grown
    assert driven.turn(rate=4e6) == MORE * grown


def test_a_new_crowd_after_a_rest_begins_anew() -> None:
    driven = Driven()
    for _ in range(3):
        driven.turn(rate=1e6)
    for _ in range(REST_NS // SETTLE_NS + 1):
        driven.turn(rate=0)
    assert driven.pressure.budget_bytes_s == START_BYTES_S


@pytest.mark.parametrize(
    ("streams", "share"),
    [(0, None), (1, None), (1_000, START_BYTES_S / 1_000), (10**6, STREAM_LEAST_BYTES_S)],
)
def test_streams_share_alike_and_a_few_need_no_limit(streams: int, share: float | None) -> None:
    assert Pressure().share_bytes_s(streams) == share


@pytest.mark.parametrize(
    ("share", "told", "other"),
    [
        (None, None, False),
        (1.0, None, True),
        (None, 1.0, True),
        (1.1, 1.0, False),
        (1.3, 1.0, True),
    ],
)
def test_a_share_is_told_anew_where_it_differs(
    share: float | None, told: float | None, *, other: bool
) -> None:
    assert is_other(share, told) is other


def test_what_was_asked_of_sites_has_time_to_be_seen_before_more_is_asked() -> None:
    pressure, found = Pressure(), []
    for at_ns in range(SETTLE_NS, SETTLE_NS + 5 * LOOK_NS, LOOK_NS):
        pressure.came(round(4e6 * LOOK_NS / 1e9))
        pressure.waited(0.1)
        pressure.look(at_ns)
        found.append(pressure.budget_bytes_s / START_BYTES_S)
    assert found == [1.0, MORE, MORE, MORE**2, MORE**2]
