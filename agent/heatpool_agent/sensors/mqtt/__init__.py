"""Devices that publish by MQTT: a push protocol behind a port that is pulled.

The link keeps the newest message of each topic; a read takes them, and gives what holds now. What
messages mean is `core.mqtt_newest`, the connection is `link`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from heatpool.errors import ConfigError, SensorGone, WireError
from heatpool.process.journal import facts
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.mqtt_newest import Newest, packed, unpacked
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Roots, Sensor
from heatpool_agent.sensors.mqtt.link import Link
from heatpool_agent.sensors.mqtt.settings import Config, mistakes

__all__ = ["Config", "MqttSensor", "open"]

logger = logging.getLogger(__name__)

# Our own limit ends before the caller's, so that the reason is told and not only the time.
_OWN_SHARE_FRAC = 0.95
_ONLY_OLD = "the broker keeps older messages, and the device has sent nothing since"


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
    sensor = MqttSensor(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


class MqttSensor:
    """The points of one device."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._tape = roots.tape
        self._clock = clock
        self._link = Link(config, clock)
        self._lock = asyncio.Lock()
        self._newest = Newest(
            config.point,
            node=config.node,
            availability_topic=config.availability_topic,
            payload_offline=config.payload_offline,
        )
        self._told: set[str] = set()
        self._figure_topics = {point.topic for point in config.point}
        self._longest_s = max(point.max_age_s for point in config.point)

    async def probe(self) -> Sequence[str]:
        """Channels that have a value now; waits for a first message of each topic, for a while."""
        return [reading.channel for reading in await self._look(is_first=True)]

    async def read(self) -> Sequence[Reading]:
        """What each point said last, if that still holds.

        Raises:
            SensorGone: no broker, no login, no message that holds, or the device's last will.
        """
        return await self._look(is_first=False)

    async def close(self) -> None:
        """Leaves the broker; may be called twice."""
        await self._link.close()

    async def _look(self, *, is_first: bool) -> Sequence[Reading]:
        async with self._lock:
            data = await self._exchange(is_first=is_first)
            stamp = self._stamp()
            try:
                self._newest.take(unpacked(data), stamp)
            except WireError as error:
                raise SensorGone(str(error), fix="record it again") from error
            self._note_reasons()
            return self._readings(stamp)

    def _stamp(self) -> Stamp:
        return Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )

    def _readings(self, stamp: Stamp) -> Sequence[Reading]:
        if self._newest.is_offline:
            config = self._config
            raise SensorGone(
                f"{config.availability_topic}: {config.payload_offline}, the device has left",
                fix="check the device's power and its way to the broker",
            )
        readings = self._newest.readings(stamp)
        if not readings:
            reasons = "; ".join(f"{at}: {why}" for at, why in self._newest.reasons.items())
            raise SensorGone(
                f"{self._config.url}: {reasons or _ONLY_OLD}",
                fix="check what the device publishes against the points, as mosquitto_sub shows it",
            )
        return readings

    async def _exchange(self, *, is_first: bool) -> bytes:
        until_s = asyncio.get_running_loop().time() + _OWN_SHARE_FRAC * self._config.timeout_s

        async def ask() -> bytes:
            try:
                async with asyncio.timeout_at(until_s):
                    await self._link.connect()
                    await self._settle(is_first=is_first)
            except TimeoutError as error:
                if not self._link.is_up or self._is_silent():
                    raise self._silence() from error
            return packed(self._link.taken())

        return await self._tape.exchange("messages", ask)

    async def _settle(self, *, is_first: bool) -> None:
        """Until there is something to take: for a probe of every topic, else of any."""
        while self._is_waiting(is_first=is_first):
            await self._link.wait_news()
            if not self._link.is_up:
                raise SensorGone(
                    f"{self._config.url}: the broker ended the connection",
                    fix="check that the broker runs, and that no other client has this client_id",
                )

    def _is_waiting(self, *, is_first: bool) -> bool:
        if not self._link.is_up:
            return True
        heard = self._link.heard & self._figure_topics
        if is_first:
            return heard < self._figure_topics
        return self._is_silent() or not (heard or self._newest.readings(self._stamp()))

    def _is_silent(self) -> bool:
        """Whether no message that came can hold any more, or none came at all."""
        has_some = self._link.has_some or self._newest.readings(self._stamp())
        return not has_some or self._link.silent_s > self._longest_s

    def _silence(self) -> SensorGone:
        what = "connected, and no message came" if self._link.is_up else "no connection"
        return SensorGone(
            f"{self._config.url}: {what} in {self._config.timeout_s:g} s",
            fix="check that the device publishes on the points' topics, and that we may read them"
            if self._link.is_up
            else "check that url names the broker, mqtts:// for its TLS port, or raise timeout_s",
        )

    def _note_reasons(self) -> None:
        """A point that cannot be read is named once for as long as that lasts."""
        reasons = self._newest.reasons
        for channel in reasons.keys() - self._told:
            logger.warning(
                "mqtt.refused",
                extra=facts(
                    sensor=self._config.id,
                    channel=channel,
                    reason=reasons[channel],
                    fix="check path, unit, text and decimal of the point",
                ),
            )
        self._told = set(reasons)
