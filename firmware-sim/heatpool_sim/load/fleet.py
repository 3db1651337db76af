"""All agents of a run: when they start, what befalls them, how the run ends."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from heatpool.process.journal import facts
from heatpool_sim.load import report, witness
from heatpool_sim.load.agent import ACCEPT_S, Agent
from heatpool_sim.load.asked import Asked, Burst, Storm
from heatpool_sim.load.lines import Lines
from heatpool_sim.load.tally import Tally, Times

logger = logging.getLogger(__name__)

LOOK_S = 0.2
CHECK_S = 30.0
LAG_S = 0.05
WATCHES = 2  # of the script, that go on to the end


class Fleet:
    """The agents and what is counted of them."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self.tally = asked, Tally()
        self.lines = Lines(asked)
        self.began_s = time.monotonic()
        start_ns = time.time_ns()
        self.agents = [
            Agent(number, asked, self.tally, self.lines, start_ns=start_ns)
            for number in range(asked.agents)
        ]
        self.storms: list[tuple[Storm, int, Times]] = []

    @property
    def running_s(self) -> float:
        """Time since the start, s."""
        return time.monotonic() - self.began_s

    async def run(self, stop: asyncio.Event) -> Mapping[str, Any]:
        """The report of a run that lasts as long as was asked, or until it is told to stop."""
        before = await witness.before(self.asked)
        async with asyncio.TaskGroup() as tasks:
            lives = [
                tasks.create_task(agent.live(after_s=after_s), name=f"agent-{agent.number}")
                for agent, after_s in zip(self.agents, self._starts(), strict=True)
            ]
            script = [tasks.create_task(work, name=name) for name, work in self._script()]
            await _told(stop, self.asked.seconds)
            for task in script[WATCHES:]:
                task.cancel()
            await self._drain(stop)
            await self._check()
            for task in script[:WATCHES]:
                task.cancel()
            lasted_s = self.running_s
            for agent in self.agents:
                agent.finish()
            _, late = await asyncio.wait(lives, timeout=CHECK_S)
            for task in late:
                task.cancel()
        await self.lines.close()
        found = None if before is None else await witness.after(self, before)
        return report.tree(self, lasted_s=lasted_s, found=found)

    def _starts(self) -> list[float]:
        ramp_s = self.asked.ramp_s
        if ramp_s is None:
            ramp_s = self.asked.agents * ACCEPT_S
        random_ = random.Random(self.asked.seed)
        return [random_.uniform(0.0, ramp_s) for _ in self.agents]

    def _script(self) -> list[tuple[str, Any]]:
        faults = self.asked.faults
        return [
            ("progress", self._progress()),
            ("lag", self._lag()),
            *((f"storm-{one.at_s:g}", self._storm(one)) for one in faults.storms),
            *((f"burst-{one.at_s:g}", self._burst(one)) for one in faults.bursts),
        ]

    async def _storm(self, storm: Storm) -> None:
        await asyncio.sleep(storm.at_s)
        honest = [agent for agent in self.agents if not agent.site.is_liar]
        hit = random.Random(self.asked.seed).sample(honest, k=min(storm.agents, len(honest)))
        times = Times()
        self.storms.append((storm, len(hit), times))
        logger.info("load.storm", extra=facts(agents=len(hit)))
        for agent in hit:
            agent.storm(times)

    async def _burst(self, burst: Burst) -> None:
        await asyncio.sleep(burst.at_s)
        logger.info("load.burst", extra=facts(factor=burst.factor, length_s=burst.length_s))
        self._each(lambda agent: agent.site.burst(burst.factor))
        try:
            await asyncio.sleep(burst.length_s)
        finally:
            self._each(lambda agent: agent.site.burst(1.0))

    def _each(self, act: Callable[[Agent], None]) -> None:
        for agent in self.agents:
            act(agent)
            agent.wake()

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(self.asked.progress_s)
            logger.info("load.progress", extra=facts(**report.progress(self)))

    async def _lag(self) -> None:
        """How late this process is itself: what it times cannot be known better than that."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(LAG_S)
            self.tally.lags.add(time.monotonic() - began_s - LAG_S)

    async def _drain(self, stop: asyncio.Event) -> None:
        """Nothing new is made; what is left goes out, if it does within the time for it."""
        self._each(lambda agent: agent.site.finish())
        await self._until(lambda: not self.left_count, self.asked.drain_s)

    async def _check(self) -> None:
        """Hears once more of each open stream what is durable."""
        if not any(agent.is_in for agent in self.agents):
            return
        self._each(lambda agent: agent.site.check() if agent.is_in else None)
        await self._until(
            lambda: all(agent.site.is_checked for agent in self.agents if agent.is_in), CHECK_S
        )

    async def _until(self, is_so: Callable[[], bool], within_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while True:
                    if is_so():
                        return
                    await asyncio.sleep(LOOK_S)

    @property
    def left_count(self) -> int:
        """Frames of agents that may come in, complete and not known to be durable."""
        return sum(agent.site.left_count for agent in self.agents if agent.code is None)


async def _told(stop: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
