"""Composition root of the agent: opens what the settings name, runs it, closes in reverse."""

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId, SpoolKind
from heatpool_agent import watchdog
from heatpool_agent.assembly import (
    SystemClock,
    fresh_name,
    loop_settings,
    open_learning,
    open_parts,
    open_spool_or_late,
    site_id,
    state_dir,
)
from heatpool_agent.board import Board, UplinkView
from heatpool_agent.config import Config, is_announced, is_loopback
from heatpool_agent.kept_orders import OverrideFile
from heatpool_agent.loops.desk import Desk
from heatpool_agent.loops.enrolment import Enrolment
from heatpool_agent.loops.enrolment import Settings as EnrolmentSettings
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven, Supervisor
from heatpool_agent.ports import Clock, Speaker, Spool
from heatpool_agent.spool.late import may_pass

if TYPE_CHECKING:
    from heatpool_agent.loops.obey import Obey

logger = logging.getLogger(__name__)

# Stopping may take ten seconds in all; half of that is for a last exchange with the aggregator.
DRAIN_S = 5.0
# What is there to connect to within this time was there when the agent started.
START_S = 5.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one site runs on."""

    config: Config
    environ: Mapping[str, str]
    board: Board
    clock: Clock
    driven: Sequence[Driven]
    obeys: "Sequence[Obey]"
    desk: Desk
    spool: Spool
    spooling: Spooling
    learning: Learning
    enrolment: Enrolment


async def run(config: Config, *, environ: Mapping[str, str], ready_file: Path | None) -> None:
    """The daemon, until TERM or INT; then everything is flushed within ten seconds.

    Raises:
        HeatpoolError: it cannot start.
    """
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        parts = await _opened(config, environ, stack)
        address = await stack.enter_async_context(_pages(parts))
        _tell_ready(ready_file, parts.board, address)
        await _serve(parts, stop)
    logger.info("agent.stopped")


async def _opened(config: Config, environ: Mapping[str, str], stack: AsyncExitStack) -> Parts:
    clock = SystemClock()
    folder = state_dir(config, environ)
    board, keep_name = await asyncio.to_thread(_named, config, folder)
    enrolment = Enrolment(_enrolment_settings(config, folder), board, clock)
    await enrolment.look()
    driven, obeys = await open_parts(config, board, clock, stack, folder=folder)
    spool = await asyncio.to_thread(
        open_spool_or_late, config, folder, clock, name=lambda: keep_name(enrolment)
    )
    spooling = Spooling(spool, board)
    stack.push_async_callback(spooling.close)
    await spooling.close_frame()
    learning = await asyncio.to_thread(open_learning, config, clock, folder)
    stack.push_async_callback(learning.keep)
    return Parts(
        config=config,
        environ=environ,
        board=board,
        clock=clock,
        driven=driven,
        obeys=obeys,
        desk=Desk([obey.loop_id for obey in obeys], board, clock, OverrideFile(folder)),
        spool=spool,
        spooling=spooling,
        learning=learning,
        enrolment=enrolment,
    )


def _named(config: Config, folder: Path) -> tuple[Board, Callable[[Enrolment], None]]:
    """A board with the site's name, and what keeps that once the disk takes it."""
    try:
        return Board(site_id=site_id(config, folder)), lambda _: None
    except StoreError as error:
        if not may_pass(error):
            raise
    board = Board(site_id=SiteId(fresh_name()))

    def keep(enrolment: Enrolment) -> None:
        own = board.site_id
        board.site_id = site_id(config, folder, enrolment.enrolled, fresh=lambda: own)

    return board, keep


def _enrolment_settings(config: Config, folder: Path) -> EnrolmentSettings:
    own_id = "" if config.site.id == "auto" else config.site.id
    return EnrolmentSettings(state=folder, site_id=own_id, url=config.aggregator.url)


async def _serve(parts: Parts, stop: asyncio.Event) -> None:
    """The line outlives the site's loops, so that their last words still get through."""
    async with asyncio.TaskGroup() as line:
        push = line.create_task(_push(parts), name="push")
        async with asyncio.TaskGroup() as site:
            tasks = _site_tasks(parts, site)
            try:
                await stop.wait()
            finally:
                parts.board.is_stopping = True
            logger.info("agent.stopping")
            watchdog.stopping(parts.environ)
            for task in tasks:
                task.cancel()
        await parts.spooling.close_frame()
        await _drained(parts.board)
        parts.board.is_line_closing = True
        push.cancel()


