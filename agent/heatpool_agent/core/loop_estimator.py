"""The one runner of a loop's estimators: `run` and `estimate` both feed it, tick by tick.

Electric and computed heat are made of every tick. The fused heat is made anew over at least 10 s:
by the filter of record, or, while that says nothing or cannot be trusted, by the static fusion of
`estimate`. Between two updates the newest figure stands. Source: agent.md 6 C; physics.md 7.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core import estimate, loop_fusion, residual
from heatpool_agent.core.estimate import LoopHeat, LoopInputs, LoopPriors
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.flow_leap import FlowLeap
from heatpool_agent.core.kalman import EnergyFigure as EnergyFigure
from heatpool_agent.core.loop_fusion import Fusion
from heatpool_agent.core.loop_gather import Gather
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.loop_told import PHASES as PHASES
from heatpool_agent.core.loop_told import Capture

VERSION = 1
# Parts of what is saved.
FUSION, WATCH = "fusion", "watch"
UPDATE_S = 10.0
# Ticks lie on a grid: the tenth one may be some microseconds early.
_SLACK_S = 0.05
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What stands beside a sample: which of its values are shown and not believed, and a leak."""

    untrusted: tuple[str, ...] = ()
    is_leaking: bool | None = None


_NOTHING = Beside()
_WATER = ("volume_flow_m3_h", "hot_c", "cold_c")
# Faults that leave nothing of a loop's calorimetry; swapped pipes are seen sooner (`heat_checks`),
# others shift it, and the doubt tells.
_VOIDING = frozenset({"stuck_sensor", "dead_meter", "unit_error"})


def priors_of(model: LoopModel) -> LoopPriors:
    """What the static fusion assumes of a loop that nothing but a model describes."""
    return LoopPriors(
        capture_frac=model.capture_frac,
        capture_frac_u=model.gain_u_frac * model.capture_frac,
        lag_s=model.tau_s,
        flow_u_frac=model.flow_u_frac,
        flow_u_m3_h=model.flow_u_m3_h,
        delta_k_u=model.delta_k_u,
        unknown_side_u_frac=0.003,
    )


