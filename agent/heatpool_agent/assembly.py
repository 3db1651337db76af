"""Turns settings into opened parts: clock, places, sensors, actuators, spool.

`app` runs what is assembled here, and the one-shot commands use single parts of it.
"""

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import fields

from heatpool.errors import ConfigError, StoreError
from heatpool.process import settings
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_agent import calibrations, sensors, spool, spool_files, whole_file
from heatpool_agent.board import Board
from heatpool_agent.config import Config, Loop, loop_model, loop_priors, mistakes
from heatpool_agent.config import state_dir as state_dir
from heatpool_agent.core.safety import Limits
from heatpool_agent.kept_orders import SeenOrders
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.sense import LoopSettings
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock, Roots, Spool
from heatpool_agent.spool import late

if TYPE_CHECKING:
    from heatpool_agent.enrol.files import Enrolled
    from heatpool_agent.loops.obey import Habits, Obey

logger = logging.getLogger(__name__)

# A site without a loop in its settings still has heat: with the air, all of it.
NO_LOOP = "site"
# Sensors that never see coolant.
DRY_KINDS = frozenset({"rapl", "hwmon", "nvml", "nvidia_smi", "host", "perf_event"})
BILLING_PERIOD_S = 60.0
# Where StateDirectory= of our unit lies.
SERVICE_FOLDER = Path("/var/lib/heatpool-agent")
# A loop has answered to all but a hundredth after five times its lag; its meter is read thrice.
LAGS_COUNT, METER_S = 5, 3 * BILLING_PERIOD_S


class SystemClock:
    """The machine's own clocks."""

    def event_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot, running on through suspend."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def inhabited_dir(config: Config, environ: Mapping[str, str]) -> Path:
    """`state_dir` for who looks or joins: a person's own, or else that of the service."""
    own = state_dir(config, environ)
    if config.site.state_dir or own.exists() or not SERVICE_FOLDER.is_dir():
        return own
    return SERVICE_FOLDER


def fresh_name() -> str:
    """A name that no other site has."""
    return f"site-{os.urandom(4).hex()}"


