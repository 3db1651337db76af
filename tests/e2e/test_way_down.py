"""A setpoint with a lease reaches the device, and silence brings the site back to local cooling."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import Rig, rig
from pymodbus.client import AsyncModbusTcpClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

LEASE_S = 3
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
    client = AsyncModbusTcpClient(door.cdu.host, port=door.cdu.port)
    assert await client.connect()
    try:
        answer = await client.read_holding_registers(0, count=4, device_id=1)
        return list(answer.registers)
    finally:
        client.close()


async def mode_becomes(running: Rig, mode: int, within_s: float) -> float:
    """Seconds until the device is in that mode."""
    began = time.monotonic()
    while (await block(running))[3] != mode:
        assert time.monotonic() - began < within_s, await block(running)
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def is_applied(answer: dict[str, Any]) -> bool:
    """The aggregator was told that the setpoint is applied."""
    setpoint = answer["sites"][0]["setpoint"]
    return setpoint is not None and setpoint["state"] in ("applied", "effect_seen")


async def test_a_setpoint_is_applied_and_told_and_renewed(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        answer = await running.eventually("/v1/sites", is_applied, 30)
        assert answer["sites"][0]["setpoint"]["applied_heat_rate_w"] == pytest.approx(WISH_W, abs=1)
        high, low, _, mode = await block(running)
        assert (high << 16 | low, mode) == (WISH_W, REMOTE)
        await asyncio.sleep(2 * LEASE_S)
        assert (await block(running))[3] == REMOTE, "heartbeats did not renew the lease"


async def test_a_dead_aggregator_means_local_cooling_within_the_lease_and_two_ticks(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied, 30)
        await running.aggregator.kill()
        took_s = await mode_becomes(running, LOCAL, LEASE_S + 5)
        assert took_s <= LEASE_S + 2 + 0.5  # half a second to read the device
        await running.aggregator.start()
        await mode_becomes(running, REMOTE, 30)


@pytest.mark.parametrize("fault", ["leak"])
async def test_a_leak_releases_at_once_whatever_is_wished(tmp_path: Path, fault: str) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied, 30)
        running.fleet.inject("e1", fault)
        assert await mode_becomes(running, LOCAL, 10) <= 3.0


async def test_an_agent_that_stops_in_order_leaves_the_device_in_local_mode(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied, 30)
        assert await running.agents["e1"].stop() == 0
        assert (await block(running))[3] == LOCAL


async def test_an_agent_that_is_killed_leaves_it_to_the_device_s_own_watchdog(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, sites=1, mode="local", setpoint=SETPOINT, armed=True) as running:
        await running.eventually("/v1/sites", is_applied, 30)
        await running.agents["e1"].kill()
        assert (await block(running))[2] > 0, "the watchdog of the device was never set"
        await mode_becomes(running, LOCAL, 40)
