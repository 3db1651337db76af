"""What tests of the MQTT driver share: brokers, peers that are none, and a clock moved by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from turns import cancelled, turned

from heatpool_agent.ports import Roots
from heatpool_agent.sensors import mqtt

S = 1_000_000_000
NOW_NS = 1_750_000_000 * S
CONNACK, SUBACK = b"\x20\x02\x00\x00", b"\x90\x03\x00\x01\x01"


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def event_ns(self) -> int:
        return NOW_NS + self.ns

    def boot_ns(self) -> int:
        return 1000 * S + self.ns


def sensor(port: int, clock: Clock, **more: Any) -> Any:
    point = {"topic": "t", "quantity": "power", "unit": "W"}
    block = {"id": "cdu", "kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "point": [point]}
    return mqtt.open(msgspec.convert(block | more, mqtt.Config), Roots(), clock)


def values(readings: Any) -> dict[str, float]:
    return {reading.quantity: reading.value for reading in readings}


async def subscribed(bound: Any) -> asyncio.Task[Any]:
    """A probe that has reached the broker and waits for messages."""
    probe = asyncio.create_task(bound.probe())
    async with asyncio.timeout(60):
        while not bound._link.is_up:  # noqa: ASYNC110  # the port tells no event
            await asyncio.sleep(0.005)
    await turned(0.1)
    return probe


@asynccontextmanager
async def peer(*answers: bytes, more: asyncio.Event | None = None) -> AsyncIterator[int]:
    """A TCP peer that answers with these bytes in turn; the last comes once `more` is set."""
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for index, answer in enumerate(answers, start=1):
            if more is not None and index == len(answers):
                await more.wait()
            else:
                await reader.read(300)
            writer.write(answer)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()


async def cancelled_while_connecting(bound: Any) -> None:
    """A read that is cancelled before it has a connection, and ends by that."""
    read = asyncio.create_task(bound.read())
    await asyncio.sleep(0.2)
    await cancelled(read)
