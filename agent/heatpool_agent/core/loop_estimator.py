"""The one runner of a loop's estimators: `run` and `estimate` both feed it, tick by tick.

Electric and computed heat are made of every tick. The fused heat is made anew over at least 10 s:
by the filter of record, or, while that says nothing or cannot be trusted, by the static fusion of
`estimate`. Between two updates the newest figure stands. Source: agent.md 6 C; physics.md 7.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core import estimate, loop_quarrel
from heatpool_agent.core.estimate import LoopHeat, LoopInputs, LoopPriors, LoopState
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_gather import Gather
from heatpool_agent.core.loop_quarrel import Quarrel
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

# What the fused heat rests on, in words.
PHASES = {
    "starting": "no figure yet",
    "settling": "still learning the loop",
    "tracking": "from power, flow and temperatures",
    "electric": "from power alone: flow or a temperature is missing",
    "calorimetric": "from flow and temperatures alone: power is missing",
    "blind": "nothing is seen now",
    "fallback": "plain fusion: the filter does not vouch for its figure",
}
VERSION = 1
UPDATE_S = 10.0
# Ticks lie on a grid: the tenth one may be some microseconds early.
_SLACK_S = 0.05
_NS = 1_000_000_000
_S_PER_H = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Heat into the coolant since an account was opened, Wh, and its standard uncertainty."""

    heat_wh: float
    heat_wh_u: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Share of the electric power at the wall that the coolant takes, with its u."""

    frac: float
    frac_u: float


def priors_of(model: LoopModel) -> LoopPriors:
    """What the static fusion assumes of a loop that nothing but a model describes."""
    return LoopPriors(
        capture_frac=model.capture_frac,
        capture_frac_u=model.gain_u_frac * model.capture_frac,
        lag_s=model.tau_s,
        flow_u_frac=model.flow_u_frac,
        flow_u_m3_h=0.0,
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
        self._gather = Gather()
        self._static = LoopState()
        self._quarrel = Quarrel()
        self._clock_ns = 0
        self._fused: Estimate | None = None
        self._energies: dict[str, Energy] = {}
        self.fused_s: float | None = None
        self.is_restored = self._restore(saved)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults that last, and those that ended within a day."""
        return ()

    @property
    def capture(self) -> Capture | None:
        """Share of the wall power in the coolant; None: nothing is known of it."""
        return None

    @property
    def phase(self) -> str:
        """What the fused heat rests on now, one word."""
        return "starting" if self._fused is None else "fallback"

    def assume(self, model: LoopModel, priors: LoopPriors | None = None) -> None:
        """Takes over what is now assumed of the loop; the same as before changes nothing."""
        if model is not self._model:
            self._priors = priors or priors_of(model)
            self._model = model

    def observe(
        self,
        sample: LoopSample,
        *,
        event_ns: int,
        power: Estimate | None = None,
        shown: LoopHeat | None = None,
        is_due: bool = False,
    ) -> LoopHeat:
        """Heat of the loop, W, at the tick that ends now, at `event_ns`.

        `power` is the sample's electric power with its own doubt and class; without it the
        model's doubt stands for both. `shown` are this tick's heats as `heats` makes them, where
        the sample holds less than what is shown. `is_due`: the fused heat must reach up to here.
        `fused_s` then is the span, s, over which the fused heat is a mean that ends at this tick;
        None while it is that of a tick before.
        """
        if power is None and sample.power_w is not None:
            power = _bare(sample.power_w)
        shown = shown or self.heats(sample, power)
        self._gather.add(sample, power)
        self.fused_s = None
        # The first figure there can be is there at once.
        is_first = self._fused is None and (shown.electric or shown.computed) is not None
        if is_first or is_due or self._gather.span_s >= UPDATE_S - _SLACK_S:
            self._update(event_ns)
        return LoopHeat(electric=shown.electric, computed=shown.computed, fused=self._fused)

    def heats(self, sample: LoopSample, power: Estimate | None) -> LoopHeat:
        """Electric and computed heat of one tick, W, not yet fused."""
        return LoopHeat(
            electric=estimate.electric_heat(power, self._priors),
            computed=estimate.computed_heat(self._inputs(sample, power), self._priors),
            fused=None,
        )

    def begin_anew(self) -> None:
        """Forgets what was learnt of the loop, as if it had never been seen; accounts stay."""
        self._gather = Gather()
        self._static, self._quarrel = LoopState(), Quarrel()
        self._fused = None

    def skip(self, span_s: float, *, event_ns: int) -> None:
        """Lets a time pass in which nothing was seen, such as a stop of the agent, until now."""
        if not self._gather.is_empty:
            self._update(event_ns - round(span_s * _NS))
        self._clock_ns += round(span_s * _NS)

    def start_energy(self, name: str) -> None:
        """Opens an account of heat from now on; one of that name begins again at 0."""
        self._energies[name] = Energy(heat_wh=0.0, heat_wh_u=0.0)

    def energy(self, name: str) -> Energy:
        """Heat in the account, Wh, with its u; what the ticks since the last update add is not in.

        Raises:
            KeyError: there is no such account.
        """
        return self._energies[name]

    def drop_energy(self, name: str) -> None:
        """Closes an account."""
        self._energies.pop(name, None)

    def saved(self) -> dict[str, Any]:
        """All that a restart needs to go on here; plain values for JSON."""
        return {
            "version": VERSION,
            "place": self._place,
            "clock_ns": self._clock_ns,
            "lagged": asdict(self._static),
            "quarrel": asdict(self._quarrel),
            "energies": {name: asdict(one) for name, one in self._energies.items()},
        }

    def _restore(self, saved: object) -> bool:
        """Takes over what was saved; False, and nothing taken, if it does not fit."""
        if not isinstance(saved, Mapping):
            return False
        try:
            if saved["version"] != VERSION or saved["place"] != self._place:
                return False
            clock_ns = int(saved["clock_ns"])
            static = LoopState(**saved["lagged"])
            quarrel = Quarrel(**saved["quarrel"])
            energies = {name: Energy(**one) for name, one in saved["energies"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        self._clock_ns, self._static = clock_ns, static
        self._quarrel, self._energies = quarrel, energies
        return True

    def _inputs(self, sample: LoopSample, power: Estimate | None) -> LoopInputs:
        return LoopInputs(
            electric=power,
            volume_flow_m3_h=sample.volume_flow_m3_h,
            hot_c=sample.hot_c,
            cold_c=sample.cold_c,
            fluid=self._model.fluid,
            sensor_side=self._model.sensor_side,
        )

    def _update(self, event_ns: int) -> None:
        """The fused heat over the ticks gathered, which end at `event_ns`."""
        sample, power = self._gather.taken()
        self._clock_ns += round(sample.span_s * _NS)
        heat, self._static = estimate.loop_heat(
            self._inputs(sample, power), self._priors, self._static, boot_ns=self._clock_ns
        )
        self._quarrel = loop_quarrel.quarrelled(
            self._quarrel, self._static.lagged_w, heat.electric, heat.computed, span_s=sample.span_s
        )
        self._fused, self.fused_s = heat.fused, sample.span_s
        self._count(heat.fused, sample.span_s)

    def _count(self, fused: Estimate | None, span_s: float) -> None:
        if fused is None:
            return
        hours = span_s / _S_PER_H
        # What one filter errs now it errs later too: doubts of spans add up.
        self._energies = {
            name: Energy(
                heat_wh=one.heat_wh + hours * fused.value, heat_wh_u=one.heat_wh_u + hours * fused.u
            )
            for name, one in self._energies.items()
        }


def _bare(power_w: float) -> Estimate:
    # Its doubt is in the model's gain.
    return Estimate(
        value=power_w, u=0.0, quality=QualityClass.B, provenance=Provenance.ELECTRIC, flags=()
    )
