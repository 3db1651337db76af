"""Power and energy of a BMC: each thing once, and what real ones get wrong marked."""

from math import sqrt
from typing import Any

import pytest

CHASSIS = "/redfish/v1/Chassis/1"


def typed(kind: str, **body: Any) -> dict[str, Any]:
    return {"@odata.type": f"#{kind}.v1_0_0.{kind}", **body}


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def sensor(name: str, reading: Any, **body: Any) -> dict[str, Any]:
    told = {"ReadingType": "Power", "PhysicalContext": "Chassis", "Reading": reading, **body}
    return {f"{CHASSIS}/Sensors/{name}": typed("Sensor", Id=name, Name=name, **told)}


def server(**more: Any) -> dict[str, Any]:
    """A chassis with environment metrics of 300 W."""
    return {
        CHASSIS: typed("Chassis", EnvironmentMetrics=link(f"{CHASSIS}/Env"), **more),
        f"{CHASSIS}/Env": typed("EnvironmentMetrics", PowerWatts={"Reading": 300}),
    }


def supply(metrics: dict[str, Any], **plate: Any) -> dict[str, Any]:
    path = f"{CHASSIS}/PowerSubsystem/PowerSupplies/1"
    return {
        path: typed("PowerSupply", Metrics=link(f"{path}/M"), **plate),
        f"{path}/M": typed("PowerSupplyMetrics", **metrics),
    }


def legacy(control: dict[str, Any], *supplies: dict[str, Any]) -> dict[str, Any]:
    body = {"PowerControl": [control], "PowerSupplies": list(supplies)}
    return {f"{CHASSIS}/Power": typed("Power", **body)}


def test_the_older_power_stands_below_environment_metrics(told: Any) -> None:
    found = told(server() | legacy({"PowerConsumedWatts": 280}))
    assert found.used("chassis") == [300.0]
    assert [r.value for r in found.of("chassis") if "lower_rank" in r.flags] == [280.0]


def test_the_older_power_is_used_where_nothing_is_better(told: Any) -> None:
    assert told(legacy({"PowerConsumedWatts": 280})).used("chassis") == [280.0]


def test_channels_are_paths_with_pointers(told: Any) -> None:
    channels = {r.channel for r in told(server() | legacy({"PowerConsumedWatts": 280})).all}
    assert channels == {
        f"{CHASSIS}/Env#/PowerWatts",
        f"{CHASSIS}/Power#/PowerControl/0/PowerConsumedWatts",
    }


def excerpt_and_sensor(excerpt: Any, reading: Any, **body: Any) -> dict[str, Any]:
    documents = server() | sensor("Total", reading, **body)
    documents[f"{CHASSIS}/Env"]["PowerWatts"] = {
        "Reading": excerpt,
        "DataSourceUri": f"{CHASSIS}/Sensors/Total",
    }
    return documents


def test_an_excerpt_and_its_sensor_are_one_reading(told: Any) -> None:
    (reading,) = told(excerpt_and_sensor(300, 300)).all
    assert (reading.value, reading.flags) == (300.0, ())
    assert reading.channel == f"{CHASSIS}/Sensors/Total"


def test_the_sensor_wins_and_a_small_difference_is_flagged(told: Any) -> None:
    (reading,) = told(excerpt_and_sensor(300, 310)).all
    assert (reading.value, reading.flags) == (310.0, ("excerpt_differs",))


def test_a_contradicting_excerpt_stays_visible_and_is_refused(told: Any) -> None:
    found = told(excerpt_and_sensor(900, 310))
    assert found.used("chassis") == [310.0]
    refused = found.at(f"{CHASSIS}/Env#/PowerWatts", "power_w")
    assert refused.value == 900.0
    assert "metrics_contradicted" in refused.flags


@pytest.mark.parametrize("gone", [{"Reading": None}, {"Status": {"State": "Absent"}}])
def test_an_absent_sensor_leaves_the_excerpt_on_the_same_channel(told: Any, gone: Any) -> None:
    (reading,) = told(excerpt_and_sensor(300, 310, **gone) if gone else {}).all
    assert (reading.value, reading.channel) == (300.0, f"{CHASSIS}/Sensors/Total")


def test_a_sensor_of_another_type_is_not_the_source_of_an_excerpt(told: Any) -> None:
    found = told(excerpt_and_sensor(300, 12.1, ReadingType="Voltage"))
    assert found.used("chassis") == [300.0]


@pytest.mark.parametrize("value", [None, True, [], {}, "n/a", "NaN", "1_0", 1e400, "9e99"])
def test_what_is_no_number_is_no_reading(told: Any, value: Any) -> None:
    assert told(legacy({"PowerConsumedWatts": value})).all == ()


