"""The fused heat of one loop: by the filter of record, by what is left when that says nothing.

In this order: the filter; the complementary filter, once it is clearer than either heat alone;
the static fusion; the one heat that there is. Accounts of heat go on through all of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import hypot
from typing import Any

from heatpool.sample import Estimate, Provenance
from heatpool_agent.core import loop_class, loop_filter, loop_quarrel
from heatpool_agent.core.complementary import ComplementaryState, HeatRate, complementary_step
from heatpool_agent.core.estimate import LoopHeat, LoopPriors, fused_heat
from heatpool_agent.core.kalman import EnergyFigure, Figure
from heatpool_agent.core.loop_class import Usual
from heatpool_agent.core.loop_filter import NO_ENERGY, LoopFilter
from heatpool_agent.core.loop_quarrel import Quarrel
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

_S_PER_H = 3600.0
_FROM = {Provenance.ELECTRIC: "electric", Provenance.COMPUTED: "calorimetric"}


class Fusion:
    """What is remembered of one loop from update to update."""

    def __init__(self) -> None:
        # Begun with the first calorimetry: power alone teaches nothing of a loop.
        self._filter: LoopFilter | None = None
        self._plain = ComplementaryState()
        self._quarrel = Quarrel()
        self._usual = Usual()
        self._energies: dict[str, EnergyFigure] = {}
        self.fused: Estimate | None = None

    @property
    def capture(self) -> Figure | None:
        """Share of the wall power in the coolant; None: nothing is known of it."""
        found = self._filter.capture if self._filter is not None else None
        stretch = loop_quarrel.stretch(self._quarrel)
        return None if found is None else replace(found, value_u=stretch * found.value_u)

    @property
    def phase(self) -> str:
        """What the fused heat rests on, one word."""
        if self._filter is not None:
            return self._filter.phase
        return "starting" if self.fused is None else _FROM.get(self.fused.provenance, "fallback")

    @property
    def lagged_w(self) -> float | None:
        """Electric heat at the assumed share as the loop's sensors should show it by now, W."""
        return self._plain.lagged_w

    def begin_anew(self, model: LoopModel) -> None:
        """Forgets what was learnt of the loop; accounts stay."""
        self._plain, self._quarrel, self.fused = ComplementaryState(), Quarrel(), None
        if self._filter is not None:
            self._filter.begin_anew(model)

    def update(
        self, sample: LoopSample, heat: LoopHeat, power: Estimate | None, assumed: "Assumed"
    ) -> None:
        """Makes the fused heat over a sample's span; `heat` are its electric and computed heat."""
        model = _with_meter(assumed, power)
        plain, self._plain = complementary_step(self._plain, sample, model)
        self._quarrel = loop_quarrel.quarrelled(
            self._quarrel,
            self._plain.lagged_w,
            heat.electric,
            heat.computed,
            span_s=sample.span_s,
        )
        figure = self._filtered(sample, model, heat, plain)
        if figure is not None and self._is_astray(heat, figure.value, figure.value_u):
            # What both heats contradict was learnt from a figure that was wrong: all of it goes.
            self.begin_anew(model)
            plain, figure = None, None
        if figure is not None:
            self.fused = self._told(heat, figure.value, figure.value_u)
        elif plain is not None and _has_learnt(plain, heat):
            self.fused = self._told(heat, plain.value_w, plain.value_w_u)
        else:
            self.fused = fused_heat(heat.electric, heat.computed)
        if self.fused is None:
            return
        self.fused = self._classed(self.fused, heat, sample.span_s)
        if self._filter is None:
            self._count(self.fused.value, self.fused.u, sample.span_s)
        elif figure is not None:
            # The filter knows of no quarrel: what that adds is the account's, too.
            self._count(0.0, self.fused.u - figure.value_u, sample.span_s)

    def skip(self, span_s: float, model: LoopModel) -> None:
        """Lets a time pass in which nothing was seen."""
        sample, self.fused = LoopSample(span_s=span_s), None
        _, self._plain = complementary_step(self._plain, sample, model)
        if self._filter is not None:
            self._filter.advance(sample, model)

    def _filtered(
        self, sample: LoopSample, model: LoopModel, heat: LoopHeat, plain: HeatRate | None
    ) -> Figure | None:
        """What the filter says of the span, if it can be trusted."""
        if self._filter is None:
            if heat.computed is None:
                return None
            self._filter = LoopFilter(model)
            for name in self._energies:
                self._filter.start_energy(name)
        self._filter.advance(sample, model)
        if plain is not None:
            self._filter.compare(plain.value_w, plain.value_w_u, span_s=sample.span_s)
        return self._filter.figure

    def _told(self, heat: LoopHeat, value_w: float, value_w_u: float) -> Estimate | None:
        """The fused figure; None where neither power nor calorimetry was seen in the span."""
        seen = [one for one in (heat.electric, heat.computed) if one is not None]
        if not seen:
            return None
        clearest = min(seen, key=lambda one: one.u)
        return Estimate(
            value=value_w,
            u=self._doubt_w(heat, value_w, value_w_u),
            quality=clearest.quality,
            provenance=Provenance.FUSED if len(seen) > 1 else clearest.provenance,
            flags=tuple(dict.fromkeys(flag for one in seen for flag in one.flags)),
        )

    def _classed(self, fused: Estimate, heat: LoopHeat, span_s: float) -> Estimate:
        """The fused figure in no better a class than its doubt allows."""
        self._usual = loop_class.usual_after(
            self._usual, heat.electric, heat.computed, span_s=span_s
        )
        best = loop_class.best_class(fused.value, fused.u, self._usual)
        return replace(fused, quality=max(fused.quality, best))

    def _doubt_w(self, heat: LoopHeat, value_w: float, value_w_u: float) -> float:
        lagged_w = self._plain.lagged_w
        return loop_quarrel.doubt_w(
            self._quarrel, value_w, value_w_u, lagged_w, heat.electric, heat.computed
        )

    def _is_astray(self, heat: LoopHeat, value_w: float, value_w_u: float) -> bool:
        lagged_w = self._plain.lagged_w
        return loop_quarrel.is_astray(value_w, value_w_u, lagged_w, heat.electric, heat.computed)

    def start_energy(self, name: str) -> None:
        """Opens an account of heat from now on; one of that name begins again at 0."""
        self._energies[name] = NO_ENERGY
        if self._filter is not None:
            self._filter.start_energy(name)

    def energy(self, name: str) -> EnergyFigure:
        """Heat in the account, Wh, with its u.

        Raises:
            KeyError: there is no such account.
        """
        own = self._energies[name]
        if self._filter is None:
            return own
        more = self._filter.energy(name)
        # What one estimator errs the next one errs too: doubts add up.
        return EnergyFigure(
            heat_wh=own.heat_wh + more.heat_wh, heat_wh_u=own.heat_wh_u + more.heat_wh_u
        )

    def drop_energy(self, name: str) -> None:
        """Closes an account."""
        self._energies.pop(name, None)
        if self._filter is not None:
            self._filter.drop_energy(name)

    def _count(self, value_w: float, value_w_u: float, span_s: float) -> None:
        hours = span_s / _S_PER_H
        self._energies = {
            name: EnergyFigure(
                heat_wh=one.heat_wh + hours * value_w, heat_wh_u=one.heat_wh_u + hours * value_w_u
            )
            for name, one in self._energies.items()
        }

    def saved(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "filter": self._filter.saved() if self._filter is not None else None,
            "plain": asdict(self._plain),
            "quarrel": asdict(self._quarrel),
            "usual": asdict(self._usual),
            "energies": {name: asdict(one) for name, one in self._energies.items()},
        }


