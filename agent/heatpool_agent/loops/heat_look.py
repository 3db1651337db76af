"""Heat of one loop at one tick: estimated out of what can be believed, and held against the rest.

Beside the estimator stand what power says of the loop's own sensors (`heat_checks`), what the
heats say of each other (`crosscheck`), and the faults, told in the log as they begin and end.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from zlib import crc32

from heatpool.process.journal import facts
from heatpool.units import NS_PER_S
from heatpool_agent.core import crosscheck, heat_checks, heat_tree
from heatpool_agent.core.clock_steps import Instant
from heatpool_agent.core.estimate import LoopHeat, LoopInputs, LoopPriors
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_estimator import FUSION, WATCH, Beside, LoopEstimator
from heatpool_agent.core.loop_record import SavedEstimator, stopped_s
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.loop_told import Capture
from heatpool_agent.core.plausible import SWAPPED_SENSORS
from heatpool_agent.loops.loop_pass import GAP_S, LoopSettings, Pass

logger = logging.getLogger(__name__)

# After a gap a tick tells of itself alone.
_TICK_S = 1.0
_WATCHED_S = 300
_WATER = ("volume_flow_m3_h", "hot_c", "cold_c")

Assumed = tuple[LoopModel, LoopPriors]


class HeatLook:
    """The heats of one loop with what they leave from tick to tick.

    `saved` is what this loop's estimator left, in the life `boot_id` of the kernel or before.
    """

    def __init__(
        self,
        loop: LoopSettings,
        *,
        saved: Mapping[str, SavedEstimator] | None = None,
        boot_id: str = "",
    ) -> None:
        self._loop = loop
        self._boot_id = boot_id
        self._assumed: dict[tuple[str, bool], Assumed] = {}
        model, priors = self._assume(loop.sensor_side, is_mixed=False)
        saved = saved or {}
        state = {part: _read(one.state) for part, one in saved.items()}
        self.estimator = LoopEstimator(model, state, priors=priors)
        # The begin of the agent's absence, until the first tick has counted it.
        self._left = saved[FUSION].at if self.estimator.is_restored else None
        self._watched_ns = 0
        self._before_ns: int | None = None
        self._quarrels = crosscheck.Quarrels()
        self._checks = heat_checks.ChecksState()
        self._doubted: tuple[str, ...] = ()
        self._is_leaking: bool | None = None
        self._active = {fault.fault for fault in self.estimator.faults if fault.end_ns is None}
        self._is_news = False

    @property
    def disagreements(self) -> tuple[crosscheck.Disagreement, ...]:
        """The heats that disagree now, each pair with its size."""
        return self._quarrels.sizes

    @property
    def fused_s(self) -> float | None:
        """Span, s, of which the fused heat is the mean where it is new at this tick."""
        return self.estimator.fused_s

    @property
    def capture(self) -> Capture | None:
        """Share of the wall power in the coolant."""
        return self.estimator.capture

    @property
    def phase(self) -> str:
        """What the fused heat rests on, one word."""
        return self.estimator.phase

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults that last, and those that ended within a day."""
        return self.estimator.faults

    def flags(self, boot_ns: int) -> tuple[str, ...]:
        """The marks that flow and temperatures have earned."""
        return heat_checks.sensor_flags(self._checks, boot_ns=boot_ns)

    def saved(self, at: Instant, *, is_whole: bool) -> Iterator[SavedEstimator]:
        """What the estimator leaves for the next life of the agent.

        What watches for faults is three times as long and moves with windows of five minutes: it
        is among it once per window, when a fault has begun or ended, or if told so.
        """
        yield self._part(FUSION, self.estimator.saved_fusion(), at)
        is_old = not 0 <= at.boot_ns - self._watched_ns < _WATCHED_S * NS_PER_S
        if is_whole or is_old or self._is_news:
            self._watched_ns, self._is_news = at.boot_ns, False
            yield self._part(WATCH, self.estimator.saved_watch(), at)

    def _part(self, part: str, state: object, at: Instant) -> SavedEstimator:
        text = json.dumps(state, separators=(",", ":"))
        text = f"{crc32(text.encode()):08x}{text}"
        return SavedEstimator(loop_id=self._loop.loop_id, part=part, at=at, state=text)

    def look(
        self,
        inputs: LoopInputs,
        circuit: heat_tree.Circuit,
        tick: Pass,
        *,
        is_whole: bool,
        is_leaking: bool | None,
        single: Collection[str],
    ) -> LoopHeat:
        """The heats, each beside the others, with what they say of each other."""
        loop, reported_w = self._loop, circuit.reported_heat_w
        is_mixed = heat_tree.MIXED_SENSORS in circuit.flags
        model, priors = self._assume(inputs.sensor_side, is_mixed=is_mixed)
        self.estimator.assume(model, priors)
        heat = self._fused(inputs, priors, tick, is_whole=is_whole, is_leaking=is_leaking)
        self._tell_faults()
        if is_mixed and heat.computed is not None:
            heat = heat_checks.with_flags(heat, heat.computed, (heat_tree.MIXED_SENSORS,))
        heat, self._quarrels = crosscheck.compare(
            heat,
            reported_w,
            loop.reported_u_frac,
            self._quarrels,
            single=single,
            boot_ns=tick.boot_ns,
        )
        reported = None if reported_w is None else (reported_w, loop.reported_u_frac * reported_w)
        heat, self._checks = heat_checks.against_wall(
            heat, self._checks, wall=inputs.electric, reported=reported, boot_ns=tick.boot_ns
        )
        return heat

    def _fused(
        self,
        inputs: LoopInputs,
        priors: LoopPriors,
        tick: Pass,
        *,
        is_whole: bool,
        is_leaking: bool | None,
    ) -> LoopHeat:
        """The heats, fused out of what can be believed; what cannot stays visible."""
        self._checks = heat_checks.sensors_state(self._checks, inputs, priors, boot_ns=tick.boot_ns)
        flags = self.flags(tick.boot_ns)
        sample = _sample(inputs, self._span_s(tick))
        shown = self.estimator.heats(sample, inputs.electric)
        is_partial = not (flags or is_whole) and heat_checks.is_partial(
            shown.computed, inputs.electric
        )
        # Pipes that seem swapped are not believed until that is sure, and have taught nothing yet.
        is_odd = self._checks.swapped_ns is not None
        flags = flags or ((SWAPPED_SENSORS,) if is_odd else ())
        doubted = _WATER if flags else ("power_w",) if is_partial else ()
        if doubted and not self._doubted and not is_odd:
            # What was learnt from figures that cannot be believed is no knowledge.
            self.estimator.begin_anew()
        heat = self.estimator.observe(
            sample,
            event_ns=tick.event_ns,
            power=inputs.electric,
            shown=shown,
            beside=Beside(untrusted=doubted, is_leaking=is_leaking),
            # Nor do they leave a figure that stands until the next update; and a leak cannot wait.
            is_due=tick.is_due or (doubted, is_leaking) != (self._doubted, self._is_leaking),
        )
        self._doubted, self._is_leaking = doubted, is_leaking
        if flags:
            return heat_checks.with_flags(heat, heat.computed, flags)
        return heat_checks.with_partial(heat, heat.electric) if is_partial else heat

    def _span_s(self, tick: Pass) -> float:
        """Since the tick before, s; time in which the agent saw nothing is counted as that."""
        before_ns, self._before_ns = self._before_ns, tick.boot_ns
        if before_ns is None:
            self._count_absence(tick)
            return 0.0
        span_s = max(0, tick.boot_ns - before_ns) / NS_PER_S
        if span_s <= GAP_S:
            return span_s
        self.estimator.skip(span_s - _TICK_S, event_ns=tick.event_ns - round(_TICK_S * NS_PER_S))
        return _TICK_S

    def _count_absence(self, tick: Pass) -> None:
        if self._left is not None:
            away_s = stopped_s(
                self._left, boot_id=self._boot_id, boot_ns=tick.boot_ns, event_ns=tick.event_ns
            )
            self.estimator.skip(away_s, event_ns=tick.event_ns)
            self._left = None

    def _assume(self, side: str, *, is_mixed: bool) -> Assumed:
        found = self._assumed.get((side, is_mixed))
        if found is None:
            found = _assumed(self._loop, side, heat_tree.MIXED_U if is_mixed else 1.0)
            self._assumed[side, is_mixed] = found
        return found

    def _tell_faults(self) -> None:
        faults = self.estimator.faults
        if not faults and not self._active:
            return
        named = {fault.fault: fault for fault in faults if fault.end_ns is None}
        if named.keys() == self._active:
            return
        self._is_news = True
        loop_id = self._loop.loop_id
        for name in named.keys() - self._active:
            told = facts(loop=loop_id, fault=name, evidence=named[name].evidence)
            logger.warning("loop.fault", extra=told)
        for name in self._active - named.keys():
            logger.info("loop.fault_ended", extra=facts(loop=loop_id, fault=name))
        self._active = set(named)


