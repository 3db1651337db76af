"""Which shift a run of rows has: what came before and after it, and how it was sent, decide."""

import pytest

from heatpool.sample import BootId
from heatpool_aggregator.core.admission import AGREE_NS, SiteClock
from heatpool_aggregator.core.course import (
    DELAY_NS,
    Course,
    End,
    Run,
    Sending,
    is_decided,
    runs,
    shift_of,
)

NS = 10**9
T0 = 1_700_000_000 * NS
HALF_DAY_NS = 43_200 * NS
BOOT = BootId("b")


def run_at(start_ns: int, length_s: int = 50) -> Run:
    return Run(0, 6, start_ns, start_ns + length_s * NS)


def later(run: Run, hours: int) -> Sending:
    """Sent out of a backlog, by a clock that is right then."""
    return Sending(run.end_ns + hours * 3_600 * NS, run.end_ns + hours * 3_600 * NS)


def test_rows_keep_their_distance_while_the_line_jitters() -> None:
    course = Course()
    clocks = [SiteClock((HALF_DAY_NS + ms * 10**6,) * 3) for ms in (0, 300, -400, 999, -1_001)]
    found = [course.settled_ns(clock) - HALF_DAY_NS for clock in clocks]
    assert found == [0, 0, 0, 0, -1_001 * 10**6]


@pytest.mark.parametrize(("seq", "is_next"), [(7, True), (8, False), (-1, True)])
def test_rows_run_on_from_the_frame_before_them_alone(seq: int, *, is_next: bool) -> None:
    course = Course()
    end = End(6 if seq != -1 else -1, T0, T0, T0)
    course.passed(BOOT, end)
    found = course.before(BOOT, seq if seq != -1 else 9)
    assert found is not None and (found.raw_ns == T0) == is_next
    assert found.true_ns == T0


def test_of_a_backlog_that_comes_last_the_shift_counts_that_leaves_the_smaller_gap() -> None:
    run = run_at(T0)
    after = End(9, T0 + 100 * NS + HALF_DAY_NS, T0 + 100 * NS, 0)
    sending = later(run, hours=20)
    known_ns = [-HALF_DAY_NS, 0]
    assert shift_of(run, sending, before=None, known_ns=known_ns, after=after) == 0


def test_no_row_of_a_backlog_lies_behind_what_was_taken_later() -> None:
    run = run_at(T0)
    # Shifted it would be nearer, but 50 s behind the row that followed it.
    after = End(9, T0 + 1_300 * NS, T0 + 1_300 * NS, 0)
    sending = later(run, hours=20)
    assert shift_of(run, sending, before=None, known_ns=[1_300 * NS, 0], after=after) == 0


def test_a_backlog_that_bears_the_time_of_its_sending_by_chance_is_none_of_now() -> None:
    """Taken half a day ago under a clock half a day ahead, after 200 s without a row."""
    run = run_at(T0 + HALF_DAY_NS)
    sending = Sending(run.end_ns + 30 * NS, run.end_ns + 30 * NS)
    before = End(3, run.start_ns - 200 * NS, T0 - 200 * NS, run.end_ns + 25 * NS)
    found = shift_of(run, sending, before=before, known_ns=[0, -HALF_DAY_NS])
    assert found == -HALF_DAY_NS
    # What came before it came before it was taken, so it is of now.
    before = before._replace(received_ns=T0)
    assert shift_of(run, sending, before=before, known_ns=[0, -HALF_DAY_NS]) == 0


def test_what_runs_on_cannot_lie_ahead_of_its_arrival() -> None:
    run = run_at(T0)
    before = End(3, T0 - 10 * NS, T0 - 10 * NS, T0 - 7_200 * NS)
    sending = Sending(run.end_ns, run.end_ns - 7_200 * NS)
    assert shift_of(run, sending, before=before, known_ns=[0]) is None
    assert shift_of(run, sending, before=before, known_ns=[-7_200 * NS, 0]) == -7_200 * NS


def test_a_message_earlier_than_the_clock_allows_is_not_decided_by_it() -> None:
    clock = SiteClock((HALF_DAY_NS,) * 3)
    asked = (-AGREE_NS - 1, -AGREE_NS, DELAY_NS, DELAY_NS + 1)
    told = [is_decided(clock, HALF_DAY_NS + ns) for ns in asked]
    assert told == [False, True, True, False]


@pytest.mark.parametrize("step_s", [-3_600, -60, 0, 121])
def test_a_frame_is_cut_where_time_goes_back_stands_or_leaps(step_s: int) -> None:
    times_ns = [T0, T0 + 10 * NS, T0 + (10 + step_s) * NS, T0 + (20 + step_s) * NS]
    found = runs(times_ns)
    assert [(run.first, run.last) for run in found] == [(0, 2), (2, 4)]
    assert [(run.start_ns, run.end_ns) for run in found] == [
        tuple(times_ns[:2]),
        tuple(times_ns[2:]),
    ]
