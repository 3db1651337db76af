"""What a coolant unit with a richer panel shows: circuits, pressures, pumps, its own power."""

from collections.abc import Container
from dataclasses import dataclass

from heatpool_sim.plant import hydraulics
from heatpool_sim.plant.exchanger import NetworkStream
from heatpool_sim.plant.hydraulics import Pressures
from heatpool_sim.plant.noise import between, normal
from heatpool_sim.plant.site import Plant, SiteState
from heatpool_sim.plant.steering import Wished, Wishes, limits

_NOISE_C = 0.02
_NOISE_FRAC = 0.003
_NOISE_KPA = 0.3
_NOMINAL_J_M3_K = 4.186e6


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitGauges:
    """One facility circuit at its connector, as the unit's own sensors show it."""

    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    hot_kpa: float
    cold_kpa: float
    reported_heat_w: float
    valve_frac: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitGauges:
    """The rest of the panel; energies count on with the plant's time."""

    network: CircuitGauges
    cooler: CircuitGauges
    hot_kpa: float
    cold_kpa: float
    pump_fracs: tuple[float, float]
    is_pump_tripped: bool
    electric_w: float
    electric_wh: float
    fill_frac: float
    filter_kpa: float
    room_c: float
    humidity_frac: float
    rated_flow_m3_h: float
    rated_heat_w: float
    wishes: Wishes
    set_cold_c: float
    limits: dict[Wished, tuple[float, float]]


def unit_gauges(plant: Plant, state: SiteState, *, faults: Container[str]) -> UnitGauges:
    """What the panel shows now; the same instant shows the same figures."""
    seed, at_ns, loop = plant.seed, state.at_ns, state.loop
    is_leaking = "leak" in faults
    pressed = hydraulics.loop_pressures(plant.loop, loop.volume_flow_m3_h, is_leaking=is_leaking)
    is_tripped = "pump_trip" in faults
    flow_frac = loop.volume_flow_m3_h / plant.loop.volume_flow_m3_h
    wished_c = state.wishes.cold_c
    before_wh = between(1e5, 9e6, seed=f"{seed}/unit_energy")
    return UnitGauges(
        network=_circuit(plant, state.network, name="network", state=state),
        cooler=_circuit(plant, _cooler_stream(plant, state), name="cooler", state=state),
        hot_kpa=pressed.hot_kpa + _NOISE_KPA * normal(f"{seed}/hot_kpa", at_ns),
        cold_kpa=pressed.cold_kpa + _NOISE_KPA * normal(f"{seed}/cold_kpa", at_ns),
        pump_fracs=hydraulics.pump_fracs(flow_frac, is_tripped=is_tripped),
        is_pump_tripped=is_tripped,
        electric_w=hydraulics.unit_w(
            plant.loop, loop.volume_flow_m3_h, has_air="air_in_loop" in faults
        ),
        electric_wh=before_wh + state.unit_j / 3600.0,
        fill_frac=hydraulics.fill_frac((loop.hot_c + loop.cold_c) / 2.0, is_leaking=is_leaking),
        filter_kpa=0.08 * (pressed.cold_kpa - pressed.hot_kpa),
        room_c=plant.loop.room_c + 0.1 * normal(f"{seed}/room", at_ns),
        humidity_frac=0.42 + 0.01 * normal(f"{seed}/humidity", at_ns) + 0.3 * is_leaking,
        rated_flow_m3_h=plant.loop.volume_flow_m3_h,
        rated_heat_w=plant.exchanger.rejection_capacity_w,
        wishes=state.wishes,
        set_cold_c=plant.loop.cold_c if wished_c is None else wished_c,
        limits=limits(plant.loop),
    )


def _cooler_stream(plant: Plant, state: SiteState) -> NetworkStream:
    return hydraulics.cooler_stream(
        state.loop,
        rejected_w=state.carried_w - state.network.heat_rate_w,
        approach_k=plant.exchanger.approach_k,
    )


def _circuit(plant: Plant, stream: NetworkStream, *, name: str, state: SiteState) -> CircuitGauges:
    """The circuit with the errors of its own sensors, drawn once for all time."""
    seed, at_ns = f"{plant.seed}/{name}", state.at_ns
    scale = between(0.985, 1.015, seed=f"{seed}/flow_scale")
    flow_m3_h = stream.volume_flow_m3_h * scale * (1.0 + _NOISE_FRAC * normal(f"{seed}/q", at_ns))
    hot_c = stream.hot_c + _gauge_k(f"{seed}/hot", at_ns)
    cold_c = stream.cold_c + _gauge_k(f"{seed}/cold", at_ns)
    pressed: Pressures = hydraulics.facility_pressures(plant.loop, stream.volume_flow_m3_h)
    # Both gauges hang on one water: what shakes one shakes the other, and where it stands still
    # the pressures are one.
    shake_kpa = _NOISE_KPA * normal(f"{seed}/kpa", at_ns)
    valve_frac = state.valve_frac if name == "network" else 1.0 - state.valve_frac
    return CircuitGauges(
        volume_flow_m3_h=flow_m3_h,
        hot_c=hot_c,
        cold_c=cold_c,
        hot_kpa=pressed.hot_kpa + shake_kpa,
        cold_kpa=pressed.cold_kpa + shake_kpa,
        reported_heat_w=flow_m3_h * _NOMINAL_J_M3_K * (hot_c - cold_c) / 3600.0,
        valve_frac=valve_frac,
    )


def _gauge_k(seed: str, at_ns: int) -> float:
    return between(-0.08, 0.08, seed=f"{seed}/offset") + _NOISE_C * normal(seed, at_ns)
