"""What the sensors of a coolant unit show: the plant's truth with each sensor's own errors."""

from collections.abc import Mapping
from dataclasses import dataclass

from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.faults import Lasting
from heatpool_sim.plant.loop_gauges import GaugeErrors, loop_gauges, shown_power_frac
from heatpool_sim.plant.server_gauges import ServerGauges, server_gauges
from heatpool_sim.plant.site import Plant, SiteState
from heatpool_sim.plant.unit_gauges import UnitGauges, unit_gauges

_NOMINAL_J_M3_K = 4.186e6  # the unit's own arithmetic knows water at one temperature only


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
    plant: Plant,
    state: SiteState,
    errors: GaugeErrors,
    *,
    lasting: Mapping[str, Lasting] | None = None,
) -> Gauges:
    """What the unit shows now; the same instant shows the same figures."""
    faults, loop, control = lasting or {}, state.loop, state.control
    shown = loop_gauges(plant, state, errors, lasting=faults)
    reported_w_k = shown.volume_flow_m3_h * _NOMINAL_J_M3_K / 3600.0
    return Gauges(
        volume_flow_m3_h=shown.volume_flow_m3_h,
        hot_c=shown.hot_c,
        cold_c=shown.cold_c,
        pump_frac=loop.volume_flow_m3_h / plant.loop.volume_flow_m3_h,
        valve_frac=state.valve_frac,
        reported_heat_w=reported_w_k * (shown.hot_c - shown.cold_c),
        rack_electric_w=shown.electric_w,
        has_leak="leak" in faults,
        is_remote=_is_remote(control),
        is_expired=control.is_expired,
        at_ns=state.at_ns,
        unit=unit_gauges(plant, state, faults=faults),
        server=server_gauges(plant, state, power_frac=shown_power_frac(faults)),
    )


def _is_remote(control: Control) -> bool:
    return control.mode is Mode.REMOTE
