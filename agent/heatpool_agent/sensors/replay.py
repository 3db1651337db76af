"""A recording in place of a device: one sensor of it, played at its own pace as if it were now.

For demonstrations and for looking into a site's fault at home. The driver of that sensor runs on
what its device answered then; only the times of its readings are moved to the present.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone
from heatpool.units import NS_PER_S
from heatpool_agent.config import RootSettings, SensorSettings
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Roots, Sensor
from heatpool_agent.sensors import driver
from heatpool_agent.tapes.own_files import with_map
from heatpool_agent.tapes.play import Pass, Player, PlayingTape, Recording, load

_OUTER_FIX = "play the one that it was made from"


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A folder that `heatpool-agent record` made, and the id of one sensor in it."""

    kind: Literal["replay"]
    dir: Annotated[str, msgspec.Meta(min_length=1)]
    sensor: str
    # Begins anew at the end; otherwise the sensor is gone then.
    repeat: bool = True


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator[Sensor]:
    """The sensor; the recording is read, and no device is there.

    Raises:
        ConfigError: no such recording or sensor, or it would be billed by.
    """
    if roots.tape.is_playing:
        # What a recording names as another one lies elsewhere, or is this one without end.
        yield _Within()
        return
    folder = Path(config.dir)
    recording = await asyncio.to_thread(load, folder)
    if config.role:
        raise ConfigError([f"role: is {config.role!r}; nothing is billed by a recording"])
    if not recording.passes.get(config.sensor):
        known = ", ".join(name for name, passes in recording.passes.items() if passes)
        raise ConfigError([f"sensor: is {config.sensor!r}; {folder} holds: {known or 'no passes'}"])
    sensor = Replay(config, _Reel(folder, recording, config.sensor), clock)
    try:
        # A round opened at once, so that a recording of another version is told now.
        await sensor.begin()
        yield sensor
    finally:
        await sensor.close()


class _Within:
    """A recording within a recording: its answers did not come along."""

    async def probe(self) -> Sequence[str]:
        """Nothing; raises SensorGone."""
        raise SensorGone("a recording within a recording does not play", fix=_OUTER_FIX)

    async def read(self) -> Sequence[Reading]:
        """Nothing; raises SensorGone."""
        raise SensorGone("a recording within a recording does not play", fix=_OUTER_FIX)

    async def close(self) -> None:
        """Nothing was opened."""


@dataclass(frozen=True, slots=True)
class _Reel:
    """One sensor of a recording: its passes, and its driver opened anew for each round."""

    folder: Path
    recording: Recording
    sensor: str

    @property
    def passes(self) -> tuple[Pass, ...]:
        """Never empty."""
        return self.recording.passes[self.sensor]

    @property
    def begun_ns(self) -> int:
        """Boot time of the first pass."""
        return self.passes[0].begin.boot_ns

    @property
    def length_ns(self) -> int:
        """From its first pass to where the first one begins again."""
        span_ns = self.passes[-1].begin.boot_ns - self.begun_ns
        return max(span_ns + span_ns // max(1, len(self.passes) - 1), NS_PER_S)

    async def player(self, stack: AsyncExitStack) -> Player:
        """Its driver, to be played from the start."""
        manifest = self.recording.manifest
        (block,) = (one for one in manifest.sensor if one.get("id") == self.sensor)
        block = await asyncio.to_thread(with_map, block, self.folder)
        tape = PlayingTape(self.passes)
        try:
            module = driver(str(block.get("kind", "")))
            config: Any = msgspec.convert(block, module.Config)
            roots = msgspec.convert(manifest.roots, RootSettings).roots()
        except msgspec.ValidationError as error:
            raise ConfigError([str(error)], file=str(self.folder)) from error
        opened = module.open(config, replace(roots, tape=tape), tape)
        return Player(await stack.enter_async_context(opened), tape)


class Replay:
    """A device that was."""

    def __init__(self, config: Config, reel: _Reel, clock: Clock) -> None:
        self._config = config
        self._reel = reel
        self._clock = clock
        self._stack = AsyncExitStack()
        self._player: Player | None = None
        self._round = 0
        self._next = 0
        self._begun_ns: int | None = None
        self._channels: Sequence[str] = ()
        self._readings: Sequence[Reading] | None = None
        self._error: SensorError | TimeoutError | None = None

    async def begin(self) -> None:
        """From the start, with a driver that knows nothing yet."""
        await self._stack.aclose()
        self._player, self._next = await self._reel.player(self._stack), 0
        self._readings, self._error = None, None

    async def probe(self) -> Sequence[str]:
        """The channels that were there.

        Raises what was raised then.
        """
        await self._catch_up()
        return tuple(self._channels) or tuple(r.channel for r in self._readings or ())

    async def read(self) -> Sequence[Reading]:
        """The figures of the pass that is due now, with the present for its time.

        Raises what was raised then, and SensorGone once the recording is over.
        """
        await self._catch_up()
        return [self._present(reading) for reading in self._readings or ()]

    async def close(self) -> None:
        """Ends the driver; may be called twice."""
        await self._stack.aclose()

    async def _catch_up(self) -> None:
        """Plays every pass that is due, so that the driver goes through all that it went through.

        A first read is played at once, however long it took to come.
        """
        place_ns = await self._place_ns()
        passes = self._reel.passes
        while self._next < len(passes):
            one = passes[self._next]
            is_due = one.begin.boot_ns - self._reel.begun_ns <= place_ns
            if not is_due and (self._readings is not None or self._error is not None):
                break
            self._next += 1
            await self._play(one)
        if self._error is not None:
            raise self._error

    async def _place_ns(self) -> int:
        now_ns = self._clock.boot_ns()
        if self._begun_ns is None:
            self._begun_ns = now_ns
        turn, place_ns = divmod(now_ns - self._begun_ns, self._reel.length_ns)
        if turn and not self._config.repeat:
            raise SensorGone(
                f"replay: the recording {self._config.dir} is over",
                fix="set repeat = true, or start again",
            )
        if turn != self._round:
            self._round = turn
            await self.begin()
        return place_ns

    async def _play(self, one: Pass) -> None:
        if self._player is None:
            raise SensorGone("replay: closed", fix="open it again")
        self._error = None
        try:
            if one.do == "probe":
                self._channels = await self._player.probe(one)
            else:
                self._readings = await self._player.read(one)
        except (SensorGone, SensorBusy, TimeoutError) as error:
            self._error = error

    def _present(self, reading: Reading) -> Reading:
        event_ns, boot_ns = self._clock.event_ns(), self._clock.boot_ns()
        # How long ago it was taken, then as now: a figure that was old is old.
        begun_ns = boot_ns if self._begun_ns is None else self._begun_ns
        then_ns = begun_ns + self._round * self._reel.length_ns
        age_ns = max(0, boot_ns - then_ns - (reading.boot_ns - self._reel.begun_ns))
        return replace(
            reading,
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=event_ns - age_ns,
            boot_ns=boot_ns - age_ns,
            # A count that begins anew is another life, not a wrap.
            generation=f"{reading.generation}#{self._round}",
        )
