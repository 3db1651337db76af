"""The tick: what the sensors last said becomes heat with its doubt, and rows for the spool.

Sensors are read by their supervisors at their own pace; a slow or dead one never holds the tick.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from heatpool.process.journal import facts
from heatpool.sample import Estimate, MeteringPointId, Row
from heatpool_agent.board import Board, LoopView
from heatpool_agent.core import attribution, crosscheck, estimate, mirrors, plausible, totals
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.registers import register_rows
from heatpool_agent.core.rows import Mean, cells_of
from heatpool_agent.core.safety import LoopState, SafetyReading, safety_reading
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Clock

logger = logging.getLogger(__name__)

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What is known of a loop beforehand."""

    loop_id: str
    fluid: str
    sensor_side: str
    priors: estimate.LoopPriors
    reported_u_frac: float
    rejection_capacity_w: float | None


@dataclass(slots=True)
class _LoopMemory:
    heat: estimate.LoopState = field(default_factory=estimate.LoopState)
    quarrels: crosscheck.Quarrels = field(default_factory=crosscheck.Quarrels)


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
    ) -> None:
        self._loops = loops
        self._board = board
        self._clock = clock
        self._spooling = spooling
        self._period_s = period_s
        self._report_ns = round(report_period_s * _NS)
        self._beat = beat
        self._totals: dict[tuple[str, str], totals.Total] = {}
        self._steps: dict[tuple[str, str], totals.Step] = {}
        self._pasts: dict[tuple[str, str], plausible.Past] = {}
        self._mirrors = mirrors.Mirrors()
        self._channels: dict[tuple[str, Node], set[tuple[str, str]]] = {}
        self._told: set[tuple[str, str]] = set()
        self._memory = {loop.loop_id: _LoopMemory() for loop in loops}
        self._mean = Mean()
        self._periods_s: dict[str, float] = {}
        self._billing_seen: set[str] = set()
        self._unbillable: set[str] = set()

    async def take(self, driven: Driven, readings: Sequence[Reading]) -> None:
        """Counters are stepped as they come, and billing registers go to disk at once."""
        self._periods_s[driven.id] = driven.period_s
        for reading in readings:
            if totals.is_energy(reading) and reading.node is not Node.HEAT_METER:
                key = (driven.id, reading.channel)
                self._totals[key], self._steps[key] = totals.advance(self._totals.get(key), reading)
        self._observe_mirrors(readings)
        if driven.is_billing and self._spooling is not None:
            await self._bill(self._spooling, driven, readings)

    def _observe_mirrors(self, readings: Sequence[Reading]) -> None:
        powers_w = {
            reading.channel: step.power_w
            for reading in readings
            if reading.node is Node.PACKAGE
            and (step := self._steps.get((reading.sensor, reading.channel))) is not None
            and step.power_w is not None
        }
        if len(powers_w) > 1:
            self._mirrors = mirrors.observe(self._mirrors, powers_w)

    async def _bill(self, spooling: Spooling, driven: Driven, readings: Sequence[Reading]) -> None:
        for reading in readings:
            if reading.quantity != "energy_wh" or reading.raw is None:
                continue
            previous = await spooling.last_register(_point_of(reading))
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
        due_ns = 0
        while True:
            tick_ns = await until_next_tick(self._period_s, self._clock)
            missed = round((tick_ns - due_ns) / (self._period_s * _NS)) if due_ns else 0
            self._board.missed_ticks += min(max(0, missed), 3600)
            due_ns = tick_ns + round(self._period_s * _NS)
            self.tick(tick_ns, self._clock.boot_ns())
            self._beat()
            if self._spooling is not None and tick_ns % self._report_ns == 0:
                await self._report(self._spooling, tick_ns)

    def tick(self, event_ns: int, boot_ns: int) -> None:
        """One look at everything, posted to the board."""
        readings = self._all_readings()
        rated_w = {r.channel: r.value for r in readings if r.quantity == "rated_w"}
        judged = [self._judged(r, boot_ns, rated_w.get(r.channel)) for r in readings]
        usable = [reading for reading in judged if plausible.is_admitted(reading)]
        powers = [self._electric(loop, usable) for loop in self._loops]
        views = tuple(
            self._loop_view(loop, judged, power, boot_ns)
            for loop, power in zip(self._loops, powers, strict=True)
        )
        power = _summed([found for found in powers if found is not None])
        self._board.electric = power
        self._board.loops = views
        self._board.energies_j = {
            key: totals.energy_j(total) for key, total in self._totals.items()
        }
        self._board.ticks += 1
        self._board.last_tick_boot_ns = boot_ns
        self._mean.add(cells_of(power, views))

    def _all_readings(self) -> list[Reading]:
        return list(chain.from_iterable(self._board.latest.values()))

    def _judged(self, reading: Reading, boot_ns: int, rated_w: float | None) -> Reading:
        key = (reading.sensor, f"{reading.channel}/{reading.quantity}")
        past = self._pasts.get(key)
        period_s = self._periods_s.get(reading.sensor, self._period_s)
        judged = plausible.judge(
            reading, past, boot_ns=boot_ns, period_s=max(period_s, 1.0), rated_w=rated_w
        )
        if past is None or past.boot_ns != reading.boot_ns:
            power_w = self._board.electric.value if self._board.electric else None
            self._pasts[key] = plausible.remember(past, reading, power_w=power_w)
        return judged

    def _electric(self, loop: LoopSettings, usable: Sequence[Reading]) -> Estimate | None:
        """Power that warms this loop, W; what names no loop warms the first one."""
        first = self._loops[0].loop_id
        own = [r for r in usable if (r.loop or first) == loop.loop_id]
        powers = attribution.node_powers(own, self._steps)
        for power in powers:
            seen = self._channels.setdefault((loop.loop_id, power.node), set())
            seen.add((power.sensor, power.channel))
        return attribution.electric_power(
            powers,
            load=attribution.host_load(own),
            mirrored=mirrors.mirrored(self._mirrors),
            # A level of which one channel fell silent would under-report: another one answers.
            known={
                node: len(channels)
                for (loop_id, node), channels in self._channels.items()
                if loop_id == loop.loop_id
            },
        )

    def _safety(self, loop: LoopSettings, judged: Sequence[Reading]) -> LoopState:
        """What safety rests on, the worst of all devices; one that ever told must go on telling."""
        return LoopState(
            hot_c=self._safety_reading(loop, judged, "hot_c", worst=1.0),
            leak=self._safety_reading(loop, judged, "leak", worst=1.0),
            pump_runs=self._safety_reading(loop, judged, "pump_runs", worst=-1.0),
        )

    def _safety_reading(
        self, loop: LoopSettings, judged: Sequence[Reading], quantity: str, *, worst: float
    ) -> SafetyReading | None:
        found = [
            SafetyReading(
                value=r.value if plausible.is_admitted(r) else math.nan, boot_ns=r.boot_ns
            )
            for r in judged
            if (r.loop, r.quantity) == (loop.loop_id, quantity) and r.node is not Node.HEAT_METER
        ]
        key = (loop.loop_id, quantity)
        if not found and key in self._told:
            return SafetyReading(value=math.nan, boot_ns=0)
        if found:
            self._told.add(key)
        return safety_reading(found, worst=worst)

    def _loop_view(
        self, loop: LoopSettings, judged: Sequence[Reading], power: Estimate | None, boot_ns: int
    ) -> LoopView:
        usable = [reading for reading in judged if plausible.is_admitted(reading)]
        own = [r for r in usable if r.loop == loop.loop_id and r.node is not Node.HEAT_METER]
        metered = [r for r in usable if r.loop == loop.loop_id and r.node is Node.HEAT_METER]
        memory = self._memory[loop.loop_id]
        inputs = estimate.LoopInputs(
            electric=power,
            volume_flow_m3_h=_value(own, "volume_flow_m3_h"),
            hot_c=_value(own, "hot_c"),
            cold_c=_value(own, "cold_c"),
            fluid=loop.fluid,
            sensor_side=_side(own, loop),
        )
        heat, memory.heat = estimate.loop_heat(inputs, loop.priors, memory.heat, boot_ns=boot_ns)
        reported_w = _value(own, "reported_heat_w")
        heat, memory.quarrels = crosscheck.compare(
            heat, reported_w, loop.reported_u_frac, memory.quarrels, boot_ns=boot_ns
        )
        leak, pump_runs = _value(own, "leak"), _value(own, "pump_runs")
        return LoopView(
            loop_id=loop.loop_id,
            electric=heat.electric,
            computed=heat.computed,
            fused=heat.fused,
            reported_heat_w=reported_w,
            delivered_heat_w=_value(metered, "delivered_heat_w"),
            hot_c=inputs.hot_c,
            cold_c=inputs.cold_c,
            volume_flow_m3_h=inputs.volume_flow_m3_h,
            rejection_capacity_w=loop.rejection_capacity_w,
            leak=None if leak is None else bool(leak),
            pump_runs=None if pump_runs is None else bool(pump_runs),
            safety=self._safety(loop, judged),
        )

    async def _report(self, spooling: Spooling, tick_ns: int) -> None:
        """One row: the means over the ticks since the last one, stamped with the span's end."""
        if cells := self._mean.taken():
            await spooling.append(Row(event_ns=tick_ns, cells=cells))


def _value(readings: Sequence[Reading], quantity: str) -> float | None:
    return next((r.value for r in readings if r.quantity == quantity), None)


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


def _side(readings: Sequence[Reading], loop: LoopSettings) -> str:
    """The site's own word on where the flow sensor sits, else the device map's."""
    if loop.sensor_side != "unknown":
        return loop.sensor_side
    told = (r.sensor_side for r in readings if r.quantity == "volume_flow_m3_h" and r.sensor_side)
    return next(told, "unknown")


def _point_of(reading: Reading) -> MeteringPointId:
    return MeteringPointId(reading.sensor)
