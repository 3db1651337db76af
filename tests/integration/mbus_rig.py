"""The M-Bus driver opened for a test, and buses of simulated meters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.sensors import mbus
from heatpool_sim.devices.mbus_bus import MbusBus
from heatpool_sim.devices.mbus_meter import MbusMeter, MeterTalk


class HandClock:
    """Time that stands until the test moves it."""

    def __init__(self) -> None:
        self.now_ns = 7

    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return self.now_ns


def open_(url: str, **more: Any) -> Any:
    """The driver of the meter at address 1, unless told otherwise."""
    roots, clock = more.pop("roots", Roots()), more.pop("clock", HandClock())
    tree = {"id": "meter", "kind": "mbus", "url": url} | more
    if "secondary" not in tree:
        tree.setdefault("address", 1)
    return mbus.open(msgspec.convert(tree, mbus.Config), roots, clock)


async def energy_wh(sensor: Sensor) -> float:
    """What the register shows."""
    return {reading.quantity: reading.value for reading in await sensor.read()}["energy_wh"]


@asynccontextmanager
async def two(
    first: Any, second: Any, *, addresses: tuple[int, int] = (1, 2)
) -> AsyncIterator[Any]:
    """Two meters on one bus: its TCP url."""
    meters = [MbusMeter(address=address) for address in addresses]
    pairs = zip(meters, (first, second), strict=True)
    bus = MbusBus([lambda m=m, p=p: MeterTalk(m, p) for m, p in pairs])  # type: ignore[misc]
    async with bus.serve() as where:
        yield where.url
