"""A meter on loan: every sensor is read for a while, and the one named teaches."""

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from heatpool.errors import ConfigError
from heatpool.sample import SiteId
from heatpool_agent.assembly import SystemClock, loop_settings, open_sensors
from heatpool_agent.board import Board
from heatpool_agent.config import Config, mistakes
from heatpool_agent.core import calibrate
from heatpool_agent.core.calibrate import Learner
from heatpool_agent.core.coefficients import LEAST_COUNT, Coefficients
from heatpool_agent.core.contradictions import HOSTS
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.supervise import Driven, Supervisor

TELL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What a time beside a meter taught, and, where that is nothing, why."""

    coefficients: tuple[Coefficients, ...]
    learners: tuple[Learner, ...]
    reasons: tuple[str, ...]


async def fit(
    config: Config,
    *,
    reference: str,
    span_s: float,
    learners: Sequence[Learner] = (),
    tell: Callable[[str], None] = lambda _: None,
) -> Taught:
    """What the sensors teach within `span_s`, or until INT or TERM; `learners` go on.

    Without a `reference` every better meter teaches.

    Raises:
        ConfigError: with every mistake of the settings, or when no sensor is called so.
    """
    clock = SystemClock()
    board = Board(site_id=SiteId("calibration"))
    before = {_key(one): one.count for one in learners}
    learning = Learning(loop_settings(config), clock, learners=learners, reference=reference)
    async with AsyncExitStack() as stack:
        found = mistakes(config)
        driven = await open_sensors(config, clock, stack, found)
        if found:
            raise ConfigError(found)
        _check_reference(driven, reference)
        sense = Sense(
            loop_settings(config),
            board,
            clock,
            spooling=None,
            period_s=config.sampling.period_s,
            report_period_s=config.sampling.report_period_s,
            learning=learning,
        )
        watches = [Supervisor(one, board, clock, sense.take) for one in driven]
        await _run(watches, sense, board, _Told(learning, before, span_s, tell))
    taught = [one for one in learning.learners if one.count > before.get(_key(one), 0)]
    known = [one for one in map(calibrate.coefficients, taught) if one is not None]
    usable = tuple(one for one in known if one.count >= LEAST_COUNT)
    reasons = () if usable else tuple(_reasons(board, learning, reference))
    return Taught(coefficients=usable, learners=tuple(taught), reasons=reasons)


def _check_reference(driven: Sequence[Driven], reference: str) -> None:
    known = [one.id for one in driven]
    if reference and reference not in known:
        raise ConfigError([f"--reference: is {reference!r}; sensors are {', '.join(known)}"])


@dataclass(frozen=True, slots=True)
class _Told:
    """Says now and then how far the learning is."""

    learning: Learning
    before: Mapping[tuple[str, str, tuple[str, ...]], int]
    span_s: float
    tell: Callable[[str], None]

    def progress(self, past_s: float) -> None:
        """One line."""
        own = [
            f"{one.subject or 'this machine'} {one.kind}: "
            f"{one.count - self.before.get(_key(one), 0)} lessons"
            for one in self.learning.learners
        ]
        told = ", ".join(own) or "no meter seen beside a host yet"
        self.tell(f"{past_s / 60:.0f} of {self.span_s / 60:.0f} min: {told}")


async def _run(watches: Sequence[Supervisor], sense: Sense, board: Board, told: _Told) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as group:
            works = [("sense", sense.run())]
            works += [(f"sensor.{at}", watch.run()) for at, watch in enumerate(watches)]
            tasks = [group.create_task(work, name=name) for name, work in works]
            await _wait(stop, told)
            board.is_stopping = True
            for task in tasks:
                task.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _wait(stop: asyncio.Event, told: _Told) -> None:
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while (left_s := begun_s + told.span_s - loop.time()) > 0:
        try:
            async with asyncio.timeout(min(left_s, TELL_S)):
                await stop.wait()
                return
        except TimeoutError:
            told.progress(loop.time() - begun_s)


def _reasons(board: Board, learning: Learning, reference: str) -> list[str]:
    """Why nothing was learnt, and what mends it."""
    found = [
        f"{view.id}: {view.state}: {view.detail or 'shows nothing'}; {view.fix}".rstrip("; ")
        for view in board.sensors.values()
        if view.state != "up"
    ]
    still = [one for one in learning.learners if not calibrate.has_moved(one)]
    for one in still:
        moved = 100 * (1 - one.low_w / one.high_w) if one.high_w > 0 else 0.0
        found.append(
            f"{one.subject or 'this machine'} {one.kind}: the load moved by {moved:.0f} %, and "
            "10 % is needed; look for longer, or make it work and rest"
        )
    if not learning.learners:
        powers = [view.power for view in board.loops if view.power is not None]
        taken = {power.level for power in powers if power.level != HOSTS}
        taken |= {host.cover.level for power in powers for host in power.hosts}
        what = f"{reference} is no meter" if reference else "there is no meter"
        found.append(
            f"{what} that a host's power is taken from, beside counters or load of that host; "
            f"it is taken from: {', '.join(sorted(taken)) or 'nothing'}"
        )
    late = "fewer than 4 lessons: look for longer, and let each load stand for a minute or more"
    return found or [late]


def _key(learner: Learner) -> tuple[str, str, tuple[str, ...]]:
    return learner.kind, learner.subject, learner.basis
