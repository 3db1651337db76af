"""Our wall clock against boot time: a step is seen at once, whatever waits to be applied."""

import logging
from dataclasses import dataclass

import pytest

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.core.own_clock import HEARD_NS
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.own_clock import ClockWatch

NS = 10**9
T0 = 1_790_000_100 * NS
SITES = [SiteId(f"site-{place}") for place in range(3)]
HALF_DAY_NS = 43_200 * NS


@dataclass(slots=True)
class HandClock:
    """Both clocks, each turned by hand."""

    wall_ns: int = T0
    since_boot_ns: int = 0

    def now_ns(self) -> int:
        return self.wall_ns

    def boot_ns(self) -> int:
        return self.since_boot_ns

    def passes(self, ns: int) -> None:
        self.wall_ns += ns
        self.since_boot_ns += ns


class Rig:
    """A watch, and frames as they are applied."""

    def __init__(self) -> None:
        self.state, self.clock, self.board = ShardState(), HandClock(), Board()
        self.watch = ClockWatch(self.state, self.clock, self.board)

    def hears(self, *, at_ns: int, offset_ns: int = 0, count: int = 3) -> None:
        for site_id in SITES[:count]:
            if offset_ns:
                self.state.own_clock.far(site_id, at_ns, offset_ns)
            else:
                self.state.own_clock.near(site_id, at_ns)


@pytest.mark.parametrize("step_ns", [HALF_DAY_NS, -HALF_DAY_NS])
def test_frames_from_before_a_step_say_nothing_of_the_clock_since(step_ns: int) -> None:
    rig = Rig()
    rig.hears(at_ns=T0)
    rig.clock.wall_ns += step_ns
    rig.hears(at_ns=T0 + NS)
    assert rig.watch.is_suspect()
    rig.hears(at_ns=T0 + 2 * NS)
    assert rig.watch.is_suspect()
    assert "was set" in rig.board.clock_suspect
    rig.hears(at_ns=rig.clock.wall_ns, offset_ns=step_ns)
    assert rig.watch.is_suspect()
    assert "most sites agree" in rig.board.clock_suspect


@pytest.mark.parametrize("step_ns", [HALF_DAY_NS, -HALF_DAY_NS])
@pytest.mark.parametrize("early_count", [1, 2, 3])
@pytest.mark.parametrize("is_looked_at", ["between", "not between"])
def test_not_before_most_are_heard_since_the_step_is_it_believed(
    step_ns: int, early_count: int, is_looked_at: str
) -> None:
    rig = Rig()
    rig.hears(at_ns=T0)
    rig.clock.wall_ns += step_ns
    assert rig.watch.is_suspect()
    rig.hears(at_ns=T0 + NS, count=early_count)  # was on its way when the clock leapt
    if is_looked_at == "between":
        assert rig.watch.is_suspect()
    for far_count in (1, 2, 3):
        rig.hears(at_ns=rig.clock.wall_ns, offset_ns=step_ns, count=far_count)
        assert rig.watch.is_suspect()
    assert "most sites agree" in rig.board.clock_suspect
    rig.clock.wall_ns -= step_ns
    rig.watch.look()
    rig.hears(at_ns=rig.clock.wall_ns)
    assert not rig.watch.is_suspect()


def test_a_clock_that_was_wrong_and_is_set_right_is_believed_by_most() -> None:
    rig = Rig()
    rig.hears(at_ns=T0)
    rig.clock.wall_ns += HALF_DAY_NS
    rig.watch.look()
    rig.hears(at_ns=rig.clock.wall_ns, offset_ns=HALF_DAY_NS)
    rig.clock.wall_ns -= HALF_DAY_NS
    rig.watch.look()
    rig.hears(at_ns=rig.clock.wall_ns, count=1)
    assert rig.watch.is_suspect()
    rig.hears(at_ns=rig.clock.wall_ns)
    assert not rig.watch.is_suspect()
    assert rig.board.clock_suspect == ""


@pytest.mark.parametrize("count", [0, 2])
def test_with_fewer_than_three_sites_a_step_is_trusted(count: int) -> None:
    rig = Rig()
    rig.hears(at_ns=T0, count=count)
    rig.clock.wall_ns += HALF_DAY_NS
    assert not rig.watch.is_suspect()
    assert rig.board.clock_suspect == ""


def test_sites_that_do_not_come_back_are_waited_for_an_hour() -> None:
    rig = Rig()
    rig.hears(at_ns=T0)
    rig.clock.wall_ns += HALF_DAY_NS
    assert rig.watch.is_suspect()
    rig.clock.passes(HEARD_NS)
    assert rig.watch.is_suspect()
    rig.clock.passes(NS)
    rig.watch.is_caught_up = False  # they may have come: their frames are not applied yet
    assert rig.watch.is_suspect()
    rig.watch.is_caught_up = True
    assert not rig.watch.is_suspect()


def test_time_that_passes_is_no_step(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.hears(at_ns=T0)
    rig.clock.passes(30 * 86_400 * NS)
    rig.clock.wall_ns += 599 * NS
    with caplog.at_level(logging.WARNING):
        assert not rig.watch.is_suspect()
    assert caplog.records == []


def test_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    for second in range(5):
        rig.hears(at_ns=T0 + second * NS, offset_ns=HALF_DAY_NS + second)
        rig.watch.look()
    assert [one.msg for one in caplog.records] == ["aggregator.clock_suspect"]
    assert "timedatectl" in rig.board.clock_suspect and "12.0 h ahead" in rig.board.clock_suspect
