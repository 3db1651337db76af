"""A site whose one loop is fed by hand and saved on disk; as a program it runs until it is killed.

`python -m integration.estimator_site FOLDER` prints each second that it has behind it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from heatpool.sample import SiteId
from heatpool_agent.board import Board, LoopView
from heatpool_agent.config import Loop, loop_model, loop_priors
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.sense import LoopSettings, Sense
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate

S = 1_000_000_000
START_S = 1_000


@dataclass
class Clock:
    """A clock that the site moves."""

    second: int = START_S

    def event_ns(self) -> int:
        """Nanoseconds since 1970."""
        return (self.second + 1_750_000_000) * S

    def boot_ns(self) -> int:
        """Nanoseconds since boot."""
        return self.second * S


class Deaf:
    """A sensor that is never asked: its readings are handed over."""

    async def probe(self) -> list[str]:
        """Nothing to find."""
        return []

    async def read(self) -> list[Reading]:
        """Nothing to read."""
        return []

    async def close(self) -> None:
        """Nothing to free."""


def settings(**changes: object) -> LoopSettings:
    """A rack with direct liquid cooling, its flow sensor in the cold pipe."""
    loop = Loop(id="rack", sensor_side="cold", **changes)  # type: ignore[arg-type]
    priors, reported_u_frac = loop_priors(loop.cooling)
    return LoopSettings(
        loop_id=loop.id,
        fluid=loop.fluid,
        sensor_side=loop.sensor_side,
        priors=priors,
        reported_u_frac=reported_u_frac,
        rejection_capacity_w=None,
        model=loop_model(loop),
    )


class Site:
    """Sense over a spool on disk, stepped by hand."""

    def __init__(self, spooling: Spooling, board: Board, clock: Clock, loop: LoopSettings) -> None:
        self.board, self.clock = board, clock
        self.sense = Sense(
            [loop], board, clock, spooling=spooling, period_s=1.0, report_period_s=10.0
        )

    async def second(self) -> LoopView:
        """One second of a loop that takes 74 of 100 kW, with a wave of ten minutes on it."""
        self.clock.second += 1
        wave = 5.0 * (self.clock.second % 600 < 300)
        pdu = Driven(id="pdu", kind="x", sensor=Deaf(), period_s=1.0, timeout_s=1.0)
        cdu = Driven(id="cdu", kind="x", sensor=Deaf(), period_s=1.0, timeout_s=1.0)
        power = [self._reading("pdu", "power_w", Node.PDU, 1e3 * (97.5 + wave))]
        water = [
            self._reading("cdu", name, Node.CDU, value)
            for name, value in (
                ("volume_flow_m3_h", 8.0 + self.clock.second % 3 / 100),
                ("hot_c", 48.0 + 0.08 * wave),
                ("cold_c", 40.0 + self.clock.second % 2 / 100),
            )
        ]
        for driven, readings in ((pdu, power), (cdu, water)):
            self.board.latest[driven.id] = tuple(readings)
            await self.sense.take(driven, readings)
        await self.sense.step(self.clock.event_ns())
        return self.board.loops[0]

    def _reading(self, sensor: str, quantity: str, node: Node, value: float) -> Reading:
        return Reading(
            sensor=sensor,
            channel=quantity,
            quantity=quantity,
            kind=ReadingKind.GAUGE,
            value=value,
            event_ns=self.clock.event_ns(),
            boot_ns=self.clock.boot_ns(),
            node=node,
            loop="rack",
        )


@asynccontextmanager
async def site_in(
    folder: Path, clock: Clock, loop: LoopSettings | None = None
) -> AsyncIterator[Site]:
    """The site over the spool in a folder."""
    await asyncio.to_thread(migrate, folder)
    spool = await asyncio.to_thread(
        lambda: SqliteSpool(folder, clock=clock, rows_per_frame=6, max_bytes=10**9, keep_s=86_400)
    )
    board = Board(site_id=SiteId("s1"))
    spooling = Spooling(spool, board)
    try:
        yield Site(spooling, board, clock, loop or settings())
    finally:
        await spooling.close()


async def _run(folder: Path) -> None:
    async with site_in(folder, Clock()) as site:
        while True:
            await site.second()
            sys.stdout.write(f"{site.clock.second}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
