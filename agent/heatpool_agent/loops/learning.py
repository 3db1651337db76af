"""The daemon learns its hosts and loops from whatever better meter it sees, and remembers.

Ticks only add up; each ten seconds are a lesson. Files are read and written beside the ticks.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from math import exp

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.units import NS_PER_S
from heatpool_agent.board import LoopView
from heatpool_agent.core import calibrate, lessons, levels
from heatpool_agent.core.calibrate import Calibration, Learner
from heatpool_agent.core.coefficients import LOOP, Coefficients, Learned, chosen
from heatpool_agent.core.lessons import Gathered, Key, Pace, Sight
from heatpool_agent.core.tree import Tree
from heatpool_agent.loops.loop_pass import GAP_S, LoopSettings, Pass
from heatpool_agent.ports import Clock, Shelf

logger = logging.getLogger(__name__)

# A running daemon takes over what a person had learnt within a minute.
LOOK_S = 30.0
SAVE_S = 600.0
# What was learnt is made into coefficients that often: a fit costs a millisecond.
_RENEW_NS = 60 * NS_PER_S
# Heat is compared with power only while the loop is settled.
_SETTLED_FRAC = 0.10
MOST_LEARNERS = 256
_POWER = frozenset({"power_w", "energy_j", "energy_wh"})


class Learning:
    """What is known of the hosts and loops of a site, growing with each tick.

    `shelf` keeps it; without one nothing is kept. `learners` go on where they were. With a
    `reference` only that sensor teaches.
    """

    def __init__(
        self,
        loops: Sequence[LoopSettings],
        clock: Clock,
        *,
        shelf: Shelf | None = None,
        learners: Iterable[Learner] = (),
        reference: str = "",
    ) -> None:
        self._loops = loops
        self._clock = clock
        self._shelf = shelf
        self._told = shelf.calibration().coefficients if shelf is not None else ()
        own = (*learners, *(shelf.learned().learners if shelf is not None else ()))
        self._reference = reference
        self._learners: dict[Key, Learner] = {_key(one): one for one in own}
        self._gathered: dict[Key, Gathered] = {}
        self._paces: dict[Key, Pace] = {}
        self._lagged_w: dict[str, float] = {}
        self._before_ns: int | None = None
        self._known: Mapping[str, Learned] = {}
        self._renewed_ns: int | None = None
        self._saved_s = 0.0
        self._is_new = False

    @property
    def coefficients(self) -> tuple[Coefficients, ...]:
        """What a person had learnt, and what the daemon has learnt so far."""
        own = (calibrate.coefficients(one) for one in self._learners.values())
        return (*self._told, *(one for one in own if one is not None))

    @property
    def learners(self) -> tuple[Learner, ...]:
        """All that learns, as it stands."""
        return tuple(self._learners.values())

    def learned(self, event_ns: int) -> Mapping[str, Learned]:
        """What may be used now, by host; renewed once a minute."""
        age_ns = event_ns - (self._renewed_ns or 0)
        if self._renewed_ns is None or not 0 <= age_ns < _RENEW_NS:
            self._renewed_ns = event_ns
            self._known = chosen(self.coefficients, event_ns)
        return self._known

    def observe(self, trees: Sequence[Tree], views: Sequence[LoopView], tick: Pass) -> None:
        """One tick of every loop; faults that last and heats that disagree teach nothing."""
        span_s = self._span_s(tick.boot_ns)
        loads = levels.host_loads(tick.usable, tick.hosts)
        for found, view, loop in zip(trees, views, self._loops, strict=True):
            lagged_w = self._lag(loop, found, span_s)
            is_clean = not view.disagreements and all(f.end_ns is not None for f in view.faults)
            if not is_clean or span_s <= 0:
                continue
            named = {host.host for host in found.power.hosts} if found.power is not None else set()
            is_only = len(self._loops) == 1
            own = {name: load for name, load in loads.items() if name in named or is_only}
            sights = lessons.host_sights(found, own)
            if lagged_w is not None and loop.has_coolant:
                sights += lessons.loop_sight(
                    loop.loop_id,
                    lagged_w=lagged_w,
                    hot_c=view.hot_c,
                    computed=view.computed,
                    priors=loop.priors,
                )
            self._take(self._of_reference(sights, tick), span_s, tick)

    def _of_reference(self, sights: list[Sight], tick: Pass) -> list[Sight]:
        if not self._reference:
            return list({sight.key: sight for sight in reversed(sights)}.values())
        loops = {r.loop for r in tick.usable if r.sensor == self._reference}
        return [
            sight
            for sight in sights
            if sight.sensors == {self._reference}
            or (sight.key[0] == LOOP and sight.key[1] in loops)
        ]

    def _take(self, sights: Iterable[Sight], span_s: float, tick: Pass) -> None:
        event_ns = tick.event_ns

        def ages_s(sensors: frozenset[str]) -> float:
            read = (r for r in tick.usable if r.sensor in sensors and r.quantity in _POWER)
            return max(((tick.boot_ns - r.boot_ns) / NS_PER_S for r in read), default=0.0)

        for sight in sights:
            sums = lessons.gathered(self._gathered.get(sight.key), sight, span_s)
            pace = lessons.aged(self._paces.get(sight.key, Pace()), ages_s(sight.sensors))
            told = lessons.lesson(sums, event_ns, least_s=pace.least_s)
            if told is None:
                self._gathered[sight.key], self._paces[sight.key] = sums, pace
                continue
            self._gathered.pop(sight.key, None)
            told, self._paces[sight.key] = lessons.settled(pace, told)
            if told is None:
                continue
            learner = self._learners.get(sight.key)
            if learner is None and len(self._learners) >= MOST_LEARNERS:
                continue
            before = lessons.resized(learner or lessons.learner_of(sight), told)
            after = calibrate.observed(before, told)
            self._is_new = self._is_new or after.count != (learner.count if learner else 0)
            self._learners[sight.key] = after

    def _span_s(self, boot_ns: int) -> float:
        before_ns, self._before_ns = self._before_ns, boot_ns
        span_s = (boot_ns - before_ns) / NS_PER_S if before_ns is not None else 0.0
        if 0 < span_s <= GAP_S:
            return span_s
        # What was gathered before a gap is no part of what comes after it.
        self._gathered.clear()
        self._paces.clear()
        self._lagged_w.clear()
        return 0.0

    def _lag(self, loop: LoopSettings, found: Tree, span_s: float) -> float | None:
        """Electric power after the loop's thermal mass, W; None while it is not settled."""
        if found.power is None:
            self._lagged_w.pop(loop.loop_id, None)
            return None
        now_w = found.power.whole.value
        lag_s = loop.priors.lag_s + loop.model.delay_s
        before_w = self._lagged_w.get(loop.loop_id, now_w)
        keep = exp(-span_s / lag_s) if lag_s > 0 else 0.0
        lagged_w = self._lagged_w[loop.loop_id] = now_w + keep * (before_w - now_w)
        return lagged_w if abs(now_w - lagged_w) <= _SETTLED_FRAC * now_w else None

    async def run(self) -> None:
        """Looks at the files every half minute until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.tend(LOOK_S)

    async def tend(self, span_s: float) -> None:
        """Takes over a new calibration, and keeps what was learnt since the last time."""
        if self._shelf is None:
            return
        if await asyncio.to_thread(self._shelf.is_changed):
            self._told = (await asyncio.to_thread(self._shelf.calibration)).coefficients
            self._renewed_ns = None
            logger.info("calibration.read", extra=facts(count=len(self._told)))
        await self._forget(self._shelf)
        self._saved_s += span_s
        if self._saved_s >= SAVE_S:
            await self.keep()

    async def _forget(self, shelf: Shelf) -> None:
        """Forgets what a person has taken away."""
        if await asyncio.to_thread(shelf.is_forgotten):
            self._learners.clear()
            self._renewed_ns, self._is_new = None, False
            logger.info("calibration.forgotten")

    async def keep(self) -> None:
        """Writes what was learnt; a disk that refuses is told in the log, and tried again."""
        if self._shelf is None:
            return
        # A stop soon after a reset must not bring it back.
        await self._forget(self._shelf)
        if not self._is_new:
            return
        self._saved_s, self._is_new = 0.0, False
        own = (calibrate.coefficients(one) for one in self._learners.values())
        told = Calibration(
            coefficients=tuple(one for one in own if one is not None), learners=self.learners
        )
        try:
            await asyncio.to_thread(self._shelf.keep_learned, told, saved_ns=self._clock.event_ns())
        except StoreError as error:
            self._is_new = True
            logger.warning("calibration.unwritten", extra=facts(reason=str(error)))


def _key(learner: Learner) -> Key:
    return learner.kind, learner.subject, learner.basis
