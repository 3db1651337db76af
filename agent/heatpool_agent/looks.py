"""One careful look at every sensor: is it up, how fast does it answer, what does it say.

For commands that look and leave. Every device is asked as seldom as can be: a heat meter on a
battery once, a BMC for one pass, the machine's own counters twice.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool.sample import SiteId
from heatpool_agent.assembly import loop_settings, open_sensors, own_timeout_s
from heatpool_agent.board import Board
from heatpool_agent.config import Config, mistakes
from heatpool_agent.core.reading import Reading
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock

# A first look plus a second one, and what is judged from them, must end within ten seconds.
MOST_S = 6.0
# A person before a terminal: most BMCs have answered by then, and the settings may allow minutes.
ONE_SHOT_S = 15.0
APART_S = 0.7
_RIGHT = "give this user the right to read it, or look as the service's: runuser -u heatpool -- ..."
# Drivers give up a little before their limit, to say why.
_OWN_SHARE_FRAC = 0.75
_EMPTY = "answers, and shows no power, heat or leak that heatpool knows"
_EMPTY_FIX = (
    "check that url names the device that measures, and that the user may read its sensors; "
    "if so, take the [[sensor]] block out, or show us what it says: heatpool-agent record"
)
# Where probing is a readout, which meters on batteries count: it is left out.
_READ_ONLY = ("mbus",)
# Where a second look costs the device something or shows the same again.
_READ_ONCE = ("mbus", "redfish", "ipmi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one sensor showed; `first_s` counts connecting, `read_s` one more read, s."""

    id: str
    kind: str
    state: str  # up | absent | gone | busy
    detail: str = ""
    fix: str = ""
    host: str = ""
    is_billing: bool = False
    first_s: float | None = None
    read_s: float | None = None
    before: tuple[Reading, ...] = ()
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All looks, and what the agent's own pipeline makes of them."""

    looks: tuple[Look, ...]
    board: Board
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one sensor may take in a look, and by its own settings, s; what it is told by."""

    most_s: float
    own_s: float
    is_networked: bool = False

    @property
    def told_own(self) -> str:
        """That the settings would allow more, in words; empty if they do not."""
        return f" (its own limit is {self.own_s:g} s)" if self.own_s > self.most_s else ""

    def told(self, detail: str, took_s: float) -> str:
        """The detail, and that more time would be allowed, where the look ended for its sake."""
        is_cut = took_s > _OWN_SHARE_FRAC * self.most_s and not detail.endswith(self.told_own)
        return f"{detail}{self.told_own}" if is_cut else detail

    def silence(self) -> tuple[str, str]:
        """Detail and fix for a sensor that did not answer."""
        more = "" if self.told_own else ", or raise timeout_s"
        detail = f"no answer in {self.most_s:g} s{self.told_own}"
        return detail, f"check power, wiring and network{more}"

    def emptiness(self) -> tuple[str, str]:
        """Detail and fix for a sensor that has no readings."""
        return (_EMPTY, _EMPTY_FIX) if self.is_networked else ("nothing of this kind here", "")


def patiences(config: Config, most_s: float) -> dict[str, Patience]:
    """The patience with each sensor that the settings name, by its id."""
    return {
        str(block.get("id")): Patience(
            most_s=min(own_s, most_s), own_s=own_s, is_networked=bool(block.get("url"))
        )
        for block in config.sensor
        if (own_s := own_timeout_s(block)) is not None
    }


def patience_of(one: Driven, told: Mapping[str, Patience]) -> Patience:
    """The patience with one sensor; one of the machine's own has that of its driver."""
    return told.get(one.id, Patience(most_s=one.timeout_s, own_s=one.timeout_s))


def in_time(config: Config, most_s: float = MOST_S) -> Config:
    """The settings with every sensor's patience cut to what a look may take."""
    cut = tuple(
        block
        if (own_s := own_timeout_s(block)) is None
        else {**block, "timeout_s": min(own_s, most_s)}
        for block in config.sensor
    )
    return msgspec.structs.replace(config, sensor=cut)


async def look_at_all(
    config: Config,
    clock: Clock,
    *,
    told: Callable[[Look], None] = lambda _: None,
    most_s: float = MOST_S,
    waited: set[str] | None = None,
) -> Seen:
    """Every sensor that the settings name, or the machine's own, looked at side by side.

    `waited` holds at each moment the ids of those that have not answered yet.

    Raises:
        ConfigError: with every mistake.
    """
    board = Board(site_id=SiteId("unnamed"))
    async with AsyncExitStack() as stack:
        found = mistakes(config)
        driven = await open_sensors(in_time(config, most_s), clock, stack, found)
        if found:
            raise ConfigError(found)
        sense = _sense(config, board, clock)
        waits = set() if waited is None else waited
        looking = _Looking(sense, patiences(config, most_s), waits)
        looks = await _both(driven, looking, told)
        for look in looks:
            board.latest[look.id] = look.readings
        at_ns = clock.event_ns()
        sense.tick(at_ns, clock.boot_ns())
    return Seen(looks=tuple(looks), board=board, at_ns=at_ns)


