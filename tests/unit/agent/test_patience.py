"""When the agent tries again, by what failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import UplinkError
from heatpool_agent.core.line import LineBusy, LineRefused, LineReplaced
from heatpool_agent.core.patience import (
    NAMED_MOST_S,
    REFUSED_S,
    REPLACED_LEAST_S,
    REPLACED_MOST_S,
    RETRY_MOST_S,
    SPREAD_S,
    Patience,
    spread_s,
)

DRAW = st.floats(0.0, 1.0)


def test_bounds_double_from_a_second_to_five_minutes_and_stay() -> None:
    patience, error = Patience(), UplinkError("away")
    waits = [patience.wait_s(error, 1.0) for _ in range(40)]
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[9:] == [RETRY_MOST_S] * 31, "for ever"


@given(DRAW)
def test_any_moment_below_the_bound_may_be_drawn(draw: float) -> None:
    patience = Patience()
    patience.wait_s(UplinkError("away"), draw)
    assert patience.wait_s(UplinkError("away"), draw) == pytest.approx(2.0 * draw)


@given(DRAW)
def test_who_is_refused_asks_rarely(draw: float) -> None:
    wait_s = Patience().wait_s(LineRefused("revoked", fix="join"), draw)
    assert wait_s == pytest.approx(REFUSED_S, rel=0.11)


@given(DRAW)
def test_the_other_end_s_word_beats_our_own_and_is_never_undercut(draw: float) -> None:
    wait_s = Patience().wait_s(UplinkError("later", wait_s=40.0), draw)
    assert 40.0 <= wait_s <= 44.0 + 1e-9


def test_an_own_wish_is_done_at_once_and_costs_no_patience() -> None:
    patience = Patience()
    assert patience.wait_s(UplinkError("new channels", wait_s=0.0), 1.0) == 0.0
    assert patience.wait_s(UplinkError("away"), 1.0) == 1.0


def test_an_overloaded_aggregator_is_left_alone_longer() -> None:
    assert Patience().wait_s(LineBusy("too much"), 1.0) == 4.0


@pytest.mark.parametrize(("held_s", "next_s"), [(0.5, 4.0), (60.0, 1.0)])
def test_only_a_line_that_held_begins_anew(held_s: float, next_s: float) -> None:
    patience = Patience()
    for _ in range(2):
        patience.wait_s(UplinkError("away"), 1.0)
    patience.held(held_s)
    assert patience.wait_s(UplinkError("away"), 1.0) == next_s


def test_sites_that_start_together_come_one_by_one() -> None:
    waits = sorted(spread_s(f"site-{number}") for number in range(300))
    assert 0 <= waits[0] and waits[-1] < SPREAD_S
    fullest = max(sum(at <= other < at + 30 for other in waits) for at in range(0, 270, 10))
    assert fullest < 60, "a tenth of the time gets about a tenth of the sites"
    assert spread_s("site-1") == spread_s("site-1")


@given(DRAW)
def test_no_word_of_the_other_end_silences_a_site_for_long(draw: float) -> None:
    wait_s = Patience().wait_s(UplinkError("later", wait_s=1e9), draw)
    assert NAMED_MOST_S <= wait_s <= 1.1 * NAMED_MOST_S


def test_two_machines_of_one_identity_come_ever_more_rarely() -> None:
    """Each holds the line for as long as the other waits, which lets neither begin anew."""
    one, other, waits_s = Patience(), Patience(), []
    held_s = 60.0
    for _ in range(12):
        for patience in (one, other):
            patience.held(held_s)
            held_s = patience.wait_s(LineReplaced("another stream"), 1.0)
            waits_s.append(held_s)
    assert waits_s[::2] == waits_s[1::2]
    assert waits_s[:6:2] == [REPLACED_LEAST_S, 2 * REPLACED_LEAST_S, 4 * REPLACED_LEAST_S]
    assert waits_s[-1] == REPLACED_MOST_S


@given(DRAW)
def test_who_was_replaced_waits_half_of_its_bound_at_least(draw: float) -> None:
    assert Patience().wait_s(LineReplaced("another stream"), draw) >= REPLACED_LEAST_S / 2


def test_a_line_that_was_ours_alone_for_hours_ends_the_quarrel() -> None:
    patience = Patience()
    for _ in range(9):
        patience.wait_s(LineReplaced("another stream"), 1.0)
    patience.held(2 * REPLACED_MOST_S)
    assert patience.wait_s(LineReplaced("another stream"), 1.0) == REPLACED_LEAST_S
