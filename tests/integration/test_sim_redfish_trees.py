"""The simulated coolant unit and server over Redfish: closed, alive, as DMTF's tools want them."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from tools import redfish_conformance as conformance
from tools.redfish_conformance import Bench

from heatpool_sim import scenario
from heatpool_sim.devices.redfish_bmc import BmcTree, RedfishBmc
from heatpool_sim.devices.redfish_cdu import CduTree, RedfishCdu
from heatpool_sim.devices.redfish_cdu_controls import WATCHDOG_S
from heatpool_sim.devices.redfish_tree import (
    ROOT,
    ChangeRefused,
    Resource,
    links,
    normal,
    reachable,
)
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.load import Trace
from heatpool_sim.plant.loop_gauges import GaugeErrors
from heatpool_sim.plant.meter import MeterState
from heatpool_sim.ports import Device

START_NS = 1_750_000_000 * 10**9
CDU = f"{ROOT}/ThermalEquipment/CDUs/1"
SECONDARY = f"{CDU}/SecondaryCoolantConnectors/1"
NETWORK, COOLER = (f"{CDU}/PrimaryCoolantConnectors/{n}" for n in (1, 2))
CONTROLS = f"{ROOT}/Chassis/1/Controls"
CHASSIS = f"{ROOT}/Chassis/1"
Tree = CduTree | BmcTree


@pytest.fixture
def site() -> RunningSite:
    spec = scenario.load("demo").sites[1]
    plant = replace(spec.plant, load=Trace(times_s=(0.0, 1e6), it_ws=(20e3, 20e3)))
    first = plants.steady(
        plant, at_ns=START_NS, meter=spec.meter, metered=MeterState(register_wh=1)
    )
    first = replace(first, control=Control(mode=Mode.NETWORK))
    running = RunningSite(plant, first, errors=spec.errors)
    running.advance(60.0, boot_ns=0)
    return running


@pytest.fixture(params=[CduTree, BmcTree])
def tree(request: pytest.FixtureRequest, site: RunningSite) -> Tree:
    made: Tree = request.param(site)
    return made


def whole(tree: Tree) -> dict[str, Resource]:
    return reachable(tree.get)


def get(tree: Tree, path: str) -> Resource:
    found = tree.get(path)
    assert found is not None, path
    return found


def reading(tree: Tree, path: str, name: str) -> float:
    return float(get(tree, path)[name]["Reading"])


def pointed(resource: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        resource = resource[int(step)] if isinstance(resource, list) else resource[step]
    return resource


def excerpts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if "DataSourceUri" in value:
            yield value
        for held in value.values():
            yield from excerpts(held)
    elif isinstance(value, list):
        for held in value:
            yield from excerpts(held)


def test_every_link_leads_somewhere(tree: Tree) -> None:
    for path, resource in whole(tree).items():
        for link in links(resource):
            where, _, pointer = link.partition("#")
            target = tree.get(normal(where))
            assert target is not None, f"{path}: {link}"
            assert pointed(target, pointer) is not None


def test_every_resource_is_reached_by_links(tree: Tree) -> None:
    assert set(tree.paths) == set(whole(tree))


def test_every_resource_says_what_and_where_it_is(tree: Tree) -> None:
    for path, resource in whole(tree).items():
        assert normal(resource["@odata.id"]) == path
        assert resource["@odata.type"].startswith("#")
        assert resource["Name"]
        is_collection = "Collection." in resource["@odata.type"]
        assert is_collection or path == ROOT or resource["Id"] == path.rpartition("/")[2]


def test_a_collection_counts_its_members(tree: Tree) -> None:
    for path, resource in whole(tree).items():
        if "Members" in resource:
            ids = [member["@odata.id"] for member in resource["Members"]]
            assert len(ids) == len(set(ids)) == resource["Members@odata.count"]
            assert all(link.rpartition("/")[0] == path for link in ids)


def test_every_figure_has_a_gap_and_every_gap_a_figure(tree: Tree) -> None:
    assert tree.figures().keys() == tree.figure_names


def test_a_reading_is_that_of_its_source(tree: Tree) -> None:
    for resource in whole(tree).values():
        for excerpt in excerpts(resource):
            source = get(tree, excerpt["DataSourceUri"])
            for name in ("Reading", "SetPoint", "DetectorState", "ControlMode"):
                if name in excerpt and name in source:
                    assert excerpt[name] == source[name]


def test_the_same_instant_shows_the_same(tree: Tree) -> None:
    assert whole(tree) == whole(tree)


def test_heat_follows_the_unit_s_own_flow_and_temperatures(site: RunningSite) -> None:
    tree = CduTree(site)
    for path in (SECONDARY, NETWORK):
        flow_l_min = reading(tree, path, "FlowLitersPerMinute")
        rise_k = reading(tree, path, "ReturnTemperatureCelsius") - reading(
            tree, path, "SupplyTemperatureCelsius"
        )
        assert reading(tree, path, "HeatRemovedkW") == pytest.approx(
            flow_l_min / 60.0 * 4.186 * rise_k, rel=0.005
        )
        assert rise_k > 5.0


@pytest.mark.parametrize("mode", [Mode.LOCAL, Mode.NETWORK])
def test_what_the_racks_give_leaves_by_the_network_or_the_cooler(
    site: RunningSite, mode: Mode
) -> None:
    site.write([0, 0, 0, mode], at=0)
    site.advance(120.0, boot_ns=0)
    tree = CduTree(site)
    taken, network, cooler = (
        reading(tree, path, "HeatRemovedkW") for path in (SECONDARY, NETWORK, COOLER)
    )
    assert network + cooler == pytest.approx(taken, rel=0.06)
    assert taken == pytest.approx(site.state.carried_w / 1000.0, rel=0.06)
    assert (network > 1.0) == (mode is Mode.NETWORK)
    assert (cooler > 1.0) == (mode is Mode.LOCAL)


def test_supply_is_the_cold_pipe_and_the_pumped_one(site: RunningSite) -> None:
    tree = CduTree(site)
    assert reading(tree, SECONDARY, "SupplyTemperatureCelsius") == pytest.approx(
        site.state.loop.cold_c, abs=0.2
    )
    for path in (SECONDARY, NETWORK):
        assert reading(tree, path, "SupplyPressurekPa") > reading(tree, path, "ReturnPressurekPa")


def test_values_move_with_the_plant(tree: Tree, site: RunningSite) -> None:
    before = tree.figures()
    site.advance(300.0, boot_ns=0)
    after = tree.figures()
    moved = {name for name in before if before[name] != after[name]}
    shared = {"now", "total_energy", "total_power", "unit_energy", "secondary_flow", "gpu1_power"}
    assert shared & before.keys() <= moved


def test_energies_count_what_the_powers_say(site: RunningSite) -> None:
    tree = BmcTree(site)
    metrics = f"{CHASSIS}/EnvironmentMetrics"
    first_count, power_w = (reading(tree, metrics, name) for name in ("EnergykWh", "PowerWatts"))
    site.advance(3600.0, boot_ns=0)
    counted = reading(tree, metrics, "EnergykWh") - first_count
    assert counted == pytest.approx(power_w / 1000.0, rel=0.02)
    supplies = f"{CHASSIS}/PowerSubsystem/PowerSupplies"
    parts = [reading(tree, f"{supplies}/{n}/Metrics", "EnergykWh") for n in (1, 2)]
    assert sum(parts) == pytest.approx(first_count + counted, rel=1e-6)


def test_the_parts_of_a_server_stay_below_its_input(site: RunningSite) -> None:
    tree = BmcTree(site)
    names = ["CPU1", "CPU2", "GPU1", "GPU2", "GPU3", "GPU4", "Memory", "Board", "Fan"]
    parts_w = [get(tree, f"{CHASSIS}/Sensors/{name}Power")["Reading"] for name in names]
    supplies = f"{CHASSIS}/PowerSubsystem/PowerSupplies"
    metrics = [f"{supplies}/{n}/Metrics" for n in (1, 2)]
    out_w = sum(reading(tree, path, "OutputPowerWatts") for path in metrics)
    in_w = sum(reading(tree, path, "InputPowerWatts") for path in metrics)
    assert sum(parts_w) == pytest.approx(out_w, rel=0.01)
    assert out_w < in_w
    legacy = get(tree, f"{CHASSIS}/Power")["PowerControl"][0]["PowerConsumedWatts"]
    assert legacy == pytest.approx(in_w, abs=0.2)
    assert in_w == pytest.approx(site.state.electric_w, rel=0.02)


def test_a_sensor_s_hidden_offset_moves_only_what_hangs_on_it(site: RunningSite) -> None:
    right, wrong = (
        RunningSite(site.plant, site.state, errors=GaugeErrors(hot_offset_k=offset_k))
        for offset_k in (0.0, 2.0)
    )
    true, shown = CduTree(right).figures(), CduTree(wrong).figures()
    moved = {name for name in true if true[name] != shown[name]}
    assert moved == {"secondary_return_c", "secondary_delta_c", "secondary_heat"}
    assert BmcTree(right).figures() == BmcTree(wrong).figures()


@pytest.mark.parametrize(
    ("kind", "detection"),
    [(CduTree, f"{CDU}/LeakDetection"), (BmcTree, f"{CHASSIS}/ThermalSubsystem/LeakDetection")],
)
def test_a_leak_shows_in_group_detector_and_health(
    kind: type[Tree], detection: str, site: RunningSite
) -> None:
    tree = kind(site)
    group = get(tree, detection)["LeakDetectorGroups"][0]
    assert {detector["DetectorState"] for detector in group["Detectors"]} == {"OK"}
    site.inject("leak", length_s=60.0)
    group = get(tree, detection)["LeakDetectorGroups"][0]
    assert group["Detectors"][0]["DetectorState"] == "Critical"
    assert get(tree, group["Detectors"][0]["DataSourceUri"])["DetectorState"] == "Critical"
    assert get(tree, detection)["Status"]["Health"] == "Critical"
    assert get(tree, CHASSIS)["Status"]["Health"] == "Critical"


def test_a_tripped_pump_stands_and_the_other_takes_over(site: RunningSite) -> None:
    tree = CduTree(site)
    before = reading(tree, f"{CDU}/Pumps/2", "PumpSpeedPercent")
    site.inject("pump_trip", length_s=60.0)
    assert reading(tree, f"{CDU}/Pumps/1", "PumpSpeedPercent") == 0.0
    assert get(tree, f"{CDU}/Pumps/1")["Status"]["Health"] == "Critical"
    assert reading(tree, f"{CDU}/Pumps/2", "PumpSpeedPercent") > before
    assert get(tree, CDU)["Status"]["Health"] == "Warning"


def test_a_set_temperature_reaches_the_cold_pipe(site: RunningSite) -> None:
    tree, path = CduTree(site), f"{CONTROLS}/SupplyTemperature"
    wished_c = get(tree, path)["SetPoint"] + 2.0
    changed = tree.patch(path, {"SetPoint": wished_c})
    assert changed is not None
    assert changed["SetPoint"] == pytest.approx(wished_c, abs=0.01)
    site.advance(600.0, boot_ns=0)
    assert reading(tree, SECONDARY, "SupplyTemperatureCelsius") == pytest.approx(wished_c, abs=0.2)


def test_a_set_flow_is_pumped_until_it_is_automatic_again(site: RunningSite) -> None:
    tree, path = CduTree(site), f"{CONTROLS}/Flow"
    most_l_min = get(tree, path)["AllowableMax"]
    before_l_min = reading(tree, SECONDARY, "FlowLitersPerMinute")
    tree.patch(path, {"ControlMode": "Manual", "SetPoint": most_l_min})
    site.advance(120.0, boot_ns=0)
    assert get(tree, path)["ControlMode"] == "Manual"
    assert reading(tree, SECONDARY, "FlowLitersPerMinute") == pytest.approx(most_l_min, rel=0.03)
    tree.patch(path, {"ControlMode": "Automatic"})
    site.advance(600.0, boot_ns=0)
    assert reading(tree, SECONDARY, "FlowLitersPerMinute") == pytest.approx(before_l_min, rel=0.05)


def test_a_set_heat_rate_falls_back_when_nobody_renews_it(site: RunningSite) -> None:
    tree, path = CduTree(site), f"{CONTROLS}/NetworkHeat"
    tree.patch(path, {"SetPoint": 5000})
    assert site.state.control.mode is Mode.REMOTE
    assert site.state.control.setpoint_w == 5000
    site.advance(60.0, boot_ns=60 * 10**9)
    assert reading(tree, NETWORK, "HeatRemovedkW") == pytest.approx(5.0, rel=0.05)
    site.advance(1.0, boot_ns=(WATCHDOG_S + 1) * 10**9)
    assert get(tree, path)["ControlMode"] == "Disabled"


@pytest.mark.parametrize("name", ["SupplyTemperature", "Flow", "NetworkHeat"])
@pytest.mark.parametrize("edge", ["AllowableMin", "AllowableMax"])
def test_a_set_point_ends_at_what_is_allowable(site: RunningSite, name: str, edge: str) -> None:
    tree, path = CduTree(site), f"{CONTROLS}/{name}"
    allowable = get(tree, path)[edge]
    beyond = allowable + (1.0 if edge == "AllowableMax" else -1.0)
    before = site.state
    with pytest.raises(ChangeRefused, match="PropertyValueOutOfRange"):
        tree.patch(path, {"SetPoint": beyond})
    assert site.state == before
    changed = tree.patch(path, {"SetPoint": allowable})
    assert changed is not None
    assert changed["SetPoint"] == pytest.approx(allowable, abs=0.01)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"SetPoint": "36"}, "PropertyValueTypeError"),
        ({"SetPoint": True}, "PropertyValueTypeError"),
        ({"SetPoint": None}, "PropertyValueTypeError"),
        ({"SetPoint": float("nan")}, "PropertyValueOutOfRange"),
        ({"ControlMode": "Override"}, "PropertyValueNotInList"),
        ({"ControlMode": None}, "PropertyValueNotInList"),
        ({"AllowableMax": 90}, "PropertyNotWritable"),
    ],
)
@pytest.mark.parametrize("name", ["SupplyTemperature", "Flow", "NetworkHeat"])
def test_a_bad_change_is_refused_with_its_reason(
    site: RunningSite, name: str, change: dict[str, Any], key: str
) -> None:
    before = site.state
    with pytest.raises(ChangeRefused, match=key):
        CduTree(site).patch(f"{CONTROLS}/{name}", change)
    assert site.state == before


def test_nothing_else_can_be_changed(tree: Tree) -> None:
    open_ones = {path for path in tree.paths if tree.patch(path, {}) is not None}
    is_unit = isinstance(tree, CduTree)
    names = ("SupplyTemperature", "Flow", "NetworkHeat") if is_unit else ()
    assert open_ones == {f"{CONTROLS}/{name}" for name in names}


@pytest.mark.parametrize("kind", [RedfishCdu, RedfishBmc])
async def test_a_device_answers_over_http(
    kind: type[RedfishCdu] | type[RedfishBmc], site: RunningSite
) -> None:
    device: Device = kind(user="operator", password="secret")
    async with device.serve(site) as address, ClientSession() as client:
        base = f"http://{address.host}:{address.port}"
        login = {"UserName": "operator", "Password": "secret"}
        async with client.post(f"{base}{ROOT}/SessionService/Sessions", json=login) as answer:
            assert answer.status == 201
            token = {"X-Auth-Token": answer.headers["X-Auth-Token"]}
        async with client.get(f"{base}{CHASSIS}/EnvironmentMetrics", headers=token) as answer:
            told = await answer.json()
        async with client.get(f"{base}{CHASSIS}/EnvironmentMetrics") as answer:
            assert answer.status == 401
    assert told["PowerWatts"]["Reading"] > 0


@pytest.fixture
def bench(realdata: Path) -> Bench:
    found = conformance.found()
    if found.missing:
        pytest.skip(f"missing: {found.missing}; `make redfish-conformance` installs the tools")
    return found


@pytest.mark.realdata
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["cdu", "bmc"])
async def test_dmtf_s_service_validator_finds_no_failure(kind: str, bench: Bench) -> None:
    device = await asyncio.to_thread(conformance.served, kind, realdata=bench.realdata)
    async with device as address:
        counts = await conformance.service_counts(bench, address)
    assert counts.failed == 0, counts.said
    assert counts.passed > 1000


@pytest.mark.realdata
@pytest.mark.timeout(240)
async def test_ocp_s_profile_passes_as_dmtf_s_mock_up_does_and_without_failure(
    bench: Bench,
) -> None:
    device = await asyncio.to_thread(conformance.served, "cdu", realdata=bench.realdata)
    async with device as address:
        counts = await conformance.profile_counts(bench, address)
    assert counts.failed == 0, counts.said
    assert counts.passed >= conformance.MOCKUP_PROFILE_PASSES
