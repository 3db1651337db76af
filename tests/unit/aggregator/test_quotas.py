"""Quotas are times: who takes too much is in debt for as long as the rate needs to pay it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_aggregator.core import quotas
from heatpool_aggregator.core.quotas import (
    BURST_S,
    NO_QUOTA,
    STEADY,
    Account,
    Bucket,
    Buckets,
    Limits,
    Quota,
)

NS = 10**9


@given(
    rate=st.floats(0.1, 1e6),
    takes=st.lists(st.tuples(st.floats(0, 100), st.integers(0, 10**6)), min_size=1),
)
def test_nobody_takes_more_than_the_burst_and_the_rate(
    rate: float, takes: list[tuple[float, int]]
) -> None:
    bucket, taken, now_s = Bucket(rate), 0, 0.0
    for wait_s, count in takes:
        now_s += wait_s
        if bucket.debt_s(int(now_s * NS)):
            continue
        assert taken <= rate * (BURST_S + now_s) * (1 + 1e-6) + 1e-6
        bucket.take(count)
        taken += count


def test_a_debt_is_paid_by_waiting_as_long_as_it_says() -> None:
    bucket = Bucket(10.0, burst=5.0)
    bucket.debt_s(0)
    bucket.take(25)
    debt_s = bucket.debt_s(0)
    assert debt_s == 2.0
    assert bucket.debt_s(int(1.9 * NS)) > 0
    assert bucket.debt_s(2 * NS) == pytest.approx(0.0, abs=1e-9)


def test_what_nobody_took_is_saved_up_to_the_burst_alone() -> None:
    bucket = Bucket(10.0, burst=5.0)
    bucket.debt_s(0)
    assert bucket.debt_s(3_600 * NS) == 0.0
    bucket.take(25)
    assert bucket.debt_s(3_600 * NS) == 2.0


def test_no_quota_is_no_limit() -> None:
    account = Account(NO_QUOTA)
    for _ in range(1_000):
        account.take(1 << 20)
    assert (account.debt_s(0), account.is_limited, account.has_stream_left) == (0.0, False, True)


def test_bytes_and_batches_count_each() -> None:
    by_bytes = Account(Quota(bytes_s=100.0))
    by_bytes.take(1_500)
    by_batches = Account(Quota(batches_s=1.0))
    for _ in range(15):
        by_batches.take(1)
    assert (by_bytes.debt_s(0), by_batches.debt_s(0)) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("debt_s", "limits"),
    [
        (0.0, STEADY),
        (1.0, Limits(backlog_bytes_s=500.0)),
        (5.0, Limits(backlog_bytes_s=500.0, message_period_s=120.0)),
    ],
)
def test_the_backlog_is_slowed_before_live_messages(debt_s: float, limits: Limits) -> None:
    account = Account(Quota(bytes_s=10_000.0))
    account.streams = 10
    assert account.limits(debt_s) == limits


def test_each_name_draws_from_its_own_and_finds_it_again() -> None:
    buckets = Buckets(lambda: Bucket(2.0, burst=2.0))
    assert [buckets.draw("a", 0) for _ in range(3)] == [0.0, 0.0, 0.5]
    assert buckets.draw("b", 0) == 0.0
    assert [buckets.draw("a", at_ns) for at_ns in (0, NS // 2, NS // 2)] == [0.5, 0.0, 0.5]


def test_a_refused_draw_costs_nothing() -> None:
    bucket = Bucket(1.0, burst=1.0)
    assert [bucket.draw(0) for _ in range(9)] == [0.0] + [1.0] * 8


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "NAMES_LIMIT", 3)
    buckets = Buckets(lambda: Bucket(0.001, burst=1.0))
    for name in "abcd":
        assert buckets.draw(name, 0) == 0.0
    assert len(buckets._by_name) == 3
    assert buckets.draw("d", 0) > 0, "the one that was used last is kept"


def test_a_name_in_use_keeps_its_debt_however_many_others_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quotas, "NAMES_LIMIT", 3)
    buckets = Buckets(lambda: Bucket(0.001, burst=1.0))
    waits_s = [buckets.draw(name, 0) for name in ("a", "b", "c", "a", "d", "a")]
    assert [wait_s > 0 for wait_s in waits_s] == [False, False, False, True, False, True]


def test_what_has_grown_already_is_not_waited_for_again() -> None:
    bucket = Bucket(2.0, burst=1.0)
    assert [bucket.draw(at_ns) for at_ns in (0, NS // 4)] == [0.0, 0.25]
