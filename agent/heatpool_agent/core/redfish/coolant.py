"""Coolant connectors, pumps and leak detectors; here alone supply and return become cold and hot.

Both sides of a unit are cooling circuits: what flows towards the heat is cold, primary and
secondary alike. Source: vocabulary.md 2, DSP0268 CoolantConnector.
"""

import math
from dataclasses import replace

from heatpool.heat import heat_rate_w
from heatpool_agent.core.reading import Node
from heatpool_agent.core.redfish import flags
from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.figures import (
    COLD,
    COLD_PRESSURE,
    HOT,
    HOT_PRESSURE,
    REPORTED_HEAT,
    VOLUME_FLOW,
    number,
)
from heatpool_agent.core.redfish.findings import Finding, Findings, Place
from heatpool_agent.core.redfish.service import COOLING, Resource
from heatpool_agent.core.redfish.shapes import inside, nested, table, text

_FIGURES = (
    ("FlowLitersPerMinute", VOLUME_FLOW),
    ("SupplyTemperatureCelsius", COLD),
    ("ReturnTemperatureCelsius", HOT),
    ("HeatRemovedkW", REPORTED_HEAT),
    ("SupplyPressurekPa", COLD_PRESSURE),
    ("ReturnPressurekPa", HOT_PRESSURE),
)
_PRIMARY = "PrimaryCoolantConnectors"
# Reported against computed heat: the worst pair of honest sensors stays within this.
_HEAT_FRAC = 0.10
_NOT_THERE = frozenset({"Absent", "Disabled"})
# States of a pump that stands because it is spare, or is not there.
_RESTING = frozenset({"Absent", "Disabled", "StandbySpare", "StandbyOffline", "Starting"})
_KNOWN_STATES = frozenset({"ok", "warning", "critical", "unavailable"})
# A detector that stands there and cannot tell is not fine: no other one speaks for its place.
_BLIND = "unavailable"
_LEAK = 2


def connectors(found: Findings, *, primary_loop: str) -> None:
    """Each connector's circuit: its secondary side is the sensor's loop, its primary another."""
    for resource in found.service.of_kind("CoolantConnector"):
        unit = found.service.owner(resource.path, *COOLING)
        marks = () if _agree(unit, resource.body) else (flags.COOLANT_DIFFERS,)
        place = Place(
            node=Node.CDU,
            loop=primary_loop if _is_primary(found, resource) else found.stamp.loop,
            group=resource.path,
            label=text(resource.body, "Name"),
            flags=marks,
        )
        told = {
            measure.quantity: finding
            for name, measure in _FIGURES
            if (finding := found.excerpt(resource, name, measure, place))
        }
        _judged(told, _coolant(unit, resource.body))


def _is_primary(found: Findings, resource: Resource) -> bool:
    names = [name for _, name in found.service.ancestry(resource.path)]
    return _PRIMARY in names or f"/{_PRIMARY}/" in resource.path


def _judged(told: dict[str, Finding], coolant: Document) -> None:
    reported = told.get("reported_heat_w")
    rates_w = _computed_w(told, coolant)
    if reported and rates_w:
        low_w, high_w = sorted(rates_w)
        margin_w = _HEAT_FRAC * max(abs(low_w), abs(high_w))
        if not low_w - margin_w <= reported.value <= high_w + margin_w:
            reported.flag(flags.REPORTED_DIFFERS)
    cold, hot = told.get("cold_pressure_bar"), told.get("hot_pressure_bar")
    if cold and hot and hot.value > cold.value:
        cold.flag(flags.PRESSURE_REVERSED)
        hot.flag(flags.PRESSURE_REVERSED)


def _computed_w(told: dict[str, Finding], coolant: Document) -> tuple[float, float] | None:
    figures = [told.get(name) for name in ("volume_flow_m3_h", "hot_c", "cold_c")]
    values = [finding.value for finding in figures if finding]
    return circuit_heat_w(*values, coolant=coolant) if len(values) == len(figures) else None


