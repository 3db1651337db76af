"""Electric and computed heat of a loop, each with its doubt, and their fusion.

The three heats stay three: `electric`, `computed`, and the device's own `reported` beside them;
`fused` is a fourth and replaces none. Source: physics.md 5 to 7.
"""

from dataclasses import dataclass
from math import hypot, inf, sqrt

from heatpool.heat import heat_coefficient_kwh_m3_k, heat_rate_w
from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool.uncertainty import fuse, product_u_frac

# The design names these as laws of estimation: they are found here, and held in rooms of their own.
from heatpool_agent.core.complementary import complementary_step as complementary_step
from heatpool_agent.core.integral import integrate_wh as integrate_wh
from heatpool_agent.core.loop_law import electric_heat_w as electric_heat_w
from heatpool_agent.core.loop_law import loop_step as loop_step


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPriors:
    """What is assumed of a loop until something better is learnt; from `data/loop_priors.toml`."""

    capture_frac: float
    capture_frac_u: float
    lag_s: float
    flow_u_frac: float
    flow_u_m3_h: float
    delta_k_u: float
    unknown_side_u_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopInputs:
    """What was read of one loop at one tick; None is absent."""

    electric: Estimate | None
    volume_flow_m3_h: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    fluid: str = "water"
    sensor_side: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopHeat:
    """Heat that leaves the IT of one loop, three ways and fused, W."""

    electric: Estimate | None
    computed: Estimate | None
    fused: Estimate | None


def electric_heat(power: Estimate | None, priors: LoopPriors) -> Estimate | None:
    """Heat in the coolant out of electric power at the wall, W: `capture * P`.

    The loss to the room is inside the capture prior until it is learnt. Power that is no number or
    below 0 is absent. Source: physics.md 5.2.
    """
    if power is None or not 0 <= power.value < inf or not power.u >= 0:
        return None
    u = hypot(priors.capture_frac * power.u, power.value * priors.capture_frac_u)
    return Estimate(
        value=priors.capture_frac * power.value,
        u=u,
        quality=power.quality,
        provenance=Provenance.ELECTRIC,
        flags=power.flags,
    )


def computed_heat(inputs: LoopInputs, priors: LoopPriors) -> Estimate | None:
    """Heat in the coolant out of volume flow and both temperatures, W.

    An unknown sensor side is taken as the mean of both, with the difference as doubt. Out of the
    fluid's range, or flow below 0, is absent. Source: physics.md 3.1 and 7.2.
    """
    flow_m3_h, hot_c, cold_c = inputs.volume_flow_m3_h, inputs.hot_c, inputs.cold_c
    if flow_m3_h is None or hot_c is None or cold_c is None:
        return None
    sides = ("hot", "cold") if inputs.sensor_side == "unknown" else (inputs.sensor_side,)
    rates_w = [heat_rate_w(flow_m3_h, hot_c, cold_c, side, inputs.fluid) for side in sides]
    value = sum(rates_w) / len(rates_w)
    if value != value:
        return None
    side_u_frac = priors.unknown_side_u_frac if len(sides) == 2 else 0.0
    return Estimate(
        value=value,
        u=_computed_u_w(inputs, value, priors, side_u_frac),
        quality=QualityClass.B,
        provenance=Provenance.COMPUTED,
        flags=("swapped_sensors",) if hot_c < cold_c else (),
    )


def _computed_u_w(
    inputs: LoopInputs, value_w: float, priors: LoopPriors, side_u_frac: float
) -> float:
    """Standard uncertainty, W; near zero difference only the temperature pair's share is left."""
    flow_m3_h, hot_c, cold_c = inputs.volume_flow_m3_h, inputs.hot_c, inputs.cold_c
    assert flow_m3_h is not None and hot_c is not None and cold_c is not None
    delta_k = abs(hot_c - cold_c)
    side = "cold" if inputs.sensor_side == "unknown" else inputs.sensor_side
    k = heat_coefficient_kwh_m3_k(hot_c, cold_c, side, inputs.fluid)
    pair_w = 1000.0 * k * abs(flow_m3_h) * priors.delta_k_u
    # A sensor that shows no flow may still miss a trickle: nothing is known for certain.
    floor_w = hypot(pair_w, 1000.0 * k * priors.flow_u_m3_h * delta_k)
    if delta_k == 0:
        return floor_w
    u_frac = product_u_frac(side_u_frac, priors.flow_u_frac, priors.delta_k_u / delta_k)
    return max(abs(value_w) * u_frac, floor_w)


def fused_heat(electric: Estimate | None, computed: Estimate | None) -> Estimate | None:
    """Both heats as one, W, by their inverse variances; the one that there is where one is absent.

    Where both contradict each other the doubt grows by the Birge ratio, the square root of chi
    squared per degree of freedom.

    Source: physics.md 7.1; R. T. Birge, Phys. Rev. 40, 207 (1932).
    """
    if electric is None or computed is None:
        return computed or electric
    # A figure of no doubt at all cannot be fused: one watt is below every meter's resolution.
    u_w = (max(electric.u, 1.0), max(computed.u, 1.0))
    fused = fuse([electric.value, computed.value], u_w)
    # Figures further apart than their doubts allow: one doubt is too small, and nobody knows which.
    stretch = max(1.0, abs(electric.value - computed.value) / hypot(*u_w))
    best = min(electric, computed, key=lambda estimate: estimate.u)
    return Estimate(
        value=float(fused.value),
        u=stretch * float(fused.u),
        quality=best.quality,
        provenance=Provenance.FUSED,
        flags=tuple(dict.fromkeys((*electric.flags, *computed.flags))),
    )


def differs(value: float, u: float, other: float, other_u: float) -> bool:
    """Two figures of one quantity are further apart than chance allows (physics.md 3.6)."""
    return abs(value - other) > 2.0 * sqrt(u * u + other_u * other_u)
