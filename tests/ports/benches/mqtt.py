"""The bench of `mqtt`: mosquitto, and a simulated coolant unit that publishes to it."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ports.bench import FAULTS
from ports.machine_bench import Counter
from turns import turned

from heatpool_agent.ports import Roots
from heatpool_sim.devices.mqtt_cdu import BASE, MqttCdu
from heatpool_sim.ports import Address

PACE_S = 0.02
# Long against the pace on a machine that does other work too.
MAX_AGE_S = 0.5
DOCUMENT, COUNT, STATE = f"{BASE}/telemetry", f"{BASE}/heat_kwh", f"{BASE}/state"
_FIGURE: Mapping[str, Any] = {"topic": DOCUMENT}
_PIPE: Mapping[str, Any] = {**_FIGURE, "quantity": "temperature", "unit": "degC"}
_STREAM: Mapping[str, Any] = {"quantity": "volume_flow", "unit": "L/min", "sensor_side": "cold"}
_HEAT: Mapping[str, Any] = {"quantity": "reported_heat", "unit": "kW", "text": True}
POINTS: tuple[Mapping[str, Any], ...] = (
    {**_PIPE, "path": "loops[0].return_c", "pipe": "hot"},
    {**_PIPE, "path": "loops[0].supply_c", "pipe": "cold"},
    {**_FIGURE, "path": "loops[0].flow_l_min", **_STREAM},
    {**_FIGURE, "path": "unit.pump_percent", "quantity": "pump", "unit": "%"},
    {**_FIGURE, "path": "unit.heat_kw", **_HEAT},
    {**_FIGURE, "path": "unit.leak", "quantity": "leak", "kind": "state"},
    {
        "topic": COUNT,
        "quantity": "heat_removed",
        "unit": "kWh",
        "kind": "counter",
        "text": True,
        "decimal": ",",
        "decimals": 2,
    },
)


def mosquitto() -> str:
    """The broker's program, or a skip that says where it was sought."""
    found = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip("no mosquitto on this machine: apt install mosquitto")
    return found


def free_port() -> int:
    """A port that was free a moment ago: mosquitto cannot choose one by itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """The broker as a process of its own; `lines` are more of its configuration."""

    def __init__(self, folder: Path, lines: tuple[str, ...] = ("allow_anonymous true",)) -> None:
        self.port = free_port()
        self._file = folder / f"mosquitto-{self.port}.conf"
        text = "\n".join(
            (f"listener {self.port} 127.0.0.1", "persistence false", "user root", *lines)
        )
        self._file.write_text(f"{text}\n")
        self._program = mosquitto()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(host="127.0.0.1", port=self.port)

    async def start(self) -> None:
        """Listening when this returns."""
        self._process = await asyncio.create_subprocess_exec(
            self._program, "-c", str(self._file),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(60.0):
            while not await _is_open(self.port):
                assert self._process.returncode is None, f"mosquitto refused {self._file}"
                await asyncio.sleep(0.01)

    def freeze(self) -> None:
        """The system still takes connections for it, and nothing is answered."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """Gone in this moment; frozen or not."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
        if process is not None:
            await process.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Mosquitto"]:
        """Started, and killed at the end."""
        await self.start()
        try:
            yield self
        finally:
            await self.kill()


async def _is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Plant:
    """What the unit shows, standing still; figures and faults may be changed."""

    def __init__(self) -> None:
        self.faults: frozenset[str] = frozenset()
        self.shown: Any = SimpleNamespace(
            volume_flow_m3_h=5.123,
            hot_c=45.12,
            cold_c=30.21,
            pump_frac=0.655,
            reported_heat_w=87_654.0,
            rack_electric_w=91_000.0,
            has_leak=False,
            at_ns=1_750_000_000_000_000_000,
        )

    def gauges(self) -> Any:
        """The display."""
        return self.shown


class MqttBench:
    """One unit behind a broker."""

    quantities = frozenset(
        {
            "hot_c",
            "cold_c",
            "volume_flow_m3_h",
            "pump_frac",
            "reported_heat_w",
            "leak",
            "heat_removed_wh",
        }
    )
    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.tape = Counter()
        self.roots = Roots(state=folder, tape=self.tape)
        self.plant: Any = Plant()
        self._broker = Mosquitto(folder)
        self._unit = MqttCdu(broker=self._broker.address, period_s=PACE_S)
        self._serving = AsyncExitStack()

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block."""
        return {
            "kind": "mqtt",
            "url": f"mqtt://127.0.0.1:{self._broker.port}",
            "availability_topic": STATE,
            "point": [{**point, "max_age_s": MAX_AGE_S} for point in POINTS],
        }

    @property
    def exchanges(self) -> int:
        """Looks at what came; each connects first if need be."""
        return self.tape.count

    async def start(self) -> None:
        """The broker listens and the unit publishes."""
        await self._broker.start()
        await self._serving.enter_async_context(self._unit.serve(self.plant))
        await self._published(1)

    async def pull(self) -> None:
        """The broker dies."""
        await self._serving.aclose()
        await self._broker.kill()

    async def slow(self) -> None:
        """The broker stands still until all that it said is old."""
        self._broker.freeze()
        await asyncio.sleep(1.5 * MAX_AGE_S)

    async def garble(self) -> None:
        """The unit says words where its figures were."""
        self.plant.faults = frozenset({"mqtt_text"})
        await self._published(4)
        await turned(10 * PACE_S)

    async def heal(self) -> None:
        """As at the start, at the same port."""
        self.plant.faults = frozenset()
        await self.pull()
        await self.start()

    async def _published(self, count: int) -> None:
        until = self._unit.published_count + count
        async with asyncio.timeout(60.0):
            while self._unit.published_count < until:  # noqa: ASYNC110  # a device has no event
                await asyncio.sleep(PACE_S / 4)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[MqttBench]:
    """A unit that publishes while the context is open."""
    bench = MqttBench(folder)
    await bench.start()
    try:
        yield bench
    finally:
        await bench.pull()
