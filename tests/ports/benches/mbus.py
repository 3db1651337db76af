"""The bench of `mbus`: a simulated heat meter on a bus behind a TCP gateway."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from ports.bench import FAULTS

from heatpool_agent.ports import Roots
from heatpool_sim.devices.mbus_bus import MbusBus
from heatpool_sim.devices.mbus_meter import MbusMeter, MeterTalk
from heatpool_sim.devices.mbus_telegram import Request
from heatpool_sim.plant.meter import Meter, MeterState

METER = Meter(manufacturer="HPS", number=12345678, version=1)
STATE = MeterState(
    register_wh=98_765_432,
    register_l=561_081,
    heat_rate_w=80_000,
    volume_flow_m3_h=4.6,
    hot_c=45.12,
    cold_c=30.21,
)


class Plant:
    """A meter's plate, its figures, and what is wrong with it; all may be changed."""

    def __init__(self, meter: Meter = METER, state: MeterState = STATE) -> None:
        self.plate = meter
        self.state = state
        self.faults: frozenset[str] = frozenset()

    def meter(self) -> tuple[Meter, MeterState]:
        """The heat meter's plate and its registers."""
        return self.plate, self.state


class MbusBench:
    """One meter, and what can be done to it."""

    quantities = frozenset(
        {"energy_wh", "volume_m3", "delivered_heat_w", "volume_flow_m3_h", "hot_c", "cold_c"}
    )
    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.roots = Roots(state=folder)
        self.exchanges = 0
        self._plant: Any = Plant()
        self._meter = MbusMeter()
        self._is_garbled = False
        self._port = 0
        self._serving = AsyncExitStack()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block."""
        return {"kind": "mbus", "url": f"tcp://127.0.0.1:{self._port}", "address": 1}

    def reply(self, talk: MeterTalk, request: Request) -> bytes:
        """What the meter says, or something else in its place."""
        self.exchanges += 1
        return b"HTTP/1.1 400 Bad Request\r\n\r\n" if self._is_garbled else talk.reply(request)

    async def start(self) -> None:
        """The plug goes in, at the port of before."""
        bus = MbusBus([self._begin], port=self._port)
        self._port = (await self._serving.enter_async_context(bus.serve())).port

    async def pull(self) -> None:
        """Connections die and the port is closed."""
        await self._serving.aclose()

    async def slow(self) -> None:
        """The gateway listens, and the meter is silent."""
        self._plant.faults = frozenset({"meter_offline"})

    async def garble(self) -> None:
        """The port speaks another language."""
        self._is_garbled = True

    async def heal(self) -> None:
        """As at the start, at the same port."""
        self._plant.faults = frozenset()
        self._is_garbled = False
        await self._serving.aclose()
        await self.start()

    def _begin(self) -> "_Counted":
        self.exchanges += 1
        return _Counted(self, MeterTalk(self._meter, self._plant))


class _Counted:
    def __init__(self, bench: MbusBench, talk: MeterTalk) -> None:
        self._bench = bench
        self._talk = talk

    def reply(self, request: Request) -> bytes:
        return self._bench.reply(self._talk, request)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[MbusBench]:
    """A meter that answers while the context is open."""
    bench = MbusBench(folder)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.pull()
