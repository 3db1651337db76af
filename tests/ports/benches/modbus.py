"""The bench of `modbus`: a simulated coolant unit on its own TCP port."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ports.bench import FAULTS

from heatpool_agent.ports import Roots
from heatpool_sim.devices.modbus_cdu import ModbusCdu


class Plant:
    """What a unit shows, standing still; figures and faults may be changed."""

    def __init__(self) -> None:
        self.faults: frozenset[str] = frozenset()
        self.shown: Any = SimpleNamespace(
            volume_flow_m3_h=5.123,
            hot_c=45.12,
            cold_c=30.21,
            pump_frac=0.655,
            valve_frac=1.0,
            reported_heat_w=87_654.0,
            rack_electric_w=91_000.0,
            has_leak=False,
            is_remote=True,
            is_expired=False,
        )

    def gauges(self) -> Any:
        """The display."""
        return self.shown

    def cells(self) -> tuple[int, int, int, int]:
        """Nobody commands this unit."""
        return 0, 0, 0, 0


class ModbusBench:
    """One unit behind a relay of ours, so that every byte can be counted, kept or spoilt."""

    quantities = frozenset(
        {
            "volume_flow_m3_h",
            "hot_c",
            "cold_c",
            "pump_frac",
            "valve_frac",
            "reported_heat_w",
            "power_w",
            "status",
            "leak",
            "pump_runs",
        }
    )
    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(state=folder)
        self.exchanges = 0
        self.plant: Any = Plant()
        self._is_garbled = False
        self._port = 0
        self._unit_port = 0
        self._serving = AsyncExitStack()
        self._talks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block."""
        return {"kind": "modbus", "url": f"tcp://127.0.0.1:{self._port}", "map": "generic-cdu"}

    async def start(self) -> None:
        """The plug goes in, at the port of before."""
        address = await self._serving.enter_async_context(ModbusCdu().serve(self.plant))
        self._unit_port = address.port
        relay = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = relay.sockets[0].getsockname()[1]
        self._serving.push_async_callback(self._end, relay)

    async def pull(self) -> None:
        """Connections die and the port is closed."""
        await self._serving.aclose()

    async def slow(self) -> None:
        """The unit listens and says nothing."""
        self.plant.faults = frozenset({"cdu_offline"})

    async def garble(self) -> None:
        """The port speaks another language."""
        self._is_garbled = True

    async def heal(self) -> None:
        """As at the start, at the same port."""
        self.plant.faults = frozenset()
        self._is_garbled = False
        await self._serving.aclose()
        await self.start()

    async def _end(self, relay: asyncio.Server) -> None:
        relay.close()
        talks = tuple(self._talks)
        for writer in self._talks.values():
            writer.close()
        if talks:
            await asyncio.wait(talks, timeout=30.0)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.exchanges += 1
        if (talk := asyncio.current_task()) is not None:
            self._talks[talk] = writer
            talk.add_done_callback(lambda done: self._talks.pop(done, None))
        there = await asyncio.open_connection("127.0.0.1", self._unit_port)
        try:
            async with asyncio.TaskGroup() as both:
                back = both.create_task(self._answers(there[0], writer), name="answers")
                await self._requests(reader, there[1])
                back.cancel()
        finally:
            for end in (writer, there[1]):
                end.close()

    async def _requests(self, reader: asyncio.StreamReader, unit: asyncio.StreamWriter) -> None:
        while request := await _some(reader):
            self.exchanges += 1
            unit.write(request)

    async def _answers(self, unit: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answer := await _some(unit):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" if self._is_garbled else answer)


async def _some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(300)
    except OSError:
        return b""


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[ModbusBench]:
    """A unit that answers while the context is open."""
    bench = ModbusBench(folder)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.pull()
