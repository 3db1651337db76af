"""BMCs, power shelves and cooling units by Redfish, or a folder of their documents.

What the documents mean is `core.redfish`. Here: found once by links, then only what carries
readings is asked, one question at a time, and slow or failing services are left alone for a while.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.redfish import Document, polled, redfish_readings, sensing_interval_s
from heatpool_agent.ports import Clock, Roots, Sensor
from heatpool_agent.sensors.pace import Pace
from heatpool_agent.sensors.redfish.answer import Transport
from heatpool_agent.sensors.redfish.bmc import bmc_tree
from heatpool_agent.sensors.redfish.files import FileTree
from heatpool_agent.sensors.redfish.settings import PERIOD_LEAST_S, Config, mistakes
from heatpool_agent.sensors.redfish.walk import Refusals, Walk

__all__ = ["Config", "RedfishSensor", "open"]

_NS = 1_000_000_000
# Parts are changed by day, and most changes show as a lost path at once.
DISCOVERY_PERIOD_S = 86_400.0
# A service whose paths come and go is not searched all the time.
DISCOVERY_LEAST_S = 600.0
# A pass has one stamp: what a discovery reads later than this after it is read again.
LATE_S = 2.0
# Our own limit comes a little before the supervisor's, which knows no reason.
PATIENCE_FRAC = 0.95


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, with every mistake.
    """
    return _opened(config, roots, clock)


