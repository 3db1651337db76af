"""How often somebody may ask, and sessions of browsers: bounded, and over when their time is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.web import pace, sessions
from heatpool_aggregator.web.pace import KEYS_LIMIT, Pace, place_of
from heatpool_aggregator.web.sessions import LIFE_S, SESSIONS_LIMIT, Sessions

S_NS = 10**9


def test_a_burst_is_given_and_then_one_each_refill() -> None:
    held = Pace(burst_count=3, refill_s=10)
    assert [held.wait_s("a", 0) for _ in range(4)] == [0, 0, 0, 11]
    assert held.wait_s("b", 0) == 0
    assert held.wait_s("a", 9 * S_NS) > 0
    assert held.wait_s("a", 10 * S_NS) == 0
    assert held.wait_s("a", 10 * S_NS) > 0


@given(st.lists(st.integers(0, 5 * S_NS), max_size=60))
def test_nobody_gets_more_than_burst_and_refill_together(steps_ns: list[int]) -> None:
    held, at_ns, given_count = Pace(burst_count=5, refill_s=2), 0, 0
    for step_ns in steps_ns:
        at_ns += step_ns
        given_count += held.wait_s("a", at_ns) == 0
    assert given_count <= 5 + at_ns / (2 * S_NS)


def test_who_waits_as_told_is_given() -> None:
    held = Pace(burst_count=1, refill_s=7)
    held.wait_s("a", 0)
    wait_s = held.wait_s("a", 3 * S_NS)
    assert held.wait_s("a", (3 + wait_s) * S_NS) == 0


def test_a_crowd_of_addresses_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "KEYS_LIMIT", 10)
    held = Pace(burst_count=1, refill_s=1000)
    for number in range(50):
        held.wait_s(str(number), 0)
    assert len(held._buckets) == 10 < KEYS_LIMIT


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        (None, "unknown"),
        ("nonsense", "unknown"),
    ],
)
def test_a_whole_network_of_addresses_is_one_caller(address: str | None, place: str) -> None:
    assert place_of(address) == place


def test_a_session_lasts_a_shift_and_no_longer() -> None:
    held = Sessions()
    cookie = held.begin(b"token", 0)
    assert held.token_of(cookie, LIFE_S * S_NS - 1) == b"token"
    assert held.token_of(cookie + "x", 0) is None
    assert held.token_of(cookie, LIFE_S * S_NS) is None
    assert held.token_of(cookie, 0) is None  # over is over, whatever a clock does


def test_an_ended_session_is_over_and_cookies_differ() -> None:
    held = Sessions()
    one, other = held.begin(b"token", 0), held.begin(b"token", 0)
    assert one != other and len(one) >= 43
    held.end(one)
    assert held.token_of(one, 0) is None and held.token_of(other, 0) == b"token"


def test_sessions_without_end_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_LIMIT", 3)
    held = Sessions()
    cookies = [held.begin(b"token", 0) for _ in range(5)]
    assert [held.token_of(cookie, 0) is not None for cookie in cookies] == [False] * 2 + [True] * 3
    assert SESSIONS_LIMIT > 3
