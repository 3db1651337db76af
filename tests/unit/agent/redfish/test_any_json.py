"""No answer of a device crashes the reader, whatever it holds."""

import json
from math import isfinite
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.redfish import parse, polled, redfish_readings, sensing_interval_s, wanted

STAMP = Stamp(sensor="bmc", loop="rack", event_ns=7, boot_ns=5)
PATHS = ("/redfish/v1", "/redfish/v1/Chassis/1", "/redfish/v1/Chassis/1/Sensors/a", "#", "")
NAMES = (
    *("@odata.id", "@odata.type", "Members", "Members@odata.count", "Members@odata.nextLink"),
    *("Chassis", "Links", "ContainedBy", "EnvironmentMetrics", "Power", "PowerControl", "Sensors"),
    *("PowerSupplies", "Metrics", "PowerWatts", "PowerConsumedWatts", "Reading", "ReadingType"),
    *("DataSourceUri", "PhysicalContext", "PhysicalSubContext", "ReadingUnits", "Accuracy"),
    *("Status", "State", "Health", "LeakDetectorGroups", "Detectors", "DetectorState", "Id"),
    *("PumpSpeedPercent", "FlowLitersPerMinute", "SupplyTemperatureCelsius", "Coolant", "Oem"),
    *("ReturnTemperatureCelsius", "HeatRemovedkW", "SupplyPressurekPa", "ReturnPressurekPa"),
    *("InputPowerWatts", "OutputPowerWatts", "EnergykWh", "EnergyJoules", "PowerCapacityWatts"),
    *("InputRanges", "Sensor", "SensingInterval", "ReadingAccuracy", "EfficiencyPercent"),
    *("PowerInputWatts", "PowerOutputWatts", "PrimaryCoolantConnectors", "ProcessorType"),
)
KINDS = (
    *("Sensor", "Chassis", "EnvironmentMetrics", "Power", "PowerSupply", "PowerSupplyMetrics"),
    *("CoolantConnector", "CoolingUnit", "Pump", "LeakDetection", "LeakDetector", "Control"),
    *("Processor", "PowerDistributionMetrics", "Outlet", "Fan"),
)
WORDS = (
    *("Power", "EnergykWh", "EnergyJoules", "Temperature", "W", "kW", "J", "kW.h", "Cel", "12.5"),
    *("Input", "Output", "PowerSupply", "CPU", "Intake", "Absent", "OK", "PT5S", "1e-9999999"),
    *("energy_in", "energy_out", "total_power_in", "total_power_in_A"),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
    | st.sampled_from(PATHS)
    | st.sampled_from([f"#{kind}.v1_0_0.{kind}" for kind in KINDS])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)
bodies = st.builds(
    lambda kind, body: {**body, "@odata.type": f"#{kind}.v1_0_0.{kind}"},
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=8),
)


CHASSIS = "/redfish/v1/Chassis/1"
UNIT = "/redfish/v1/ThermalEquipment/CDUs/1"


def typed(kind: str, **body: Any) -> dict[str, Any]:
    return {"@odata.type": f"#{kind}.v1_0_0.{kind}", **body}


def told_by(name: str, reading: float) -> dict[str, Any]:
    return {"Reading": reading, "DataSourceUri": f"{CHASSIS}/Sensors/{name}"}


def sensor(name: str, kind: str, reading: float, context: str) -> dict[str, Any]:
    body = {"Id": name, "Name": name, "ReadingType": kind, "Reading": reading}
    more = {"PhysicalContext": context, "ReadingUnits": "W" if kind == "Power" else "J"}
    limits = {"ReadingAccuracy": 1, "SensingInterval": "PT5S", "Status": {"State": "Enabled"}}
    return {f"{CHASSIS}/Sensors/{name}": typed("Sensor", **body, **more, **limits)}


