"""The filter of record under guard: begun when it can learn, left when it cannot be trusted.

What it learnt of a meter holds for that meter alone. When the doubt of its inputs changes (another
meter, sensors pieced together) it goes on without the changed ones for a minute, since most of
that is a sensor that answers late; then it begins anew. So it does when its figures are none, or
keep away from the plain fusion by more than both doubts allow. Heat accounts go on over all that.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import exp, hypot, isfinite
from typing import Any

from heatpool_agent.core import kalman
from heatpool_agent.core.kalman import EnergyFigure, Figure
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

# Another doubt of the power than this factor is another meter.
_OTHER_METER = 1.3
# For so long a meter may answer late; a filter younger than this has nothing to lose.
LATE_S = 60.0
# Over this time, longer than any transient, the filter's mean must be near the plain fusion's.
NEAR_S = 600.0
# No bias that the priors allow is so far off.
APART_U = 5.0
NO_ENERGY = EnergyFigure(heat_wh=0.0, heat_wh_u=0.0)
_WATER = ("fluid", "sensor_side", "flow_u_frac", "delta_k_u")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How long inputs have been of another doubt, s, and how far the filter is from the fusion."""

    changed_s: float = 0.0
    age_s: float = 0.0
    apart_u: float = 0.0


class LoopFilter:
    """One filter at a time, with accounts that outlive it."""

    def __init__(self, model: LoopModel) -> None:
        self._model = model
        self._state = kalman.begin(model)
        self._watch = Watch()
        self._accounts: dict[str, EnergyFigure] = {}
        # Whether the filter itself vouches for its newest figure.
        self.figure: Figure | None = None

    @property
    def capture(self) -> Figure | None:
        """Share of the wall power in the coolant."""
        return kalman.capture(self._state)

    @property
    def phase(self) -> str:
        """One word on what the figure rests on; `fallback` without one."""
        return kalman.phase(self._state) if self.figure is not None else "fallback"

    def advance(self, sample: LoopSample, model: LoopModel) -> Figure | None:
        """Mean heat over the span that ends now, W; None where the filter says nothing of it."""
        watch, changed = self._watch, _changed(self._model, model)
        changed_s = watch.changed_s + sample.span_s if changed else 0.0
        self._watch = replace(watch, changed_s=changed_s, age_s=watch.age_s + sample.span_s)
        if changed and watch.age_s >= LATE_S and changed_s < LATE_S:
            # It keeps its time and what it knows, and says nothing of this span.
            absent: dict[str, Any] = dict.fromkeys(changed)
            self._step(replace(sample, **absent))
            self.figure = None
            return None
        if changed:
            self.begin_anew(model)
        self.figure = self._step(sample)
        return self.figure

    def _step(self, sample: LoopSample) -> Figure | None:
        """One update; a filter whose figures are none begins anew."""
        try:
            state = kalman.advance(self._state, sample, self._model)
            figure = kalman.heat(state)
        except (ArithmeticError, ValueError):
            self.begin_anew(self._model)
            return None
        if figure is not None and not (isfinite(figure.value) and figure.value_u > 0):
            self.begin_anew(self._model)
            return None
        self._state = state
        return figure

    def compare(self, plain_w: float, plain_w_u: float, *, span_s: float) -> None:
        """Holds the newest figure against the plain fusion; one that went astray is given up."""
        figure = self.figure
        if figure is None:
            return
        apart_u = (figure.value - plain_w) / max(hypot(figure.value_u, plain_w_u), 1.0)
        kept = exp(-span_s / NEAR_S)
        apart_u = apart_u + kept * (self._watch.apart_u - apart_u)
        self._watch = replace(self._watch, apart_u=apart_u)
        if abs(apart_u) > APART_U:
            self.begin_anew(self._model)

    def begin_anew(self, model: LoopModel) -> None:
        """Forgets what was learnt; accounts go on with what they hold."""
        for name in self._accounts:
            self._accounts[name] = self.energy(name)
        self._model, self._watch, self.figure = model, Watch(), None
        self._state = kalman.begin(model)
        for name in self._accounts:
            self._state = kalman.with_energy(self._state, name)

    def start_energy(self, name: str) -> None:
        """Opens an account of heat at 0."""
        self.drop_energy(name)
        self._accounts[name] = NO_ENERGY
        self._state = kalman.with_energy(self._state, name)

    def energy(self, name: str) -> EnergyFigure:
        """Heat in an account, Wh; filters of different lives may err alike, so doubts add up."""
        before, now = self._accounts[name], kalman.energy(self._state, name)
        if now is None or not isfinite(now.heat_wh):
            return before
        return EnergyFigure(
            heat_wh=before.heat_wh + now.heat_wh, heat_wh_u=before.heat_wh_u + now.heat_wh_u
        )

    def drop_energy(self, name: str) -> None:
        """Closes an account."""
        if self._accounts.pop(name, None) is not None:
            self._state = kalman.without_energy(self._state, name)

    def saved(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "model": asdict(self._model),
            "state": kalman.saved(self._state),
            "watch": asdict(self._watch),
            "energies": {name: asdict(one) for name, one in self._accounts.items()},
        }


def restored(saved: Mapping[str, Any]) -> LoopFilter | None:
    """The filter that was saved; None where its state is of another version.

    Raises:
        KeyError, TypeError, ValueError: it is damaged.
    """
    model = LoopModel(**saved["model"])
    state = kalman.restored(saved["state"])
    if state is None:
        return None
    found = LoopFilter(model)
    found._state, found._watch = state, Watch(**saved["watch"])
    found._accounts = {name: EnergyFigure(**one) for name, one in saved["energies"].items()}
    return found


def _changed(known: LoopModel, wanted: LoopModel) -> tuple[str, ...]:
    """The inputs of a sample whose doubt is another one now.

    What is learnt of capture and loss changes nothing here: it comes from the same calorimetry
    that the filter sees itself, and is the prior of its next life.
    """
    if known is wanted:
        return ()
    ratio = wanted.gain_u_frac / known.gain_u_frac if known.gain_u_frac > 0 else 1.0
    power = ("power_w",) if not 1 / _OTHER_METER <= ratio <= _OTHER_METER else ()
    is_same = all(getattr(known, name) == getattr(wanted, name) for name in _WATER)
    return power if is_same else (*power, "volume_flow_m3_h", "hot_c", "cold_c")
