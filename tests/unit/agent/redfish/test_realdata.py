"""Captures of real services, read in place: the figures of each and its known faults."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heatpool.errors import WireError
from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.redfish import parse, polled, redfish_readings, sensing_interval_s, wanted
from heatpool_agent.core.redfish.coolant import circuit_heat_w

pytestmark = pytest.mark.realdata

Walk = Callable[..., Any]
STAMP = Stamp(sensor="bmc", loop="rack", event_ns=7, boot_ns=5)
BAY = "/redfish/v1/Chassis/1/PowerSubsystem/PowerSupplies"


def test_a_rating_in_place_of_an_input_is_refused(flat: Walk) -> None:
    found = flat("telegraf_dell_hp/dell", "dell_chassis", "dell_power")
    assert found.used("chassis") == [429.0]
    (put_in,) = found.of("psu_in")
    assert (put_in.value, put_in.flags) == (900.0, ("rating_as_reading",))
    assert found.used("psu_out") == [203.0]
    assert found.at(put_in.channel, "rated_w").value == 750.0
    (efficiency,) = found.of("psu_in", "efficiency_frac")
    assert efficiency.value == pytest.approx(0.91, abs=1e-6)
    assert efficiency.flags == ("fraction_mislabelled",)


def test_outputs_far_below_the_chassis_do_not_replace_it(flat: Walk) -> None:
    found = flat("telegraf_dell_hp/hp", "hp_power", hp_chassis="/redfish/v1/Chassis/1")
    assert found.used("chassis") == [221.0]
    assert [r.value for r in found.of("psu_out")] == [0.0, 90.0]
    assert {r.flags for r in found.of("psu_out")} == {("outputs_below_half",)}


def test_a_supply_beyond_its_capacity_that_loses_nothing_is_refused(flat: Walk) -> None:
    found = flat(
        "telegraf_dell_hp/hp/power_subsys",
        "hp_power_subsys",
        "hp_power_subsys_psu",
        hp_power_subsys_psu_1=f"{BAY}/PowerSupply1",
        hp_power_subsys_metrics=f"{BAY}/PowerSupply1/Metrics",
    )
    (put_in,) = found.of("psu_in")
    assert put_in.value == 937.4
    assert {"above_capacity", "in_equals_out", "count_differs"} <= set(put_in.flags)
    assert found.used("psu_in") == found.used("psu_out") == []


def test_a_rack_server_is_told_once(walked: Walk) -> None:
    found = walked("dmtf/public-rackmount1")
    assert found.used("chassis") == [374.0]
    assert [(r.value, r.flags) for r in found.of("chassis")][1:] == [(344.0, ("lower_rank",))]
    (register,) = found.of("chassis", "energy_wh")
    assert (register.raw, register.exponent) == (325_675_000, 0)
    # What the supply's metrics say is denied by the Sensors they name.
    refused = [r for r in found.all if "metrics_contradicted" in r.flags]
    assert {937.4, 325_675_000.0} <= {r.value for r in refused}
    assert (found.used("psu_in"), found.used("psu_in", "energy_wh")) == ([374.0], [7_855_000.0])


def test_a_liquid_cooled_node_is_told_by_sensors_alone(walked: Walk) -> None:
    found = walked("hpe_cray_ex235a_liquidcooled")
    powers = [
        document["Reading"]
        for document in found.documents.values()
        if document.get("ReadingType") == "Power"
    ]
    assert sum(powers) > 3 * 747
    assert found.used("chassis") == [747.0]
    (energy,) = found.of("chassis", "energy_j")
    assert energy.raw == 1_222_273_783
    assert sorted(found.used("gpu")) == [115.0, 116.0, 118.0, 118.0]
    # The control's own excerpt of that Sensor is not a second reading.
    assert 736.0 not in {r.value for r in found.all}


def test_a_power_shelf_is_not_added_to_its_copy_nor_its_supplies(walked: Walk) -> None:
    found = walked("lambda_gb300/powershelf_delta/redfish/v1")
    assert found.used("chassis") == [1749.0]
    assert sum(found.used("psu_in")) == 1753.0
    (out,) = [r for r in found.of("psu_out") if r.channel.endswith("total_power_out")]
    assert (out.value, out.flags) == (1674.0, ("lower_rank",))
    assert 1 - out.value / found.used("chassis")[0] == pytest.approx(0.043, abs=5e-4)
    joules = [*found.of("psu_in", "energy_j"), *found.of("psu_out", "energy_j")]
    assert len(joules) == 12
    assert all("counter_contradicted" in r.flags for r in joules)
    registers = found.used("psu_in", "energy_wh")
    assert registers == [46_150.0, 61_310.0, 48_890.0, 65_510.0, 1_850.0, 14_970.0]


def test_a_leak_state_outside_of_the_list_is_a_leak(flat: Walk) -> None:
    found = flat("lambda_gb300", "leak_detector_leak", "leak_detector_ok")
    leaks = {r.channel.rpartition("/")[2]: (r.value, r.flags) for r in found.all}
    assert leaks == {
        "Chassis_0_LeakDetector_1_Manifold": (1.0, ("state_not_listed",)),
        "Chassis_0_LeakDetector_0_ColdPlate": (0.0, ()),
    }


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("leak_detection", 1),
        ("single_leak_detection", 1),
        ("leak_detectors_collection", 4),
        ("leak_detectors_single", 1),
        ("thermal_subsystem", 2),
        ("thermal_subsystem_buggy", 1),
        ("thermal_subsystem_buggy_oem", 1),
        ("chassis_main", 2),
        ("chassis_collection", 1),
    ],
)
def test_every_form_of_leak_detection_leads_on(flat: Walk, name: str, leads_to: int) -> None:
    (item,) = flat("lambda_gb300", name).documents.items()
    assert len(wanted(*item)) == leads_to


def test_a_cooling_unit_that_contradicts_itself_is_flagged(walked: Walk) -> None:
    found = walked("dmtf_publications/public-cooling-unit")
    for loop, reported_w, low_w, high_w in (
        ("facility", 25_480.0, 28_900, 29_200),
        ("rack", 25_310.0, 52_000, 52_500),
    ):
        (reported,) = found.of("cdu", "reported_heat_w", loop=loop)
        assert reported.value == reported_w
        assert {"reported_differs", "coolant_differs"} <= set(reported.flags)
        names = ("volume_flow_m3_h", "hot_c", "cold_c")
        circuit = [found.used("cdu", name, loop=loop)[0] for name in names]
        rates_w = circuit_heat_w(*circuit, coolant={})
        assert rates_w is not None
        assert low_w < min(rates_w) <= max(rates_w) < high_w
    kept, refused = found.of("cdu", "volume_flow_m3_h")
    assert (kept.value, refused.value) == (pytest.approx(2.52), pytest.approx(4.776))
    assert "excerpt_differs" in kept.flags
    assert "metrics_contradicted" in refused.flags
    pressures = [r for r in found.all if r.quantity.endswith("_bar")]
    assert len(pressures) == 4
    assert all("pressure_reversed" in r.flags for r in pressures)
    assert found.state("pump_runs") == [1.0, 0.0]
    assert found.state("leak") == [0.0, 0.0]
    assert sensing_interval_s(found.documents) == 5.0


def test_a_stated_coolant_is_computed_with(realdata: Path) -> None:
    base = realdata / "02_redfish/ocp_cdu_examples/redfish/v1/ThermalEquipment/CDUs/1"
    for side, computed_w in (("Primary", 39_160), ("Secondary", 60_170)):
        path = f"{side}CoolantConnectors/1"
        body = parse((base / path / "index.json").read_bytes(), path)
        readings = redfish_readings({str(body["@odata.id"]): body}, STAMP, primary_loop="rack")
        told = {r.quantity: r for r in readings}
        circuit = [told[name].value for name in ("volume_flow_m3_h", "hot_c", "cold_c")]
        rates_w = circuit_heat_w(*circuit, coolant=body["Coolant"])
        assert rates_w == pytest.approx((computed_w, computed_w), abs=10)
        assert "reported_differs" in told["reported_heat_w"].flags


def test_a_connector_without_a_heat_figure_is_computed_on_either_side(flat: Walk) -> None:
    found = flat("dmtf_publications/DSP2046-examples", "CoolantConnector-v1-example")
    assert found.of("cdu", "reported_heat_w") == []
    names = ("volume_flow_m3_h", "hot_c", "cold_c")
    rates_w = circuit_heat_w(*(found.used("cdu", name)[0] for name in names), coolant={})
    assert rates_w is not None
    # Which pipe the flow sensor is in moves heat by 0.6 % here.
    assert sorted(rates_w) == [pytest.approx(39_340, abs=20), pytest.approx(39_590, abs=20)]


def answers(realdata: Path) -> list[Path]:
    return sorted((realdata / "02_redfish").rglob("*.json"))


def test_seven_of_eight_hundred_answers_are_broken_and_seventeen_are_errors(
    realdata: Path,
) -> None:
    refusals: dict[str, str] = {}
    for file in answers(realdata):
        try:
            parse(file.read_bytes(), "/p")
        except WireError as refusal:
            refusals[file.name if "invalid" in file.name else str(file)] = refusal.reason
    broken = [name for name, reason in refusals.items() if "JSON" in reason]
    assert len(answers(realdata)) == 800
    assert len(broken) == 7
    assert all("invalid" in name for name in broken)
    # Answers of status 404, kept by the one who captured them.
    errors = [reason for reason in refusals.values() if "an error instead" in reason]
    assert len(errors) == len(refusals) - 7 == 17


def test_every_answer_is_read_alone_and_all_together(realdata: Path) -> None:
    documents = {}
    for file in answers(realdata):
        body = json.loads(file.read_bytes()) if "invalid" not in file.name else {}
        path = body.get("@odata.id", f"/redfish/v1/{file.name}")
        wanted(path, body)
        redfish_readings({path: body}, STAMP)
        documents[path] = body
    assert len(redfish_readings(documents, STAMP)) > 80


def test_a_pass_over_a_server_with_four_gpus_takes_milliseconds(walked: Walk) -> None:
    documents = walked("hpe_cray_ex235a_liquidcooled").documents
    assert len(polled(documents)) <= 12
    spans_s = []
    for _ in range(15):
        start_s = time.perf_counter()
        redfish_readings(documents, STAMP)
        spans_s.append(time.perf_counter() - start_s)
    # Measured 2 ms; what it guards against is a walk from each document to each other.
    assert min(spans_s) < 50e-3
