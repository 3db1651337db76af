"""A setpoint with a lease reaches the device, and silence brings the site back to local cooling."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import PATIENCE_S, Rig, rig
from pymodbus.client import AsyncModbusTcpClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# Renewed at each third: it outlives a machine that stands still for some seconds.
LEASE_S = 12
# The device's watchdog runs 30 s and is fed at each third of it: what comes sooner came from us.
SOONER_S = 15.0
WISH_W = 9_000
SETPOINT = f"""
[[setpoint]]
site_id = "e1"
heat_rate_w = {WISH_W}
lease_s = {LEASE_S}
reason = "greenhouse wants heat"
"""
LOCAL, REMOTE = 0, 1


async def block(running: Rig) -> list[int]:
    """The device's own setpoint block, read by another maker's client."""
    door = running.fleet.doors["e1"]
    client = AsyncModbusTcpClient(door.cdu.host, port=door.cdu.port, timeout=20)
    assert await client.connect()
    try:
        answer = await client.read_holding_registers(0, count=4, device_id=1)
        return list(answer.registers)
    finally:
        client.close()


async def mode_becomes(running: Rig, mode: int, *, within_s: float = PATIENCE_S) -> None:
    """Waits until the device is in that mode."""
    began = time.monotonic()
    while (await block(running))[3] != mode:
        assert time.monotonic() - began < within_s, await block(running)
        await asyncio.sleep(0.05)


async def agent_holds(running: Rig) -> dict[str, Any]:
    """The setpoint that the agent's own page shows."""
    held: dict[str, Any] = (await running.agent_status("e1"))["setpoint"]
    return held


async def until_released(running: Rig, reason: str) -> None:
    """Waits until the agent's own page says that it released the device, and why."""
    async with asyncio.timeout(PATIENCE_S):
        while (await agent_holds(running))["reason"] != reason:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def is_applied(answer: dict[str, Any]) -> bool:
    """The aggregator was told that the setpoint is applied."""
    setpoint = answer["sites"][0]["setpoint"]
    return setpoint is not None and setpoint["state"] in ("applied", "effect_seen")


async def test_a_setpoint_is_applied_and_told_and_renewed(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        answer = await running.eventually("/v1/sites", is_applied)
        assert answer["sites"][0]["setpoint"]["applied_heat_rate_w"] == pytest.approx(WISH_W, abs=1)
        high, low, _, mode = await block(running)
        assert (high << 16 | low, mode) == (WISH_W, REMOTE)
        held = await agent_holds(running)
        await asyncio.sleep(1.5 * LEASE_S)
        renewed = await agent_holds(running)
        # A lease that ran out would have needed a fresh setpoint.
        assert renewed["setpoint_seq"] == held["setpoint_seq"]
        assert renewed["lease_left_s"] > 0, "heartbeats did not renew the lease"
        await mode_becomes(running, REMOTE)


async def test_a_dead_aggregator_means_local_cooling_once_the_lease_ran_out(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied)
        await running.aggregator.kill()
        await mode_becomes(running, LOCAL)
        # Not the device by itself: its watchdog is fed until the agent says why no more.
        await until_released(running, "no lease")
        await running.aggregator.start()
        await mode_becomes(running, REMOTE)


@pytest.mark.parametrize("fault", ["leak"])
async def test_a_leak_releases_at_once_whatever_is_wished(tmp_path: Path, fault: str) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied)
        running.fleet.inject("e1", fault)
        await mode_becomes(running, LOCAL, within_s=SOONER_S)
        await until_released(running, fault)


async def test_an_agent_that_stops_in_order_leaves_the_device_in_local_mode(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied)
        assert await running.agents["e1"].stop() == 0
        assert (await block(running))[3] == LOCAL


async def test_an_agent_that_is_killed_leaves_it_to_the_device_s_own_watchdog(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied)
        await running.agents["e1"].kill()
        assert (await block(running))[2] > 0, "the watchdog of the device was never set"
        await mode_becomes(running, LOCAL)
