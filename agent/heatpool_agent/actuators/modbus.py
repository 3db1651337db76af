"""Tells a unit on Modbus how much heat to bring into the network, or to release.

The whole setpoint block goes in one request and is read back. The device's own watchdog makes it
release by itself when this program, its host or the line between them is gone.
"""

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

import msgspec

from heatpool.errors import ActuatorError, ConfigError, SensorError
from heatpool.units import NS_PER_S
from heatpool_agent.actuators.dry_run import DryRunActuator
from heatpool_agent.config import ActuatorSettings, Positive
from heatpool_agent.core.device_map import Block, DeviceMap
from heatpool_agent.core.endpoint import LineUrl
from heatpool_agent.core.setpoint_words import block_span, setpoint_seen, setpoint_words
from heatpool_agent.fieldbus import line
from heatpool_agent.fieldbus.maps import read_map
from heatpool_agent.ports import Actuator, Clock, Command, Roots

_READ_HOLDING = 3
# The watchdog is fed when a third of it has passed: two feeds may fail before it runs out.
FEED_FRAC = 1 / 3


class Config(ActuatorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Line, unit and map of one device; `timeout_s` keeps a release within 2 s."""

    url: LineUrl
    map: str
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    timeout_s: Positive = 2.0
    watchdog_s: Annotated[int, msgspec.Meta(ge=3, le=900)] = 30


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Actuator]:
    """The actuator, not yet connected; one that is not armed only logs.

    Raises:
        ConfigError: on entering, if the map or the url cannot be used.
    """
    return _opened(config, roots, clock)


@asynccontextmanager
async def _opened(config: Config, roots: Roots, clock: Clock) -> AsyncIterator[Actuator]:
    device = await asyncio.to_thread(read_map, config.map)
    if device.setpoint is None:
        text = f"map: {config.map!r} has no setpoint: is missing; it can be read but not obeyed"
        raise ConfigError([text])
    held = await line.hold(config.url, unit_id=config.unit_id)
    armed = ModbusActuator(config, device, held=held, roots=roots, clock=clock)
    try:
        yield armed if config.armed else DryRunActuator(config.id)
    finally:
        await armed.close()


class ModbusActuator:
    """One unit; remembers what was confirmed last, so that it writes on change and to feed."""

    is_dry = False

    def __init__(
        self, config: Config, device: DeviceMap, *, held: line.Hold, roots: Roots, clock: Clock
    ) -> None:
        self._config = config
        self._device = device
        self._held = held
        self._tape = roots.tape
        self._clock = clock
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
        """Gives the line back; what the device was told last stands until its watchdog ends."""
        self._held.release()

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
            await self._write_and_compare(words)
        except TimeoutError as error:
            text = f"{self._where}: not confirmed in {self._config.timeout_s:g} s; check the line"
            raise ActuatorError(text) from error
        except (SensorError, OSError) as error:
            raise ActuatorError(f"unit {self._config.unit_id}: not confirmed: {error}") from error
        self._confirmed, self._written_boot_ns = words, begun_ns

    async def _write_and_compare(self, words: tuple[int, ...]) -> None:
        until_s = asyncio.get_running_loop().time() + self._config.timeout_s
        start, count = block_span(self._device)
        await self._send(start, words, until_s)
        read_back = await self._read_back(Block(_READ_HOLDING, start, count), until_s)
        wanted = setpoint_seen(self._device, words)
        seen = setpoint_seen(self._device, read_back)
        # A device may show its watchdog running down, so only its being on is compared.
        is_watched = seen.watchdog_s > 0 or wanted.watchdog_s == 0
        is_same = (seen.heat_rate_w, seen.is_remote) == (wanted.heat_rate_w, wanted.is_remote)
        if not (is_same and is_watched):
            raise ActuatorError(
                f"{self._where}: wrote {list(words)}, read back {list(read_back)}; "
                "check who else writes to this device"
            )

    async def _send(self, start: int, words: tuple[int, ...], until_s: float) -> None:
        unit_id = self._config.unit_id
        text = struct.pack(f">{len(words)}H", *words).hex(" ", 2)
        answer = await self._tape.exchange(
            f"unit {unit_id} fn 16 at {start} words {text}",
            lambda: self._held.line.write(start, words, unit_id=unit_id, until_s=until_s),
        )
        self._check(answer, 0)

    async def _read_back(self, block: Block, until_s: float) -> tuple[int, ...]:
        unit_id = self._config.unit_id
        answer = await self._tape.exchange(
            f"unit {unit_id} fn {block.function} at {block.address} count {block.count}",
            lambda: self._held.line.read(block, unit_id=unit_id, until_s=until_s, is_urgent=True),
        )
        self._check(answer, 2 * block.count)
        return struct.unpack(f">{block.count}H", answer)

    def _check(self, answer: bytes, length: int) -> None:
        """One byte is the code of a Modbus exception."""
        if len(answer) == length:
            return
        what = f"refused with exception {answer[0]}" if len(answer) == 1 else "an answer cut short"
        raise ActuatorError(f"{self._where}: {what}; check the map")
