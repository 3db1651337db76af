"""Cooling units: circuits, pumps and leaks in our words."""

from math import nan
from typing import Any

import pytest

from heatpool_agent.core.redfish.coolant import circuit_heat_w

UNIT = "/redfish/v1/ThermalEquipment/CDUs/1"


def typed(kind: str, **body: Any) -> dict[str, Any]:
    return {"@odata.type": f"#{kind}.v1_0_0.{kind}", **body}


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def unit(side: str = "Secondary", *, coolant: Any = None, **connector: Any) -> dict[str, Any]:
    name = f"{side}CoolantConnectors"
    figures = {
        "FlowLitersPerMinute": {"Reading": 60},
        "SupplyTemperatureCelsius": {"Reading": 30},
        "ReturnTemperatureCelsius": {"Reading": 40},
        "SupplyPressurekPa": {"Reading": 200},
        "ReturnPressurekPa": {"Reading": 150},
        "HeatRemovedkW": {"Reading": 41.5},
    }
    links = {"Chassis": [link("/redfish/v1/Chassis/CDU")]}
    return {
        UNIT: typed("CoolingUnit", Coolant=coolant, Links=links, **{name: link(f"{UNIT}/list")}),
        f"{UNIT}/list": typed("CoolantConnectorCollection", Members=[link(f"{UNIT}/odd/1")]),
        f"{UNIT}/odd/1": typed("CoolantConnector", **{**figures, **connector}),
    }


def pump(**body: Any) -> dict[str, Any]:
    return {f"{UNIT}/Pumps/1": typed("Pump", **body)}


def test_a_circuit_is_told_in_hot_and_cold(told: Any) -> None:
    found = told(unit())
    assert found.used("cdu", "cold_c") == [30.0]
    assert found.used("cdu", "hot_c") == [40.0]
    assert found.used("cdu", "volume_flow_m3_h") == [pytest.approx(3.6)]
    assert found.used("cdu", "reported_heat_w") == [41500.0]
    assert found.used("cdu", "cold_pressure_bar") == [2.0]
    assert found.used("cdu", "hot_pressure_bar") == [1.5]
    assert {r.flags for r in found.all} == {()}


def test_the_primary_side_is_of_another_loop_told_by_the_link(told: Any) -> None:
    found = told(unit("Primary"))
    assert found.used("cdu", "hot_c") == []
    assert found.used("cdu", "hot_c", loop="facility") == [40.0]


def test_reported_heat_that_flow_and_temperatures_deny_is_flagged(told: Any) -> None:
    found = told(unit(HeatRemovedkW={"Reading": 25}))
    assert found.of("cdu", "reported_heat_w")[0].flags == ("reported_differs",)


def test_pressure_that_rises_across_the_load_is_flagged(told: Any) -> None:
    found = told(unit(ReturnPressurekPa={"Reading": 230}))
    assert found.of("cdu", "cold_pressure_bar")[0].flags == ("pressure_reversed",)
    assert found.of("cdu", "hot_pressure_bar")[0].flags == ("pressure_reversed",)


def test_a_connector_that_names_another_coolant_is_flagged(told: Any) -> None:
    glycol = {"CoolantType": "Water", "AdditivePercent": 20}
    found = told(unit(coolant=glycol, Coolant={"CoolantType": "Water"}))
    assert all("coolant_differs" in r.flags for r in found.all)


def test_an_undated_sensor_does_not_tear_a_circuit(told: Any) -> None:
    volume_flow = "/redfish/v1/Chassis/CDU/Sensors/F"
    documents = unit(FlowLitersPerMinute={"Reading": 60, "DataSourceUri": volume_flow})
    documents[volume_flow] = typed("Sensor", ReadingType="LiquidFlowLPM", Reading=90)
    found = told(documents)
    assert found.used("cdu", "volume_flow_m3_h") == [pytest.approx(3.6)]
    assert "excerpt_differs" in found.of("cdu", "volume_flow_m3_h")[0].flags
    assert "metrics_contradicted" in found.at(volume_flow, "volume_flow_m3_h").flags


def test_a_dated_sensor_wins_in_a_circuit_too(told: Any) -> None:
    volume_flow = "/redfish/v1/Chassis/CDU/Sensors/F"
    documents = unit(FlowLitersPerMinute={"Reading": 60, "DataSourceUri": volume_flow})
    when = "2026-01-01T00:00:00Z"
    documents[volume_flow] = typed(
        "Sensor", ReadingType="LiquidFlowLPM", Reading=61, ReadingTime=when
    )
    (value,) = told(documents).used("cdu", "volume_flow_m3_h")
    assert value == pytest.approx(3.66)


def test_power_of_a_cooling_unit_is_no_servers(told: Any) -> None:
    chassis = "/redfish/v1/Chassis/CDU"
    documents = unit() | {
        chassis: typed("Chassis", EnvironmentMetrics=link(f"{chassis}/E")),
        f"{chassis}/E": typed("EnvironmentMetrics", PowerWatts={"Reading": 900}),
    }
    (reading,) = [r for r in told(documents).all if r.quantity == "power_w"]
    assert reading.node.value == "cdu"


def test_supplies_and_air_of_a_cooling_unit_are_no_servers(told: Any) -> None:
    chassis = "/redfish/v1/Chassis/CDU"
    put_in = {"Reading": 500}
    air = {"ReadingType": "Temperature", "PhysicalContext": "Intake", "Reading": 25}
    mains = {"ReadingType": "Power", "PhysicalContext": "PowerSupply", "Reading": 500}
    documents = unit() | {
        f"{chassis}/PowerSupplies/1": typed("PowerSupply", Metrics=link(f"{chassis}/M")),
        f"{chassis}/M": typed("PowerSupplyMetrics", InputPowerWatts=put_in),
        f"{chassis}/Power": typed("Power", PowerSupplies=[{"PowerInputWatts": 500}]),
        f"{chassis}/Sensors/air": typed("Sensor", **air),
        f"{chassis}/Sensors/in": typed("Sensor", PhysicalSubContext="Input", **mains),
    }
    assert {r.node.value for r in told(documents).all} == {"cdu"}
    assert told(documents).state("power_w") == []


