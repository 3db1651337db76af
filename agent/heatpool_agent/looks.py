"""One careful look at every sensor: is it up, how fast does it answer, what does it say.

For commands that look and leave. Every device is asked as seldom as can be: a heat meter on a
battery once, a BMC for one pass, the machine's own counters twice.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool.sample import SiteId
from heatpool_agent.assembly import loop_settings, open_sensors
from heatpool_agent.board import Board
from heatpool_agent.config import Config, mistakes
from heatpool_agent.core.reading import Reading
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock

# A first look plus a second one, and what is judged from them, must end within ten seconds.
MOST_S = 6.0
APART_S = 0.7
_RIGHT = "give this user the right to read it, or look as the service's: runuser -u heatpool -- ..."
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


def in_time(config: Config, most_s: float = MOST_S) -> Config:
    """The settings with every sensor's patience cut to what a look may take."""
    return msgspec.structs.replace(
        config, sensor=tuple(_hurried(block, most_s) for block in config.sensor)
    )


def _hurried(block: Mapping[str, Any], most_s: float) -> dict[str, Any]:
    told = block.get("timeout_s", most_s)
    # What is no number is left for the driver to refuse in its own words.
    is_number = isinstance(told, int | float) and not isinstance(told, bool)
    return {**block, "timeout_s": min(told, most_s) if is_number else told}


async def look_at_all(
    config: Config,
    clock: Clock,
    *,
    told: Callable[[Look], None] = lambda _: None,
    most_s: float = MOST_S,
) -> Seen:
    """Every sensor that the settings name, or the machine's own, looked at side by side.

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
        looks = await _both(driven, sense, told)
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


async def _both(
    driven: Sequence[Driven], sense: Sense, told: Callable[[Look], None]
) -> Sequence[Look]:
    """Two looks at each. The second waits for all the first ones: who answers at once is not to be
    stale because another one did not answer at all."""
    first = await asyncio.gather(*(_taken(_first(one), one, sense) for one in driven))
    again = [
        (one, look)
        for one, look in zip(driven, first, strict=True)
        if look.state == "up" and one.kind not in _READ_ONCE
    ]
    if again:
        await asyncio.sleep(APART_S)
    second = await asyncio.gather(*(_taken(_second(*pair), pair[0], sense) for pair in again))
    newest = {look.id: look for look in (*first, *second)}
    for look in newest.values():
        told(look)
    return tuple(newest.values())


async def _taken(looking: Coroutine[None, None, Look], one: Driven, sense: Sense) -> Look:
    look = await looking
    await sense.take(one, look.readings)
    return look


async def _first(one: Driven) -> Look:
    start_s = asyncio.get_running_loop().time()
    blank = Look(
        id=one.id, kind=one.kind, state="up", host=one.host, is_billing=one.is_billing
    )  # fmt: skip
    try:
        async with asyncio.timeout(one.timeout_s):
            if one.kind not in _READ_ONLY and not await one.sensor.probe():
                return replace(blank, state="absent", detail="nothing of this kind here")
            readings = await one.sensor.read()
    except SensorGone as error:
        return replace(blank, state="gone", detail=error.reason, fix=error.fix)
    except SensorBusy as error:
        return replace(blank, state="busy", detail=str(error))
    except TimeoutError:
        detail = f"no answer within {one.timeout_s:g} s"
        return replace(blank, state="gone", detail=detail, fix="check power, wiring and network")
    except OSError as error:  # one file that may not be read leaves the other sensors as they are
        return replace(
            blank, state="gone", detail=f"{error.filename}: {error.strerror}", fix=_RIGHT
        )
    took_s = asyncio.get_running_loop().time() - start_s
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
