"""Heat of a trace, row by row, through the one estimator of a loop; energies on the UTC grid.

A row holds the means over the span since the row before; the first one, and the first one after a
gap, only opens a span. A gap carries no heat. What cannot be believed stays visible and unused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool.units import NS_PER_S
from heatpool_agent.core import heat_checks
from heatpool_agent.core.crosscheck import unit_slip
from heatpool_agent.core.estimate import LoopHeat, LoopInputs, computed_heat
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_estimator import Beside, LoopEstimator
from heatpool_agent.core.loop_law import loop_step
from heatpool_agent.core.loop_sample import LoopSample
from heatpool_agent.core.loop_told import Capture
from heatpool_agent.core.median import median
from heatpool_agent.core.plausible import NO_FLOW_FROZEN, SWAPPED_SENSORS
from heatpool_agent.core.trace import Surge, Trace
from heatpool_agent.core.trace_faults import UNIT_FAULT, Faults
from heatpool_agent.core.trace_inputs import GAP_PERIODS, UNIT_ERROR, WATER, Inputs, present
from heatpool_agent.core.trace_periods import Accounts, Span

ABSENT, GAP_BEFORE = "absent", "gap_before"
ELECTRIC_ONLY, COMPUTED_ONLY = "electric_only", "computed_only"
METHODS = {
    Provenance.ELECTRIC: "electric",
    Provenance.COMPUTED: "computed",
    Provenance.FUSED: "fused",
}
# Rows on either side that tell how often they come here.
_NEIGHBOURS = 5
# Faults that ended are told for a day.
_ASK_NS = 3600 * NS_PER_S
# Water without any power beside it: computers never cool it.
_UNSEEN_POWER = Estimate(
    value=1.0, u=0.0, quality=QualityClass.E, provenance=Provenance.ELECTRIC, flags=()
)
_NO_SAMPLE = LoopSample(span_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Heat at one row, W, and what it was made of; None where the row shows nothing usable."""

    event_ns: int
    heat: Estimate | None
    electric_w: float | None = None
    computed_w: float | None = None
    flags: tuple[str, ...] = ()


