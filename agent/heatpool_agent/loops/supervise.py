"""One supervisor per sensor: reads on its grid, counts its failures, looks again for ever."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from heatpool.errors import SensorBusy, SensorGone
from heatpool.process.journal import facts
from heatpool_agent.board import Board, SensorView
from heatpool_agent.core.reading import Reading
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.ports import Clock, Sensor

logger = logging.getLogger(__name__)

RETRY_LEAST_S = 1.0
RETRY_MOST_S = 300.0
# Something may be plugged in later, but not every second: begin at the longest wait.
TRIES_WHEN_ABSENT = 9
TOLD_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """A sensor with its place, its pace and its patience."""

    id: str
    kind: str
    sensor: Sensor
    period_s: float
    timeout_s: float
    is_billing: bool = False
    host: str = ""


def longest_period_s(sensor: Sensor) -> float:
    """How long a sensor may be left unread, s; a counter that wraps soon must be read sooner."""
    return float(getattr(sensor, "longest_period_s", math.inf))


def missing_told(sensor: Sensor) -> str:
    """What a sensor that answers does not show, in words; empty if it shows everything."""
    missing = getattr(sensor, "missing", ())
    told = [f"does not show {', '.join(missing)}"] if missing else []
    refused: Mapping[str, str] = getattr(sensor, "refused", {})
    for path, reason in islice(refused.items(), 1):
        count = f"{len(refused)} document{'s' if len(refused) > 1 else ''} refused"
        # A device may name and say anything of any length.
        told.append(f"{count}, such as {path[:TOLD_CHARACTERS]}: {reason[:TOLD_CHARACTERS]}")
    return "; ".join(told)


class Supervisor:
    """Keeps one sensor read; only a bug of ours is loud, and stops nothing but that pass."""

    def __init__(
        self,
        driven: Driven,
        board: Board,
        clock: Clock,
        take: Callable[[Driven, Sequence[Reading]], Awaitable[None]],
    ) -> None:
        self._driven = driven
        self._board = board
        self._clock = clock
        self._take = take
        self._view = SensorView(id=driven.id, kind=driven.kind, state="starting")
        self._tries = 0
        self._period_s = driven.period_s
        board.post_sensor(self._view)

    async def run(self) -> None:
        """Probes and reads until cancelled."""
        while not self._board.is_stopping:
            asked_s = 0.0
            try:
                await self._watch()
            except SensorGone as error:
                self._failed("gone", error.reason, error.fix)
            except SensorBusy as error:
                self._failed("busy", str(error), "")
                asked_s = error.wait_s
            except TimeoutError:
                self._failed("gone", f"no answer within {self._driven.timeout_s:g} s", "")
            except Exception as error:
                logger.exception("sensor.bug", extra=facts(sensor=self._driven.id))
                self._failed("gone", f"{type(error).__name__}: {error}", "report this as a bug")
            if not self._board.is_stopping:
                await asyncio.sleep(max(asked_s, self._wait_s()))

    async def _watch(self) -> None:
        async with asyncio.timeout(self._driven.timeout_s):
            channels = await self._driven.sensor.probe()
        if not channels:
            self._tries = TRIES_WHEN_ABSENT
            self._failed("absent", "nothing of this kind here", "")
            return
        self._period_s = min(self._driven.period_s, longest_period_s(self._driven.sensor))
        # At once, then on the grid: the first tick of a battery meter may be 15 minutes away.
        while not self._board.is_stopping:
            try:
                await self._read_once()
            except SensorBusy as error:
                self._failed("busy", str(error), "")
                await asyncio.sleep(error.wait_s)
            await until_next_tick(self._period_s, self._clock)

    async def _read_once(self) -> None:
        before_ns = self._clock.boot_ns()
        async with asyncio.timeout(self._driven.timeout_s):
            readings = tuple(await self._driven.sensor.read())
        now_ns = self._clock.boot_ns()
        if self._view.state in ("gone", "busy"):
            logger.info("sensor.again", extra=facts(sensor=self._driven.id))
        self._tries = 0
        self._post(
            state="up",
            detail=missing_told(self._driven.sensor),
            fix="",
            readings_count=len(readings),
            read_s=(now_ns - before_ns) / 1e9,
            boot_ns=now_ns,
        )
        self._board.latest[self._driven.id] = readings
        await self._take(self._driven, readings)

    def _failed(self, state: str, detail: str, fix: str) -> None:
        if (self._view.state, self._view.detail) != (state, detail):
            logger.log(
                logging.INFO if state == "absent" else logging.WARNING,
                "sensor.%s",
                state,
                extra=facts(sensor=self._driven.id, reason=detail, fix=fix),
            )
        self._post(
            state=state, detail=detail, fix=fix, failures_count=self._view.failures_count + 1
        )
        if state == "gone":
            self._let_go()

    def _let_go(self) -> None:
        """Who is gone publishes nothing: its last words go stale as any others."""
        last = self._board.latest.get(self._driven.id, ())
        if any(reading.holds_s is not None for reading in last):
            self._board.latest[self._driven.id] = tuple(replace(r, holds_s=None) for r in last)

    def _post(self, **changes: object) -> None:
        self._view = replace(self._view, **changes)  # type: ignore[arg-type]
        self._board.post_sensor(self._view)

    def _wait_s(self) -> float:
        """Full jitter between nothing and a doubling bound, so that sites do not march in step."""
        self._tries += 1
        most_s = min(RETRY_MOST_S, RETRY_LEAST_S * 2 ** min(self._tries, 16))
        return random.uniform(RETRY_LEAST_S / 2, most_s)
