"""Power of boards, rails and AMD GPUs out of the kernel's hwmon tree.

What is read there is chosen by `hwmon_chips`. A GPU that sleeps is not asked, as older kernels
wake it to answer.
"""

import logging
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from heatpool.errors import SensorGone
from heatpool.process.journal import facts
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.hwmon_chips import Chip, Point, chips, points
from heatpool_agent.sensors.kernel_file import KernelTree, OneAtATime

logger = logging.getLogger(__name__)

# On its way down or up, a look would hold a card up or wait for it.
_ASLEEP = ("suspended", "suspending", "resuming")
_MUTE_FIX = "read a powerN_input by hand; a chip that shows nothing wants its driver loaded anew"
_REMOVED_FIX = "plug it in or load its driver again; others are read on at the next look"
_MASK_FIX = (
    "bind-mount the host's /sys/devices into the container and set [roots].sys to where it lies"
)


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["hwmon"]


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Hwmon"]:
    """The sensor; opening touches nothing, probing opens the files."""
    sensor = Hwmon(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


class Hwmon:
    """All power and energy channels of this machine's hwmon chips."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._tree = KernelTree(roots)
        self._clock = clock
        self._points: tuple[Point, ...] | None = None
        self._generation = ""
        # A cancelled pass may still run on its thread while the descriptors are to be closed.
        self._lock = threading.Lock()
        self._calls = OneAtATime("hwmon: a chip of the hwmon tree")

    async def probe(self) -> Sequence[str]:
        """One channel per power or energy value; none where no chip measures any.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: the tree may not be read.
        """
        return await self._calls.run(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Power, W, or energy as a raw count of uJ, of every channel that answers.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: a chip was removed.
        """
        return await self._calls.run(self._read)

    async def close(self) -> None:
        """Frees the descriptors; may be called twice."""
        await self._calls.end(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            self._generation = self._tree.boot()
            found = chips(self._tree)
            self._points = tuple(point for chip in found for point in points(chip))
            try:
                self._refuse_silence(found)
            except SensorGone:
                self._shut()
                raise
            return tuple(point.channel for point in self._points)

    def _refuse_silence(self, found: Sequence[Chip]) -> None:
        """What may not be read is told: by itself while others answer, else by giving up."""
        denied = [path for chip in found for path in chip.denied]
        names = " ".join(map(str, denied))
        fix = f"chgrp heatpool {names} && chmod 0440 {names}"
        if self._points:
            if denied:
                told = facts(sensor=self._config.id, files=names, fix=fix)
                logger.warning("sensor.channels.denied", extra=told)
            return
        if denied:
            raise SensorGone(f"{denied[0]}: permission denied", fix=fix)
        if any(chip.is_masked for chip in found):
            raise SensorGone("hwmon: chips are listed, and lead nowhere", fix=_MASK_FIX)

    def _read(self) -> list[Reading]:
        if self._points is None:
            self._probe()
        with self._lock:
            try:
                found = [self._reading(point) for point in self._points or ()]
            except OSError as error:
                self._shut()
                raise SensorGone("hwmon: a measuring chip was removed", fix=_REMOVED_FIX) from error
            readings = [reading for reading in found if reading is not None]
            if self._points and not readings:
                self._shut()
                raise SensorGone("hwmon: no chip shows a number any more", fix=_MUTE_FIX)
            return readings

    def _reading(self, point: Point) -> Reading | None:
        if point.status is not None and point.status.text() in _ASLEEP:
            return self._sleeping(point)
        raw = 1
        for file in point.files:
            count = file.count()
            if count is None:
                return None
            raw *= count
        if point.is_counter and raw < 0:
            return None
        return Reading(
            sensor=self._config.id,
            channel=point.channel,
            quantity="energy_j" if point.is_counter else "power_w",
            kind=ReadingKind.COUNTER if point.is_counter else ReadingKind.GAUGE,
            value=raw / 10**6,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=point.node,
            label=point.label,
            loop=self._config.loop,
            flags=point.flags,
            raw=raw if point.is_counter else None,
            exponent=-6 if point.is_counter else 0,
            generation=self._generation if point.is_counter else "",
        )

    def _sleeping(self, point: Point) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=point.channel,
            quantity="is_suspended",
            kind=ReadingKind.STATE,
            value=1.0,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=point.node,
            label=point.label,
            loop=self._config.loop,
        )

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        for point in self._points or ():
            for file in point.opened():
                file.close()
        self._points = None
