"""A site with every device: one plant behind all, each pulled alone, energies over a restart."""

import asyncio
import json
import logging
import sys
import tomllib
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from turns import turned

from heatpool.errors import ConfigError
from heatpool_sim import app, scenario
from heatpool_sim.commands import run
from heatpool_sim.demo.one_site import LOOP
from heatpool_sim.devices.memory import SavedSite
from heatpool_sim.plant import faults
from heatpool_sim.premises import PASSWORD, USER, Behind
from heatpool_sim.scenario import Scenario

SITE = "edge"
LOADED = scenario.load("edge")
TOTAL = "/redfish/v1/Chassis/1/Sensors/TotalPower"
UNIT = "/redfish/v1/Chassis/1/EnvironmentMetrics"


def only(*devices: str) -> Scenario:
    """The edge site with these devices alone."""
    spec = replace(LOADED.sites[0], devices=devices)  # type: ignore[arg-type]
    return replace(LOADED, sites=(spec,))


@pytest.fixture
async def fleet() -> AsyncIterator[app.Fleet]:
    async with app.serve(only("modbus_cdu", "redfish_cdu", "redfish_bmc")) as served:
        yield served


async def page(fleet: app.Fleet, device: str, path: str) -> Any:
    """One Redfish resource."""
    login = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {login}"}) as http:
        async with http.get(fleet.doors[SITE].urls[device] + path) as answer:
            return await answer.json()


async def test_two_devices_show_one_plant_each_with_errors_of_its_own(fleet: app.Fleet) -> None:
    true_w = fleet.doors[SITE].running.state.electric_w
    told_w = (await page(fleet, "redfish_bmc", TOTAL))["Reading"]
    racks_w = fleet.doors[SITE].running.gauges().rack_electric_w
    assert told_w == pytest.approx(true_w, rel=0.02)
    assert racks_w == pytest.approx(true_w, rel=0.08)
    assert told_w != pytest.approx(racks_w, rel=1e-6)


async def test_a_pulled_device_is_pulled_alone_until_it_is_put_back(fleet: app.Fleet) -> None:
    fleet.inject(SITE, "redfish_bmc_offline")
    with pytest.raises(aiohttp.ClientError):
        await page(fleet, "redfish_bmc", TOTAL)
    assert (await page(fleet, "redfish_cdu", UNIT))["PowerWatts"]["Reading"] > 0
    fleet.clear(SITE, "redfish_bmc_offline")
    assert (await page(fleet, "redfish_bmc", TOTAL))["Reading"] > 0


@pytest.mark.parametrize(("fault", "device"), faults.PULLED.items())
async def test_each_device_has_a_plug_of_its_own(fleet: app.Fleet, fault: str, device: str) -> None:
    running = fleet.doors[SITE].running
    fleet.inject(SITE, fault)
    pulled = [name for name in faults.PULLED.values() if "offline" in Behind(running, name).faults]
    assert pulled == [device]


async def test_energies_go_on_over_a_restart_and_never_fall(tmp_path: Path) -> None:
    state_file = tmp_path / "state.json"
    shown = []
    for _ in range(2):
        async with app.serve(only("redfish_bmc"), state_file=state_file) as served:
            shown.append(served.doors[SITE].running.state)
            await turned(0.3)
            shown.append(served.doors[SITE].running.state)
    assert [s.electric_j for s in shown] == sorted(s.electric_j for s in shown)
    assert shown[2].electric_j >= shown[1].electric_j > 0
    assert shown[2].unit_j >= shown[1].unit_j > 0


def test_a_state_of_two_devices_still_gives_their_ports() -> None:
    before: dict[str, Any] = dict(
        meter_number=1, register_wh=1, remainder_wh=0.0, register_l=1, remainder_l=0.0,
        hot_c=40.0, held_j=0.0, cdu_port=5020, meter_port=5021,
    )  # fmt: skip
    saved = SavedSite(**before)
    assert (saved.port("modbus_cdu"), saved.port("mbus_meter")) == (5020, 5021)
    assert saved.port("redfish_bmc") == 0
    assert SavedSite(**before, ports={"modbus_cdu": 7}).port("modbus_cdu") == 7


