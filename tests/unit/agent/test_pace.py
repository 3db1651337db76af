"""How fast a backlog goes: its share of a link whose rate nobody told."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.pace import PAUSE_MOST_S, SHARE_FRAC, Pace

FRAME_BYTES = 250


def share_of(pace: Pace, *, link_bytes_s: float, way_s: float, most_count: int = 8) -> float:
    """Share of the link that 60 bursts took, and the ramp before them left out."""
    busy_s = passed_s = 0.0
    for number in range(72):
        count = min(pace.burst_count, most_count)
        link_s = count * FRAME_BYTES / link_bytes_s
        pause_s = pace.pause_s(count * FRAME_BYTES, way_s + link_s, count=count, limit_bytes_s=None)
        if number >= 12:
            busy_s += link_s
            passed_s += way_s + link_s + pause_s
    return busy_s / passed_s


@given(st.floats(500.0, 1e9), st.floats(0.0, 2.0))
def test_a_backlog_takes_no_more_than_its_share_of_any_link(
    link_bytes_s: float, way_s: float
) -> None:
    assert share_of(Pace(), link_bytes_s=link_bytes_s, way_s=way_s) <= SHARE_FRAC * 1.02


@pytest.mark.parametrize("link_bytes_s", [2_000.0, 10_000.0, 50_000.0])
def test_a_backlog_takes_its_share_of_a_slow_link(link_bytes_s: float) -> None:
    pace = Pace()
    share = share_of(pace, link_bytes_s=link_bytes_s, way_s=0.05)
    assert share == pytest.approx(SHARE_FRAC, rel=0.35)


def test_the_link_s_rate_is_found() -> None:
    pace = Pace()
    share_of(pace, link_bytes_s=8_000.0, way_s=0.3)
    assert pace.link_bytes_s == pytest.approx(8_000.0, rel=0.02)


def test_bursts_that_may_not_grow_leave_the_link_free_too() -> None:
    share = share_of(Pace(), link_bytes_s=1_000.0, way_s=0.05, most_count=1)
    assert share <= SHARE_FRAC


def test_no_burst_holds_up_live_rows_for_long() -> None:
    pace = Pace()
    share_of(pace, link_bytes_s=500.0, way_s=0.1)
    assert pace.burst_count * FRAME_BYTES / 500.0 <= 2.0


def test_a_rate_that_is_asked_for_is_kept() -> None:
    pace = Pace()
    pause_s = pace.pause_s(5_000, 0.1, count=8, limit_bytes_s=1_000.0)
    assert pause_s == pytest.approx(4.9)
    assert pace.pause_s(5_000, 0.1, count=8, limit_bytes_s=0.0) == PAUSE_MOST_S


def test_an_overloaded_aggregator_gets_less_and_then_all_again() -> None:
    pace = Pace()
    pace.slow()
    slowed = share_of(pace, link_bytes_s=1_000.0, way_s=0.05)
    assert slowed < SHARE_FRAC
    assert pace.share_frac == SHARE_FRAC, "bursts without complaint bring it back"


def test_jitter_of_the_other_end_costs_a_fast_link_little() -> None:
    pace, random = Pace(), Random(7)
    paused_s = passed_s = 0.0
    for _ in range(200):
        elapsed_s = 0.05 + random.uniform(0.0, 0.05)
        count = min(8, pace.burst_count)
        paused_s += pace.pause_s(count * FRAME_BYTES, elapsed_s, count=count, limit_bytes_s=None)
        passed_s += elapsed_s
    assert paused_s < passed_s


def test_a_link_that_gets_worse_is_felt() -> None:
    pace = Pace()
    share_of(pace, link_bytes_s=100_000.0, way_s=0.05)
    assert share_of(pace, link_bytes_s=4_000.0, way_s=0.05) < 1.3 * SHARE_FRAC


def test_of_a_link_that_is_lost_in_the_jitter_no_rate_is_told() -> None:
    pace = Pace()
    share_of(pace, link_bytes_s=1e6, way_s=0.05)
    assert pace.link_bytes_s is None


def test_a_rate_that_is_asked_for_is_kept_however_much_a_burst_might_hold() -> None:
    pace, sent_bytes, passed_s = Pace(), 0, 0.0
    for _ in range(40):
        size_bytes = 4_000 * min(pace.burst_count, 64)
        pause_s = pace.pause_s(size_bytes, 0.06, count=size_bytes // 4_000, limit_bytes_s=300.0)
        sent_bytes, passed_s = sent_bytes + size_bytes, passed_s + 0.06 + pause_s
    assert sent_bytes / passed_s <= 300.0 * 1.05