def circuit_heat_w(
    volume_flow_m3_h: float, hot_c: float, cold_c: float, *, coolant: Document
) -> tuple[float, float] | None:
    """Heat rate of a circuit, W, with the flow measured in its hot and in its cold pipe.

    Density and heat capacity as the unit's `Coolant` states them, else those of water; the side of
    the flow sensor is unknown in Redfish. Absent outside of the range of water.
    """
    density, capacity = (
        number(coolant.get(name))
        for name in ("DensityKgPerCubicMeter", "SpecificHeatkJoulesPerKgK")
    )
    if density and capacity:
        rate_w = volume_flow_m3_h / 3600 * density * capacity * 1000 * (hot_c - cold_c)
        return rate_w, rate_w
    try:
        hot_w, cold_w = (
            heat_rate_w(volume_flow_m3_h, hot_c, cold_c, side) for side in ("hot", "cold")
        )
    except ValueError:
        return None
    # Outside its range the water is NaN.
    return (hot_w, cold_w) if hot_w == hot_w and cold_w == cold_w else None


def _coolant(unit: Resource | None, connector: Document) -> Document:
    """The connector's own coolant beats the unit's."""
    return table(connector, "Coolant") or (table(unit.body, "Coolant") if unit else {})


def _agree(unit: Resource | None, connector: Document) -> bool:
    """Whether connector and unit name one coolant, as far as both name any."""
    ours, theirs = table(connector, "Coolant"), table(unit.body, "Coolant") if unit else {}
    return not ours or not theirs or _mixture(ours) == _mixture(theirs)


def _mixture(coolant: Document) -> tuple[str, float]:
    return text(coolant, "CoolantType"), number(coolant.get("AdditivePercent")) or 0.0


def pumps(found: Findings) -> None:
    """`pump_runs` of each pump that should run: 0 if it stands or says that it failed."""
    for resource in found.service.of_kind("Pump"):
        body = resource.body
        found.sources[resource.source] = None
        runs = _runs(body)
        if runs is not None:
            place = Place(node=Node.CDU, loop=found.stamp.loop, label=text(body, "Name"))
            found.state(resource.path, "pump_runs", float(runs), place)


def _runs(pump: Document) -> bool | None:
    status = table(pump, "Status")
    state = text(status, "State")
    if state in _RESTING:
        return None
    if state.startswith("Unavailable") or text(status, "Health") == "Critical":
        return False
    told = pump.get("PumpSpeedPercent")
    speeds = (
        [told.get(name) for name in ("Reading", "SpeedRPM")] if isinstance(told, dict) else [told]
    )
    known = [speed for speed in map(number, speeds) if speed is not None]
    return max(known) > 0 if known else None


def leaks(found: Findings) -> None:
    """`leak` of each detector, 1 for anything but OK; NaN of one that cannot tell, none of none."""
    states: dict[str, tuple[str, Place]] = {}
    for resource in found.service.of_kind("LeakDetection"):
        for pointer, group in nested(resource.body, "LeakDetectorGroups"):
            for inner, detector in nested(group, "Detectors"):
                own = f"{resource.path}#{pointer}{inner}"
                channel = inside(detector.get("DataSourceUri")) or own
                found.sources[resource.source] = None
                _worst(states, channel, detector, found)
    for resource in found.service.of_kind("LeakDetector"):
        found.sources[resource.source] = None
        _worst(states, resource.path, resource.body, found)
    for channel, (state, place) in states.items():
        is_listed = state.lower() in _KNOWN_STATES
        marks = () if is_listed else (flags.STATE_NOT_LISTED,)
        is_leak = math.nan if state.lower() == _BLIND else float(state.lower() != "ok")
        found.state(channel, "leak", is_leak, replace(place, flags=marks))


def _badness(state: str) -> int:
    return {"ok": 0, _BLIND: 1}.get(state.lower(), _LEAK)


def _worst(
    states: dict[str, tuple[str, Place]], channel: str, detector: Document, found: Findings
) -> None:
    state = text(detector, "DetectorState")
    if not state or state.lower() == "absent":
        return
    is_there = text(table(detector, "Status"), "State") not in _NOT_THERE
    if not is_there and _badness(state) < _LEAK:
        return
    known = states.get(channel)
    if known is None or _badness(state) > _badness(known[0]):
        label = text(detector, "Name") or text(detector, "DeviceName")
        node = Node.CHASSIS if "/Chassis/" in channel else Node.CDU
        states[channel] = state, Place(node=node, loop=found.stamp.loop, label=label)
