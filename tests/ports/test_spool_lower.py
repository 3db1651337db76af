"""An aggregator that lost its disk: what it had goes a day after it is durable there again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ports.spool_rig import SECOND_NS, START_S, B, StillClock, T, register, row, spool_in

from heatpool_agent.core import ranges
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool

HOUR_NS = 3_600 * SECOND_NS
RANGES = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9))).map(
    lambda pairs: ranges.of_pairs((first, first + more) for first, more in pairs)
)


def held(spool: SqliteSpool) -> list[int]:
    return [frame.seq for frame in spool.read(T, Seq(0), 100)]


def test_rows_that_are_not_durable_any_more_wait_a_day_from_when_they_are_again(
    tmp_path: Path,
) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        for second in range(12):
            spool.append(row(START_S + second, heat=float(second)))
        spool.forget(T, Seq(10))
        spool.lower(T, [(1, 3), (6, 7)])
        assert spool.mark(T).durable_seq == 3
        clock.now_ns += 25 * HOUR_NS
        spool.forget(T, Seq(5), after=Seq(3))
        assert spool.mark(T).durable_seq == 7, "6 and 7 were known there all the time"
        assert held(spool) == list(range(4, 13))
        spool.forget(T, Seq(11), after=Seq(7))
        clock.now_ns += 23 * HOUR_NS
        spool.forget(T, Seq(12), after=Seq(11))
        assert held(spool) == list(range(4, 13))
        clock.now_ns += 2 * HOUR_NS
        spool.append(row(START_S + 20, heat=1.0))
        spool.forget(T, Seq(13), after=Seq(12))
        assert 4 not in held(spool)


def test_an_aggregator_on_a_new_disk_has_nothing(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        for second in range(5):
            spool.append(row(START_S + second, heat=1.0))
            spool.append_registers([register(START_S + second, second)])
        for kind in (T, B):
            spool.forget(kind, Seq(5))
            spool.lower(kind, [])
            assert spool.mark(kind).durable_seq == 0
    with spool_in(tmp_path, clock=clock) as spool:
        assert [spool.mark(kind).durable_seq for kind in (T, B)] == [0, 0]
        assert [one.backlog_frames_count for one in spool.stat()] == [5, 5]


@pytest.mark.parametrize("there", [[(1, 10)], [(1, 12)], [(1, 5), (6, 10)]])
def test_an_aggregator_that_has_it_all_takes_nothing_back(
    tmp_path: Path, there: list[tuple[int, int]]
) -> None:
    with spool_in(tmp_path) as spool:
        for second in range(12):
            spool.append(row(START_S + second, heat=1.0))
        spool.forget(T, Seq(10))
        spool.lower(T, there)
        assert spool.mark(T).durable_seq == 10


def test_what_went_long_ago_holds_nothing_up(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        for second in range(12):
            spool.append(row(START_S + second, heat=1.0))
        spool.forget(T, Seq(6))
        clock.now_ns += 25 * HOUR_NS
        spool.forget(T, Seq(10))
        assert held(spool)[0] == 7
        spool.lower(T, [(7, 9)])
        assert spool.mark(T).durable_seq == 9


@given(RANGES, RANGES)
def test_both_sets_are_what_each_holds(
    ones: tuple[ranges.Range, ...], others: tuple[ranges.Range, ...]
) -> None:
    found = ranges.both(ones, others)
    for number in range(75):
        is_in_both = ranges.holds(ones, number) and ranges.holds(others, number)
        assert ranges.holds(found, number) == is_in_both
