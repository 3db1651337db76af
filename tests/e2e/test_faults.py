"""Faults of the simulated plant: a leak ends delivery at once, and logs tell the others.

The site is simulated in this process, or traced by the real command; the agent is the real program.
"""

import asyncio
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import PATIENCE_S, Rig, rig

from heatpool_sim.plant.control import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SETPOINT = """
[[setpoint]]
site_id = "e1"
heat_rate_w = 9000
lease_s = 60
reason = "greenhouse wants heat"
"""
# Two thirds of the lease (60 s) or of the device's watchdog (30 s) are always left, and would end
# it too: what comes sooner came from neither.
SOONER_S = 15.0
# How long a fault is let be that must change nothing.
LET_BE_S = 6.0
# The first row of a log, and the windows of the agent's residual.
START_NS = 1_767_225_610 * 10**9
WINDOW_S = 300.0


def delivered_w(running: Rig) -> float:
    """Heat that the plant's water really carries into the network, W."""
    return running.fleet.doors["e1"].running.state.network.heat_rate_w


async def plant_is(running: Rig, mode: Mode, *, within_s: float = PATIENCE_S) -> None:
    """Waits until the coolant unit is in that mode, by the plant's own state."""
    began = time.monotonic()
    while running.fleet.doors["e1"].running.state.control.mode is not mode:
        assert time.monotonic() - began < within_s, running.agents["e1"].log_tail()
        await asyncio.sleep(0.02)


async def delivers(running: Rig, *, is_wanted: bool) -> None:
    """Waits until heat goes into the network, or none: the valve travels at its own pace."""
    async with asyncio.timeout(PATIENCE_S):
        while (delivered_w(running) > 0.0) is not is_wanted:  # noqa: ASYNC110  # the plant's state
            await asyncio.sleep(0.1)


async def faults_told(running: Rig) -> list[str]:
    """The faults that last, as the agent's own page has them."""
    status = await running.agent_status("e1")
    faults = [fault for loop in status["heat"] for fault in loop["faults"]]
    return [fault["fault"] for fault in faults if fault["end_ns"] is None]


async def test_a_leak_ends_delivery_at_once_and_it_comes_back_when_dry(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await plant_is(running, Mode.REMOTE)
        running.fleet.inject("e1", "leak")
        await plant_is(running, Mode.LOCAL, within_s=SOONER_S)
        await delivers(running, is_wanted=False)
        told = await running.eventually(
            "/v1/sites", lambda answer: "leak" in answer["sites"][0]["setpoint"]["detail"]
        )
        assert told["sites"][0]["setpoint"]["state"] == "overridden"
        async with asyncio.timeout(PATIENCE_S):
            while await faults_told(running) != ["leak"]:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.2)
        running.fleet.clear("e1", "leak")
        await plant_is(running, Mode.REMOTE)


@pytest.mark.parametrize("fault", ["air_in_loop", "wrong_fluid", "fouling", "power_meter_low"])
async def test_what_only_statistics_can_see_cuts_nobody_off(tmp_path: Path, fault: str) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await plant_is(running, Mode.REMOTE)
        await delivers(running, is_wanted=True)
        running.fleet.inject("e1", fault)
        await asyncio.sleep(LET_BE_S)
        assert running.fleet.doors["e1"].running.state.control.mode is Mode.REMOTE
        assert delivered_w(running) > 0.0


def ran(folder: Path, *command: str) -> str:
    """What a program of ours says on stdout; it must end well."""
    ended = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=400, cwd=folder
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def estimated(folder: Path, *asked: str, cooling: str = "dlc") -> dict[str, Any]:
    """What the agent makes of the log of a simulated site; the truth stays in `truth.csv`."""
    where = ("--out", "trace.csv", "--truth", "truth.csv", "--json")
    ran(folder, "heatpool_sim", "trace", "--fleet", "faults", "--site", "well", *where, *asked)
    told = ran(folder, "heatpool_agent", "estimate", "trace.csv", "--cooling", cooling, "--json")
    document: dict[str, Any] = json.loads(told)
    return document


