"""Tells a unit behind Modbus TCP how much heat to bring into the network, or to release.

The whole setpoint block goes in one request and is read back. The device's own watchdog makes it
release by itself when this program, its host or the line between them is gone.
"""

import asyncio
import importlib.resources
import math
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from heatpool.errors import ActuatorError, ConfigError
from heatpool.process import settings
from heatpool.units import NS_PER_S
from heatpool_agent.actuators.dry_run import DryRunActuator
from heatpool_agent.config import ActuatorSettings, Positive
from heatpool_agent.core.device_map import DeviceMap, mistakes
from heatpool_agent.core.endpoint import TcpUrl, endpoint
from heatpool_agent.core.setpoint_words import block_span, setpoint_seen, setpoint_words
from heatpool_agent.ports import Actuator, Clock, Command, Roots

# The watchdog is fed when a third of it has passed: two feeds may fail before it runs out.
FEED_FRAC = 1 / 3


class Config(ActuatorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Endpoint, unit and map of one device; `timeout_s` keeps a release within 2 s."""

    url: TcpUrl
    map: str
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    timeout_s: Positive = 2.0
    watchdog_s: Annotated[int, msgspec.Meta(ge=3, le=900)] = 30


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Actuator]:
    """The actuator, not yet connected; one that is not armed only logs.

    Raises:
        ConfigError: on entering, if the map or the url cannot be used.
    """
    return _opened(config, clock)


@asynccontextmanager
async def _opened(config: Config, clock: Clock) -> AsyncIterator[Actuator]:
    device = await asyncio.to_thread(_read_map, config.map)
    armed = ModbusActuator(config, device, clock)
    try:
        yield armed if config.armed else DryRunActuator(config.id)
    finally:
        await armed.close()


def _read_map(name: str) -> DeviceMap:
    shelf = importlib.resources.files("heatpool_agent") / "sensors" / "maps"
    plain = shelf / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    with importlib.resources.as_file(plain) as path:
        device = settings.convert(settings.read_toml(path), DeviceMap, file=str(path))
        found = list(mistakes(device))
        if device.setpoint is None:
            found.append("setpoint: is missing; this map can be read but not obeyed")
        if found:
            raise ConfigError(found, file=str(path))
    return device


class ModbusActuator:
    """One unit; remembers what was confirmed last, so that it writes on change and to feed."""

    def __init__(self, config: Config, device: DeviceMap, clock: Clock) -> None:
        try:
            self._host, self._port = endpoint(config.url)
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        self._config = config
        self._device = device
        self._clock = clock
        self._client: AsyncModbusTcpClient | None = None
        self._limit: asyncio.Timeout | None = None
        self._lock = asyncio.Lock()
        self._confirmed: tuple[int, ...] | None = None
        self._written_boot_ns = 0
        self._where = f"{config.url} unit {config.unit_id}"

    async def apply(self, command: Command) -> float:
        """The heat rate, W, that the device confirms.

        Raises:
            ActuatorError: not confirmed; the caller releases.
        """
        if command.heat_rate_w is None:
            await self.release()
            return 0.0
        words = self._words(command.heat_rate_w)
        async with self._lock:
            if words != self._confirmed or self._is_hungry():
                await self._write(words)
        return setpoint_seen(self._device, words).heat_rate_w

    async def release(self) -> None:
        """Rejects all heat locally: local mode, setpoint 0, watchdog off.

        Raises:
            ActuatorError: not confirmed; the caller tries again and alarms.
        """
        words = setpoint_words(self._device, None, watchdog_s=0)
        async with self._lock:
            if words != self._confirmed:
                await self._write(words)

    async def close(self) -> None:
        """Frees the connection; what the device was told last stands until its watchdog ends."""
        self._hang_up()

    def _words(self, heat_rate_w: float) -> tuple[int, ...]:
        if not math.isfinite(heat_rate_w) or heat_rate_w < 0:
            raise ActuatorError(f"{self._where}: heat_rate_w {heat_rate_w} is no setpoint")
        try:
            return setpoint_words(self._device, heat_rate_w, watchdog_s=self._config.watchdog_s)
        except ValueError as error:
            raise ActuatorError(f"{self._where}: {error}") from error

    def _is_hungry(self) -> bool:
        age_s = (self._clock.boot_ns() - self._written_boot_ns) / NS_PER_S
        return age_s >= FEED_FRAC * self._config.watchdog_s

    async def _write(self, words: tuple[int, ...]) -> None:
        # Until the device confirms, nobody knows what it does; also when this is cancelled.
        self._confirmed = None
        begun_ns = self._clock.boot_ns()
        try:
            async with asyncio.timeout(self._config.timeout_s) as self._limit:
                await self._write_and_compare(words)
            self._confirmed, self._written_boot_ns = words, begun_ns
        except TimeoutError as error:
            is_up = self._client is not None and self._client.connected
            waited = f"in {self._config.timeout_s:g} s" if is_up else "before the line dropped"
            text = f"{self._where}: not confirmed {waited}; check the line"
            raise ActuatorError(text) from error
        except ModbusException as error:
            raise ActuatorError(f"{self._where}: {error}; check the line") from error
        finally:
            self._limit = None
            # A late answer must not confirm the next write.
            if self._confirmed is None:
                self._hang_up()

    async def _write_and_compare(self, words: tuple[int, ...]) -> None:
        client = await self._connected()
        start, count = block_span(self._device)
        unit_id = self._config.unit_id
        await self._answer(client.write_registers(start, list(words), device_id=unit_id))
        reply = await self._answer(
            client.read_holding_registers(start, count=count, device_id=unit_id)
        )
        if len(reply.registers) != count:
            raise ActuatorError(f"{self._where}: {len(reply.registers)} words read back of {count}")
        wanted, seen = (
            setpoint_seen(self._device, words),
            setpoint_seen(self._device, reply.registers),
        )
        # A device may show its watchdog running down, so only its being on is compared.
        is_watched = seen.watchdog_s > 0 or wanted.watchdog_s == 0
        is_same = (seen.heat_rate_w, seen.is_remote) == (wanted.heat_rate_w, wanted.is_remote)
        if not (is_same and is_watched):
            raise ActuatorError(
                f"{self._where}: wrote {list(words)}, read back {list(reply.registers)}; "
                "check who else writes to this device"
            )

    async def _answer(self, request: Awaitable[ModbusPDU]) -> ModbusPDU:
        reply = await request
        if reply.isError():
            text = f"{self._where}: refused with exception {reply.exception_code}; check the map"
            raise ActuatorError(text)
        return reply

    async def _connected(self) -> AsyncModbusTcpClient:
        if self._client is not None and self._client.connected:
            return self._client
        self._hang_up()
        # Limits and repetitions are ours: pymodbus would wait its own time and write late.
        self._client = AsyncModbusTcpClient(
            self._host,
            port=self._port,
            timeout=2 * self._config.timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_connect=self._heard_of_connection,
        )
        if not await self._client.connect():
            raise ActuatorError(
                f"{self._where}: cannot connect; check power, network and port {self._port}"
            )
        return self._client

    def _heard_of_connection(self, is_up: bool) -> None:  # noqa: FBT001 pymodbus calls it so
        """Ends the wait at once when the line drops: a release may go out anew within its 2 s."""
        if not is_up and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
