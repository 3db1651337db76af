"""Coolant units and meters behind Modbus TCP, each told by a map in `sensors/maps` or a path.

The only file that imports pymodbus to read. What the words mean is `core.decode`.
"""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool.process import settings
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.decode import Stamp, map_readings
from heatpool_agent.core.device_map import Block, DeviceMap, mistakes, requests
from heatpool_agent.core.endpoint import TcpUrl, endpoint
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Roots, Sensor

# Answers that mean "ask again": the device is at work, or its gateway heard nothing this time.
PATIENCE = (ExcCodes.ACKNOWLEDGE, ExcCodes.DEVICE_BUSY, ExcCodes.GATEWAY_NO_RESPONSE)


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Endpoint, unit and map of one device."""

    url: TcpUrl
    map: str
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, if the map or the url cannot be used.
    """
    return _opened(config, clock)


@asynccontextmanager
async def _opened(config: Config, clock: Clock) -> AsyncIterator[Sensor]:
    device = await asyncio.to_thread(read_map, config.map)
    sensor = ModbusSensor(config, device, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


def read_map(name: str) -> DeviceMap:
    """The map of that name, or in that file.

    Raises:
        ConfigError: with every mistake in it.
    """
    shelf = importlib.resources.files("heatpool_agent") / "sensors" / "maps"
    plain = shelf / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    with importlib.resources.as_file(plain) as path:
        device = settings.convert(settings.read_toml(path), DeviceMap, file=str(path))
        if found := mistakes(device):
            raise ConfigError(found, file=str(path))
    return device


class ModbusSensor:
    """One device over one connection, opened when first read and again after each failure."""

    def __init__(self, config: Config, device: DeviceMap, clock: Clock) -> None:
        try:
            self._host, self._port = endpoint(config.url)
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        self._config = config
        self._device = device
        self._clock = clock
        self._plan = requests(device)
        self._lock = asyncio.Lock()
        self._client: AsyncModbusTcpClient | None = None
        self._limit: asyncio.Timeout | None = None
        self._where = f"{config.url} unit {config.unit_id}"

    async def probe(self) -> Sequence[str]:
        """Channels that answer now."""
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """All points of the map once.

        Raises:
            SensorBusy: the device or its gateway asks for patience.
            SensorGone: no connection, no answer in time, or an answer that is none.
        """
        async with self._lock:
            answers = await self._exchange()
        stamp = Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )
        return map_readings(self._device, answers, stamp)

    async def close(self) -> None:
        """Frees the connection."""
        self._hang_up()

    async def _exchange(self) -> dict[Block, Sequence[int]]:
        # After any failure the connection goes: a late answer must not meet the next request.
        is_clean = False
        try:
            async with asyncio.timeout(self._config.timeout_s) as self._limit:
                answers = await self._answers()
            is_clean = True
        except SensorBusy:
            is_clean = True
            raise
        except TimeoutError as error:
            raise self._silence() from error
        except ModbusException as error:
            raise SensorGone(f"{self._where}: {error}", fix="check the device") from error
        finally:
            self._limit = None
            if not is_clean:
                self._hang_up()
        return answers

    async def _answers(self) -> dict[Block, Sequence[int]]:
        client = await self._connected()
        answers: dict[Block, Sequence[int]] = {}
        for block in self._plan:
            reply = await self._ask(client, block)
            if reply.exception_code == ExcCodes.ILLEGAL_ADDRESS and self._can_avoid_holes():
                return await self._answers()
            answers[block] = self._words(reply, block)
            await asyncio.sleep(self._device.pause_ms / 1000)
        return answers

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is not None and self._client.connected:
            return self._client
        self._hang_up()
        # Retries and limits are ours: pymodbus would wait its own time and answer late.
        self._client = AsyncModbusTcpClient(
            self._host,
            port=self._port,
            timeout=2 * self._config.timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_connect=self._heard_of_connection,
        )
        if not await self._client.connect():
            raise SensorGone(
                f"{self._where}: cannot connect",
                fix=f"check power, network and that {self._host} listens on port {self._port}",
            )
        return self._client

    def _heard_of_connection(self, is_up: bool) -> None:  # noqa: FBT001 pymodbus calls it so
        """Ends the wait at once when the line drops; pymodbus would wait out its whole time."""
        if not is_up and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    async def _ask(self, client: AsyncModbusTcpClient, block: Block) -> ModbusPDU:
        read = client.read_input_registers if block.function == 4 else client.read_holding_registers
        unit_id = self._config.unit_id
        return await read(block.address, count=block.count, device_id=unit_id)

    def _can_avoid_holes(self) -> bool:
        """Plans without bridged holes from now on; False if there were none to avoid."""
        previous, self._plan = self._plan, requests(self._device, max_hole=0)
        return self._plan != previous

    def _words(self, reply: ModbusPDU, block: Block) -> Sequence[int]:
        words = f"words {block.address}..{block.address + block.count - 1}"
        where = f"{self._where}: {words} of function {block.function}"
        if reply.exception_code in PATIENCE:
            raise SensorBusy(f"{where}: exception {reply.exception_code}")
        if reply.isError():
            raise SensorGone(
                f"{where}: refused with exception {reply.exception_code}",
                fix=f"check that map {self._device.name} and unit_id fit the device",
            )
        if reply.function_code != block.function or len(reply.registers) != block.count:
            raise SensorGone(
                f"{where}: {len(reply.registers)} words of function {reply.function_code} came",
                fix="check the gateway; the connection was opened anew",
            )
        return reply.registers

    def _silence(self) -> SensorGone:
        if self._client is None or not self._client.connected:
            return SensorGone(
                f"{self._where}: connection lost, or no readable answer on it",
                fix="check that the port speaks Modbus TCP and that no other master holds it",
            )
        return SensorGone(
            f"{self._where}: no answer in {self._config.timeout_s:g} s",
            fix="check unit_id and wiring, or raise timeout_s",
        )

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