def a_service() -> dict[str, Any]:
    """One of each kind, in order; hypothesis then breaks it."""
    plate = {"PowerCapacityWatts": 800, "InputRanges": [{"OutputWattage": 800}], "Oem": {"a": {}}}
    connector = {
        "FlowLitersPerMinute": told_by("F", 60),
        "SupplyTemperatureCelsius": {"Reading": 30},
        "ReturnTemperatureCelsius": {"Reading": 40},
        "HeatRemovedkW": {"Reading": 41},
        "Coolant": {"DensityKgPerCubicMeter": 994, "SpecificHeatkJoulesPerKgK": 4.18},
    }
    older = {"PowerConsumedWatts": 290, "PhysicalContext": "Chassis"}
    lists = {"PowerControl": [older], "PowerSupplies": [{"PowerInputWatts": 300, **plate}]}
    detectors = [{"Detectors": [{"DetectorState": "OK"}]}]
    return {
        CHASSIS: typed(
            "Chassis",
            EnvironmentMetrics={"@odata.id": f"{CHASSIS}/E"},
            Links={"ContainedBy": {"@odata.id": CHASSIS}},
        ),
        f"{CHASSIS}/E": typed(
            "EnvironmentMetrics", PowerWatts=told_by("P", 300), EnergykWh={"Reading": 65.51}
        ),
        f"{CHASSIS}/Power": typed("Power", **lists),
        f"{CHASSIS}/S": typed("PowerSupply", Metrics={"@odata.id": f"{CHASSIS}/M"}, **plate),
        f"{CHASSIS}/M": typed(
            "PowerSupplyMetrics", InputPowerWatts=told_by("I", 300), OutputPowerWatts=280
        ),
        f"{CHASSIS}/C": typed("Control", PhysicalContext="Chassis", Sensor=told_by("P", 290)),
        UNIT: typed(
            "CoolingUnit",
            SecondaryCoolantConnectors={"Members": [typed("CoolantConnector", **connector)]},
            Links={"Chassis": [{"@odata.id": "/redfish/v1/Chassis/CDU"}]},
        ),
        f"{UNIT}/P": typed("Pump", PumpSpeedPercent={"Reading": 40}, Status={"Health": "OK"}),
        f"{UNIT}/L": typed("LeakDetection", LeakDetectorGroups=detectors),
        **sensor("P", "Power", 310, "Chassis"),
        **sensor("ps1_energy_in", "EnergyJoules", 100, "PowerSupply"),
        **sensor("ps1_energy_out", "EnergyJoules", 90, "PowerSupply"),
        **sensor("cpu", "Power", 90, "CPU"),
    }


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every value inside, as its holder and its key."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [one for key in keys for one in ((value, key), *places(value[key]))]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10_000), values), min_size=1, max_size=4))
def test_a_service_broken_anywhere_is_read_without_an_exception(
    breaks: list[tuple[int, Any]],
) -> None:
    documents = a_service()
    for where, value in breaks:
        known = places(documents)
        holder, key = known[where % len(known)]
        holder[key] = value
    whole = {path: body for path, body in documents.items() if isinstance(body, dict)}
    for path, body in whole.items():
        wanted(path, body)
    polled(whole)
    sensing_interval_s(whole)
    readings = redfish_readings(whole, STAMP)
    assert all(isinstance(r.value, float) and isfinite(r.value) for r in readings)


def test_the_service_to_be_broken_has_readings_of_every_kind() -> None:
    readings = redfish_readings(a_service(), STAMP)
    assert len({(r.node, r.quantity) for r in readings}) > 10


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_an_object_or_refused(answer: bytes) -> None:
    try:
        document = parse(answer, "/redfish/v1")
    except WireError:
        return
    assert isinstance(document, dict)
    wanted("/redfish/v1", document)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(PATHS), bodies | st.dictionaries(st.text(), values)))
def test_any_documents_are_read_without_an_exception(documents: dict[str, Any]) -> None:
    for path, document in documents.items():
        links = wanted(path, document)
        assert all(link.startswith("/redfish") for link in links)
    assert set(polled(documents)) <= set(documents)
    span_s = sensing_interval_s(documents)
    assert span_s is None or span_s > 0
    readings = redfish_readings(documents, STAMP)
    keys = [(r.channel, r.quantity) for r in readings if r.quantity != "rated_w"]
    assert len(keys) == len(set(keys))