@pytest.mark.parametrize("seed", ["11", "12"])
@pytest.mark.parametrize(
    ("played", "named", "within_s"),
    [
        ("sensor_swap", "swapped_sensors", WINDOW_S),
        ("flow_unit", "unit_error", 2 * WINDOW_S),
        ("flow_stuck", "stuck_sensor", 1200.0),
        ("temperature_stuck/hot", "stuck_sensor", 1200.0),
        ("temperature_stuck/cold", "stuck_sensor", 1200.0),
        ("meter_dead", "dead_meter", 1200.0),
    ],
)
def test_a_log_tells_the_fault_by_its_name_and_when_it_began(
    tmp_path: Path, played: str, named: str, within_s: float, seed: str
) -> None:
    told = estimated(tmp_path, "--seed", seed, "--hours", "6", "--fault", f"{played}@2h")
    assert [fault["fault"] for fault in told["faults"]] == [named]
    (fault,) = told["faults"]
    began_ns = START_NS + 2 * 3600 * 10**9
    assert abs(fault["start_ns"] - began_ns) <= within_s * 1e9
    assert fault["evidence"]


@pytest.mark.parametrize("seed", [str(number) for number in range(21, 25)])
def test_a_clean_log_tells_no_fault_and_covers_the_truth(tmp_path: Path, seed: str) -> None:
    told = estimated(tmp_path, "--seed", seed, "--hours", "24", "--period", "30s")
    assert told["faults"] == []
    with (tmp_path / "truth.csv").open(newline="", encoding="utf-8") as file:
        true_wh = float(list(csv.DictReader(file))[-1]["energy_wh"])
    total = told["total"]
    # Four fixed sites: one beyond 2.6 sigma would be bad luck of one in twenty-five.
    assert abs(total["heat_wh"] - true_wh) <= 2.6 * total["heat_wh_u"]
    assert total["coverage_frac"] == pytest.approx(1.0, abs=0.01)
    assert 0.005 < total["heat_wh_u"] / true_wh < 0.05


def test_servers_that_store_heat_and_pumps_that_follow_teach_no_offset(tmp_path: Path) -> None:
    told = estimated(tmp_path, "--seed", "5", "--hours", "24", "--period", "10s")
    with (tmp_path / "truth.csv").open(newline="", encoding="utf-8") as file:
        true_wh = float(list(csv.DictReader(file))[-1]["energy_wh"])
    # Its flow sensor and its probes err by less than one sigma; what the power teaches must not.
    assert abs(told["total"]["heat_wh"] - true_wh) <= 1.8 * told["total"]["heat_wh_u"]


def test_doubt_does_not_grow_with_the_length_of_a_log(tmp_path: Path) -> None:
    told = estimated(tmp_path, "--seed", "3", "--hours", "72", "--period", "10s")
    doubts_w = [row["heat_rate_w_u"] / row["heat_rate_w"] for row in told["rows"]]
    first, last = doubts_w[2000:8000], doubts_w[-6000:]
    assert sum(last) / len(last) < 1.1 * sum(first) / len(first)
    with (tmp_path / "truth.csv").open(newline="", encoding="utf-8") as file:
        true_wh = float(list(csv.DictReader(file))[-1]["energy_wh"])
    assert abs(told["total"]["heat_wh"] - true_wh) <= 2.6 * told["total"]["heat_wh_u"]
    assert told["total"]["heat_wh_u"] < 0.02 * true_wh


def test_a_unit_that_changed_is_told_without_the_coolant_s_share_too(tmp_path: Path) -> None:
    where = ("--out", "trace.csv", "--truth", "truth.csv")
    asked = ("--seed", "11", "--hours", "6", "--fault", "flow_unit@2h")
    ran(tmp_path, "heatpool_sim", "trace", "--fleet", "faults", "--site", "well", *where, *asked)
    told = json.loads(ran(tmp_path, "heatpool_agent", "estimate", "trace.csv", "--json"))
    (fault,) = told["faults"]
    assert fault["fault"] == "unit_error"
    assert abs(fault["start_ns"] - START_NS - 2 * 3600 * 10**9) <= 60 * 10**9
    with (tmp_path / "truth.csv").open(newline="", encoding="utf-8") as file:
        electric_w = [float(row["electric_w"]) for row in csv.DictReader(file)]
    true_wh = 6.0 * sum(electric_w) / len(electric_w)
    assert abs(told["total"]["heat_wh"] - true_wh) <= 2.6 * told["total"]["heat_wh_u"]
    assert told["total"]["heat_wh_u"] < 0.1 * true_wh