@asynccontextmanager
async def _opened(config: Config, roots: Roots, clock: Clock) -> AsyncIterator[Sensor]:
    if found := mistakes(config):
        raise ConfigError(found)
    sensor = RedfishSensor(config, _transport(config, roots, clock), roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


def _transport(config: Config, roots: Roots, clock: Clock) -> Transport:
    if config.url.startswith("file:"):
        return FileTree(config.url, roots.tape)
    return bmc_tree(config, roots, clock)


class RedfishSensor:
    """One service, seen in passes."""

    def __init__(self, config: Config, transport: Transport, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._transport = transport
        self._clock = clock
        # A recording has its own pace.
        self._is_playing = roots.tape.is_playing
        self._pace = Pace(config.period_s or PERIOD_LEAST_S)
        self._refusals = Refusals(config.id)
        self._walk: Walk | None = None
        self._documents: dict[str, Document] = {}
        self._polled: tuple[str, ...] = ()
        self._readings: tuple[Reading, ...] = ()
        self._interval_s: float | None = None
        self._found_ns = 0
        self._has_lost = False

    @property
    def refused(self) -> Mapping[str, str]:
        """Documents that cannot be read now, by path, each with its reason."""
        return dict(self._refusals.reasons)

    async def probe(self) -> Sequence[str]:
        """Channels that the service shows now."""
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """The present figures; those of the last pass, with their own time, while none is due.

        Raises:
            SensorBusy: the service asks for patience, or its discovery goes on next time.
            SensorGone: no connection, no answer in time, not let in, or nothing readable.
        """
        now_ns = self._clock.boot_ns()
        if not self._is_playing:
            if error := self._pace.rest(now_ns):
                raise error
            if self._walk is None and self._readings and not self._pace.is_due(now_ns):
                return self._readings
        try:
            if is_done := await self._go_on():
                await self._finish()
        except SensorBusy as error:
            self._pace.asked_for_patience(error, now_ns)
            raise
        except SensorGone as error:
            self._pace.failed(error, now_ns)
            raise
        if not is_done and not self._readings:
            count = len(self._walk.documents if self._walk else self._documents)
            raise SensorBusy(f"{self._config.url}: {count} documents found, and more to come")
        return self._readings

    async def close(self) -> None:
        """Leaves the service, logged out if nobody else asks it."""
        await self._transport.close()

    async def _go_on(self) -> bool:
        """Reads as far as time allows; whether the pass is complete."""
        is_clean = False
        try:
            async with asyncio.timeout(PATIENCE_FRAC * self._config.timeout_s) as limit:
                self._walk = walk = self._walk or await self._new_walk()
                is_done = await self._steps(walk, limit)
                if is_done and self._is_late(walk):
                    is_done = await self._polled_now(walk, limit)
            is_clean = True
            return is_done
        except TimeoutError as error:
            raise SensorGone(
                f"{self._config.url}: no answer in {self._config.timeout_s:g} s",
                fix="check the network and the load of the BMC, or raise timeout_s",
            ) from error
        except OSError as error:
            raise SensorGone(
                f"{self._config.url}: {error.strerror or error}",
                fix="check power and network of the BMC, or the folder's mode",
            ) from error
        finally:
            # Half a discovery is worth keeping; half a poll would mix old figures with new ones.
            if not is_clean and self._walk is not None and not self._walk.follows:
                self._walk = None

    def _is_late(self, walk: Walk) -> bool:
        """Whether the figures of a discovery are much younger than its stamp."""
        age_s = (self._clock.boot_ns() - walk.stamp.boot_ns) / _NS
        return walk.follows and age_s > LATE_S

    async def _polled_now(self, found: Walk, limit: asyncio.Timeout) -> bool:
        """Reads again, with a stamp of its own, what a long discovery found.

        A counter with a stamp that is minutes too old would be a power several times too high.
        """
        await self._learn(found)
        if not self._polled:
            return True
        self._walk = walk = await self._new_walk()
        is_done = await self._steps(walk, limit)
        if not is_done:
            # Time is over: the next pass begins, and stamps, it anew.
            self._walk = None
        return is_done

    async def _steps(self, walk: Walk, limit: asyncio.Timeout) -> bool:
        loop = asyncio.get_running_loop()
        self._transport.slowest_s, is_first = 0.0, True
        while not walk.is_done:
            left_s = (limit.when() or 0.0) - loop.time()
            # A question is begun only if its answer, as slow as the slowest, would still come.
            if not is_first and left_s < self._transport.slowest_s:
                return False
            await walk.step(self._transport, self._refusals)
            is_first = False
        return True

    async def _new_walk(self) -> Walk:
        stamp = Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )
        if self._polled and not self._is_discovery_due(stamp.boot_ns):
            # Those that are busy come last, when others have shown that the service is not.
            paths = sorted(self._polled, key=self._refusals.busy.__contains__)
            return Walk(paths, stamp, follows=False)
        return Walk(await self._transport.starts(), stamp, follows=True)

    def _is_discovery_due(self, boot_ns: int) -> bool:
        age_s = (boot_ns - self._found_ns) / _NS
        return age_s >= (DISCOVERY_LEAST_S if self._has_lost else DISCOVERY_PERIOD_S)

    async def _finish(self) -> None:
        walk, self._walk = self._walk, None
        if walk is None:
            return
        if not walk.documents:
            raise self._nothing()
        try:
            await self._decode(walk)
        except asyncio.CancelledError:
            # A discovery is worth keeping: the next read takes its figures anew.
            self._walk = walk if walk.follows else None
            raise
        self._pace.passed(
            begun_ns=walk.stamp.boot_ns,
            slowest_s=self._transport.slowest_s,
            interval_s=self._interval_s,
        )

    async def _decode(self, walk: Walk) -> None:
        """What the documents say; on a thread, as a large service takes seconds."""
        if walk.follows:
            await self._learn(walk)
        # What was to be read and could not be is absent, not as it was.
        still = {path: seen for path, seen in self._documents.items() if path not in self._polled}
        documents = still | walk.documents
        readings = await asyncio.to_thread(
            redfish_readings, documents, walk.stamp, primary_loop=self._config.primary_loop
        )
        self._has_lost, self._documents, self._readings = walk.has_lost, documents, readings

    async def _learn(self, walk: Walk) -> None:
        """What a discovery found, and what of it is to be polled."""
        paths, interval_s = await asyncio.to_thread(_to_poll, walk.documents)
        self._documents, self._found_ns = walk.documents, self._clock.boot_ns()
        self._has_lost = False
        self._polled, self._interval_s = paths, interval_s

    def _nothing(self) -> SensorGone:
        reasons = self._refusals.reasons
        told = next(iter(reasons.values()), "nothing is there")
        return SensorGone(
            f"{self._config.url}: no document can be read: {told}",
            fix="check that url names a Redfish service, and look at its web interface",
        )


def _to_poll(documents: Mapping[str, Document]) -> tuple[tuple[str, ...], float | None]:
    """Paths that carry readings, and how often these are measured, s."""
    return polled(documents), sensing_interval_s(documents)