class LoopEstimator:
    """Heats of one loop with their doubt, its state and its faults, from ticks of any period.

    `saved` is what an estimator of the same loop said of itself before; what is damaged, or of
    another fluid or sensor side, is begun anew.
    """

    def __init__(
        self,
        model: LoopModel,
        saved: object = None,
        *,
        priors: LoopPriors | None = None,
    ) -> None:
        self._model = model
        # What the settings say; a device's map may know the side better later.
        self._place = [model.fluid, model.sensor_side]
        self._priors = priors or priors_of(model)
        self._gather = Gather(model.fluid)
        self._leap = FlowLeap()
        self._fusion = Fusion()
        self._watch = residual.begin(model)
        self._is_void = False
        self.fused_s: float | None = None
        self.is_restored = self._restore(saved)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults that last, and those that ended within a day."""
        return residual.faults(self._watch)

    @property
    def lagged_w(self) -> float | None:
        """Electric heat at the assumed share as the loop's sensors should show it by now, W."""
        return self._fusion.lagged_w

    @property
    def capture(self) -> Capture | None:
        """Share of the wall power in the coolant; None: nothing is known of it."""
        found = self._fusion.capture
        return None if found is None else Capture(frac=found.value, frac_u=found.value_u)

    @property
    def phase(self) -> str:
        """What the fused heat rests on now, one word."""
        return self._fusion.phase

    def assume(self, model: LoopModel, priors: LoopPriors | None = None) -> None:
        """Takes over what is now assumed of the loop; the same as before changes nothing."""
        if model is not self._model:
            self._priors = priors or priors_of(model)
            self._model = model
            residual.assume(self._watch, model)

    def observe(
        self,
        sample: LoopSample,
        *,
        event_ns: int,
        power: Estimate | None = None,
        shown: LoopHeat | None = None,
        beside: Beside = _NOTHING,
        is_due: bool = False,
    ) -> LoopHeat:
        """Heat of the loop, W, at the tick that ends now, at `event_ns`.

        `power` is the sample's electric power with its own doubt and class; without it the
        model's doubt stands for both. `shown` are this tick's heats, where `heats` has made them
        already. `is_due`: the fused heat must reach up to here.
        `fused_s` then is the span, s, over which the fused heat is a mean that ends at this tick;
        None while it is that of a tick before.
        """
        if power is None and sample.power_w is not None:
            power = _bare(sample.power_w)
        shown = shown or self.heats(sample, power)
        self._gather.add(self._without_leap(sample), power)
        self.fused_s = None
        # The first figure there can be is there at once.
        is_first = self._fusion.fused is None and _is_seen(shown, beside)
        if is_first or is_due or self._gather.span_s >= UPDATE_S - _SLACK_S:
            self._update(event_ns, beside)
        return LoopHeat(electric=shown.electric, computed=shown.computed, fused=self._fusion.fused)

    def heats(self, sample: LoopSample, power: Estimate | None) -> LoopHeat:
        """Electric and computed heat of one tick, W, not yet fused."""
        return LoopHeat(
            electric=estimate.electric_heat(power, self._priors),
            computed=estimate.computed_heat(self._inputs(sample, power), self._priors),
            fused=None,
        )

    def begin_anew(self) -> None:
        """Forgets what was learnt of the loop, as if it had never been seen; accounts stay."""
        self._gather = Gather(self._model.fluid)
        self._fusion.begin_anew(self._model)

    def skip(self, span_s: float, *, event_ns: int) -> None:
        """Lets a time pass in which nothing was seen, such as a stop of the agent, until now."""
        if not self._gather.is_empty:
            self._update(event_ns - round(span_s * _NS), _NOTHING)
        self._fusion.skip(span_s, self._model)
        # However short: nobody knows what the sensors showed meanwhile.
        gap = LoopSample(span_s=max(span_s, 2 * residual.GAP_S))
        self._watch = residual.observe(
            self._watch, gap, computed_w=None, electric_lagged_w=None, event_ns=event_ns
        )

    def start_energy(self, name: str) -> None:
        """Opens an account of heat from now on; one of that name begins again at 0."""
        self._fusion.start_energy(name)

    def energy(self, name: str) -> EnergyFigure:
        """Heat in the account, Wh, with its u; what the ticks since the last update add is not in.

        Raises:
            KeyError: there is no such account.
        """
        return self._fusion.energy(name)

    def drop_energy(self, name: str) -> None:
        """Closes an account."""
        self._fusion.drop_energy(name)

    def saved(self) -> dict[str, Any]:
        """All that a restart needs to go on here; plain values for JSON."""
        return {FUSION: self.saved_fusion(), WATCH: self.saved_watch()}

    def saved_fusion(self) -> dict[str, Any]:
        """The part of it that every update changes."""
        place = {"version": VERSION, "place": self._place, "flow": self._leap.saved()}
        return {**place, **self._fusion.saved()}

    def saved_watch(self) -> dict[str, Any]:
        """The part of it that finds faults."""
        return residual.saved(self._watch)

    def _restore(self, saved: object) -> bool:
        """Takes over what was saved; False, and nothing taken, if it does not fit."""
        if not isinstance(saved, Mapping):
            return False
        # What one part lost the other one need not lose.
        self._watch = residual.restored(saved.get(WATCH), self._model) or self._watch
        try:
            told = saved[FUSION]
            if told["version"] != VERSION or told["place"] != self._place:
                return False
            found, leap = loop_fusion.restored(told), FlowLeap()
            leap.restore(told["flow"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        self._fusion = found or self._fusion
        if found is not None:
            self._leap = leap
        return found is not None

    def _without_leap(self, sample: LoopSample) -> LoopSample:
        """The tick without a flow that nothing bears out yet."""
        if self._leap.contradicts(sample.volume_flow_m3_h):
            # What came before taught a loop that is not this one.
            self.begin_anew()
        if self._leap.is_believed(sample.volume_flow_m3_h, sample.span_s):
            return sample
        return replace(sample, volume_flow_m3_h=None)

    def _inputs(self, sample: LoopSample, power: Estimate | None) -> LoopInputs:
        return LoopInputs(
            electric=power,
            volume_flow_m3_h=sample.volume_flow_m3_h,
            hot_c=sample.hot_c,
            cold_c=sample.cold_c,
            fluid=self._model.fluid,
            sensor_side=self._model.sensor_side,
        )

    def _update(self, event_ns: int, beside: Beside) -> None:
        """The fused heat over the ticks gathered, which end at `event_ns`."""
        raw, power = self._gather.taken()
        beside = self._with_faults(beside, raw)
        sample, power = _trusted(raw, power, beside)
        heat, assumed = self.heats(sample, power), (self._model, self._priors)
        self._fusion.update(sample, heat, power, assumed)
        self.fused_s = sample.span_s
        self._look(raw, heat, beside, event_ns)

    def _with_faults(self, beside: Beside, raw: LoopSample) -> Beside:
        """What stands beside, and the values that a fault which lasts has discredited.

        What was learnt until it was found goes with them. Where nothing else shows the heat they
        are all that there is, and the fault is told.
        """
        lasting = {one.fault for one in self.faults if one.end_ns is None}
        if raw.power_w is None or _VOIDING.isdisjoint(lasting):
            self._is_void = False
            return beside
        if not self._is_void and not beside.untrusted:
            self._fusion.begin_anew(self._model)
        self._is_void = True
        return replace(beside, untrusted=tuple({*beside.untrusted, *_WATER}))

    def _look(self, raw: LoopSample, heat: LoopHeat, beside: Beside, event_ns: int) -> None:
        """Watches for faults, also in what is shown and not believed; a part of the power is none.

        Otherwise a fault would end with the trust that it cost.
        """
        computed, lagged_w = heat.computed, self._fusion.lagged_w
        if beside.untrusted and heat.electric is not None:
            computed = estimate.computed_heat(self._inputs(raw, None), self._priors)
            lagged_w = heat.electric.value
        self._watch = residual.observe(
            self._watch,
            raw,
            computed_w=computed.value if computed is not None else None,
            electric_lagged_w=lagged_w,
            event_ns=event_ns,
            is_leaking=beside.is_leaking,
        )


def _is_seen(shown: LoopHeat, beside: Beside) -> bool:
    if not beside.untrusted:
        return shown.electric is not None or shown.computed is not None
    return "power_w" not in beside.untrusted and shown.electric is not None


def _trusted(
    raw: LoopSample, power: Estimate | None, beside: Beside
) -> tuple[LoopSample, Estimate | None]:
    """The sample and its power without what is not believed."""
    if not beside.untrusted:
        return raw, power
    absent: dict[str, Any] = dict.fromkeys(beside.untrusted)
    return replace(raw, **absent), None if "power_w" in beside.untrusted else power


def _bare(power_w: float) -> Estimate:
    # Its doubt is in the model's gain.
    return Estimate(
        value=power_w, u=0.0, quality=QualityClass.B, provenance=Provenance.ELECTRIC, flags=()
    )
