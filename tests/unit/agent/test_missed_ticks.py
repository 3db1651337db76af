"""What counts as a missed tick: time that passed, not a clock that was set."""

import asyncio

from turns import working

from heatpool.sample import SiteId
from heatpool_agent.board import Board
from heatpool_agent.loops.sense import Sense

PERIOD_S = 0.02
HOUR_NS = 3_600 * 10**9
HOUR_TICKS = 3_600 / PERIOD_S


class Clock:
    """The loop's own time, which a test may set forward or let stand behind."""

    def __init__(self) -> None:
        self.set_ns = 0
        self.slept_ns = 0

    def event_ns(self) -> int:
        return 1_750_000_000 * 10**9 + self.boot_ns() + self.set_ns

    def boot_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * 1e9) + self.slept_ns


async def missed(change: dict[str, int]) -> int:
    """Ticks counted as missed over a moment in which the clock changes so."""
    clock, board = Clock(), Board(site_id=SiteId("s"))
    sense = Sense([], board, clock, spooling=None, period_s=PERIOD_S, report_period_s=10.0)
    async with working(sense.run(), name="sense"), asyncio.timeout(60):
        while board.ticks < 2:  # noqa: ASYNC110  # ticks are counted, not announced
            await asyncio.sleep(PERIOD_S)
        for name, value in change.items():
            setattr(clock, name, value)
        seen = board.ticks
        while board.ticks < seen + 2:  # noqa: ASYNC110
            await asyncio.sleep(PERIOD_S)
    return board.missed_ticks


async def test_a_clock_that_is_set_forward_misses_nothing() -> None:
    assert await missed({"set_ns": HOUR_NS}) < HOUR_TICKS / 10


async def test_a_clock_that_is_set_back_misses_nothing() -> None:
    assert await missed({"set_ns": -HOUR_NS}) < HOUR_TICKS / 10


async def test_a_machine_that_slept_missed_its_ticks() -> None:
    assert await missed({"slept_ns": 10 * 10**9}) >= 400
