"""Faults of the simulated plant: a leak ends delivery at once, and logs tell the others.

The site is simulated in this process, or traced by the real command; the agent is the real program.
"""

import asyncio
import time
from pathlib import Path

import pytest
from e2e.rig import Rig, rig

from heatpool_sim.plant.control import Mode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SETPOINT = """
[[setpoint]]
site_id = "e1"
heat_rate_w = 9000
lease_s = 20
reason = "greenhouse wants heat"
"""
# A tick, a look at the device, and its answer; far below the lease, which would end it too.
AT_ONCE_S = 3.0


def delivered_w(running: Rig) -> float:
    """Heat that the plant's water really carries into the network, W."""
    return running.fleet.doors["e1"].running.state.network.heat_rate_w


async def plant_is(running: Rig, mode: Mode, *, within_s: float) -> float:
    """Seconds until the coolant unit is in that mode, by the plant's own state."""
    began = time.monotonic()
    while running.fleet.doors["e1"].running.state.control.mode is not mode:
        assert time.monotonic() - began < within_s, running.agents["e1"].log_tail()
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_a_leak_ends_delivery_at_once_and_it_comes_back_when_dry(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await plant_is(running, Mode.REMOTE, within_s=40)
        running.fleet.inject("e1", "leak")
        assert await plant_is(running, Mode.LOCAL, within_s=10) <= AT_ONCE_S
        async with asyncio.timeout(30):  # the valve travels at its own pace
            while delivered_w(running) > 0.0:  # noqa: ASYNC110  # the plant's state
                await asyncio.sleep(0.1)
        told = await running.eventually(
            "/v1/sites", lambda answer: "leak" in answer["sites"][0]["setpoint"]["detail"], 15
        )
        assert told["sites"][0]["setpoint"]["state"] == "overridden"
        running.fleet.clear("e1", "leak")
        await plant_is(running, Mode.REMOTE, within_s=60)


@pytest.mark.parametrize("fault", ["air_in_loop", "wrong_fluid", "fouling", "power_meter_low"])
async def test_what_only_statistics_can_see_cuts_nobody_off(tmp_path: Path, fault: str) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await plant_is(running, Mode.REMOTE, within_s=40)
        running.fleet.inject("e1", fault)
        await asyncio.sleep(2 * AT_ONCE_S)
        assert running.fleet.doors["e1"].running.state.control.mode is Mode.REMOTE
        assert delivered_w(running) > 0.0