def test_a_number_as_text_is_read_and_flagged(told: Any) -> None:
    (reading,) = told(legacy({"PowerConsumedWatts": "280.5"})).all
    assert (reading.value, reading.flags) == (280.5, ("number_as_text",))


@pytest.mark.parametrize(
    ("body", "u"),
    [
        ({"ReadingAccuracy": 6}, 6 / sqrt(3)),
        ({"Accuracy": 2}, 6 / sqrt(3)),
        ({"ReadingAccuracy": 0}, None),
        ({"Accuracy": "?"}, None),
        ({}, None),
    ],
)
def test_an_error_limit_becomes_a_standard_uncertainty(told: Any, body: Any, u: Any) -> None:
    (reading,) = told(sensor("TotalPower", 300, **body)).all
    assert reading.u == (u if u is None else pytest.approx(u))


def test_a_sensor_in_kilowatts_is_told_in_watts_with_its_uncertainty(told: Any) -> None:
    (reading,) = told(sensor("TotalPower", 1.5, ReadingUnits="kW", ReadingAccuracy=0.03)).all
    assert reading.value == 1500.0
    assert reading.u == pytest.approx(30 / sqrt(3))


def test_registers_are_whole_counts_of_the_decimal_as_written(told: Any) -> None:
    body = {"ReadingType": "EnergykWh", "ReadingUnits": "kW.h"}
    (reading,) = told(sensor("TotalEnergy", 65.51, **body)).all
    assert (reading.quantity, reading.value, reading.raw) == ("energy_wh", 65510.0, 65510)
    assert reading.exponent == 0


def test_a_reset_of_the_sensor_opens_a_new_life(told: Any) -> None:
    body = {"ReadingType": "EnergyJoules", "SensorResetTime": "2026-01-01T00:00:00Z"}
    (reading,) = told(sensor("TotalEnergy", 3, **body)).all
    assert (reading.raw, reading.generation) == (3, "2026-01-01T00:00:00Z")


def test_an_input_that_equals_the_rating_is_refused(told: Any) -> None:
    plate = {"PowerCapacityWatts": 750, "Oem": {"Maker": {"Range1MaxInputPowerWatts": 880}}}
    found = told(
        legacy(
            {"PowerConsumedWatts": 400},
            {**plate, "PowerInputWatts": 880, "PowerOutputWatts": 700},
        )
    )
    assert found.of("psu_in")[0].flags == ("rating_as_reading",)
    assert found.used("psu_out") == [700.0]


def test_an_input_far_above_its_output_at_capacity_is_refused(told: Any) -> None:
    metrics = {"InputPowerWatts": {"Reading": 820}, "OutputPowerWatts": {"Reading": 210}}
    found = told(supply(metrics, PowerCapacityWatts=800))
    assert found.used("psu_in") == []
    assert found.used("psu_out") == [210.0]


def test_an_honest_full_load_is_kept(told: Any) -> None:
    metrics = {"InputPowerWatts": {"Reading": 820}, "OutputPowerWatts": {"Reading": 770}}
    found = told(supply(metrics, PowerCapacityWatts=800))
    assert (found.used("psu_in"), found.used("psu_out")) == ([820.0], [770.0])


def test_a_supply_that_loses_nothing_is_refused_whole(told: Any) -> None:
    metrics = {"InputPowerWatts": {"Reading": 205.5}, "OutputPowerWatts": {"Reading": 205.5}}
    found = told(supply(metrics, PowerCapacityWatts=800))
    assert {r.flags for r in found.all if r.quantity == "power_w"} == {("in_equals_out",)}


def test_an_idle_supply_may_show_two_zeros(told: Any) -> None:
    metrics = {"InputPowerWatts": {"Reading": 0}, "OutputPowerWatts": {"Reading": 0}}
    assert told(supply(metrics)).used("psu_in") == [0.0]


def test_more_than_the_capacity_is_refused(told: Any) -> None:
    found = told(supply({"InputPowerWatts": {"Reading": 961}}, PowerCapacityWatts=800))
    assert found.of("psu_in")[0].flags == ("above_capacity",)


def test_the_rating_stands_on_the_channel_that_it_rates(told: Any) -> None:
    found = told(supply({"InputPowerWatts": {"Reading": 100}}, PowerCapacityWatts=800))
    channel = found.of("psu_in")[0].channel
    assert found.at(channel, "rated_w").value == 800.0


def test_efficiency_below_one_is_a_fraction(told: Any) -> None:
    found = told(legacy({}, {"EfficiencyPercent": 0.91}, {"EfficiencyPercent": 94}))
    told_frac = [(r.value, r.flags) for r in found.of("psu_in", "efficiency_frac")]
    assert told_frac == [(0.91, ("fraction_mislabelled",)), (0.94, ())]


