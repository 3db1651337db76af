"""Coolant units and meters on Modbus, each told by a map in `sensors/maps` or a path.

Network or serial line, that is `fieldbus.line`; what the words mean is `core.decode`. Here stands
which words are asked for: the plan, what the device turned out not to have, and second looks.
"""

import asyncio
import logging
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool.process.journal import facts
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.decode import Stamp, map_readings, quantity_of
from heatpool_agent.core.device_map import (
    Block,
    DeviceMap,
    Point,
    billing_flaws,
    holds,
    is_meter_number,
    span,
)
from heatpool_agent.core.endpoint import LineUrl
from heatpool_agent.core.read_plan import read_plan
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.torn import MOST_LOOKS, Looks, guarded
from heatpool_agent.fieldbus import line
from heatpool_agent.fieldbus.maps import read_map
from heatpool_agent.ports import Clock, Roots, Sensor

logger = logging.getLogger(__name__)

# Modbus Application Protocol V1.1b3, 7: codes that mean "ask again" (acknowledge, busy, nothing
# behind the gateway this time) and the one that means "there is no such word".
PATIENCE = (5, 6, 11)
NO_SUCH_WORD = 2
# A device that starts, or a gateway without its list yet, refuses words that it has later.
MISSING_PERIOD_NS = 600 * 1_000_000_000
# Our own limit ends before the caller's, so that the reason is told and not only the time.
_OWN_SHARE_FRAC = 0.95


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Line, unit and map of one device.

    `meter_id` names a meter that does not tell its number; `primary_loop` is the loop on the
    primary side of an exchanger, `loop` the one on its secondary side.
    """

    url: LineUrl
    map: str
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    meter_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = ""
    primary_loop: str = ""


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, if the map or the url cannot be used.
    """
    return _opened(config, roots, clock)


@asynccontextmanager
async def _opened(config: Config, roots: Roots, clock: Clock) -> AsyncIterator[Sensor]:
    device = await asyncio.to_thread(read_map, config.map)
    if config.role == "billing" and (flaws := billing_flaws(device, meter_id=config.meter_id)):
        raise ConfigError(flaws)
    held = await line.hold(config.url, unit_id=config.unit_id)
    sensor = ModbusSensor(config, device, held=held, roots=roots, clock=clock)
    try:
        yield sensor
    finally:
        await sensor.close()


