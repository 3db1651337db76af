"""The coolant loop: one warm mass, one hot pipe out of it and one cold pipe back."""

from dataclasses import dataclass
from math import expm1
from typing import Literal

from heatpool_sim.plant import glycol, water

Fluid = Literal["water", "pg25_vol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Heat capacity of coolant and metal, loss to the room, and the pump's reach."""

    heat_capacity_j_k: float
    loss_w_k: float
    room_c: float
    cold_c: float
    delta_k: float
    volume_flow_m3_h: float
    pump_tau_s: float = 12.0
    pump_floor_frac: float = 0.3
    fluid: Fluid = "water"
    cold_wander_k: float = 0.0  # the dry cooler's day: the cold pipe is never quite at its goal


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Temperatures of the two pipes and the flow, measured in the cold pipe."""

    hot_c: float
    cold_c: float
    volume_flow_m3_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopHeat:
    """One step, J: liquid = carried + lost + stored."""

    carried_j: float
    lost_j: float
    stored_j: float


def density_kg_m3(fluid: Fluid, temp_c: float) -> float:
    """Density of what is in the loop, kg/m3."""
    return glycol.density_kg_m3(temp_c) if fluid == "pg25_vol" else water.density_kg_m3(temp_c)


def capacity_w_k(fluid: Fluid, volume_flow_m3_h: float, *, hot_c: float, cold_c: float) -> float:
    """Heat that a flow measured in the cold pipe carries for each kelvin of spread, W/K."""
    is_glycol = fluid == "pg25_vol"
    heat_capacity = glycol.heat_capacity_j_kg_k if is_glycol else water.heat_capacity_j_kg_k
    mass_flow_kg_s = volume_flow_m3_h * density_kg_m3(fluid, cold_c) / 3600.0
    return mass_flow_kg_s * heat_capacity(hot_c, cold_c)


def pumped_m3_h(loop: Loop, volume_flow_m3_h: float, *, liquid_w: float, dt_s: float) -> float:
    """Volume flow after the step, m3/h: the pump seeks the flow that gives the wished spread."""
    hot_c = loop.cold_c + loop.delta_k
    one_w_k = capacity_w_k(loop.fluid, 1.0, hot_c=hot_c, cold_c=loop.cold_c)  # of 1 m3/h
    floor_m3_h = loop.pump_floor_frac * loop.volume_flow_m3_h
    wished_m3_h = liquid_w / (one_w_k * loop.delta_k)
    wished_m3_h = min(max(wished_m3_h, floor_m3_h), loop.volume_flow_m3_h)
    share = -expm1(-dt_s / loop.pump_tau_s)
    return volume_flow_m3_h + share * (wished_m3_h - volume_flow_m3_h)


def step(
    loop: Loop, state: LoopState, *, liquid_j: float, dt_s: float
) -> tuple[LoopState, LoopHeat]:
    """The loop after the step and the step's energies, J; exact for inputs held over it.

    C dT/dt = P - G (T - T_cold) - UA (T - T_room), G = mass flow times heat capacity.
    """
    liquid_w = liquid_j / dt_s
    flow_m3_h = pumped_m3_h(loop, state.volume_flow_m3_h, liquid_w=liquid_w, dt_s=dt_s)
    # Nobody heats this loop from outside: a loop colder than its goal is by-passed.
    cold_c = min(loop.cold_c, state.hot_c)
    carries_w_k = capacity_w_k(loop.fluid, flow_m3_h, hot_c=state.hot_c, cold_c=cold_c)
    hot_c, heat = _relax(
        loop, state.hot_c, cold_c=cold_c, carries_w_k=carries_w_k, liquid_w=liquid_w, dt_s=dt_s
    )
    if heat.carried_j < 0.0:
        hot_c, heat = _relax(
            loop, state.hot_c, cold_c=cold_c, carries_w_k=0.0, liquid_w=liquid_w, dt_s=dt_s
        )
    return LoopState(hot_c=hot_c, cold_c=min(cold_c, hot_c), volume_flow_m3_h=flow_m3_h), heat


def _relax(
    loop: Loop,
    hot_c: float,
    *,
    cold_c: float,
    carries_w_k: float,
    liquid_w: float,
    dt_s: float,
) -> tuple[float, LoopHeat]:
    total_w_k = carries_w_k + loop.loss_w_k
    tau_s = loop.heat_capacity_j_k / total_w_k
    final_c = (liquid_w + carries_w_k * cold_c + loop.loss_w_k * loop.room_c) / total_w_k
    rise_k = (final_c - hot_c) * -expm1(-dt_s / tau_s)
    mean_c = final_c - rise_k * tau_s / dt_s  # over the step, by time
    heat = LoopHeat(
        carried_j=carries_w_k * (mean_c - cold_c) * dt_s,
        lost_j=loop.loss_w_k * (mean_c - loop.room_c) * dt_s,
        stored_j=loop.heat_capacity_j_k * rise_k,
    )
    return hot_c + rise_k, heat
