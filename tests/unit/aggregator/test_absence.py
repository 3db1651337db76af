"""When a period may close after an absence of the aggregator: laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.period import Period
from heatpool.sample import MeterId, MeteringPointId, RegisterReason, RegisterRow
from heatpool_aggregator.core.absence import RETRY_NS, Due, due, newest_ns, wait_ns, was_in

S = 10**9
START = 1_790_000_100 * S
NS = st.integers(0, 10**15)
SPANS = st.integers(0, 10**13)


def period_at(start_ns: int, length_ns: int = 900 * S) -> Period:
    return Period(start_ns=start_ns, end_ns=start_ns + length_ns)


@given(away_ns=NS, grace_ns=SPANS, longest_ns=SPANS)
def test_the_wait_is_never_below_the_grace_nor_above_what_was_said(
    away_ns: int, grace_ns: int, longest_ns: int
) -> None:
    found_ns = wait_ns(away_ns, grace_ns=grace_ns, longest_ns=longest_ns)
    assert grace_ns <= found_ns <= max(grace_ns, longest_ns)


@pytest.mark.parametrize(
    ("away_s", "longest_s", "expected_s"),
    [
        (5, 3600, 120 + RETRY_NS // S),
        (1200, 3600, 1200),
        (21_600, 3600, 3600),
        (21_600, 0, 120),
        (-50, 3600, 120 + RETRY_NS // S),
    ],
)
def test_sites_have_as_long_as_we_were_away_within_bounds(
    away_s: int, longest_s: int, expected_s: int
) -> None:
    found_ns = wait_ns(away_s * S, grace_ns=120 * S, longest_ns=longest_s * S)
    assert found_ns == expected_s * S


@given(ends_after_ns=st.integers(-(10**14), 10**14), up_ns=NS, grace_ns=SPANS, more_ns=SPANS)
def test_no_period_closes_before_its_grace_from_its_end_or_from_the_start(
    ends_after_ns: int, up_ns: int, grace_ns: int, more_ns: int
) -> None:
    period, at_ns = period_at(START + ends_after_ns), START + up_ns
    found = due(period, at_ns=at_ns, up_ns=up_ns, grace_ns=grace_ns, wait_ns=grace_ns + more_ns)
    is_ours = period.start_ns < START
    if at_ns < period.end_ns + grace_ns or (is_ours and up_ns < grace_ns):
        assert found is Due.NOT_YET
    elif is_ours and up_ns < grace_ns + more_ns:
        assert found is Due.WHEN_ALL_CAME
    else:
        assert found is Due.NOW


@given(starts_after_ns=NS, up_ns=NS, grace_ns=SPANS, more_ns=SPANS)
def test_what_began_after_the_start_closes_as_if_we_had_never_been_away(
    starts_after_ns: int, up_ns: int, grace_ns: int, more_ns: int
) -> None:
    period, at_ns = period_at(START + starts_after_ns), START + up_ns
    found = due(period, at_ns=at_ns, up_ns=up_ns, grace_ns=grace_ns, wait_ns=grace_ns + more_ns)
    assert found is (Due.NOW if at_ns >= period.end_ns + grace_ns else Due.NOT_YET)


@given(began_before_ns=NS, grace_ns=SPANS, more_ns=SPANS, later_ns=NS)
def test_nobody_holds_a_period_for_ever(
    began_before_ns: int, grace_ns: int, more_ns: int, later_ns: int
) -> None:
    period, up_ns = period_at(START - began_before_ns), 900 * S + grace_ns + more_ns + later_ns
    found = due(
        period, at_ns=START + up_ns, up_ns=up_ns, grace_ns=grace_ns, wait_ns=grace_ns + more_ns
    )
    assert found is Due.NOW


@pytest.mark.parametrize("step_s", [-86_400, 86_400])
def test_a_step_of_the_wall_clock_neither_shortens_nor_prolongs_the_wait(step_s: int) -> None:
    stepped = period_at(START + step_s * S - 3600 * S)
    for up_s, expected in ((119, Due.NOT_YET), (3599, Due.WHEN_ALL_CAME), (3600, Due.NOW)):
        at_ns, up_ns = START + (step_s + up_s) * S, up_s * S
        found = due(stepped, at_ns=at_ns, up_ns=up_ns, grace_ns=120 * S, wait_ns=3600 * S)
        assert found is expected


def test_who_was_in_the_accounts_is_waited_for_and_nobody_else() -> None:
    told = [was_in(at_s, closed_ns=3600, period_ns=900) for at_s in (None, 2699, 2700, 3600, 9999)]
    assert told == [False, False, True, True, True]


def read(
    event_ns: int, reason: RegisterReason = RegisterReason.PERIODIC, meter: str = "m"
) -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId(meter),
        event_ns=event_ns,
        raw=1,
        exponent=0,
        modulus=10**8,
        reason=reason,
    )


def test_the_newest_register_is_no_future_one_nor_that_of_a_meter_that_left() -> None:
    row, ahead, left = read(100), read(500), read(200, RegisterReason.METER_CLOSING)
    assert newest_ns([row, ahead], 300) == 100
    assert newest_ns([row, left], 300) is None
    assert newest_ns([row, left, read(250)], 300) == 250
    assert newest_ns([ahead], 300) is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_meter_that_was_exchanged_has_not_left_though_both_were_read_at_once(order: int) -> None:
    both = [
        read(200, RegisterReason.METER_OPENING, "new"),
        read(200, RegisterReason.METER_CLOSING, "old"),
    ]
    assert newest_ns(both[::order], 300) == 200


def test_a_period_that_the_start_fell_into_waits_for_what_sites_kept_of_it() -> None:
    period = period_at(START - 300 * S)
    found = due(period, at_ns=START + 900 * S, up_ns=900 * S, grace_ns=120 * S, wait_ns=3600 * S)
    assert found is Due.WHEN_ALL_CAME
