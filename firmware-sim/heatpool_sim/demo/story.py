"""The demo's course: aggregator up, agents up, watch, agents down, figures, aggregator down."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from heatpool.process.journal import facts
from heatpool_sim.demo.summary import Findings, Page, Seen, unacked
from heatpool_sim.programs.child import Child
from heatpool_sim.programs.page import Pages

logger = logging.getLogger(__name__)

_AGGREGATOR_READY_S = 30.0  # seldom over three; a machine busy with tests may take longer
_STAGGER_S = 0.25  # thirteen interpreters that start at once would starve the page
_SEEN_S = 0.5
_SEEN_COUNT = 7200  # an hour of looks, about 5 MB
# Stopping takes ten seconds at most: these three, and the pages in between.
_ACKED_S = 1.5
_AGENT_STOP_S = 5.0
_AGGREGATOR_STOP_S = 2.0
_STATEMENTS_COUNT = 1000


@dataclass(slots=True, kw_only=True)
class Cast:
    """Who plays: one aggregator, the agents, the pages they serve and the plants behind."""

    aggregator: Child
    agents: Sequence[Child]
    pages: Pages
    page_address: str
    registers: Callable[[], Mapping[str, int]]
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=_SEEN_COUNT))


async def start(cast: Cast, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    """Tasks that end only when cancelled; the aggregator serves, the agents start one by one.

    Raises:
        HeatpoolError: the aggregator does not come up.
    """
    await cast.aggregator.start()
    await cast.aggregator.ready(within_s=_AGGREGATOR_READY_S)
    tasks.create_task(cast.aggregator.watch(), name="watch.aggregator")
    return [
        tasks.create_task(_start_agents(cast, tasks), name="agents"),
        tasks.create_task(_look(cast), name="plants.look"),
    ]


async def finish(cast: Cast) -> Findings:
    """Stops the agents so that nothing is lost, and reads what the aggregator made of it."""
    read = cast.pages.read
    sources, agents = await asyncio.gather(
        read(cast.page_address, "/v1/sources"), _acked_agents(cast)
    )
    for agent in cast.agents:
        agent.ask_to_stop()
    await asyncio.gather(*(agent.stop(within_s=_AGENT_STOP_S) for agent in cast.agents))
    logger.info("demo.agents_stopped", extra=facts(agents=len(cast.agents)))
    sites, statements, balance, status = await asyncio.gather(
        read(cast.page_address, "/v1/sites"),
        read(cast.page_address, f"/v1/statements?limit={_STATEMENTS_COUNT}"),
        read(cast.page_address, "/v1/balance"),
        read(cast.page_address, "/v1/status"),
    )
    await cast.aggregator.stop(within_s=_AGGREGATOR_STOP_S)
    return Findings(
        sites=sites,
        sources=sources,
        statements=statements,
        balance=balance,
        status=status,
        agents=agents,
        restarts_count=sum(child.restarts_count for child in (cast.aggregator, *cast.agents)),
        seen=tuple(cast.seen),
    )


async def abandon(cast: Cast) -> None:
    """Ends whatever still runs; for when the course was not played to its end."""
    children = (*cast.agents, cast.aggregator)
    for child in children:
        child.ask_to_stop()
    await asyncio.gather(*(child.stop(within_s=_AGGREGATOR_STOP_S) for child in children))


async def _start_agents(cast: Cast, tasks: asyncio.TaskGroup) -> None:
    for agent in cast.agents:
        if not agent.is_stopping:
            await agent.start()
            tasks.create_task(agent.watch(), name=f"watch.{agent.name}")
        await asyncio.sleep(_STAGGER_S)
    logger.info("demo.agents_started", extra=facts(agents=len(cast.agents)))


async def _look(cast: Cast) -> None:
    while True:
        cast.seen.append(Seen(at_ns=time.time_ns(), registers_wh=cast.registers()))
        await asyncio.sleep(_SEEN_S)


async def _acked_agents(cast: Cast) -> list[Page | None]:
    """Status of every agent, taken once all it sent is durable, or at the last after a while."""
    return list(await asyncio.gather(*(_acked_agent(cast, agent) for agent in cast.agents)))


async def _acked_agent(cast: Cast, agent: Child) -> Page | None:
    ready = await asyncio.to_thread(agent.said)
    if ready is None or not ready.get("http"):
        return None
    ends_s = time.monotonic() + _ACKED_S
    while True:
        page = await cast.pages.read(ready["http"], "/v1/status")
        if page is None or not unacked([page]) or time.monotonic() > ends_s:
            return page
        await asyncio.sleep(0.1)
