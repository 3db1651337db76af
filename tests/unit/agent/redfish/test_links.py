"""Discovery follows links of the service and nothing else; passes read only what carries values."""

from typing import Any

import pytest

from heatpool_agent.core.redfish import polled, sensing_interval_s, wanted

ROOT = "/redfish/v1"


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


def test_the_root_leads_to_equipment_and_not_to_accounts() -> None:
    names = ("Chassis", "ThermalEquipment", "PowerEquipment", "AccountService", "Registries")
    root = {name: link(f"{ROOT}/{name}") for name in names}
    assert wanted(ROOT, root) == tuple(f"{ROOT}/{name}" for name in names[:3])


def test_members_are_followed_linked_and_paged() -> None:
    list_of_two = {
        "Members": [link(f"{ROOT}/Chassis/a"), link(f"{ROOT}/Chassis/b/")],
        "Members@odata.nextLink": f"{ROOT}/Chassis?$skip=2",
    }
    assert wanted(f"{ROOT}/Chassis", list_of_two) == (
        f"{ROOT}/Chassis/a",
        f"{ROOT}/Chassis/b",
        f"{ROOT}/Chassis?$skip=2",
    )


def test_an_inline_member_is_not_asked_for_but_its_links_are() -> None:
    inline = {"Id": "a", **link(f"{ROOT}/Chassis/a"), "Power": link(f"{ROOT}/odd/place")}
    assert wanted(f"{ROOT}/Chassis", {"Members": [inline]}) == (f"{ROOT}/odd/place",)


@pytest.mark.parametrize(
    "foreign",
    [
        "https://elsewhere.example/redfish/v1/Chassis",
        "//elsewhere.example/redfish/v1/Chassis",
        "/redfish/v1/../../etc/passwd",
        "/redfish/v1/%2e%2e/secret",
        "/redfish/v1/a%2F..%2Fb",
        "/redfish/v1\\..\\b",
        "/other/v1/Chassis",
        "/redfish/v1/Chassis\r\nX: y",
        "redfish/v1/Chassis",
        "#/Members/0",
        "",
        7,
        None,
        ["/redfish/v1/Chassis"],
    ],
)
def test_a_link_that_leaves_the_service_is_never_followed(foreign: Any) -> None:
    document = {
        "Chassis": {"@odata.id": foreign},
        "Members": [{"@odata.id": foreign}],
        "Members@odata.nextLink": foreign,
        "PowerWatts": {"DataSourceUri": foreign},
    }
    assert wanted(ROOT, document) == ()


def test_a_fragment_is_cut_and_the_document_itself_not_asked_again() -> None:
    document = {"Power": link(f"{ROOT}/P#/PowerControl/0"), "Sensors": link(f"{ROOT}/me#/Sensors")}
    assert wanted(f"{ROOT}/me", document) == (f"{ROOT}/P",)


def test_an_excerpt_leads_to_its_sensor_and_a_rail_does_not() -> None:
    metrics = {
        "InputPowerWatts": {"DataSourceUri": f"{ROOT}/s/in"},
        "RailPowerWatts": [{"DataSourceUri": f"{ROOT}/s/rail"}],
        "InputVoltage": {"DataSourceUri": f"{ROOT}/s/volts"},
    }
    assert wanted(f"{ROOT}/m", metrics) == (f"{ROOT}/s/in",)


def test_detectors_of_a_group_are_followed() -> None:
    groups = [{"Detectors": [{"DataSourceUri": f"{ROOT}/d/1"}, {"DetectorState": "OK"}]}]
    assert wanted(f"{ROOT}/l", {"LeakDetectorGroups": groups}) == (f"{ROOT}/d/1",)


def test_metrics_of_a_processor_are_left_alone() -> None:
    body = {"Metrics": link(f"{ROOT}/m")}
    assert wanted("/p", {"@odata.type": "#Processor.v1_0_0.Processor", **body}) == ()
    assert wanted("/p", {"@odata.type": "#PowerSupply.v1_0_0.PowerSupply", **body}) == (
        f"{ROOT}/m",
    )


def a_service() -> dict[str, Any]:
    chassis = f"{ROOT}/Chassis/1"
    return {
        f"{ROOT}/Chassis": {"Members": [link(chassis)]},
        chassis: {
            "@odata.type": "#Chassis.v1_0_0.Chassis",
            "EnvironmentMetrics": link(f"{chassis}/E"),
        },
        f"{chassis}/E": {
            "@odata.type": "#EnvironmentMetrics.v1_0_0.EnvironmentMetrics",
            "PowerWatts": {"Reading": None, "DataSourceUri": f"{ROOT}/s"},
        },
        f"{ROOT}/s": {
            "@odata.type": "#Sensor.v1_0_0.Sensor",
            "ReadingType": "Power",
            "Reading": None,
            "SensingInterval": "PT5S",
        },
    }


def test_only_documents_with_values_are_polled_even_while_null() -> None:
    assert polled(a_service()) == (f"{ROOT}/Chassis/1/E", f"{ROOT}/s")


@pytest.mark.parametrize(
    ("told", "span_s"),
    [
        ("PT5S", 5.0),
        ("PT0.25S", 0.25),
        ("PT1M", 60.0),
        ("P1DT1H", 90000.0),
        ("PT0S", None),
        ("P", None),
        ("5", None),
        ("PT-5S", None),
        (5, None),
        (None, None),
    ],
)
def test_the_sensing_interval_is_read_where_it_is_one(told: Any, span_s: float | None) -> None:
    documents = a_service()
    documents[f"{ROOT}/s"]["SensingInterval"] = told
    assert sensing_interval_s(documents) == span_s
