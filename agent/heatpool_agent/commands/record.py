"""`heatpool-agent record`: what every sensor is asked and answers, kept to be played again."""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import msgspec

from heatpool.errors import ConfigError, StoreError
from heatpool.sample import SiteId
from heatpool_agent import sensors
from heatpool_agent.assembly import SystemClock, open_sensors
from heatpool_agent.board import Board
from heatpool_agent.commands import span
from heatpool_agent.config import Config, load, mistakes
from heatpool_agent.core.reading import Reading
from heatpool_agent.loops.supervise import Driven, Supervisor
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.tapes.keep import KeptSensor, Recorder
from heatpool_agent.tapes.lines import MANIFEST, Manifest
from heatpool_agent.tapes.own_files import MAPS
from heatpool_agent.tapes.redaction import Redaction

MOST_BYTES = 100_000_000
TELL_S = 10.0


@click.command("record")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option(
    "--for", "span_s", callback=span.span_s, default="60s", show_default=True, help="How long."
)
@click.option("--force", is_flag=True, help="Write over a recording that is there.")
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1000),
    default=MOST_BYTES,
    show_default=True,
    help="Passes that would exceed it are dropped and counted.",
)
def command(*, folder: Path, path: Path | None, span_s: float, force: bool, max_bytes: int) -> None:
    """Keep every exchange of every sensor in DIR, without secrets; ends on Ctrl-C too."""
    config = load(path, os.environ)
    _check_folder(folder, is_forced=force)
    manifest = asyncio.run(record(config, folder, span_s=span_s, max_bytes=max_bytes, tell=_tell))
    for name, counts in manifest.counts.items():
        _tell(f"{name}: {counts.passes} passes, {counts.exchanges} exchanges, {counts.bytes} B")
        if counts.dropped_passes:
            _tell(f"{name}: {counts.dropped_passes} passes dropped, --max-bytes is {max_bytes}")
    _tell(f"play it again: heatpool-agent replay {folder}")


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _check_folder(folder: Path, *, is_forced: bool) -> None:
    """An empty folder, or one with an older recording that may go."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if there and not is_forced:
        raise click.UsageError(f"{folder} is not empty; name another one, or add --force")
    if there and MANIFEST not in there:
        raise click.UsageError(f"{folder} holds something else than a recording: {there[0]}")
    for name in there:
        if name == MAPS:
            shutil.rmtree(folder / name)
        elif name == MANIFEST or name.endswith(".jsonl"):
            (folder / name).unlink()


async def record(
    config: Config,
    folder: Path,
    *,
    span_s: float,
    max_bytes: int = MOST_BYTES,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Runs every sensor at its own pace for a while; the manifest of what was kept.

    Raises:
        ConfigError: with every mistake of the settings.
        StoreError: the folder cannot be written.
    """
    blocks = [dict(block) for block in config.sensor] or [
        {"id": kind, "kind": kind} for kind in sensors.local_kinds()
    ]
    config = msgspec.structs.replace(config, sensor=tuple(blocks))
    await _check(config)
    try:
        recorder = await asyncio.to_thread(_recorder, config, folder, max_bytes)
        try:
            async with AsyncExitStack() as stack:
                driven = [await _kept(block, config, recorder, stack) for block in config.sensor]
                await _run(driven, recorder, span_s=span_s, tell=tell)
            return await asyncio.to_thread(recorder.end)
        finally:
            recorder.shut()
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror or error}") from error


async def _check(config: Config) -> None:
    """Every mistake at once, before anything is written; opening touches no device."""
    found = mistakes(config)
    async with AsyncExitStack() as stack:
        await open_sensors(config, SystemClock(), stack, found)
    if found:
        raise ConfigError(found)


def _recorder(config: Config, folder: Path, max_bytes: int) -> Recorder:
    folder.mkdir(parents=True, exist_ok=True)
    redaction = Redaction(config.sensor)
    clock = SystemClock()
    manifest = Manifest(
        heatpool=_version(),
        begun_ns=clock.event_ns(),
        sampling=msgspec.to_builtins(config.sampling),
        roots=msgspec.to_builtins(config.roots),
        loop=msgspec.to_builtins(config.loop),
        sensor=[_with_map(block, folder) for block in redaction.blocks],
    )
    recorder = Recorder(folder, manifest, redaction, clock=clock, max_bytes=max_bytes)
    recorder.begin()
    return recorder


def _version() -> str:
    return metadata.version("heatpool")


def _with_map(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A map of one's own comes along, or nobody else could play the recording."""
    told = str(block.get("map", ""))
    if not told.endswith(".toml"):
        return dict(block)
    place = f"{MAPS}/{block['id']}.toml"
    (folder / MAPS).mkdir(exist_ok=True)
    shutil.copyfile(told, folder / place)
    return {**block, "map": place}


async def _kept(
    block: Mapping[str, Any], config: Config, recorder: Recorder, stack: AsyncExitStack
) -> Driven:
    tape = await asyncio.to_thread(recorder.tape, str(block["id"]))
    roots = replace(config.roots.roots(), tape=tape)
    driven = await open_alone(block, config, stack, roots=roots, clock=tape)
    return replace(driven, sensor=KeptSensor(driven.sensor, tape))


async def open_alone(
    block: Mapping[str, Any], config: Config, stack: AsyncExitStack, *, roots: Roots, clock: Clock
) -> Driven:
    """One sensor of the settings with roots, tape and clock of its own.

    Raises:
        ConfigError: with every mistake of its block.
    """
    found: list[str] = []
    one = msgspec.structs.replace(config, sensor=(dict(block),))
    driven = await open_sensors(one, clock, stack, found, roots_of=lambda _: roots)
    if found:
        raise ConfigError(found)
    return driven[0]


async def _run(
    driven: Sequence[Driven], recorder: Recorder, *, span_s: float, tell: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    board = Board(site_id=SiteId("recording"))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    Supervisor(one, board, recorder.clock, _take).run(), name=f"sensor {one.id}"
                )
                for one in driven
            ]
            await _wait(stop, recorder, span_s=span_s, tell=tell)
            # What is cut off now is no failure of its sensor.
            board.is_stopping = recorder.is_ending = True
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _take(driven: Driven, readings: Sequence[Reading]) -> None:
    """Nothing is made of the readings here: they come again when the recording is played."""


async def _wait(
    stop: asyncio.Event, recorder: Recorder, *, span_s: float, tell: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while (left_s := begun_s + span_s - loop.time()) > 0:
        try:
            async with asyncio.timeout(min(left_s, TELL_S)):
                await stop.wait()
                return
        except TimeoutError:
            counts = recorder.counts.values()
            tell(
                f"{loop.time() - begun_s:.0f} of {span_s:.0f} s: {len(counts)} sensors, "
                f"{sum(one.passes for one in counts)} passes, {sum(one.bytes for one in counts)} B"
            )
