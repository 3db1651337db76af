"""Time as an event loop had it: what stops or starves the machine meanwhile counts as one turn.

A bound on it tells a thing that ends by itself from one that waits for somebody's patience, on a
machine of any speed. How fast a thing is, is measured in `bench/`, never here.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

TURN_S = 0.01
# For what ends at once: half of the least patience that drivers have unless told otherwise.
SOON_S = 2.5


@dataclass(slots=True)
class Turns:
    """How many turns there were since the beginning."""

    count: int = 0

    @property
    def passed_s(self) -> float:
        """Never more than passed on a clock, s."""
        return self.count * TURN_S


@asynccontextmanager
async def turning() -> AsyncIterator[Turns]:
    """Counts the turns of this loop; reads the same after the block as at its end."""
    turns = Turns()

    async def turn() -> None:
        while True:
            await asyncio.sleep(TURN_S)
            turns.count += 1

    async with working(turn(), name="turns"):
        yield turns


@asynccontextmanager
async def working(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator[None]:
    """Lets a loop work beside the block and ends it; what it failed by before is raised."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def turned(passed_s: float) -> None:
    """Returns after so many turns, s: what was under way in this process has arrived."""
    for _ in range(round(passed_s / TURN_S)):
        await asyncio.sleep(TURN_S)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancels a task, which must end by that and not by its own patience."""
    async with turning() as turns:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert turns.passed_s < SOON_S
