"""The MQTT driver and the simulated unit, through a broker in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from integration.mqtt_rig import NOW_NS, Clock, sensor, values
from ports.benches.mqtt import POINTS, STATE, Plant

from heatpool.errors import SensorGone
from heatpool_sim.devices.mqtt_cdu import BASE, MqttCdu


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def _unit(clock: Clock, **more: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A simulated unit with a broker of its own in this process, and the driver."""
    plant: Any = Plant()
    plant.shown.at_ns = NOW_NS
    async with MqttCdu(period_s=0.02).serve(plant) as address:
        points = {"point": list(POINTS), "availability_topic": STATE}
        async with sensor(address.port, clock, **points, **more) as bound:
            yield plant, bound


async def test_the_simulated_unit_is_read_whole(clock: Clock) -> None:
    async with _unit(clock) as (_, bound):
        await bound.probe()
        readings = await bound.read()
    assert values(readings) == {
        "hot_c": 45.12,
        "cold_c": 30.21,
        "volume_flow_m3_h": pytest.approx(5.123, rel=1e-4),
        "pump_frac": 0.655,
        "reported_heat_w": 87_654.0,
        "leak": 0.0,
        "heat_removed_wh": 0.0,
    }


async def _told(bound: Any, reason: str) -> SensorGone:
    """The error of the first read that ends with this reason."""
    async with asyncio.timeout(60):
        while True:
            try:
                await bound.read()
            except SensorGone as error:
                if reason in str(error):
                    return error
            await asyncio.sleep(0.02)


async def _back(bound: Any) -> Any:
    async with asyncio.timeout(60):
        while True:
            try:
                return await bound.read()
            except SensorGone:
                await asyncio.sleep(0.02)


async def test_a_unit_that_vanished_is_told_by_its_last_will(clock: Clock) -> None:
    async with _unit(clock) as (plant, bound):
        await bound.probe()
        plant.faults = frozenset({"mqtt_will"})
        error = await _told(bound, f"{BASE}/state: offline, the device has left")
        assert error.fix
        plant.faults = frozenset()
        assert await _back(bound)


async def test_figures_said_twice_are_read_once_with_their_time(clock: Clock) -> None:
    async with _unit(clock, timeout_s=5.0) as (plant, bound):
        plant.faults = frozenset({"mqtt_duplicate"})
        await bound.probe()
        first = values(await bound.read())
        await asyncio.sleep(0.1)
        assert values(await bound.read()) == first


async def test_words_for_figures_are_refused_and_figures_count_again(clock: Clock) -> None:
    async with _unit(clock) as (plant, bound):
        await bound.probe()
        plant.faults = frozenset({"mqtt_text"})
        await _told(bound, '"n/a" is no number')
        plant.faults = frozenset()
        assert await _back(bound)


async def test_yesterday_s_figures_of_the_unit_are_no_readings(clock: Clock) -> None:
    points = [{**point, "time": "time"} for point in POINTS[:2]]
    plant: Any = Plant()
    plant.shown.at_ns = NOW_NS
    plant.faults = frozenset({"mqtt_retained_old"})
    async with MqttCdu(period_s=0.02).serve(plant) as address:
        async with sensor(address.port, clock, point=points, timeout_s=5.0) as bound:
            await _told(bound, "86400 s old")
            plant.faults = frozenset()
            (reading, _) = await _back(bound)
    assert reading.event_ns == NOW_NS