def _sense(config: Config, board: Board, clock: Clock) -> Sense:
    return Sense(
        loop_settings(config),
        board,
        clock,
        spooling=None,
        period_s=config.sampling.period_s,
        report_period_s=config.sampling.report_period_s,
    )


@dataclass(frozen=True, slots=True)
class _Looking:
    """Takes what looks bring, and keeps who is still waited for."""

    sense: Sense
    patiences: Mapping[str, Patience]
    waited: set[str]

    async def first(self, one: Driven) -> Look:
        """The first look at one sensor."""
        self.waited.add(one.id)
        try:
            return await self.taken(_first(one, patience_of(one, self.patiences)), one)
        finally:
            self.waited.discard(one.id)

    async def taken(self, looking: Coroutine[None, None, Look], one: Driven) -> Look:
        """A look whose readings have entered the pipeline."""
        look = await looking
        await self.sense.take(one, look.readings)
        return look


async def _both(
    driven: Sequence[Driven], looking: _Looking, told: Callable[[Look], None]
) -> Sequence[Look]:
    """Two looks at each. The second waits for all the first ones: who answers at once is not to be
    stale because another one did not answer at all."""
    first = await asyncio.gather(*(looking.first(one) for one in driven))
    again = [
        (one, look)
        for one, look in zip(driven, first, strict=True)
        if look.state == "up" and one.kind not in _READ_ONCE
    ]
    if again:
        await asyncio.sleep(APART_S)
    second = await asyncio.gather(*(looking.taken(_second(*pair), pair[0]) for pair in again))
    newest = {look.id: look for look in (*first, *second)}
    for look in newest.values():
        told(look)
    return tuple(newest.values())


async def _first(one: Driven, patience: Patience) -> Look:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    blank = Look(
        id=one.id, kind=one.kind, state="up", host=one.host, is_billing=one.is_billing
    )  # fmt: skip
    try:
        async with asyncio.timeout(patience.most_s):
            if one.kind not in _READ_ONLY and not await one.sensor.probe():
                detail, fix = patience.emptiness()
                return replace(blank, state="absent", detail=detail, fix=fix)
            readings = await one.sensor.read()
    except SensorGone as error:
        detail = patience.told(error.reason, loop.time() - start_s)
        return replace(blank, state="gone", detail=detail, fix=error.fix)
    except SensorBusy as error:
        detail = patience.told(str(error), loop.time() - start_s)
        return replace(blank, state="busy", detail=detail)
    except TimeoutError:
        detail, fix = patience.silence()
        return replace(blank, state="gone", detail=detail, fix=fix)
    except OSError as error:  # one file that may not be read leaves the other sensors as they are
        return replace(
            blank, state="gone", detail=f"{error.filename}: {error.strerror}", fix=_RIGHT
        )
    took_s = loop.time() - start_s
    return replace(blank, first_s=took_s, readings=tuple(readings))


async def _second(one: Driven, first: Look) -> Look:
    """The look after one more read; one that fails leaves the first as it was."""
    start_s = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(one.timeout_s):
            readings = await one.sensor.read()
    except (SensorGone, SensorBusy, OSError):  # a TimeoutError is an OSError
        return first
    took_s = asyncio.get_running_loop().time() - start_s
    return replace(first, read_s=took_s, before=first.readings, readings=tuple(readings))


def powers_w(look: Look) -> dict[str, float]:
    """Mean power, W, of each energy counter between the two reads, by channel.

    A counter that fell, or was read once, has none.
    """
    earlier = {r.channel: r for r in look.before if r.quantity in ("energy_j", "energy_wh")}
    found = {}
    for reading in look.readings:
        before = earlier.get(reading.channel)
        if reading.quantity != "energy_j" or before is None or reading.boot_ns <= before.boot_ns:
            continue
        if reading.value >= before.value:
            span_s = (reading.boot_ns - before.boot_ns) / 1e9
            found[reading.channel] = (reading.value - before.value) / span_s
    return found


def of_kind(looks: Sequence[Look], *kinds: str) -> list[Look]:
    """The looks at sensors of these kinds."""
    return [look for look in looks if look.kind in kinds]