class ModbusSensor:
    """One device on a line that others may share."""

    def __init__(
        self, config: Config, device: DeviceMap, *, held: line.Hold, roots: Roots, clock: Clock
    ) -> None:
        self._config = config
        self._device = device
        self._held = held
        self._tape = roots.tape
        self._clock = clock
        self._plan = read_plan(device)
        self._guarded = guarded(device)
        self._missing: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        self._whole_ns = 0
        self._torn: set[str] = set()
        self._lock = asyncio.Lock()
        self._where = f"{config.url} unit {config.unit_id}"

    @property
    def missing(self) -> tuple[str, ...]:
        """Points of the map that this device turned out not to have, by quantity."""
        return self._missing

    async def probe(self) -> Sequence[str]:
        """Channels that answer now; what was missing before is asked for anew."""
        if self._missing:
            self._forget()
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """All points of the map once.

        Raises:
            SensorBusy: the device, its gateway or its line asks for patience.
            SensorGone: no connection, no answer in time, or an answer that is none.
        """
        async with self._lock:
            now_s = asyncio.get_running_loop().time()
            until_s = now_s + _OWN_SHARE_FRAC * self._config.timeout_s
            if self._missing and self._clock.boot_ns() - self._whole_ns >= MISSING_PERIOD_NS:
                self._forget()
            answers = await self._answers(until_s)
            if self._guarded:
                answers = await self._second_looks(answers, until_s)
        stamp = Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )
        return map_readings(
            self._device,
            answers,
            stamp,
            meter_id=self._config.meter_id,
            primary_loop=self._config.primary_loop,
        )

    async def close(self) -> None:
        """Gives the line back; the last one on it frees the connection."""
        self._held.release()

    async def _answers(self, until_s: float) -> dict[Block, Sequence[int]]:
        """One answer per block of the plan; refused blocks are cut up for a while."""
        answers: dict[Block, Sequence[int]] = {}
        waiting = deque(self._plan.blocks)
        while waiting:
            block = waiting.popleft()
            words = await self._ask(block, until_s)
            if words is not None:
                answers[block] = words
                continue
            self._plan, parts = self._plan.cut(block)
            waiting.extendleft(reversed(parts))
        self._note_missing()
        return answers

    async def _ask(self, block: Block, until_s: float) -> Sequence[int] | None:
        """The words of a block; None if the device has not all of them."""
        unit_id = self._config.unit_id
        data = await self._exchange(block, until_s)
        where = f"{self._where}: words {block.address}..{block.end - 1} of fn {block.function}"
        await asyncio.sleep(self._device.pause_ms / 1000)
        if len(data) == 2 * block.count:
            return struct.unpack(f">{block.count}H", data)
        if data == bytes((NO_SUCH_WORD,)):
            return None
        code = data[0] if len(data) == 1 else 0
        if code in PATIENCE:
            raise SensorBusy(f"{where}: exception {code}")
        what = f"refused with exception {code}" if code else f"{len(data)} bytes came"
        raise SensorGone(
            f"{where}: {what}",
            fix=f"check that map {self._device.name} and unit_id {unit_id} fit the device",
        )

    async def _exchange(self, block: Block, until_s: float) -> bytes:
        unit_id = self._config.unit_id
        try:
            return await self._tape.exchange(
                f"unit {unit_id} fn {block.function} at {block.address} count {block.count}",
                lambda: self._held.line.read(block, unit_id=unit_id, until_s=until_s),
                hide=self._hide(block),
            )
        except TimeoutError as error:
            raise SensorGone(
                f"{self._where}: no answer in {self._config.timeout_s:g} s",
                fix="check unit_id and wiring, or raise timeout_s",
            ) from error
        except OSError as error:
            raise SensorGone(f"{self._where}: {error}", fix="check the line") from error

    def _hide(self, block: Block) -> Callable[[bytes], bytes] | None:
        """Blanks the number on the plate: it names a customer's meter."""
        plates = [
            span(point, self._device)
            for point in self._device.point
            if is_meter_number(point) and holds(block, point, self._device)
        ]

        def blanked(data: bytes) -> bytes:
            for plate in plates if len(data) == 2 * block.count else ():
                start, length = 2 * (plate.address - block.address), 2 * plate.count
                data = data[:start] + b"0" * length + data[start + length :]
            return data

        return blanked if plates else None

    def _note_missing(self) -> None:
        missing = self._plan.missing()
        if not self._plan.blocks:
            self._forget()
            raise SensorGone(
                f"{self._where}: refused every word with exception {NO_SUCH_WORD}",
                fix=f"check that map {self._device.name}, its address_base and unit_id fit",
            )
        if missing and not self._missing:
            self._whole_ns = self._clock.boot_ns()
        is_news = bool(missing) and missing != self._told
        self._missing = self._told = missing
        if is_news:
            logger.warning(
                "modbus.points_missing",
                extra=facts(
                    sensor=self._config.id,
                    points=", ".join(missing),
                    fix=f"check map {self._device.name}, its address_base and the device's options",
                ),
            )

    def _forget(self) -> None:
        self._plan, self._missing = read_plan(self._device), ()

    async def _second_looks(
        self, answers: dict[Block, Sequence[int]], until_s: float
    ) -> dict[Block, Sequence[int]]:
        """The answers, torn numbers among them looked at again and left out if they stay so."""
        looks = Looks(self._device, self._guarded, answers)
        for _ in range(MOST_LOOKS - 1):
            if not looks.unsettled:
                break
            blocks = looks.blocks(self._plan.blocks)
            asked = [(block, await self._ask(block, until_s)) for block in blocks]
            looks.look({block: words for block, words in asked if words is not None})
        self._note_torn(looks.unsettled)
        return looks.answers()

    def _note_torn(self, points: Sequence[Point]) -> None:
        """A number that never settles gives no reading, and is named once."""
        fresh = {quantity_of(point) for point in points} - self._torn
        if fresh:
            self._torn |= fresh
            logger.warning(
                "modbus.torn",
                extra=facts(sensor=self._config.id, points=", ".join(sorted(fresh))),
            )