def test_outputs_below_half_of_their_chassis_are_flagged(told: Any) -> None:
    found = told(legacy({"PowerConsumedWatts": 221}, {"LastPowerOutputWatts": 90}))
    assert found.used("chassis") == [221.0]
    assert found.of("psu_out")[0].flags == ("outputs_below_half",)


def test_an_absent_supply_says_nothing(told: Any) -> None:
    gone = {"Status": {"State": "Absent"}, "PowerInputWatts": 0, "PowerCapacityWatts": 800}
    assert told(legacy({}, gone)).all == ()


def test_a_list_that_holds_fewer_than_it_says_is_flagged(told: Any) -> None:
    path = f"{CHASSIS}/PowerSubsystem/PowerSupplies"
    documents = supply({"InputPowerWatts": {"Reading": 100}})
    documents[path] = {"Members": [link(f"{path}/1")], "Members@odata.count": 2}
    assert told(documents).of("psu_in")[0].flags == ("count_differs",)


def test_a_page_of_a_longer_list_is_not_miscounted(told: Any) -> None:
    path = f"{CHASSIS}/PowerSubsystem/PowerSupplies"
    documents = supply({"InputPowerWatts": {"Reading": 100}})
    page = {"Members": [link(f"{path}/1")], "Members@odata.count": 2}
    documents[path] = {**page, "Members@odata.nextLink": f"{path}?$skip=1"}
    assert told(documents).of("psu_in")[0].flags == ()


def test_of_several_controls_the_first_is_the_whole(told: Any) -> None:
    rows: list[dict[str, Any]] = [{"PowerConsumedWatts": 280}, {"PowerConsumedWatts": 100}]
    rows.append({"PowerConsumedWatts": 60, "PhysicalContext": "CPU"})
    found = told({f"{CHASSIS}/Power": typed("Power", PowerControl=rows)})
    assert (found.used("chassis"), found.used("package")) == ([280.0], [60.0])


def shelf(*readings: tuple[str, str, Any]) -> dict[str, Any]:
    documents: dict[str, Any] = {}
    for name, kind, value in readings:
        context = "PowerSupply" if name.startswith("ps") else "Chassis"
        documents |= sensor(name, value, ReadingType=kind, PhysicalContext=context)
    return documents


def test_a_feeds_copy_and_parts_of_the_chassis_are_not_added(told: Any) -> None:
    names = ("total_power_in", "total_power_in_A", "hotswap_input_power", "total_power_out")
    found = told(shelf(*((name, "Power", 100 + i) for i, name in enumerate(names))))
    assert found.used("chassis") == [100.0]
    assert found.at(f"{CHASSIS}/Sensors/{names[1]}", "power_w").flags == ("set_copy",)
    assert found.used("psu_out") == [103.0]


def test_single_outputs_beat_the_total_of_a_shelf(told: Any) -> None:
    found = told(shelf(("ps1_output_power", "Power", 90), ("total_power_out", "Power", 91)))
    assert found.used("psu_out") == [90.0]


def test_joules_are_disabled_in_all_supplies_if_more_comes_out_of_one(told: Any) -> None:
    found = told(
        shelf(
            ("ps1_energy_in", "EnergyJoules", 100),
            ("ps1_energy_out", "EnergyJoules", 300),
            ("ps2_energy_in", "EnergyJoules", 300),
            ("ps2_energy_out", "EnergyJoules", 100),
        )
    )
    assert found.used("psu_in", "energy_j") == []
    assert found.used("psu_out", "energy_j") == []


def test_joules_that_agree_with_nothing_are_disabled_beside_kilowatt_hours(told: Any) -> None:
    found = told(
        shelf(("ps1_energy_in", "EnergyJoules", 1e5), ("ps1_total_energy_in", "EnergykWh", 46.15))
    )
    assert "counter_contradicted" in found.of("psu_in", "energy_j")[0].flags
    assert found.used("psu_in", "energy_wh") == [46150.0]


def test_honest_joules_are_kept_but_not_beside_the_register(told: Any) -> None:
    found = told(
        shelf(
            ("ps1_energy_in", "EnergyJoules", 3.6e7),
            ("ps1_energy_out", "EnergyJoules", 3.4e7),
            ("ps1_total_energy_in", "EnergykWh", 10),
        )
    )
    assert [r.flags for r in found.of("psu_in", "energy_j")] == [("lower_rank",)]
    assert found.used("psu_out", "energy_j") == [3.4e7]