def _site_tasks(parts: Parts, site: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    sampling = parts.config.sampling
    sense = Sense(
        loop_settings(parts.config),
        parts.board,
        parts.clock,
        spooling=parts.spooling,
        period_s=sampling.period_s,
        report_period_s=sampling.report_period_s,
        beat=lambda: _beat(parts),
        learning=parts.learning,
    )
    watches = [Supervisor(one, parts.board, parts.clock, sense.take) for one in parts.driven]
    works = {"sense": sense.run(), "learning": parts.learning.run(), "desk": parts.desk.run()}
    works |= {f"sensor.{one.id}": w.run() for one, w in zip(parts.driven, watches, strict=True)}
    works |= {"enrolment": parts.enrolment.run()}
    works |= {f"obey.{index}": obey.run() for index, obey in enumerate(parts.obeys)}
    return [site.create_task(work, name=name) for name, work in works.items()]


def _beat(parts: Parts) -> None:
    """The sampling loop itself says that it lives; a dead one behind a page must not."""
    tell = watchdog.ready if parts.board.ticks == 1 else watchdog.alive
    tell(parts.environ)


async def _drained(board: Board) -> None:
    """Waits until all is durable at the other end; a line that is down ends the wait."""
    try:
        async with asyncio.timeout(DRAIN_S):
            while board.uplink.state == "connected" and unacked_count(board):
                board.spooled.set()
                await asyncio.sleep(0.05)
    except TimeoutError:
        logger.warning("agent.unacked", extra=facts(batches=unacked_count(board)))


def unacked_count(board: Board) -> int:
    """Frames that are on disk here and not known to be durable elsewhere."""
    return sum(max(0, mark.next_seq - 1 - mark.durable_seq) for mark in board.marks.values())


async def _push(parts: Parts) -> None:
    """A line to wherever this site has joined, or to the address in the settings.

    Sites that start together, as after a power cut, must not all come at once; one that joins, or
    has a new certificate, comes when it has it.
    """
    loop = asyncio.get_running_loop()
    start_s, line = loop.time(), await parts.enrolment.line()
    from heatpool_agent.core.patience import spread_s

    wait_s = spread_s(parts.board.site_id)
    while not parts.board.is_line_closing:
        line = await parts.enrolment.line()
        if is_loopback(line.url) or loop.time() - start_s > START_S:
            wait_s = 0.0
        async with asyncio.TaskGroup() as group:
            pushed = _pushed(parts, line.url, first_wait_s=wait_s)
            pushing = group.create_task(pushed, name="push.line")
            await parts.enrolment.moved(line)
            pushing.cancel()
        parts.board.uplink = UplinkView()


async def _pushed(parts: Parts, url: str, *, first_wait_s: float) -> None:
    from heatpool_agent.loops.push import Push
    from heatpool_agent.uplinks import grpc

    push = Push(
        parts.spool,
        parts.spooling,
        parts.board,
        speaker=lambda: _speaker(parts),
        open_uplink=lambda who: grpc.open(url, who, parts.clock, who.identity),
        clock=parts.clock,
        first_wait_s=first_wait_s,
        message_period_s=parts.config.sampling.message_period_s,
        report_period_s=parts.config.sampling.report_period_s,
    )
    await push.run()


def _speaker(parts: Parts) -> Speaker:
    capacities_w = [loop.rejection_capacity_w for loop in parts.config.loop]
    known_w = [capacity_w for capacity_w in capacities_w if capacity_w is not None]
    enrolled = parts.enrolment.enrolled
    is_known = bool(capacities_w) and len(known_w) == len(capacities_w)
    return Speaker(
        site_id=parts.board.site_id,
        marks=[parts.spool.mark(kind) for kind in SpoolKind],
        schemas=parts.spool.schemas(),
        rejection_capacity_w=sum(known_w) if is_known else None,
        loop_ids=[loop.id for loop in parts.config.loop],
        identity=enrolled.identity if enrolled else None,
    )


@asynccontextmanager
async def _pages(parts: Parts) -> AsyncIterator[str | None]:
    """The local status page, and its announcement where others may see it."""
    settings = parts.config.http
    if not settings.listen:
        yield None
        return
    from heatpool_agent import http

    period_s = parts.config.sampling.period_s
    async with AsyncExitStack() as stack:
        served = http.serve(
            settings.listen,
            parts.board,
            parts.clock,
            period_s=period_s,
            override=parts.desk.file,
        )
        address = await stack.enter_async_context(served)
        if is_announced(settings, address):
            from heatpool_agent import announce

            announced = announce.following(settings, address, lambda: parts.board.site_id)
            await stack.enter_async_context(announced)
        logger.info("agent.page", extra=facts(url=f"http://{address}/"))
        yield address


def _tell_ready(path: Path | None, board: Board, address: str | None) -> None:
    """Writes aside and renames, so that who waits for the file never reads half of it."""
    logger.info("agent.ready", extra=facts(site=board.site_id))
    if path is not None:
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps({"site_id": board.site_id, "http": address}), encoding="utf-8")
        os.replace(aside, path)
