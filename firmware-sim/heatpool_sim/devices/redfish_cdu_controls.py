"""The settings of a coolant unit as Redfish controls; each change goes through the plant."""

from collections.abc import Callable, Mapping
from typing import Any

from heatpool_sim.devices import redfish_words as words
from heatpool_sim.devices.redfish_tree import ChangeRefused, Resource
from heatpool_sim.plant.control import Mode
from heatpool_sim.plant.steering import Wished
from heatpool_sim.ports import Twin

WATCHDOG_S = 600  # a heat rate set over Redfish holds that long
_NETWORK_MODES = {"Automatic": Mode.NETWORK, "Manual": Mode.REMOTE, "Disabled": Mode.LOCAL}
_LITRES_PER_M3_H = 1000.0 / words.MINUTES_PER_HOUR
_WRITABLE = frozenset({"SetPoint", "ControlMode"})


def figures(plant: Twin) -> dict[str, Any]:
    """What the controls show."""
    gauges = plant.gauges()
    unit = gauges.unit
    high, low, _, mode = plant.cells()
    least_c, most_c = unit.limits["cold_c"]
    least_m3_h, most_m3_h = unit.limits["volume_flow_m3_h"]
    flow_m3_h = unit.wishes.volume_flow_m3_h
    names = {int(value): name for name, value in _NETWORK_MODES.items()}
    return {
        "cold_mode": "Automatic",
        "cold_set": words.celsius(unit.set_cold_c),
        "cold_min": words.celsius(least_c),
        "cold_max": words.celsius(most_c),
        "flow_mode": "Automatic" if flow_m3_h is None else "Manual",
        "flow_set": words.litres(gauges.volume_flow_m3_h if flow_m3_h is None else flow_m3_h),
        "flow_min": words.litres(least_m3_h),
        "flow_max": words.litres(most_m3_h),
        "network_mode": names[mode],
        "network_set": high << 16 | low,
        "network_max": round(unit.rated_heat_w),
    }


def _set_cold(plant: Twin, change: Resource) -> None:
    mode, set_c = _asked(change, modes=("Automatic",))
    if set_c is not None:
        _within(set_c, plant, "cold")
        _adjust(plant, "cold_c", set_c)
    elif mode is not None:
        _adjust(plant, "cold_c", None)


def _set_flow(plant: Twin, change: Resource) -> None:
    mode, set_l_min = _asked(change, modes=("Automatic", "Manual"))
    if mode == "Automatic":
        if set_l_min is not None:
            raise ChangeRefused("PropertyNotWritable", "SetPoint", where="SetPoint")
        _adjust(plant, "volume_flow_m3_h", None)
        return
    if set_l_min is None:
        set_l_min = float(figures(plant)["flow_set"])
    _within(set_l_min, plant, "flow")
    _adjust(plant, "volume_flow_m3_h", set_l_min / _LITRES_PER_M3_H)


def _set_network(plant: Twin, change: Resource) -> None:
    mode, set_w = _asked(change, modes=tuple(_NETWORK_MODES))
    if set_w is not None:
        _within(set_w, plant, "network")
    high, low, _, _ = plant.cells()
    wished = high << 16 | low if set_w is None else round(set_w)
    # A set point alone means that it shall count.
    kind = _NETWORK_MODES["Manual" if mode is None else mode]
    plant.write([wished >> 16, wished & 0xFFFF, WATCHDOG_S, int(kind)], at=0)


SETTERS: Mapping[str, Callable[[Twin, Resource], None]] = {
    "Chassis/1/Controls/SupplyTemperature": _set_cold,
    "Chassis/1/Controls/Flow": _set_flow,
    "Chassis/1/Controls/NetworkHeat": _set_network,
}


def _asked(change: Resource, *, modes: tuple[str, ...]) -> tuple[str | None, float | None]:
    """The mode and the set point that a change asks for.

    Raises:
        ChangeRefused: another property, or a value of the wrong kind.
    """
    for name in change:
        if name not in _WRITABLE:
            raise ChangeRefused("PropertyNotWritable", name, where=name)
    mode, wished = change.get("ControlMode"), change.get("SetPoint")
    if "ControlMode" in change and mode not in modes:
        raise ChangeRefused("PropertyValueNotInList", str(mode), "ControlMode", where="ControlMode")
    if "SetPoint" in change and (isinstance(wished, bool) or not isinstance(wished, int | float)):
        raise ChangeRefused("PropertyValueTypeError", str(wished), "SetPoint", where="SetPoint")
    return mode, None if wished is None else float(wished)


def _within(value: float, plant: Twin, name: str) -> None:
    shown = figures(plant) | {"network_min": 0}
    if not shown[f"{name}_min"] <= value <= shown[f"{name}_max"]:
        raise ChangeRefused("PropertyValueOutOfRange", str(value), "SetPoint", where="SetPoint")


def _adjust(plant: Twin, name: Wished, value: float | None) -> None:
    """Sets it; the limits shown are rounded, the plant's own are not."""
    if value is not None:
        least, most = plant.gauges().unit.limits[name]
        value = min(max(value, least), most)
    plant.adjust(name, value)
