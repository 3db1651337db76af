"""Turns settings into opened parts: clock, places, sensors, actuators, spool.

`app` runs what is assembled here, and the one-shot commands use single parts of it.
"""

import logging
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from heatpool.errors import ConfigError, StoreError
from heatpool.process import settings
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_agent import actuators, sensors, spool
from heatpool_agent.board import Board
from heatpool_agent.config import Config, Loop, loop_priors
from heatpool_agent.core.safety import Limits
from heatpool_agent.loops.obey import Obey
from heatpool_agent.loops.sense import LoopSettings
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock, Spool

logger = logging.getLogger(__name__)

# A site without a loop in its settings still has heat: with the air, all of it.
NO_LOOP = "site"


class SystemClock:
    """The machine's own clocks."""

    def event_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot, running on through suspend."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def state_dir(config: Config, environ: Mapping[str, str]) -> Path:
    """Where this agent keeps its spool: settings, systemd's folder, else the user's own."""
    told = config.site.state_dir or environ.get("STATE_DIRECTORY", "")
    if told:
        return Path(told)
    home = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "heatpool" / "agent"


def site_id(config: Config, folder: Path) -> SiteId:
    """The site's name: from the settings, or made once and kept; never from the hardware.

    Raises:
        StoreError: it cannot be kept.
    """
    if config.site.id != "auto":
        return SiteId(config.site.id)
    path = folder / "site_id"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(f"site-{secrets.token_hex(4)}\n", encoding="utf-8")
        return SiteId(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; set site.id or site.state_dir") from error


def loop_settings(config: Config) -> list[LoopSettings]:
    """The loops of the site; a site that names none loses all its heat with the air."""
    return [_loop_settings(loop) for loop in config.loop or (Loop(id=NO_LOOP, cooling="air"),)]


def _loop_settings(loop: Loop) -> LoopSettings:
    priors, reported_u_frac = loop_priors(loop.cooling)
    return LoopSettings(
        loop_id=loop.id,
        fluid=loop.fluid,
        sensor_side=loop.sensor_side,
        priors=priors,
        reported_u_frac=reported_u_frac,
        rejection_capacity_w=loop.rejection_capacity_w,
    )


async def open_sensors(config: Config, clock: Clock, stack: AsyncExitStack) -> list[Driven]:
    """Every sensor that the settings name, or the machine's own where they name none.

    Raises:
        ConfigError: with every mistake of every block.
    """
    blocks = [dict(block) for block in config.sensor] or [
        {"id": kind, "kind": kind} for kind in sensors.local_kinds()
    ]
    opened, mistakes = [], _doubles(blocks, "sensor")
    for index, block in enumerate(blocks):
        try:
            opened.append(await _open_sensor(block, config, clock, stack))
        except ConfigError as error:
            mistakes += [f"sensor[{index}]: {mistake}" for mistake in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)
    return opened


async def _open_sensor(
    block: Mapping[str, Any], config: Config, clock: Clock, stack: AsyncExitStack
) -> Driven:
    module = sensors.driver(str(block.get("kind", "")))
    chosen = settings.convert(block, module.Config)
    _check_loop(chosen.loop, config)
    sensor = await stack.enter_async_context(module.open(chosen, config.roots.roots(), clock))
    default_s = getattr(module, "PERIOD_S", config.sampling.period_s)
    return Driven(
        id=chosen.id,
        kind=chosen.kind,
        sensor=sensor,
        period_s=chosen.period_s or default_s,
        timeout_s=chosen.timeout_s,
        is_billing=chosen.role == "billing",
    )


def _check_loop(loop_id: str, config: Config) -> None:
    known = [loop.id for loop in config.loop]
    if loop_id and loop_id not in known:
        raise ConfigError([f"loop: is {loop_id!r}; known: {', '.join(known) or 'no [[loop]] yet'}"])


def _doubles(blocks: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    ids = [block.get("id") for block in blocks]
    return [
        f"{what}[{index}].id: {name!r} is there twice"
        for index, name in enumerate(ids)
        if name in ids[:index]
    ]


async def open_obeys(
    config: Config, board: Board, clock: Clock, stack: AsyncExitStack
) -> list[Obey]:
    """One loop of obedience per actuator.

    Raises:
        ConfigError: with every mistake of every block.
    """
    obeys, mistakes = [], _doubles(config.actuator, "actuator")
    for index, block in enumerate(config.actuator):
        try:
            module = actuators.driver(str(block.get("kind", "")))
            chosen = settings.convert(block, module.Config)
            _check_loop(chosen.loop, config)
            roots = config.roots.roots()
            actuator = await stack.enter_async_context(module.open(chosen, roots, clock))
            obeys.append(Obey(chosen.loop, actuator, _limits(chosen.loop, config), board, clock))
        except ConfigError as error:
            mistakes += [f"actuator[{index}]: {mistake}" for mistake in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)
    return obeys


def _limits(loop_id: str, config: Config) -> Limits:
    loop = next((loop for loop in config.loop if loop.id == loop_id), None)
    return Limits(
        max_heat_rate_w=loop.max_heat_rate_w if loop else None,
        rejection_capacity_w=loop.rejection_capacity_w if loop else None,
        hot_limit_c=loop.hot_limit_c if loop else Limits().hot_limit_c,
        has_leak_sensor=loop.has_leak_sensor if loop else True,
        safety_period_s=max(config.sampling.period_s, 1.0),
    )


def open_spool(config: Config, folder: Path, clock: Clock) -> Spool:
    """The site's queue on disk, its tables made or brought up to date.

    Raises:
        StoreError: the folder cannot be used, or is used by another agent or a newer version.
    """
    for aside in spool.set_aside_damaged(folder):
        logger.error("spool.damaged", extra=facts(kept_as=aside, now="a new queue begins"))
    versions = {spool.schema_version(folder / name) for name in spool.FILES.values()}
    if max(versions) > spool.SCHEMA_VERSION:
        raise StoreError(f"{folder} was written by a newer heatpool; upgrade this one")
    if min(versions) < spool.SCHEMA_VERSION:
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
        raise StoreError(f"spool {folder}: its tables could not be made: {words[-1]}")
