"""Pressures and pumps of a coolant unit, and the circuits that carry its heat away."""

from dataclasses import dataclass

from heatpool_sim.plant.exchanger import NetworkStream
from heatpool_sim.plant.loop import Loop, LoopState
from heatpool_sim.plant.water import density_kg_m3, enthalpy_j_kg

_LOOP_DROP_KPA = 140.0  # cold plates and pipes, at the pump's full flow
_FACILITY_DROP_KPA = 60.0  # the unit's exchanger, facility side
_PUMP_EFFICIENCY_FRAC = 0.42
_AIR_WORK_FRAC = 0.75  # a pump that churns air works less
_CONTROLLER_W = 35.0
_LEAK_DROP_KPA = 45.0  # what a leaking loop has lost by the time it is seen
_STATIC_KPA = {"loop": 160.0, "facility": 320.0}
_COOLER_APPROACH_K = 1.0
_LEAST_RISE_K = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressures:
    """Absolute pressures at the two pipes of one connector, kPa."""

    hot_kpa: float
    cold_kpa: float


def loop_pressures(loop: Loop, volume_flow_m3_h: float, *, is_leaking: bool) -> Pressures:
    """The IT loop: the pump pushes into its cold pipe; friction grows with the square of flow."""
    hot_kpa = _STATIC_KPA["loop"] - (_LEAK_DROP_KPA if is_leaking else 0.0)
    return Pressures(hot_kpa=hot_kpa, cold_kpa=hot_kpa + _drop_kpa(loop, volume_flow_m3_h))


def facility_pressures(loop: Loop, volume_flow_m3_h: float) -> Pressures:
    """A facility circuit: its own pump pushes into the unit's cold side."""
    share = volume_flow_m3_h / loop.volume_flow_m3_h
    cold_kpa = _STATIC_KPA["facility"]
    return Pressures(
        hot_kpa=cold_kpa - _FACILITY_DROP_KPA * min(share, 2.0) ** 2, cold_kpa=cold_kpa
    )


def pump_fracs(flow_frac: float, *, is_tripped: bool) -> tuple[float, float]:
    """Speed of the two pumps, 0..1 of full speed; the flow is held when the first one trips."""
    if is_tripped:
        return 0.0, min(1.25 * flow_frac, 1.0)
    return flow_frac, flow_frac


def unit_w(loop: Loop, volume_flow_m3_h: float, *, has_air: bool = False) -> float:
    """Electric power of the unit itself, W: pumps by their hydraulic work, and the controller."""
    work_w = volume_flow_m3_h / 3600.0 * 1000.0 * _drop_kpa(loop, volume_flow_m3_h)
    if has_air:
        work_w *= _AIR_WORK_FRAC
    return work_w / _PUMP_EFFICIENCY_FRAC + _CONTROLLER_W


def cooler_stream(loop: LoopState, *, rejected_w: float, approach_k: float) -> NetworkStream:
    """The dry cooler's water: what the network did not take, in a circuit of its own."""
    cold_c = loop.cold_c - _COOLER_APPROACH_K
    if rejected_w <= 0.0:
        return NetworkStream(heat_rate_w=0.0, volume_flow_m3_h=0.0, hot_c=cold_c, cold_c=cold_c)
    hot_c = max(loop.hot_c - approach_k, cold_c + _LEAST_RISE_K)
    mass_flow_kg_s = rejected_w / (enthalpy_j_kg(hot_c) - enthalpy_j_kg(cold_c))
    return NetworkStream(
        heat_rate_w=rejected_w,
        volume_flow_m3_h=mass_flow_kg_s * 3600.0 / density_kg_m3(cold_c),
        hot_c=hot_c,
        cold_c=cold_c,
    )


def fill_frac(loop_mean_c: float, *, is_leaking: bool) -> float:
    """Level of the reservoir, 0..1: water expands as it warms, and a leak empties it."""
    return min(max(0.68 + 0.002 * (loop_mean_c - 20.0) - 0.35 * is_leaking, 0.0), 1.0)


def _drop_kpa(loop: Loop, volume_flow_m3_h: float) -> float:
    return _LOOP_DROP_KPA * (volume_flow_m3_h / loop.volume_flow_m3_h) ** 2