Assumed = tuple[LoopModel, LoopPriors]


def restored(saved: Mapping[str, Any]) -> Fusion | None:
    """The fusion that was saved; None where its filter is of another version.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is damaged.
    """
    found = Fusion()
    if saved["filter"] is not None:
        found._filter = loop_filter.restored(saved["filter"])
        if found._filter is None:
            return None
    recent = tuple((one_s, mean_w) for one_s, mean_w in saved["plain"]["recent"])
    found._plain = ComplementaryState(**{**saved["plain"], "recent": recent})
    found._quarrel = Quarrel(**saved["quarrel"])
    # A state of before this was kept loses nothing else by it.
    found._usual = loop_class.restored(saved.get("usual", {}))
    found._energies = {name: EnergyFigure(**one) for name, one in saved["energies"].items()}
    return found


def _with_meter(assumed: Assumed, power: Estimate | None) -> LoopModel:
    """The model with the doubt of the meter that shows the power now."""
    model, priors = assumed
    if power is None or power.value <= 0 or power.u <= 0 or priors.capture_frac <= 0:
        return model
    capture_u_frac = priors.capture_frac_u / priors.capture_frac
    return replace(model, gain_u_frac=hypot(power.u / power.value, capture_u_frac))


def _has_learnt(plain: HeatRate, heat: LoopHeat) -> bool:
    """Whether the complementary filter is clearer than either heat alone."""
    if heat.electric is None or heat.computed is None:
        return False
    return plain.value_w_u < min(heat.electric.u, heat.computed.u)