@pytest.mark.parametrize(
    ("context", "node"),
    [
        ("CPU", "package"),
        ("Memory", "dram"),
        ("Accelerator", "gpu"),
        ("GPU", "gpu"),
        ("Fan", "fan"),
        ("StorageDevice", "drive"),
        ("SystemBoard", "board"),
    ],
)
def test_a_sensor_is_placed_by_its_context(told: Any, context: str, node: str) -> None:
    assert told(sensor("x", 40, PhysicalContext=context)).used(node) == [40.0]


@pytest.mark.parametrize("context", ["VoltageRegulator", "Odd", None, 3])
def test_a_sensor_of_a_rail_or_of_nothing_is_no_reading(told: Any, context: Any) -> None:
    assert told(sensor("x", 40, PhysicalContext=context)).all == ()


def test_input_and_output_of_one_part_are_not_added(told: Any) -> None:
    body = {"PhysicalContext": "Memory"}
    found = told(
        sensor("a", 70, PhysicalSubContext="Output", **body)
        | sensor("b", 80, PhysicalSubContext="Input", **body)
    )
    assert found.used("dram") == [80.0]


def test_a_control_of_the_whole_chassis_names_its_input(told: Any) -> None:
    body = {"PhysicalContext": "VoltageRegulator", "PhysicalSubContext": "Input"}
    documents = sensor("r0p", 747, **body) | sensor("r9p", 300, **body)
    documents |= sensor("r0e", 1000, ReadingType="EnergyJoules", **body)
    for name in ("r0p", "r0e"):
        documents[f"{CHASSIS}/Sensors/{name}"]["Name"] = "Node"
    control = {"Reading": 700, "DataSourceUri": f"{CHASSIS}/Sensors/r0p"}
    documents[f"{CHASSIS}/Controls/1"] = typed("Control", PhysicalContext="Chassis", Sensor=control)
    found = told(documents)
    assert (found.used("chassis"), found.used("chassis", "energy_j")) == ([747.0], [1000.0])
    assert len(found.all) == 2


def test_a_processors_sensor_is_not_the_carriers_too(told: Any) -> None:
    cpu = "/redfish/v1/Systems/1/Processors/G"
    documents = excerpt_and_sensor(300, 300)
    documents[cpu] = typed("Processor", ProcessorType="GPU", EnvironmentMetrics=link(f"{cpu}/E"))
    documents[f"{cpu}/E"] = typed(
        "EnvironmentMetrics", PowerWatts=documents[f"{CHASSIS}/Env"]["PowerWatts"]
    )
    found = told(documents)
    assert (found.used("gpu"), found.used("chassis")) == ([300.0], [])


def test_a_chassis_within_a_measured_one_is_not_added(told: Any) -> None:
    documents = server()
    inner = "/redfish/v1/Chassis/Board"
    documents[inner] = typed(
        "Chassis",
        EnvironmentMetrics=link(f"{inner}/Env"),
        Links={"ContainedBy": link(CHASSIS)},
    )
    documents[f"{inner}/Env"] = typed("EnvironmentMetrics", PowerWatts={"Reading": 90})
    assert told(documents).used("chassis") == [300.0]


def test_members_inline_are_read_with_their_own_paths(told: Any) -> None:
    (path, body), *_ = sensor("TotalPower", 300).items()
    documents = {f"{CHASSIS}/Sensors": {"Members": [{"@odata.id": path, **body}]}}
    assert told(documents).at(path, "power_w").value == 300.0


def test_power_equipment_is_a_pdu_and_its_outlets_are_parts(told: Any) -> None:
    pdu = "/redfish/v1/PowerEquipment/RackPDUs/1"
    documents = {
        f"{pdu}/Metrics": typed(
            "PowerDistributionMetrics", PowerWatts={"Reading": 6438}, EnergykWh={"Reading": 56438}
        ),
        f"{pdu}/Outlets/A1": typed("Outlet", PowerWatts={"Reading": 197.4}),
    }
    found = told(documents)
    assert (found.used("pdu"), found.used("pdu", "energy_wh")) == ([6438.0], [56438000.0])


def test_the_air_is_ambient_and_the_processor_is_not(told: Any) -> None:
    body = {"ReadingType": "Temperature", "ReadingUnits": "Cel"}
    documents = server() | sensor("cpu", 60, PhysicalContext="CPU", **body)
    documents |= sensor("front", 24.8, PhysicalContext="Intake", **body)
    documents[f"{CHASSIS}/Env"]["TemperatureCelsius"] = {
        "Reading": 60,
        "DataSourceUri": f"{CHASSIS}/Sensors/cpu",
    }
    assert told(documents).state("ambient_c") == [24.8]