def site_id(
    config: Config,
    folder: Path,
    enrolled: "Enrolled | None" = None,
    *,
    fresh: Callable[[], str] = fresh_name,
) -> SiteId:
    """The site's name: from the settings or the identity it has, or made once and kept.

    It is never taken from the hardware.

    Raises:
        StoreError: it cannot be kept.
    """
    if config.site.id != "auto":
        return SiteId(config.site.id)
    if enrolled is not None:
        return enrolled.site_id
    path = folder / "site_id"
    try:
        if not path.exists():
            # Whole or not at all: a power cut leaves no nameless site.
            whole_file.put(path, f"{fresh()}\n".encode())
        return SiteId(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; set site.id or site.state_dir") from error


def loop_settings(config: Config) -> list[LoopSettings]:
    """The loops of the site; a site that names none loses all its heat with the air."""
    kinds = [str(block.get("kind")) for block in config.sensor] or sensors.local_kinds()
    has_pipes = bool(config.loop) and not DRY_KINDS.issuperset(kinds)
    loops = config.loop or (Loop(id=NO_LOOP, cooling="air"),)
    return [_loop_settings(loop, has_pipes=has_pipes) for loop in loops]


def _loop_settings(loop: Loop, *, has_pipes: bool) -> LoopSettings:
    priors, reported_u_frac = loop_priors(loop.cooling)
    return LoopSettings(
        loop_id=loop.id,
        fluid=loop.fluid,
        sensor_side=loop.sensor_side,
        priors=priors,
        reported_u_frac=reported_u_frac,
        rejection_capacity_w=loop.rejection_capacity_w,
        model=loop_model(loop),
        has_coolant=loop.cooling != "air",
        has_pipes=has_pipes,
    )


def open_learning(
    config: Config, clock: Clock, folder: Path, *, is_guest: bool = False
) -> Learning:
    """What is known of the site's hosts and loops; blocking. A guest changes no file."""
    shelf = calibrations.Shelf(folder, is_guest=is_guest)
    return Learning(loop_settings(config), clock, shelf=shelf)


async def open_parts(
    config: Config, board: Board, clock: Clock, stack: AsyncExitStack, *, folder: Path | None = None
) -> "tuple[list[Driven], list[Obey]]":
    """Sensors and actuators that the settings name; opening touches no device.

    `folder` is where a driver may leave a note for its next life; without one it leaves none.

    Raises:
        ConfigError: with every mistake of the settings and of every block.
    """
    found = mistakes(config)
    roots = replace(config.roots.roots(), state=folder)
    driven = await open_sensors(config, clock, stack, found, roots_of=lambda _: roots)
    obeys = await _open_obeys(config, board, clock, stack, found, folder)
    if found:
        raise ConfigError(found)
    return driven, obeys


async def open_sensors(
    config: Config,
    clock: Clock,
    stack: AsyncExitStack,
    found: list[str],
    *,
    roots_of: Callable[[str], Roots] | None = None,
) -> list[Driven]:
    """Every sensor named, or the machine's own where none is; mistakes join `found`.

    `roots_of` gives each sensor, by its id, its roots and its tape; left out, it leaves no trace.
    """
    roots_of = roots_of or (lambda _: config.roots.roots())
    blocks = [dict(block) for block in config.sensor] or [
        {"id": kind, "kind": kind} for kind in sensors.local_kinds()
    ]
    opened = []
    found += _doubles(blocks, "sensor")
    for index, block in enumerate(blocks):
        with _collected(found, f"sensor[{index}]", block):
            opened.append(await _open_sensor(block, config, clock, stack, roots_of))
    return opened


def own_timeout_s(block: Mapping[str, Any]) -> float | None:
    """The limit that a sensor's block says, or else its driver, s; None: none can be told."""
    told = block.get("timeout_s")
    if told is None:
        try:
            kind = sensors.driver(str(block.get("kind", ""))).Config
        except ConfigError:
            return None
        told = {field.name: field.default for field in fields(kind)}.get("timeout_s")
    if not isinstance(told, int | float) or isinstance(told, bool):
        return None
    return float(told)


@contextmanager
def _collected(found: list[str], place: str, block: Mapping[str, Any]) -> Iterator[None]:
    """Puts the mistakes of one block among the others, each with its place."""
    try:
        yield
    except ConfigError as error:
        # A mistake in a file that the block names, such as a map, keeps that file's name.
        where = f"{error.file}: " if error.file else ""
        name = block.get("id", "?")
        found += [f"{place} {name!r}: {where}{mistake}" for mistake in error.mistakes]


async def _open_sensor(
    block: Mapping[str, Any],
    config: Config,
    clock: Clock,
    stack: AsyncExitStack,
    roots_of: Callable[[str], Roots],
) -> Driven:
    module = sensors.driver(str(block.get("kind", "")))
    chosen = settings.convert(block, module.Config)
    _check_loop(chosen.loop, config)
    _check_loop(getattr(chosen, "primary_loop", ""), config, key="primary_loop")
    sensor = await stack.enter_async_context(module.open(chosen, roots_of(chosen.id), clock))
    return Driven(
        id=chosen.id,
        kind=chosen.kind,
        sensor=sensor,
        period_s=chosen.period_s or _period_s(chosen.role, config, _least_period_s(module)),
        timeout_s=chosen.timeout_s,
        is_billing=chosen.role == "billing",
        host=chosen.host,
    )


def _least_period_s(module: object) -> float:
    """The pace that a driver names as `PERIOD_S` for devices that must not be asked often."""
    return float(getattr(module, "PERIOD_S", 0.0))


def _period_s(role: str, config: Config, least_s: float) -> float:
    """A billing meter lives for years on its battery: once a minute unless told otherwise."""
    return max(BILLING_PERIOD_S if role else least_s, config.sampling.period_s)


def _check_loop(loop_id: str, config: Config, *, key: str = "loop") -> None:
    known = [loop.id for loop in config.loop]
    if loop_id and loop_id not in known:
        told = ", ".join(known) or "no [[loop]] yet"
        raise ConfigError([f"{key}: is {loop_id!r}; known: {told}"])


def _doubles(blocks: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    ids = [block.get("id") for block in blocks]
    return [
        f"{what}[{index}].id: {name!r} is there twice"
        for index, name in enumerate(ids)
        if name in ids[:index]
    ]


async def _open_obeys(
    config: Config,
    board: Board,
    clock: Clock,
    stack: AsyncExitStack,
    found: list[str],
    folder: Path | None,
) -> "list[Obey]":
    """One loop of obedience per actuator; mistakes join `found`."""
    if not config.actuator:
        return []
    from heatpool_agent import actuators  # noqa: PLC0415  # for sites that have one
    from heatpool_agent.loops.obey import Obey  # noqa: PLC0415  # likewise

    obeys = []
    found += _doubles(config.actuator, "actuator")
    for index, block in enumerate(config.actuator):
        with _collected(found, f"actuator[{index}]", block):
            module = actuators.driver(str(block.get("kind", "")))
            chosen = settings.convert(block, module.Config)
            loop_id = _loop_of(chosen.loop, config)
            _check_armed(loop_id, config, is_armed=chosen.armed)
            roots = config.roots.roots()
            actuator = await stack.enter_async_context(module.open(chosen, roots, clock))
            habits = await asyncio.to_thread(_habits, loop_id, config, clock, folder)
            limits = _limits(loop_id, config)
            obeys.append(Obey(loop_id, actuator, limits, board, clock, habits=habits))
    loops = [obey.loop_id for obey in obeys]
    found += [
        f"actuator: loop {loop!r} has more than one" for loop in {*loops} if loops.count(loop) > 1
    ]
    return obeys


def _loop_of(loop_id: str, config: Config) -> str:
    """The loop that an actuator acts on: the one named, or the site's only one."""
    _check_loop(loop_id, config)
    if loop_id or len(config.loop) == 1:
        return loop_id or config.loop[0].id
    raise ConfigError(["loop: is missing; an actuator needs one, so that safety can see it"])


def _check_armed(loop_id: str, config: Config, *, is_armed: bool) -> None:
    (loop,) = [loop for loop in config.loop if loop.id == loop_id]
    if is_armed and loop.rejection_capacity_w is None:
        text = (
            f"armed: loop {loop_id!r} has no rejection_capacity_w; prove first what it can reject"
        )
        raise ConfigError([text])


def _habits(loop_id: str, config: Config, clock: Clock, folder: Path | None) -> "Habits":
    """How a loop obeys; without a folder nothing is remembered."""
    from heatpool_agent.loops.obey import Habits  # noqa: PLC0415  # for sites with an actuator

    (loop,) = [loop for loop in config.loop if loop.id == loop_id]
    model = loop_model(loop)
    habits = Habits(
        hold_s=config.orders.hold_s, effect_s=METER_S + LAGS_COUNT * (model.tau_s + model.delay_s)
    )
    if folder is None:
        return habits
    seen = SeenOrders(folder, loop_id)
    try:
        seen_seq = seen.read()
    except StoreError as error:
        # Numbers are times of the aggregator's clock: what was recorded until now stays refused.
        logger.error("orders.unreadable", extra=facts(reason=str(error)))
        seen_seq = clock.event_ns()
    return replace(habits, seen_seq=seen_seq, keep=seen.keep)


def _limits(loop_id: str, config: Config) -> Limits:
    loop = next((loop for loop in config.loop if loop.id == loop_id), None)
    return Limits(
        max_heat_rate_w=loop.max_heat_rate_w if loop else None,
        rejection_capacity_w=loop.rejection_capacity_w if loop else None,
        hot_limit_c=loop.hot_limit_c if loop else Limits().hot_limit_c,
        has_leak_sensor=loop.has_leak_sensor if loop else True,
        safety_period_s=max(config.sampling.period_s, 1.0),
    )


def open_spool_or_late(
    config: Config, folder: Path, clock: Clock, *, name: Callable[[], None]
) -> Spool:
    """The site's queue on disk, or what stands for it while the disk refuses.

    `name` keeps the site's name; blocking.

    Raises:
        StoreError: another agent uses the folder, or a newer version wrote it.
    """

    def opened() -> Spool:
        name()
        return open_spool(config, folder, clock)

    try:
        return opened()
    except (StoreError, sqlite3.Error, OSError) as error:
        if not late.may_pass(error):
            raise
        why = str(error)
    logger.error("spool.late", extra=facts(reason=why))
    return spool.LateSpool(folder, opened, why=why)


def open_spool(config: Config, folder: Path, clock: Clock) -> Spool:
    """The site's queue on disk, its tables made or brought up to date.

    Raises:
        StoreError: the folder cannot be used, or is used by another agent or a newer version.
    """
    spool.heal_folder(folder, at_ns=clock.event_ns())
    versions = {spool_files.schema_version(folder / name) for name in spool_files.FILES.values()}
    if max(versions) > spool_files.SCHEMA_VERSION:
        raise StoreError(f"{folder} was written by a newer heatpool; upgrade this one")
    if min(versions) < spool_files.SCHEMA_VERSION:
        _migrated_aside(folder)
    sampling = config.sampling
    return spool.SqliteSpool(
        folder,
        clock=clock,
        rows_per_frame=round(sampling.message_period_s / sampling.report_period_s),
        max_bytes=config.spool.max_bytes,
        keep_s=config.spool.keep_s,
    )


def _migrated_aside(folder: Path) -> None:
    """Makes the tables in a short child, since sqlite-utils costs 13 MB that would stay here.

    Raises:
        StoreError: the child failed, with its last words.
    """
    command = [sys.executable, "-m", "heatpool_agent.spool_schema", str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        words = child.stderr.strip().splitlines() or ["no word"]
        raise late.DiskRefused(f"spool {folder}: its tables could not be made: {words[-1]}")
