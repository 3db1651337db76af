"""A whole edge site through every protocol at once: the agent gives one coherent picture of it.

The site is simulated in this process, the agent is the real program. Its truth is the plant's.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from e2e.rig import PATIENCE_S, Program, until

from heatpool_sim import app, scenario
from heatpool_sim.plant.site import SiteState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SITE = "edge"
HAS_COMPILER = bool(shutil.which("gcc") or shutil.which("cc"))
HAS_IPMITOOL = shutil.which("ipmitool") is not None
needs_compiler = pytest.mark.skipif(
    not HAS_COMPILER, reason="no C compiler for the GPUs' library: apt install gcc"
)
needs_ipmitool = pytest.mark.skipif(not HAS_IPMITOOL, reason="apt install ipmitool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The running site, and the settings of an agent that reads all of it."""

    fleet: app.Fleet
    config: Path

    @property
    def truth(self) -> SiteState:
        """The plant as it is now."""
        return self.fleet.doors[SITE].running.state

    def inject(self, *faults: str) -> None:
        """Makes these faults last."""
        for fault in faults:
            self.fleet.inject(SITE, fault)

    async def said(self, *more: str) -> tuple[str, int]:
        """What `once` prints, and its exit code."""
        command = (sys.executable, "-m", "heatpool_agent", "once", "--config", str(self.config))
        child = await asyncio.create_subprocess_exec(
            *command, *more, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        told, errors = await child.communicate()
        assert told, errors.decode()
        return told.decode(), child.returncode or 0

    async def once(self) -> dict[str, Any]:
        """The document of one look."""
        document: dict[str, Any] = json.loads((await self.said("--json"))[0])
        return document


@asynccontextmanager
async def served(folder: Path, *without: str) -> AsyncIterator[Edge]:
    """The edge site without some of its devices."""
    loaded = scenario.load("edge")
    left = tuple(name for name in loaded.sites[0].devices if name not in without)
    spec = replace(loaded.sites[0], devices=left)
    async with app.serve(replace(loaded, sites=(spec,))) as fleet:
        config = folder / "agent.toml"
        await asyncio.to_thread(app.write_agent, fleet, SITE, config)
        yield Edge(fleet=fleet, config=config)


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with served(tmp_path, *(() if HAS_IPMITOOL else ("ipmi_bmc",))) as running:
        yield running


@pytest.fixture
async def edge_without_ipmi(tmp_path: Path) -> AsyncIterator[Edge]:
    async with served(tmp_path, "ipmi_bmc") as running:
        yield running


def estimate(document: dict[str, Any], channel: str) -> dict[str, Any]:
    """The one estimate of this name."""
    (found,) = [one for one in document["estimates"] if one["channel"] == channel]
    assert isinstance(found, dict)
    return found


def assert_near(figure: dict[str, Any], true_w: float) -> None:
    """The figure is within two of its own standard uncertainties of the truth."""
    assert abs(figure["value_w"] - true_w) <= 2 * figure["value_w_u"], (figure, true_w)


def powers_w(document: dict[str, Any], node: str, sensor: str = "") -> list[float]:
    """Powers that readings of a node show."""
    return [
        r["value"]
        for r in document["readings"]
        if (r["node"], r["quantity"]) == (node, "power_w")
        and r["quality"] == "believed"
        and sensor in r["sensor"]
    ]


async def test_one_look_reads_every_device_and_says_what_each_reading_is_worth(edge: Edge) -> None:
    document = await edge.once()
    assert {s["id"]: s["state"] for s in document["sensors"] if s["state"] != "up"} == {}
    speaking = {reading["sensor"] for reading in document["readings"]}
    assert speaking >= {"bmc", "cdu-redfish", "cdu-modbus", "cdu-mqtt", "meter", "rapl", "host"}
    wanted = {"unit", "node", "flags", "quality", "believed", "reasons", "sensor", "value"}
    assert [r for r in document["readings"] if wanted - r.keys()] == []
    assert [r["channel"] for r in document["readings"] if not r["believed"]] == []
    assert {r["quantity"]: r["unit"] for r in document["readings"]}.items() >= {
        ("power_w", "W"), ("hot_c", "°C"), ("energy_wh", "Wh"), ("volume_flow_m3_h", "m³/h")
    }  # fmt: skip


async def test_each_reading_has_its_doubt_its_class_and_whether_it_counts(edge: Edge) -> None:
    document = await edge.once()
    figures = [r for r in document["readings"] if r["quantity"] in ("power_w", "hot_c", "energy_j")]
    without = [r for r in figures if not {"u", "u_from", "quality_class"} <= r.keys()]
    # Of what a CDU takes for its own pumps nothing is known.
    assert {(r["node"], r["quantity"]) for r in without} <= {("cdu", "power_w")}
    states = [r for r in document["readings"] if r["kind"] == "state" and r["quantity"] == "leak"]
    assert states and not any("u" in r for r in states)
    counted = {
        (r["sensor"], r["channel"], r["quantity"]) for r in document["readings"] if r["counted"]
    }
    (host,) = document["hosts"]
    (own,) = host["counted"]
    assert (own["sensor"], own["quantity"]) == ("bmc", "power_w")
    assert tuple(own.values()) in counted
    of_loop = [r for r in document["readings"] if "loop" in r.get("counted_for", ())]
    assert sorted(r["quantity"] for r in of_loop) == [
        "cold_c", "hot_c", "power_w", "volume_flow_m3_h"
    ]  # fmt: skip
    (meter,) = [r for r in of_loop if r["quantity"] == "power_w"]
    assert (meter["node"], meter["value"]) == ("pdu", estimate(document, "electric")["value_w"])
    assert len(counted) == len(of_loop) + 1


@needs_compiler
async def test_the_sites_power_is_its_best_meters_and_no_sum_of_what_overlaps(edge: Edge) -> None:
    document = await edge.once()
    electric = estimate(document, "electric")
    assert_near(electric, edge.truth.electric_w)
    assert electric["flags"] == ["nodes:pdu"]
    cards_w = powers_w(document, "gpu", "nvml")
    assert len(cards_w) == 4
    overlapping_w = sum(powers_w(document, "chassis", "bmc")) + sum(cards_w)
    assert overlapping_w > edge.truth.electric_w + 6 * electric["value_w_u"]
    (host,) = document["hosts"]
    parts_w = {part["name"]: part["power_w"] for part in host["parts"]}
    assert host["level"] == "chassis"
    assert sum(parts_w.values()) == pytest.approx(host["power_w"])
    # Each card is seen by the BMC and by its own library, and counts once.
    assert parts_w["gpu"] == pytest.approx(sum(cards_w), rel=0.3)


async def test_the_heats_stand_apart_and_each_is_near_the_truth(edge: Edge) -> None:
    document, truth = await edge.once(), edge.truth
    (heat,) = document["heat"]
    for name in ("electric_heat", "computed_heat", "heat_rate"):
        assert_near(estimate(document, f"rack/{name}"), truth.carried_w)
    assert heat["reported_heat_w"] == pytest.approx(truth.carried_w, rel=0.1)
    figures = [heat["reported_heat_w"], heat["heat_rate_w"]]
    figures += [heat[name]["value_w"] for name in ("computed", "electric")]
    assert len(set(figures)) == 4
    assert document["disagreements"] == []


@pytest.mark.parametrize(
    ("pulled", "level", "quality"),
    [
        (("cdu_offline",), "chassis", "B"),
        pytest.param(
            ("cdu_offline", "redfish_bmc_offline"), "components", "D", marks=needs_compiler
        ),
    ],
)
async def test_without_its_best_meter_the_next_best_cover_is_taken(
    edge_without_ipmi: Edge, pulled: tuple[str, ...], level: str, quality: str
) -> None:
    edge_without_ipmi.inject(*pulled)
    document = await edge_without_ipmi.once()
    electric = estimate(document, "electric")
    assert_near(electric, edge_without_ipmi.truth.electric_w)
    assert document["hosts"][0]["level"] == level
    assert electric["quality_class"] == quality
    gone = {s["id"]: s["detail"] for s in document["sensors"] if s["state"] != "up"}
    assert len(gone) == len(pulled) and all(gone.values())


@needs_ipmitool
async def test_a_bmc_whose_web_service_died_is_heard_by_ipmi(edge: Edge) -> None:
    edge.inject("cdu_offline", "redfish_bmc_offline")
    document = await edge.once()
    assert_near(estimate(document, "electric"), edge.truth.electric_w)
    assert powers_w(document, "chassis") == powers_w(document, "chassis", "bmc-ipmi") != []


@pytest.mark.parametrize(
    ("fault", "sensor", "fate", "reason"),
    [
        ("redfish_rating_as_input", "bmc", "refused", "at or above the supply's capacity"),
        ("swapped_words", "cdu-modbus", "refused", "ten times more than what its loop can reject"),
        ("off_by_one", "cdu-modbus", "refused", "percent where a fraction belongs"),
        ("meter_sensor_broken", "meter", "doubted", "sensor that is broken or missing"),
    ],
)
async def test_the_impossible_is_refused_with_its_reason_and_spoils_nothing(
    edge_without_ipmi: Edge, fault: str, sensor: str, fate: str, reason: str
) -> None:
    edge_without_ipmi.inject(fault)
    document = await edge_without_ipmi.once()
    why = {
        text
        for r in document["readings"]
        if (r["sensor"], r["quality"]) == (sensor, fate)
        for text in r["reasons"]
    }
    assert any(reason in text for text in why), why
    assert {r["sensor"] for r in document["readings"] if r["reasons"]} <= {sensor, "bmc"}
    assert_near(estimate(document, "electric"), edge_without_ipmi.truth.electric_w)
    told, _ = await edge_without_ipmi.said()
    assert reason in told


@needs_compiler
async def test_a_pulled_device_leaves_the_others_and_comes_back(
    edge_without_ipmi: Edge, tmp_path: Path
) -> None:
    edge = edge_without_ipmi
    settings = await asyncio.to_thread(edge.config.read_text)
    agent = Program("heatpool_agent", tmp_path, settings, "agent")
    async with aiohttp.ClientSession() as http:
        try:
            page = f"http://{(await agent.start())['http']}/v1/status"

            async def eventually(is_true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        async with http.get(page) as answer:
                            status: dict[str, Any] = await answer.json()
                        if is_true(status):
                            return status
                        await asyncio.sleep(0.2)

            await eventually(lambda told: states(told) == {"up"} and cards_count(told) == 4)
            edge.inject("meter_offline", "redfish_cdu_offline", "gpu_remove")
            status = await eventually(lambda told: not up(told, "meter") and not up(told, "nvml"))
            others = {s["id"] for s in status["sensors"] if s["state"] == "up"}
            assert others >= {"bmc", "cdu-modbus", "cdu-mqtt", "rapl", "host"}
            assert_near(status["electric"], edge.truth.electric_w)
            for fault in ("meter_offline", "redfish_cdu_offline", "gpu_remove"):
                edge.fleet.clear(SITE, fault)
            await eventually(lambda told: up(told, "meter") and up(told, "nvml"))
        finally:
            await agent.stop()


def states(status: dict[str, Any]) -> set[str]:
    return {sensor["state"] for sensor in status["sensors"]}


def cards_count(status: dict[str, Any]) -> int:
    return len([e for e in status["energies"] if e["sensor"] == "nvml"])


def up(status: dict[str, Any], sensor_id: str) -> bool:
    return any(s["state"] == "up" for s in status["sensors"] if s["id"] == sensor_id)


async def test_the_simulator_prints_its_doors_and_writes_an_agent_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    simulator = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "heatpool_sim", "run", "edge", "--json"),
        *("--agent-toml", str(file), "--state", str(tmp_path / "state.json")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert simulator.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            (site,) = json.loads(await simulator.stdout.readline())["sites"]
        await until(file.exists)
        assert site["devices"].keys() >= {"modbus_cdu", "redfish_bmc", "ipmi_bmc", "mqtt_cdu"}
        assert set(site["roots"]) == {"sys", "proc", "nvml"}
        assert file.with_suffix(".password").stat().st_mode & 0o077 == 0
        check = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "heatpool_agent", "config", "check", "--config", str(file)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert await check.wait() == 0
    finally:
        simulator.terminate()
        assert await simulator.wait() == 0
