"""The load generator's arithmetic: ranges, stretches, lanes, what a number stands for."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import SpoolKind
from heatpool_sim.load import course
from heatpool_sim.load.course import NS, Course, Stretch
from heatpool_sim.load.queue import Lane, Queue
from heatpool_sim.load.ranges import Ranges
from heatpool_sim.load.tally import Times
from heatpool_sim.load.voice import Voice
from heatpool_sim.wire.down import Range

SEQS = st.integers(1, 60)
PAIRS = st.lists(st.tuples(SEQS, st.integers(0, 9)).map(lambda it: (it[0], sum(it))), max_size=12)


def numbers(pairs: list[Range]) -> set[int]:
    return {seq for first, last in pairs for seq in range(first, last + 1)}


@given(PAIRS, SEQS)
def test_ranges_are_the_set_of_their_numbers(pairs: list[Range], seq: int) -> None:
    ranges, whole = Ranges(pairs), numbers(pairs)
    assert numbers(ranges.pairs) == whole
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges.pairs))
    assert ranges.holds(seq) == (seq in whole)
    assert ranges.next_missing(seq) == next(n for n in range(seq, 200) if n not in whole)
    assert ranges.count(seq, seq + 20) == len(whole & set(range(seq, seq + 21)))


@given(PAIRS, PAIRS, SEQS)
def test_what_the_other_lacks_is_counted(ours: list[Range], other: list[Range], seq: int) -> None:
    due = {n for n in numbers(ours) - numbers(other) if n >= seq}
    assert Ranges(ours).lacking_in(Ranges(other), seq) == len(due)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)), max_size=6))
def test_a_change_of_cadence_leaves_no_row_out(changes: list[tuple[int, int, int]]) -> None:
    found = Course(Stretch(first_seq=1, start_ns=100, n_rows=3, step_ns=2))
    seq = 1
    for ahead, n_rows, step_ns in changes:
        seq += ahead
        found.go_on(seq, n_rows=n_rows, step_ns=step_ns)
    assert all(found.due_ns(n) == found.at(n + 1).start_of(n + 1) for n in range(1, seq + 5))
    assert found.rows(2, seq + 5) == sum(found.at(n).n_rows for n in range(2, seq + 6))


def test_history_ends_where_it_should() -> None:
    past = course.backlog(10**15, length_s=7_200.0, n_rows=60, step_s=10.0)
    assert past is not None
    assert (past.start_of(13), past.start_ns) == (10**15, 10**15 - 7_200 * NS)
    assert course.frames_in(past, 10**15) == 12
    assert course.backlog(10**15, length_s=599.0, n_rows=60, step_s=10.0) is None


def queue(next_seq: int, *, frames_most: int = 1_000, is_billing: bool = False) -> Queue:
    kind = SpoolKind.BILLING if is_billing else SpoolKind.TELEMETRY
    stretch = Stretch(first_seq=1, start_ns=0, n_rows=1, step_ns=NS)
    return Queue(kind, "boot", Course(stretch), next_seq=next_seq, frames_most=frames_most)


def taken(one: Queue, name: str) -> list[int]:
    lane = next(lane for lane in one.lanes if lane.name == name)
    found = []
    while (seq := one.take(lane)) is not None:
        found.append(seq)
        lane.in_flight[seq] = 0
    return found


def test_live_begins_at_the_newest_frame_and_backlog_ends_there() -> None:
    one = queue(6)
    assert one.opened().boundary_seq == 5
    assert (taken(one, "live"), taken(one, "backlog")) == ([5], [1, 2, 3, 4])


def test_an_ack_of_a_lane_moves_that_lane_alone() -> None:
    one = queue(6)
    one.opened()
    taken(one, "live")
    taken(one, "backlog")
    assert [name for name, _ in one.acked(5, is_backlog=False)] == ["live"]
    assert (one.durable.pairs, one.left_count) == ([(5, 5)], 4)
    assert len(one.acked(3, is_backlog=True)) == 3
    assert (one.durable.pairs, one.left_count) == ([(1, 3), (5, 5)], 1)


def test_what_was_acked_and_is_denied_is_counted_and_sent_again() -> None:
    one = queue(6, is_billing=True)
    one.opened()
    taken(one, "billing")
    one.acked(5, is_backlog=False)
    one.opened()
    one.answered([(1, 2)])
    assert (one.denied_count, taken(one, "billing")) == (3, [3, 4, 5])


def test_too_long_a_queue_drops_the_oldest_and_says_so() -> None:
    one = queue(1, frames_most=3)
    one.produce(8 * NS)
    assert (one.next_seq, one.first_seq, one.dropped.pairs) == (9, 6, [(1, 5)])
    assert list(one.untold) == [(1, 5)]


def test_a_hole_is_sent_again_or_told_as_a_gap() -> None:
    one = queue(1, frames_most=3)
    one.produce(8 * NS)
    one.untold.clear()
    one.asked_again(4, 7)
    assert [one.take_again(), one.take_again(), one.take_again()] == [6, 7, None]
    assert list(one.untold) == [(4, 5)]
    one.asked_again(2, 3)
    assert (one.take_again(), list(one.untold)) == (None, [(4, 5), (2, 3)])


def test_what_is_on_its_way_is_not_dropped() -> None:
    one = queue(5, frames_most=4)
    one.opened()
    assert taken(one, "backlog") == [1, 2, 3]
    one.produce(6 * NS)
    assert (one.next_seq, one.dropped.pairs, one.first_seq) == (7, [(4, 5)], 1)
    one.acked(3, is_backlog=True)
    one.answered([(1, 6)])
    assert one.arrived() == [(1, 3), (6, 6)]


def test_a_swap_sends_the_next_frame_first() -> None:
    lane, durable = Lane("live", 1), Ranges()
    assert lane.take(durable, 2, is_swapped=True) is None
    assert [lane.take(durable, 4, is_swapped=False) for _ in range(4)] == [2, 1, 3, None]


def test_nothing_stays_behind_when_nothing_follows() -> None:
    lane, durable = Lane("live", 1), Ranges()
    lane.take(durable, 2, is_swapped=True)
    lane.release()
    assert lane.take(durable, 2, is_swapped=False) == 1


@pytest.mark.parametrize("number", [0, 1, 299, 9_999])
def test_registers_only_rise(number: int) -> None:
    voice = Voice(number, live_from_seq=1, is_liar=False)
    shown = [voice.register_wh(row) for row in range(500)]
    assert all(after > before for before, after in pairwise(shown))


def test_a_number_means_the_same_bytes_whenever_it_is_sent() -> None:
    one, voice = queue(1), Voice(7, live_from_seq=1, is_liar=False)
    first, second = (voice.frame(one, 3, sent_ns=5, reads_zlib=True) for _ in range(2))
    assert first == second
    other = voice.frame(one, 4, sent_ns=5, reads_zlib=True)
    assert other != first


def test_quantiles_are_within_a_class() -> None:
    times = Times()
    for number in range(1, 1_001):
        times.add(number / 1_000)
    assert times.quantile_s(0.5) == pytest.approx(0.5, rel=0.03)
    assert times.quantile_s(0.99) == pytest.approx(0.99, rel=0.03)
    assert Times().quantile_s(0.5) is None
