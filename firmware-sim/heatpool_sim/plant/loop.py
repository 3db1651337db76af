"""The coolant loop: one warm mass, one hot pipe out of it and one cold pipe back."""

from dataclasses import dataclass
from math import expm1

from heatpool_sim.plant.water import density_kg_m3, heat_capacity_j_kg_k


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


def mass_flow_kg_s(volume_flow_m3_h: float, cold_c: float) -> float:
    """Mass flow of a stream whose volume flow is measured in the cold pipe, kg/s."""
    return volume_flow_m3_h * density_kg_m3(cold_c) / 3600.0


def pumped_m3_h(loop: Loop, volume_flow_m3_h: float, *, liquid_w: float, dt_s: float) -> float:
    """Volume flow after the step, m3/h: the pump seeks the flow that gives the wished spread."""
    hot_c = loop.cold_c + loop.delta_k
    joule_m3 = density_kg_m3(loop.cold_c) * heat_capacity_j_kg_k(hot_c, loop.cold_c) * loop.delta_k
    floor_m3_h = loop.pump_floor_frac * loop.volume_flow_m3_h
    wished_m3_h = min(max(liquid_w * 3600.0 / joule_m3, floor_m3_h), loop.volume_flow_m3_h)
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
    capacity_w_k = mass_flow_kg_s(flow_m3_h, cold_c) * heat_capacity_j_kg_k(state.hot_c, cold_c)
    hot_c, heat = _relax(
        loop, state.hot_c, cold_c=cold_c, capacity_w_k=capacity_w_k, liquid_w=liquid_w, dt_s=dt_s
    )
    if heat.carried_j < 0.0:
        hot_c, heat = _relax(
            loop, state.hot_c, cold_c=cold_c, capacity_w_k=0.0, liquid_w=liquid_w, dt_s=dt_s
        )
    return LoopState(hot_c=hot_c, cold_c=min(cold_c, hot_c), volume_flow_m3_h=flow_m3_h), heat


def _relax(
    loop: Loop,
    hot_c: float,
    *,
    cold_c: float,
    capacity_w_k: float,
    liquid_w: float,
    dt_s: float,
) -> tuple[float, LoopHeat]:
    total_w_k = capacity_w_k + loop.loss_w_k
    tau_s = loop.heat_capacity_j_k / total_w_k
    final_c = (liquid_w + capacity_w_k * cold_c + loop.loss_w_k * loop.room_c) / total_w_k
    rise_k = (final_c - hot_c) * -expm1(-dt_s / tau_s)
    mean_c = final_c - rise_k * tau_s / dt_s  # over the step, by time
    heat = LoopHeat(
        carried_j=capacity_w_k * (mean_c - cold_c) * dt_s,
        lost_j=loop.loss_w_k * (mean_c - loop.room_c) * dt_s,
        stored_j=loop.heat_capacity_j_k * rise_k,
    )
    return hot_c + rise_k, heat
