"""A coolant unit that speaks Redfish: DMTF's thermal equipment model, OCP's profile for CDUs.

Supply is the cold pipe of each loop, return the hot one; primary is the facility's side: its
first connector is the heat network, its second the dry cooler. Secondary is the racks' side.
"""

from collections.abc import Callable
from typing import Any

from heatpool_sim.devices import redfish_cdu_controls as controls
from heatpool_sim.devices import redfish_words as words
from heatpool_sim.devices.redfish_device import PlantTree, RedfishDevice
from heatpool_sim.devices.redfish_template import Template
from heatpool_sim.devices.redfish_tree import ROOT, Resource
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.plant.unit_gauges import CircuitGauges
from heatpool_sim.ports import Twin

MODEL = "Simulated coolant unit"


class RedfishCdu(RedfishDevice):
    """One unit behind its own port; without a user everybody may read and set."""

    def tree(self, plant: Twin, *, site_id: str, user: str) -> PlantTree:
        """Its resources."""
        return CduTree(plant, site_id=site_id, user=user)


class CduTree(PlantTree):
    """The unit's resources as its plant is now."""

    def __init__(self, plant: Twin, *, site_id: str = "site", user: str = "") -> None:
        template = Template("service", "cdu", sensors="cdu_sensors", context="CoolingSubsystem")
        super().__init__(plant, template, words.identity("cdu", site_id=site_id, user=user))

    def figures(self) -> dict[str, Any]:
        """All figures as they are now."""
        return self._identity | figures(self._plant.gauges()) | controls.figures(self._plant)

    def patch(self, path: str, change: Resource) -> Resource | None:
        """The resource after the change; None where it cannot be changed at all.

        Raises:
            ChangeRefused: a property or its value is not accepted.
        """
        setter: Callable[[Twin, Resource], None] | None = controls.SETTERS.get(
            path.removeprefix(f"{ROOT}/")
        )
        if setter is None:
            return None
        if change:
            setter(self._plant, change)
        return self.get(path)


def figures(gauges: Gauges) -> dict[str, Any]:
    """What the unit shows, by the names that its data files have for it."""
    unit = gauges.unit
    return {
        "product": MODEL,
        "model": MODEL,
        "now": words.clock(gauges.at_ns),
        "capacity": round(unit.rated_heat_w),
        "rated_flow": words.litres(unit.rated_flow_m3_h),
        **_pipes("secondary", _secondary(gauges)),
        **_pipes("network", unit.network),
        **_pipes("cooler", unit.cooler),
        "network_valve": words.share(unit.network.valve_frac),
        "cooler_valve": words.share(unit.cooler.valve_frac),
        "pump1_speed": words.share(unit.pump_fracs[0]),
        "pump2_speed": words.share(unit.pump_fracs[1]),
        "service_hours": words.rounded(gauges.at_ns / 3.6e12 % 8760.0, 1),
        "fill_level": words.share(unit.fill_frac),
        "filter_kpa": words.rounded(unit.filter_kpa, 2),
        "room_c": words.celsius(unit.room_c),
        "room_humidity": words.share(unit.humidity_frac),
        "unit_power": words.rounded(unit.electric_w, 1),
        "unit_energy": words.rounded(unit.electric_wh / 1000.0, 3),
        **_states(gauges),
    }


def _secondary(gauges: Gauges) -> CircuitGauges:
    unit = gauges.unit
    return CircuitGauges(
        volume_flow_m3_h=gauges.volume_flow_m3_h,
        hot_c=gauges.hot_c,
        cold_c=gauges.cold_c,
        hot_kpa=unit.hot_kpa,
        cold_kpa=unit.cold_kpa,
        reported_heat_w=gauges.reported_heat_w,
        valve_frac=1.0,
    )


def _pipes(name: str, circuit: CircuitGauges) -> dict[str, float]:
    supply_c, return_c = words.celsius(circuit.cold_c), words.celsius(circuit.hot_c)
    return {
        f"{name}_flow": words.litres(circuit.volume_flow_m3_h),
        f"{name}_supply_c": supply_c,
        f"{name}_return_c": return_c,
        f"{name}_delta_c": words.celsius(return_c - supply_c),
        f"{name}_supply_kpa": words.rounded(circuit.cold_kpa, 1),
        f"{name}_return_kpa": words.rounded(circuit.hot_kpa, 1),
        f"{name}_delta_kpa": words.rounded(circuit.cold_kpa - circuit.hot_kpa, 1),
        f"{name}_heat": words.kilowatts(circuit.reported_heat_w),
    }


def _states(gauges: Gauges) -> dict[str, Any]:
    is_leaking, is_tripped = gauges.has_leak, gauges.unit.is_pump_tripped
    worst = "Critical" if is_leaking else "Warning" if is_tripped else "OK"
    return {
        "unit_status": words.state(worst),
        "loop_status": words.state("Critical" if is_leaking else "OK"),
        "leak_status": words.state("Critical" if is_leaking else "OK"),
        "moisture_state": "Critical" if is_leaking else "OK",
        "overflow_state": "OK",
        "fill_health": "Warning" if is_leaking else "OK",
        "fill_status": words.state("Warning" if is_leaking else "OK"),
        "pumps_status": words.state("Warning" if is_tripped else "OK"),
        "pump1_status": words.state("Critical", name="UnavailableOffline")
        if is_tripped
        else words.state(),
        "pump2_status": words.state(),
    }
