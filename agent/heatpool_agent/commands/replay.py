"""`heatpool-agent replay`: the normal pipeline over a recording, in the recording's own time."""

import asyncio
import heapq
import json
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from heatpool.errors import ConfigError, SensorBusy, SensorGone, WireError
from heatpool.process import settings
from heatpool.sample import Provenance, QualityClass, SiteId
from heatpool.units import NS_PER_S
from heatpool_agent.assembly import loop_settings
from heatpool_agent.board import Board, SensorView
from heatpool_agent.commands.once import document, table
from heatpool_agent.commands.record import open_alone
from heatpool_agent.config import Config, mistakes
from heatpool_agent.core.marks import told
from heatpool_agent.core.rows import Mean, cells_of, spans_s
from heatpool_agent.http.figures import stamp
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.tapes.lines import Manifest
from heatpool_agent.tapes.own_files import with_map
from heatpool_agent.tapes.play import Pass, Player, PlayingTape, Recording, load

SCHEMA = "heatpool.replay/1"
EXIT_NOTHING = 4
# Without any pass for longer, the machine was off: nothing ticks then.
GAP_MOST_NS = 86_400 * NS_PER_S


@click.command("replay")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0.0),
    default=0.0,
    help="1: as fast as it was; left out: as fast as it goes.",
)
def command(*, folder: Path, as_json: bool, speed: float) -> None:
    """Play a recording through drivers, admission and estimates; asks no device."""
    recording = load(folder)
    for name, reason in recording.damaged.items():
        click.echo(f"{name}: read as far as it goes; {reason}", err=True)
    found = asyncio.run(replay(recording, folder, speed=speed))
    if as_json:
        json.dump(found, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo("\n".join([*_shown(found["rows"]), "", table(found)]))
    if not found["readings"]:
        sys.exit(EXIT_NOTHING)


async def replay(recording: Recording, folder: Path, *, speed: float = 0.0) -> dict[str, Any]:
    """The document of a recording: that of `once` at its end, and a row per report period.

    Raises:
        ConfigError: its settings do not fit this version.
    """
    config = _config(recording.manifest, folder)
    if found := mistakes(config):
        raise ConfigError(found)
    async with AsyncExitStack() as stack:
        parts = [await _opened(block, config, recording, stack) for block in config.sensor]
        show = _Show(config, parts)
        pace = _Pace(speed)
        for boot_ns, moment in _moments(recording, parts, show):
            await pace.until(boot_ns)
            await moment()
    return show.document(recording)


def _config(manifest: Manifest, folder: Path) -> Config:
    tree = {
        "sampling": manifest.sampling,
        "roots": manifest.roots,
        "loop": manifest.loop,
        "sensor": [with_map(block, folder) for block in manifest.sensor],
    }
    return settings.convert(tree, Config, file=str(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    driven: Driven
    player: Player
    passes: tuple[Pass, ...]


async def _opened(
    block: Mapping[str, Any], config: Config, recording: Recording, stack: AsyncExitStack
) -> _Part:
    passes = recording.passes.get(str(block.get("id")), ())
    tape = PlayingTape(passes)
    roots = replace(config.roots.roots(), tape=tape)
    if roots.proc == Path("/proc"):
        # Not this machine: what a driver tells of its own process would differ at each run.
        roots = replace(roots, proc=Path("/recorded/proc"))
    driven = await open_alone(block, config, stack, roots=roots, clock=tape)
    return _Part(driven=driven, player=Player(driven.sensor, tape), passes=passes)


class _Show:
    """The board of a site that was, and its rows."""

    def __init__(self, config: Config, parts: Sequence[_Part]) -> None:
        self._board = Board(site_id=SiteId("recording"))
        sampling = config.sampling
        self._sense = Sense(
            loop_settings(config),
            self._board,
            self,
            spooling=None,
            period_s=sampling.period_s,
            report_period_s=sampling.report_period_s,
        )
        self._period_ns = round(sampling.period_s * NS_PER_S)
        self._report_ns = round(sampling.report_period_s * NS_PER_S)
        self._mean = Mean()
        self._rows: list[dict[str, Any]] = []
        self._now = (0, 0)
        self._hosts = {part.driven.id: part.driven.host for part in parts}
        for part in parts:
            one = part.driven
            self._board.post_sensor(SensorView(id=one.id, kind=one.kind, state="starting"))

    def event_ns(self) -> int:
        """The virtual time, UTC."""
        return self._now[0]

    def boot_ns(self) -> int:
        """The same since boot."""
        return self._now[1]

    def ticks(self, now: tuple[int, int], until_boot_ns: int) -> Iterator[tuple[int, int]]:
        """The ticks after a moment, on the grid from the epoch; a day of them at most."""
        event_ns, boot_ns = now
        until_boot_ns = min(until_boot_ns, boot_ns + GAP_MOST_NS)
        tick_ns = (event_ns // self._period_ns + 1) * self._period_ns
        while boot_ns + tick_ns - event_ns <= until_boot_ns:
            yield tick_ns, boot_ns + tick_ns - event_ns
            tick_ns += self._period_ns

    async def tick(self, event_ns: int, boot_ns: int) -> None:
        """One look at everything, and a row where a report is due."""
        self._now = (event_ns, boot_ns)
        self._sense.tick(event_ns, boot_ns)
        loops = self._board.loops
        self._mean.add(cells_of(self._board.electric, loops), spans_s(loops))
        if event_ns % self._report_ns == 0 and (cells := self._mean.taken()):
            named = {
                f"{cell.loop_id}/{cell.quantity}".removeprefix("/"): value
                for cell, value in cells.items()
            }
            by_loop = self._flags()
            self._rows.append(
                {
                    "event_ns": event_ns,
                    "figures": named,
                    "flags": sorted(set().union(*by_loop.values())),
                    "flags_by_loop": {where: sorted(flags) for where, flags in by_loop.items()},
                }
            )

    def _flags(self) -> dict[str, set[str]]:
        """What is said of figures and readings, by loop; what is of no loop under the empty one."""
        board = self._board
        found: dict[str, set[str]] = {"": set(board.electric.flags if board.electric else ())}
        for loop in board.loops:
            own = found.setdefault(loop.loop_id, set())
            for figure in (loop.electric, loop.computed, loop.fused):
                own.update(figure.flags if figure else ())
        for reading in board.judged:
            found.setdefault(reading.loop, set()).update(reading.flags)
        return found

    async def play(self, part: _Part, one: Pass) -> None:
        """One pass of one sensor, and what follows for its view; as a supervisor would say it."""
        self._now = (one.end.event_ns, one.end.boot_ns)
        driven = part.driven
        try:
            if one.do == "probe":
                if not await part.player.probe(one):
                    self._post(driven, state="absent", detail="nothing of this kind here")
                return
            readings = tuple(await part.player.read(one))
        except SensorGone as error:
            self._post(driven, state="gone", detail=error.reason, fix=error.fix)
        except SensorBusy as error:
            self._post(driven, state="busy", detail=str(error))
        except TimeoutError:
            self._post(driven, state="gone", detail=f"no answer within {driven.timeout_s:g} s")
        except (OSError, WireError) as error:
            # What the driver let through then; its supervisor took it for a fault of its own.
            told = f"{type(error).__name__}: {error}"
            self._post(driven, state="gone", detail=told, fix="report this as a bug")
        else:
            self._post(driven, state="up", readings_count=len(readings), boot_ns=one.end.boot_ns)
            self._board.latest[driven.id] = readings
            await self._sense.take(driven, readings)

    def _post(self, driven: Driven, **told: Any) -> None:
        self._board.post_sensor(SensorView(id=driven.id, kind=driven.kind, **told))

    def document(self, recording: Recording) -> dict[str, Any]:
        """The end of it, and the rows on the way."""
        manifest = recording.manifest
        return {
            **document(self._board, self._now[0], hosts=self._hosts),
            "schema": SCHEMA,
            "recording": {
                "heatpool": manifest.heatpool,
                "begun_ns": manifest.begun_ns,
                "ended_ns": manifest.ended_ns,
                "passes": {name: len(passes) for name, passes in recording.passes.items()},
                "damaged": dict(recording.damaged),
            },
            "rows": self._rows,
        }


class _Pace:
    """Waits until a moment of the recording is due; not at all without a speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: tuple[int, float] | None = None

    async def until(self, boot_ns: int) -> None:
        """Sleeps till then."""
        if not self._speed:
            return
        now_s = asyncio.get_running_loop().time()
        if self._first is None:
            self._first = (boot_ns, now_s)
        due_s = self._first[1] + (boot_ns - self._first[0]) / NS_PER_S / self._speed
        await asyncio.sleep(max(0.0, due_s - now_s))


def _moments(
    recording: Recording, parts: Sequence[_Part], show: _Show
) -> Iterator[tuple[int, Callable[[], Awaitable[None]]]]:
    """Passes at the time when they ended, ticks between them, and one look at the end."""
    every = heapq.merge(
        *(_timed(index, part) for index, part in enumerate(parts)), key=lambda one: one[:3]
    )
    now: tuple[int, int] | None = None
    for boot_ns, index, _, one in every:
        for tick in show.ticks(now, boot_ns) if now else ():
            yield tick[1], _later(show.tick, *tick)
        yield boot_ns, _later(show.play, parts[index], one)
        # The wall clock may have been set meanwhile: ticks follow it, as those of the agent do.
        now = (one.end.event_ns, boot_ns)
    if now:
        yield now[1], _later(show.tick, *now)


def _timed(index: int, part: _Part) -> Iterator[tuple[int, int, int, Pass]]:
    return ((one.end.boot_ns, index, one.number, one) for one in part.passes)


def _later(act: Callable[..., Awaitable[None]], *told: Any) -> Callable[[], Awaitable[None]]:
    return lambda: act(*told)


def _shown(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as text for people: a line with the time, one for each loop, and its marks."""
    for row in rows:
        yield stamp(row["event_ns"])
        by_loop: dict[str, list[str]] = {}
        for name, value in row["figures"].items():
            where, _, quantity = name.rpartition("/")
            by_loop.setdefault(where, []).append(_figure(quantity, value))
        for where in sorted(by_loop.keys() | row["flags_by_loop"].keys()):
            flags = row["flags_by_loop"].get(where, ())
            parts = [*by_loop.get(where, ()), *([f"({told(flags)})"] if flags else [])]
            if parts:
                yield f"  {where or 'site'}: {' '.join(parts)}"


def _figure(quantity: str, value: float) -> str:
    """A figure by its name; the class and the origin of an estimate as words."""
    if quantity == "quality":
        return f"class {QualityClass(round(value)).name}"
    if quantity == "provenance":
        return Provenance(round(value)).name.lower()
    return f"{quantity}={value:.6g}"
