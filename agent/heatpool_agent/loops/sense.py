"""The tick: what the sensors last said becomes heat with its doubt, and rows for the spool.

Sensors are read by their supervisors at their own pace; a slow or dead one never holds the tick.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import Estimate, MeteringPointId, Row
from heatpool_agent.board import Board
from heatpool_agent.core import levels, mirrors, plausible, totals
from heatpool_agent.core.admission import Admission, Drawn, Scene
from heatpool_agent.core.ledger import Ledger, Page
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.registers import register_rows
from heatpool_agent.core.rows import Mean, cells_of, spans_s
from heatpool_agent.core.tree import HostPower, Tree
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.loops.learning import Learning
from heatpool_agent.loops.loop_look import LoopLook, Marks, Pass
from heatpool_agent.loops.loop_look import LoopSettings as LoopSettings
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock

logger = logging.getLogger(__name__)

_NS = 1_000_000_000
# The saved ledger is at most this old, however seldom rows are written. Source: agent.md 7.
SAVE_NS = 10 * _NS
# A row stands for a quarter of an hour at most, whatever is asked.
REPORT_MOST_S = 900.0
_MIRRORED = {Node.PACKAGE: mirrors.PACKAGES, Node.GPU: mirrors.CARDS}


class Sense:
    """Energy of counters, power of the host, heat of the loops: one look per tick."""

    def __init__(
        self,
        loops: Sequence[LoopSettings],
        board: Board,
        clock: Clock,
        *,
        spooling: Spooling | None,
        period_s: float,
        report_period_s: float,
        beat: Callable[[], None] = lambda: None,
        learning: Learning | None = None,
    ) -> None:
        self._board = board
        self._clock = clock
        self._spooling = spooling
        self._period_s = period_s
        self._report_ns = round(report_period_s * _NS)
        self._beat = beat
        self._learning = learning or Learning(loops, clock)
        self._ledger = spooling.ledger() if spooling is not None else Ledger()
        self._saved_ns = 0
        self._steps: dict[tuple[str, str], totals.Step] = {}
        self._admission = Admission()
        self._mirrors: dict[tuple[str, Node], mirrors.Mirrors] = {}
        self._mirrored: frozenset[tuple[str, str]] = frozenset()
        self._hosts: dict[str, str] = {}
        self._drawn_by_loop: dict[str, Drawn] = {}
        self._drawn_by_host: dict[str, Drawn] = {}
        self._capacities_w = {
            loop.loop_id: loop.rejection_capacity_w
            for loop in loops
            if loop.rejection_capacity_w is not None
        }
        boot_id = spooling.boot_id if spooling is not None else ""
        self._looks = [
            LoopLook(
                loop,
                is_first=at == 0,
                saved=spooling.estimators(loop.loop_id) if spooling is not None else None,
                boot_id=boot_id,
            )
            for at, loop in enumerate(loops)
        ]
        self._mean = Mean()
        self._periods_s: dict[str, float] = {}
        self._billing_seen: set[str] = set()
        self._unbillable: set[str] = set()

    async def take(self, driven: Driven, readings: Sequence[Reading]) -> None:
        """Counters are stepped as they come, and billing registers go to disk at once."""
        self._periods_s[driven.id] = driven.period_s
        self._hosts[driven.id] = driven.host
        heat = {(driven.id, r.channel) for r in readings if r.node is Node.HEAT_METER}
        steps = self._ledger.take(driven.id, readings)
        # Heat is no power that a node draws.
        self._steps |= {key: step for key, step in steps.items() if key not in heat}
        self._observe_mirrors(driven.id, readings)
        self._admission.take(driven.id, readings, self._steps)
        if driven.is_billing and self._spooling is not None:
            await self._bill(self._spooling, driven, readings)

    def _observe_mirrors(self, sensor: str, readings: Sequence[Reading]) -> None:
        for node, rule in _MIRRORED.items():
            own = [r for r in readings if r.node is node]
            if len(own) < 2:
                continue
            powers = levels.node_powers(own, self._steps)
            before = self._mirrors.get((sensor, node), mirrors.Mirrors())
            after = mirrors.observe(before, {p.name: p.power_w for p in powers}, rule)
            self._mirrors[sensor, node] = after
            if after.pairs != before.pairs:
                every = (one.pairs for one in self._mirrors.values())
                self._mirrored = frozenset(chain.from_iterable(every))

    async def _bill(self, spooling: Spooling, driven: Driven, readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.quantity != "energy_wh" or reading.raw is None:
                continue
            try:
                previous = await spooling.last_register(_point_of(reading))
            except StoreError as error:
                # The meter counts on: its next reading opens where the last row on disk closed.
                logger.error("meter.unwritten", extra=facts(point=driven.id, reason=str(error)))
                return
            rows = register_rows(
                reading, previous, is_first_read=driven.id not in self._billing_seen
            )
            if not rows:
                self._refuse(driven, reading)
                continue
            if len(rows) > 1:
                logger.warning(
                    "meter.exchanged",
                    extra=facts(point=driven.id, old=rows[0].meter_id, new=rows[1].meter_id),
                )
            self._billing_seen.add(driven.id)
            await spooling.append_registers(rows)

    def _refuse(self, driven: Driven, reading: Reading) -> None:
        """A count that no register can show is told once, and never billed."""
        if driven.id not in self._unbillable:
            self._unbillable.add(driven.id)
            logger.error(
                "meter.refused", extra=facts(point=driven.id, raw=reading.raw, fix="check its map")
            )

    async def run(self) -> None:
        """Ticks until cancelled."""
        try:
            await self._run()
        finally:
            if self._spooling is not None:
                # Closing the spool writes it.
                self._spooling.keep_page(self._page(is_last=True))

    async def _run(self) -> None:
        before_ns: int | None = None
        while True:
            tick_ns = await until_next_tick(self._period_s, self._clock)
            # By the boot clock: when the wall clock is set, nothing was missed.
            boot_ns = self._clock.boot_ns()
            spans = (boot_ns - (before_ns or boot_ns)) / (self._period_s * _NS)
            self._board.missed_ticks += min(max(0, round(spans) - 1), 3600)
            before_ns = boot_ns
            await self.step(tick_ns)

    async def step(self, tick_ns: int) -> None:
        """One tick with what it leaves behind: the look, the sign of life, rows and ledger."""
        boot_ns = self._clock.boot_ns()
        self._ledger.look(self._clock.event_ns(), boot_ns)
        self.tick(tick_ns, boot_ns)
        self._beat()
        if self._spooling is not None:
            await self._write(self._spooling, tick_ns)

    def tick(self, event_ns: int, boot_ns: int) -> None:
        """One look at everything, posted to the board."""
        tick = self._pass(event_ns, boot_ns)
        trees = [look.power(tick) for look in self._looks]
        views = tuple(
            look.view(tick, found) for look, found in zip(self._looks, trees, strict=True)
        )
        self._learning.observe(trees, views, tick)
        power = _summed([found.power.whole for found in trees if found.power is not None])
        marks: Marks = {}
        for look, found in zip(self._looks, trees, strict=True):
            marks |= look.marks(tick, found)
        self._remember_drawn(trees)
        self._board.judged = _marked(tick.judged, marks)
        self._board.electric = power
        self._board.loops = views
        self._board.energies_j = self._ledger.energies_j()
        self._board.hidden = self._ledger.hidden()
        self._board.ticks += 1
        self._board.last_tick_boot_ns = boot_ns
        self._mean.add(cells_of(power, views), spans_s(views))

    def _remember_drawn(self, trees: Sequence[Tree]) -> None:
        """What is drawn now, for the next tick's stuck gauges."""
        named = zip((look.loop.loop_id for look in self._looks), trees, strict=True)
        powers = {loop_id: found.power for loop_id, found in named if found.power is not None}
        self._drawn_by_loop = {
            loop_id: Drawn(power_w=power.whole.value, basis=power.whole.flags)
            for loop_id, power in powers.items()
        }
        self._drawn_by_host = {
            host.host: drawn
            for power in powers.values()
            for host in power.hosts
            if (drawn := _components(host)) is not None
        }

    def _pass(self, event_ns: int, boot_ns: int) -> Pass:
        """Every reading with its marks, and the steps of every counter."""
        judged = self._admission.judged(
            list(chain.from_iterable(self._board.latest.values())),
            Scene(
                boot_ns=boot_ns,
                periods_s=self._periods_s,
                loops=self._drawn_by_loop,
                hosts=self._drawn_by_host,
                places=self._hosts,
                capacities_w=self._capacities_w,
            ),
        )
        return Pass(
            judged=judged,
            usable=[reading for reading in judged if plausible.is_admitted(reading)],
            steps=self._steps,
            hosts=self._hosts,
            mirrored=self._mirrored,
            boot_ns=boot_ns,
            event_ns=event_ns,
            is_due=self._is_due(event_ns),
            learned=self._learning.learned(event_ns),
        )

    def _is_due(self, tick_ns: int) -> bool:
        """Whether a row ends here; the aggregator may ask for another period than our own."""
        asked_s = self._board.asked.report_period_s
        if asked_s is None:
            return tick_ns % self._report_ns == 0
        ticks = max(1, round(min(asked_s, REPORT_MOST_S) / self._period_s))
        return tick_ns % round(ticks * self._period_s * _NS) == 0

    def _page(self, *, is_last: bool = False) -> Page:
        """What changed in the ledger, and how far the estimators are."""
        page = self._ledger.page()
        if page.clock is None:
            return page
        saved = (look.heat.saved(page.clock, is_whole=is_last) for look in self._looks)
        return replace(page, estimators=tuple(chain.from_iterable(saved)))

    async def _write(self, spooling: Spooling, tick_ns: int) -> None:
        """The row when it is due, and the ledger with it; a gap of the ledger goes at once."""
        age_ns = tick_ns - self._saved_ns
        is_old = not 0 <= age_ns <= SAVE_NS - round(self._period_s * _NS)
        is_due = self._is_due(tick_ns)
        if not (is_due or is_old or self._ledger.is_urgent):
            return
        self._saved_ns = tick_ns
        page = self._page()
        # One row: the means over the ticks since the last one, stamped with the span's end.
        if is_due and (cells := self._mean.taken()):
            await spooling.append(Row(event_ns=tick_ns, cells=cells), page)
        else:
            await spooling.save(page)


def _marked(judged: Sequence[Reading], marks: Marks) -> tuple[Reading, ...]:
    if not marks:
        return tuple(judged)
    named = ((r, marks.get((r.sensor, r.channel, r.quantity))) for r in judged)
    return tuple(plausible.marked(r, flags) if flags else r for r, flags in named)


def _components(host: HostPower) -> Drawn | None:
    """What is measured behind a host's supply, W; None: nothing is."""
    parts = [part for part in host.cover.parts if part.is_measured]
    if not parts:
        return None
    names = tuple(part.name for part in parts)
    return Drawn(power_w=sum(part.power_w for part in parts), basis=names)


def _summed(powers: Sequence[Estimate]) -> Estimate | None:
    """Power of the site, W; doubts of one kind of meter add up, and the worst class stands."""
    if len(powers) < 2:
        return powers[0] if powers else None
    return Estimate(
        value=sum(power.value for power in powers),
        u=sum(power.u for power in powers),
        quality=max(power.quality for power in powers),
        provenance=powers[0].provenance,
        flags=tuple(dict.fromkeys(flag for power in powers for flag in power.flags)),
    )


def _point_of(reading: Reading) -> MeteringPointId:
    return MeteringPointId(reading.sensor)
