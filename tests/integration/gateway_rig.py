"""A gateway with a clock set by hand and streams to it, without sockets."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from integration import site_client as site

from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.core.quotas import Quota
from heatpool_aggregator.logs.memory import MemoryLog
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.loops.sessions import Session
from heatpool_aggregator.ports import Frame, Position
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes

NS = 10**9
NOW_NS = 1_700_000_000 * NS
TENANTS = {"site-a": "noisy", "site-b": "quiet", "site-c": "noisy"}


@dataclass(slots=True)
class HandClock:
    """A clock that stands until it is moved; what people set it to is `stepped_ns` off."""

    at_ns: int = NOW_NS
    stepped_ns: int = 0

    def now_ns(self) -> int:
        return self.at_ns + self.stepped_ns

    def boot_ns(self) -> int:
        return self.at_ns


async def owner_of(site_id: SiteId) -> str:
    return TENANTS.get(site_id, "")


class SlowLog(MemoryLog):
    """A log that others have their turn beside; how many frames each commit had."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []

    async def append(self, frames: Sequence[Frame]) -> Position:
        self.commits.append(len(frames))
        await asyncio.sleep(0)
        return await super().append(frames)


def made(
    quota: Quota | None = None, clock: HandClock | None = None, log: MemoryLog | None = None
) -> Gateway:
    return Gateway(
        log=log or MemoryLog(),
        clock=clock or HandClock(),
        board=Board(),
        refusals=deque(),
        quotas={"noisy": quota} if quota else None,
        owner_of=owner_of,
    )


async def hello(gateway: Gateway, site_id: str = "site-a", boundary_seq: int = 0) -> Session | None:
    session = gateway.open()
    message = site.hello(site_id)
    message.hello.sites[0].spools[0].boundary_seq = boundary_seq
    data = message.SerializeToString()
    return session if await session.hello(hello_from_bytes(data), data) else None


async def greeted(gateway: Gateway, site_id: str = "site-a", boundary_seq: int = 0) -> Session:
    session = await hello(gateway, site_id, boundary_seq)
    assert session is not None
    await site.outgoing(session)
    return session


async def send(session: Session, seq: int) -> bool:
    data = site.batch(seq, NOW_NS + seq).SerializeToString()
    return await session.put(peek(data), data)


async def heard(session: Session) -> list[Any]:
    async with asyncio.timeout(5):
        found = await site.outgoing(session)
    return [site.pb.TelemetryServiceStreamResponse.FromString(data) for data in found]


async def told(session: Session) -> list[float | None]:
    """Limits to its backlog that a stream hears of, B/s."""
    limits = [one.slow.limits for one in map(parsed, session.messages()) if one.HasField("slow")]
    return [one.backlog_bytes_s if one.HasField("backlog_bytes_s") else None for one in limits]


def parsed(data: bytes) -> Any:
    return site.pb.TelemetryServiceStreamResponse.FromString(data)


async def turns(gateway: Gateway, clock: HandClock, *, waits_s: float, rate: float) -> None:
    """A look at what came, as if live frames had waited so long."""
    await gateway.step()
    clock.at_ns += 5 * NS
    gateway.admitting.pressure.waited(waits_s)
    gateway.admitting.pressure.came(round(5 * rate))
    await gateway.step()