def test_the_connectors_own_coolant_beats_the_units(told: Any) -> None:
    odd = {"DensityKgPerCubicMeter": 500, "SpecificHeatkJoulesPerKgK": 2}
    water = {"DensityKgPerCubicMeter": 994, "SpecificHeatkJoulesPerKgK": 4.18}
    assert told(unit(coolant=odd)).of("cdu", "reported_heat_w")[0].flags == ("reported_differs",)
    assert told(unit(coolant=odd, Coolant=water)).of("cdu", "reported_heat_w")[0].flags == ()


def test_stated_heat_capacity_and_density_are_taken(told: Any) -> None:
    coolant = {"DensityKgPerCubicMeter": 1000, "SpecificHeatkJoulesPerKgK": 4}
    assert circuit_heat_w(3.6, 40.0, 30.0, coolant=coolant) == (40000.0, 40000.0)


def test_without_them_it_is_water_on_either_side() -> None:
    rates_w = circuit_heat_w(3.6, 40.0, 30.0, coolant={})
    assert rates_w is not None
    assert 41400 < rates_w[0] < rates_w[1] < 41700


def test_frozen_water_has_no_heat_rate() -> None:
    assert circuit_heat_w(3.6, 40.0, -20.0, coolant={}) is None


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        ({"PumpSpeedPercent": {"Reading": 38.5}}, [1.0]),
        ({"PumpSpeedPercent": {"SpeedRPM": 1800}}, [1.0]),
        ({"PumpSpeedPercent": {"Reading": 0}}, [0.0]),
        ({"PumpSpeedPercent": {"Reading": 40}, "Status": {"Health": "Critical"}}, [0.0]),
        ({"Status": {"State": "UnavailableOffline"}}, [0.0]),
        ({"PumpSpeedPercent": {"Reading": 0}, "Status": {"State": "StandbySpare"}}, []),
        ({"Status": {"State": "Absent"}}, []),
        ({"PumpSpeedPercent": {"Reading": None}}, []),
        ({}, []),
    ],
)
def test_a_pump_runs_or_fails_or_rests(told: Any, body: Any, runs: list[float]) -> None:
    assert told(pump(**body)).state("pump_runs") == runs


LEAKS = [
    ("OK", [0.0], ()),
    ("Warning", [1.0], ()),
    ("Critical", [1.0], ()),
    ("LeakDetected", [1.0], ("state_not_listed",)),
    ("Unavailable", [nan], ()),
    ("Absent", [], ()),
    ("", [], ()),
    (None, [], ()),
    (0, [], ()),
]


@pytest.mark.parametrize(("state", "leak", "marks"), LEAKS)
def test_anything_but_ok_is_a_leak_and_who_cannot_tell_is_not_fine(
    told: Any, state: Any, leak: list[float], marks: tuple[str, ...]
) -> None:
    found = told({f"{UNIT}/LeakDetectors/1": typed("LeakDetector", DetectorState=state)})
    assert found.state("leak") == pytest.approx(leak, nan_ok=True)
    assert {r.flags for r in found.all} <= {marks}
    assert {r.loop for r in found.all} <= {"rack"}


def test_a_detector_told_twice_is_one_and_the_worse_state_stands(told: Any) -> None:
    path = "/redfish/v1/Chassis/CDU/LeakDetectors/1"
    groups = [{"Detectors": [{"DataSourceUri": path, "DetectorState": "OK"}]}]
    documents = {
        f"{UNIT}/LeakDetection": typed("LeakDetection", LeakDetectorGroups=groups),
        path: typed("LeakDetector", DetectorState="Critical"),
    }
    assert told(documents).state("leak") == [1.0]


@pytest.mark.parametrize(
    ("excerpt", "state", "leak"),
    [("OK", "Unavailable", nan), ("Unavailable", "OK", nan), ("Unavailable", "Critical", 1.0)],
)
def test_a_detector_that_cannot_tell_is_not_fine_because_its_copy_is(
    told: Any, excerpt: str, state: str, leak: float
) -> None:
    path = "/redfish/v1/Chassis/CDU/LeakDetectors/1"
    groups = [{"Detectors": [{"DataSourceUri": path, "DetectorState": excerpt}]}]
    documents = {
        f"{UNIT}/LeakDetection": typed("LeakDetection", LeakDetectorGroups=groups),
        path: typed("LeakDetector", DetectorState=state),
    }
    assert told(documents).state("leak") == pytest.approx([leak], nan_ok=True)


@pytest.mark.parametrize(("state", "leak"), [("OK", []), ("Unavailable", []), ("Critical", [1.0])])
def test_a_detector_that_is_switched_off_says_only_that_it_leaks(
    told: Any, state: str, leak: list[float]
) -> None:
    body = typed("LeakDetector", DetectorState=state, Status={"State": "Disabled"})
    assert told({f"{UNIT}/LeakDetectors/1": body}).state("leak") == leak


def test_a_detector_without_a_resource_has_a_channel_of_its_own(told: Any) -> None:
    groups = [{"Detectors": [{"DeviceName": "Rope", "DetectorState": "OK"}]}]
    documents = {f"{UNIT}/LeakDetection": typed("LeakDetection", LeakDetectorGroups=groups)}
    (reading,) = told(documents).all
    assert reading.channel == f"{UNIT}/LeakDetection#/LeakDetectorGroups/0/Detectors/0"