def _read(text: object) -> object:
    """What was saved; None where it is not, to the letter, what was saved.

    One figure that is wrong, in a covariance say, would mislead the filter for days.
    """
    if not isinstance(text, str) or text[:8] != f"{crc32(text[8:].encode()):08x}":
        return None
    try:
        return json.loads(text[8:], parse_constant=_refuse)
    except ValueError:
        return None


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no figure")


def _sample(inputs: LoopInputs, span_s: float) -> LoopSample:
    return LoopSample(
        span_s=span_s,
        power_w=inputs.electric.value if inputs.electric is not None else None,
        volume_flow_m3_h=inputs.volume_flow_m3_h,
        hot_c=inputs.hot_c,
        cold_c=inputs.cold_c,
    )


def _assumed(loop: LoopSettings, side: str, more: float) -> Assumed:
    """Model and priors with `more` doubt of flow and temperatures.

    Sensors that were not made to stand together are doubted more than a set.
    """
    model = replace(
        loop.model,
        fluid=loop.fluid,
        sensor_side=side,
        flow_u_frac=more * loop.model.flow_u_frac,
        delta_k_u=more * loop.model.delta_k_u,
    )
    priors = replace(
        loop.priors,
        flow_u_frac=more * loop.priors.flow_u_frac,
        flow_u_m3_h=more * loop.priors.flow_u_m3_h,
        delta_k_u=more * loop.priors.delta_k_u,
    )
    return model, priors