class TraceEstimate:
    """The estimate of one trace; `rows` makes it, the rest is there when its last row is out."""

    def __init__(self, trace: Trace, found: Inputs, *, period_s: int) -> None:
        self._trace = trace
        self._inputs = found
        self._estimator = LoopEstimator(found.model, priors=found.priors)
        self._accounts = Accounts(self._estimator, period_s=period_s)
        self._faults = Faults()
        # Heat is made of power alone, whatever else is shown.
        self._is_electric = found.power is not None and not found.is_fused
        self._last_ns: int | None = None
        self._asked_ns = 0
        self._lagged_w: float | None = None
        self._checks = heat_checks.ChecksState()
        self._doubted: tuple[str, ...] = ()
        self._seconds: dict[str, float] = {}
        used = set(found.columns)
        self._reasons = [
            tuple(reason for reason in reasons if reason.partition(":")[2] in used)
            for reasons in trace.reasons
        ]

    def rows(self) -> Iterator[Row]:
        """Every row of the trace with its heat, in the order of time."""
        for index, at_ns in enumerate(self._trace.event_ns):
            yield self._row(index, at_ns)
        if self._last_ns is not None:
            self._flush()
        self._accounts.close()
        self._faults.collect(self._estimator.faults)
        self._tell_slip()
        for surge in self._trace.surges:
            self._tell_surge(surge)

    @property
    def has_heat(self) -> bool:
        """Whether any row showed something usable."""
        return self._last_ns is not None

    @property
    def total(self) -> Span:
        """Heat of the whole trace, Wh."""
        return self._accounts.total

    @property
    def periods(self) -> Sequence[Span]:
        """Heat of each period that the trace touches; they add up to the total."""
        return self._accounts.periods

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults in the order of their begin, one of a cause at a time."""
        return self._faults.told()

    @property
    def capture(self) -> Capture | None:
        """Share of the power that the coolant took at the end, as learnt; None: nothing was."""
        return self._estimator.capture if self._inputs.is_fused else None

    @property
    def method(self) -> str:
        """What most of the time rests on."""
        if self._seconds:
            return max(self._seconds, key=lambda method: self._seconds[method])
        return "fused" if self._inputs.is_fused else "electric" if self._is_electric else "computed"

    def _row(self, index: int, at_ns: int) -> Row:
        flags = self._reasons[self._trace.marks[index]]
        power = self._power(index, at_ns)
        water = self._water(index, power)
        shown = self._shown(power, water)
        if (shown.electric if self._is_electric else shown.electric or shown.computed) is None:
            return Row(
                event_ns=at_ns,
                heat=None,
                computed_w=shown.computed.value if shown.computed else None,
                flags=(*flags, ABSENT),
            )
        if self._is_apart(index, at_ns):
            flags = (*flags, GAP_BEFORE) if self._last_ns is not None else flags
            self._reopen(at_ns)
        heat = self._observed(at_ns, index, power, water, shown)
        return self._told(at_ns, heat, flags)

    def _power(self, index: int, at_ns: int) -> Estimate | None:
        told = self._inputs.power
        power_w = None if told is None else present(told.values_w[index])
        if told is None or power_w is None:
            return None
        if self._is_electric:
            # The coolant shows it only after the loop's thermal mass; a filter knows that itself.
            power_w = self._lagged(power_w, at_ns)
        return Estimate(
            value=power_w,
            u=told.u_frac * power_w,
            quality=told.quality,
            provenance=Provenance.ELECTRIC,
            flags=told.flags,
        )

    def _lagged(self, power_w: float, at_ns: int) -> float:
        if self._lagged_w is None or self._last_ns is None:
            self._lagged_w = power_w
        dt_s = 0.0 if self._last_ns is None else (at_ns - self._last_ns) / NS_PER_S
        lag_s = self._inputs.priors.lag_s
        self._lagged_w = loop_step(self._lagged_w, power_w, dt_s=dt_s, tau_s=lag_s)
        return self._lagged_w

    def _water(self, index: int, power: Estimate | None) -> LoopInputs:
        model, columns = self._inputs.model, self._inputs.water
        told = [present(columns[name][index]) for name in WATER] if columns else [None] * 3
        return LoopInputs(
            electric=power,
            volume_flow_m3_h=told[0],
            hot_c=told[1],
            cold_c=told[2],
            fluid=model.fluid,
            sensor_side=model.sensor_side,
        )

    def _shown(self, power: Estimate | None, water: LoopInputs) -> LoopHeat:
        heats = self._estimator.heats(_NO_SAMPLE, power)
        return replace(heats, computed=computed_heat(water, self._inputs.priors))

    def _is_apart(self, index: int, at_ns: int) -> bool:
        """Whether no heat is known of the time since the last row that showed any."""
        if self._last_ns is None:
            return True
        span_s = (at_ns - self._last_ns) / NS_PER_S
        if span_s <= GAP_PERIODS * self._inputs.period_s:
            return False
        # Logs change their pace: what is usual here counts, too.
        times_ns = self._trace.event_ns
        first, last = max(1, index - _NEIGHBOURS), min(len(times_ns), index + _NEIGHBOURS + 1)
        usual_ns = median(times_ns[i] - times_ns[i - 1] for i in range(first, last))
        return span_s > GAP_PERIODS * usual_ns / NS_PER_S

    def _reopen(self, at_ns: int) -> None:
        if self._last_ns is None:
            self._accounts.begin(at_ns)
        else:
            self._flush()
            # What ended before a long gap is forgotten after it.
            self._faults.collect(self._estimator.faults)
            self._accounts.pause()
            self._estimator.skip((at_ns - self._last_ns) / NS_PER_S, event_ns=at_ns)
            self._accounts.resume(at_ns)
        self._last_ns = at_ns

    def _flush(self) -> None:
        """Brings the accounts up to the last row."""
        assert self._last_ns is not None
        beside = Beside(untrusted=self._doubted)
        self._estimator.observe(_NO_SAMPLE, event_ns=self._last_ns, beside=beside, is_due=True)

    def _observed(
        self,
        at_ns: int,
        index: int,
        power: Estimate | None,
        water: LoopInputs,
        shown: LoopHeat,
    ) -> LoopHeat:
        """The heats at this row; its span is cut where a period ends."""
        assert self._last_ns is not None
        is_turn = self._turned(self._judged(at_ns, water))
        sample = self._sample(index, power, water)
        heat, is_done = shown, False
        while not is_done:
            until_ns = min(at_ns, self._accounts.boundary_ns())
            is_done = until_ns == at_ns
            is_end = until_ns == self._accounts.boundary_ns()
            heat = self._estimator.observe(
                replace(sample, span_s=(until_ns - self._last_ns) / NS_PER_S),
                event_ns=until_ns,
                power=power,
                shown=shown,
                beside=Beside(untrusted=self._doubted),
                is_due=is_end or is_turn or until_ns == self._last_ns,
            )
            self._cover(until_ns, heat)
            if is_end:
                self._accounts.turn()
        return heat

    def _turned(self, marks: tuple[str, ...]) -> bool:
        """Whether other columns are believed from now on; what was believed is made use of first.

        Without power the signed figure of swapped pipes is all there is: it stays, marked.
        """
        doubted = WATER if marks and self._inputs.is_fused else ()
        is_turn = doubted != self._doubted
        if is_turn:
            self._flush()
            self._doubted = doubted
            if NO_FLOW_FROZEN in marks:
                # What was learnt before it was sure is no knowledge.
                self._estimator.begin_anew()
        return is_turn

    def _sample(self, index: int, power: Estimate | None, water: LoopInputs) -> LoopSample:
        room_c = self._inputs.ambient_c
        power_w = None if power is None else power.value
        if self._is_electric:
            return LoopSample(span_s=0.0, power_w=power_w)
        return LoopSample(
            span_s=0.0,
            power_w=power_w,
            volume_flow_m3_h=water.volume_flow_m3_h,
            hot_c=water.hot_c,
            cold_c=water.cold_c,
            ambient_c=None if room_c is None else present(room_c[index]),
        )

    def _cover(self, until_ns: int, heat: LoopHeat) -> None:
        assert self._last_ns is not None
        fused = heat.fused
        self._accounts.cover(until_ns, fused)
        if fused is not None:
            method = METHODS[fused.provenance]
            span_s = (until_ns - self._last_ns) / NS_PER_S
            self._seconds[method] = self._seconds.get(method, 0.0) + span_s
        self._last_ns = until_ns
        if until_ns - self._asked_ns >= _ASK_NS:
            self._asked_ns = until_ns
            self._faults.collect(self._estimator.faults)

    def _judged(self, at_ns: int, water: LoopInputs) -> tuple[str, ...]:
        """What speaks against the water sensors at this row; what lasts is a fault."""
        if not self._inputs.water:
            return ()
        has_power = self._inputs.power is not None
        judged = water if has_power else replace(water, electric=_UNSEEN_POWER)
        self._checks = heat_checks.sensors_state(
            self._checks, judged, self._inputs.priors, boot_ns=at_ns
        )
        marks = heat_checks.sensor_flags(self._checks, boot_ns=at_ns)
        begins = (self._checks.swapped_ns, self._checks.frozen_ns)
        since_ns = min((ns for ns in begins if ns is not None), default=at_ns)
        self._faults.marked(marks, at_ns, since_ns=since_ns, evidence=_evidence(water, marks))
        # A log can be read again: no row need be believed until the marks are sure.
        return marks or ((SWAPPED_SENSORS,) if self._checks.swapped_ns is not None else ())

    def _told(self, at_ns: int, heat: LoopHeat, flags: tuple[str, ...]) -> Row:
        fused = heat.fused
        more = () if fused is None else fused.flags
        if self._inputs.is_fused and fused is not None:
            more = (*more, *_alone(fused.provenance))
        if heat.computed is not None:
            more = (*more, *heat.computed.flags)
        return Row(
            event_ns=at_ns,
            heat=fused,
            electric_w=heat.electric.value if heat.electric else None,
            computed_w=heat.computed.value if heat.computed else None,
            flags=tuple(dict.fromkeys((*flags, *more))),
        )

    def _tell_slip(self) -> None:
        """Both heats a factor of two units apart: which of them is right, nothing here can tell."""
        told = [flag for flag in self._inputs.flags if flag.startswith(UNIT_ERROR)]
        times_ns, ratio = self._trace.event_ns, self._inputs.ratio
        if told and ratio is not None and len(times_ns):
            evidence = (
                f"flow and temperatures tell {ratio:.3g} times the electric power, near the factor "
                f"{told[0].partition(':')[2]} between two units; give the column with its factor, "
                "such as --column volume_flow_m3_h=Flow*0.06 for L/min"
            )
            self._faults.add(
                Fault(
                    fault=UNIT_FAULT,
                    start_ns=times_ns[self._inputs.slip_from],
                    end_ns=None,
                    evidence=evidence,
                )
            )

    def _tell_surge(self, surge: Surge) -> None:
        """A flow that was the usual one in another unit for a while; its rows are left out."""
        slip = unit_slip(surge.times)
        if slip is None or not self._inputs.water:
            return
        times_ns = self._trace.event_ns
        is_over = surge.last + 1 < len(times_ns)
        count = surge.last - surge.first + 1
        evidence = (
            f"flow was {surge.times:.3g} times that of before for {count} rows, "
            f"near the factor {slip:.3g} between two units; those rows are left out: check the "
            "unit in the log of that time"
        )
        self._faults.add(
            Fault(
                fault=UNIT_FAULT,
                start_ns=times_ns[surge.first],
                end_ns=times_ns[surge.last + 1] if is_over else None,
                evidence=evidence,
            )
        )


def _alone(provenance: Provenance) -> tuple[str, ...]:
    if provenance is Provenance.ELECTRIC:
        return (ELECTRIC_ONLY,)
    return (COMPUTED_ONLY,) if provenance is Provenance.COMPUTED else ()


def _evidence(water: LoopInputs, marks: tuple[str, ...]) -> str:
    if SWAPPED_SENSORS in marks:
        pair = (water.hot_c or 0.0, water.cold_c or 0.0)
        return (
            f"hot {pair[0]:.2f} degC below cold {pair[1]:.2f} degC while power is drawn; "
            "swap the two columns, or see how the pump turns"
        )
    return "no flow and temperatures that do not move while power is drawn; see the flow meter"
