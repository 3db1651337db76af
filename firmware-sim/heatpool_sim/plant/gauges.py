"""What the sensors of a coolant unit show: the plant's truth with each sensor's own errors."""

from dataclasses import dataclass

from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.noise import normal
from heatpool_sim.plant.server_gauges import ServerGauges, server_gauges
from heatpool_sim.plant.site import Plant, SiteState
from heatpool_sim.plant.unit_gauges import UnitGauges, unit_gauges

_NOISE_C = 0.02
_NOISE_FRAC = 0.003
_NOMINAL_J_M3_K = 4.186e6  # the unit's own arithmetic knows water at one temperature only


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeErrors:
    """Calibration errors of one unit's sensors: constant, unknown to the outside."""

    hot_offset_k: float = 0.0
    cold_offset_k: float = 0.0
    flow_scale: float = 1.0
    electric_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """The unit's display; hot and cold name the pipes, whatever the sensors say."""

    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    pump_frac: float
    valve_frac: float
    reported_heat_w: float
    rack_electric_w: float
    has_leak: bool
    is_remote: bool
    is_expired: bool
    at_ns: int
    unit: UnitGauges
    server: ServerGauges


def gauges(
    plant: Plant, state: SiteState, errors: GaugeErrors, *, faults: frozenset[str] = frozenset()
) -> Gauges:
    """What the unit shows now; the same instant shows the same figures."""
    seed, at_ns, loop, control = plant.seed, state.at_ns, state.loop, state.control
    hot_c = loop.hot_c + errors.hot_offset_k + _NOISE_C * normal(f"{seed}/hot", at_ns)
    cold_c = loop.cold_c + errors.cold_offset_k + _NOISE_C * normal(f"{seed}/cold", at_ns)
    flow_m3_h = loop.volume_flow_m3_h * errors.flow_scale * _noisy(f"{seed}/flow", at_ns)
    if "sensor_swap" in faults:
        hot_c, cold_c = cold_c, hot_c
    return Gauges(
        volume_flow_m3_h=flow_m3_h,
        hot_c=hot_c,
        cold_c=cold_c,
        pump_frac=loop.volume_flow_m3_h / plant.loop.volume_flow_m3_h,
        valve_frac=state.valve_frac,
        reported_heat_w=flow_m3_h * _NOMINAL_J_M3_K * (hot_c - cold_c) / 3600.0,
        rack_electric_w=state.electric_w * errors.electric_scale * _noisy(f"{seed}/rack", at_ns),
        has_leak="leak" in faults,
        is_remote=_is_remote(control),
        is_expired=control.is_expired,
        at_ns=at_ns,
        unit=unit_gauges(plant, state, faults=faults),
        server=server_gauges(plant, state),
    )


def _is_remote(control: Control) -> bool:
    return control.mode is Mode.REMOTE


def _noisy(seed: str, at_ns: int) -> float:
    return 1.0 + _NOISE_FRAC * normal(seed, at_ns)