async def test_without_a_compiler_a_machine_has_no_gpus_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        async with app.serve(only("machine")) as served:
            roots = served.doors[SITE].roots
            assert roots is not None
            assert not roots.nvml.exists()
            assert (roots.sys / "class/powercap/intel-rapl:0").is_dir()
    assert "machine.no_gpus" in caplog.messages


async def test_the_agents_settings_have_a_block_for_every_device(tmp_path: Path) -> None:
    async with app.serve(only("modbus_cdu", "mbus_meter", "redfish_bmc", "machine")) as served:
        await asyncio.to_thread(app.write_agent, served, SITE, tmp_path / "a.toml")
        told = tomllib.loads(await asyncio.to_thread((tmp_path / "a.toml").read_text))
        urls = set(served.doors[SITE].urls.values())
    blocks = {block["kind"]: block for block in told["sensor"]}
    assert blocks.keys() == {"modbus", "mbus", "redfish", "rapl", "nvml", "host"}
    assert {block["url"] for block in told["sensor"] if "url" in block} == urls
    assert told["roots"].keys() == {"sys", "proc", "nvml"}
    assert told["loop"][0]["id"] == LOOP


async def test_a_model_of_the_modbus_shelf_stands_at_the_site_with_its_map(tmp_path: Path) -> None:
    spec = replace(only("mbus_meter").sites[0], models=("eastron-sdm630",))
    async with app.serve(replace(LOADED, sites=(spec,))) as served:
        await asyncio.to_thread(app.write_agent, served, SITE, tmp_path / "a.toml")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "heatpool_agent", "once", "--json"),
            *("--config", str(tmp_path / "a.toml"), "--for", "0.2"),
            stdout=asyncio.subprocess.PIPE,
        )
        told = json.loads((await child.communicate())[0])
        true_w = served.doors[SITE].running.state.electric_w
    powers_w = [r["value"] for r in told["readings"] if r["quantity"] == "power_w"]
    assert powers_w == [pytest.approx(true_w, rel=0.05)]


def test_a_model_that_is_not_on_the_shelf_is_a_mistake(tmp_path: Path) -> None:
    text = (Path(scenario.__file__).parent / "fleets/edge.toml").read_text()
    (tmp_path / "f.toml").write_text(text + 'models = ["abacus-1"]\n')
    with pytest.raises(ConfigError, match=r"model 'abacus-1' is unknown; known: .*eastron-sdm630"):
        scenario.parse(tmp_path / "f.toml")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ([], "name one fleet"),
        (["edge", "--fleet", "demo"], "name one fleet"),
        (["demo", "--agent-toml", "a.toml"], "--site: is missing"),
        (["edge", "--agent-toml", "a.toml", "--site", "s01"], "--site: is 's01'"),
    ],
)
def test_a_wrong_line_is_refused_before_anything_is_served(line: list[str], reason: str) -> None:
    found = CliRunner().invoke(run.command, line)
    assert found.exit_code != 0
    assert reason in found.output + str(found.exception)


def test_the_doors_are_printed_one_a_line_for_people() -> None:
    rows = [
        {"site_id": "a", "devices": {"mbus_meter": "tcp://h:1"}, "meter_address": 3,
         "meter_id": "HPS.1", "roots": {"sys": "/x/sys"}}
    ]  # fmt: skip
    lines = [line.split() for line in run.text(rows).splitlines()]
    assert lines[1] == ["a", "mbus_meter", "tcp://h:1", "address", "3,", "meter", "HPS.1"]
    assert lines[2] == ["a", "machine", "/x/sys", "[roots].sys"]
