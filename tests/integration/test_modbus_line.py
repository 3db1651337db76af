"""Lines that several share: one connection, one request at a time, the urgent first."""

import asyncio
import time
from itertools import pairwise
from pathlib import Path

import pytest
from integration.modbus_units import (
    actuator_at,
    narrow,
    sensor_at,
    tcp,
    unit,
    values_of,
)
from turns import SOON_S, turning

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.fieldbus import line


async def test_everybody_on_an_endpoint_shares_one_connection_and_the_last_one_closes_it() -> None:
    connects: list[bool] = []
    async with tcp([unit(1), unit(2)], connects) as url:
        async with sensor_at(url) as one, sensor_at(url, unit_id=2) as two:
            async with actuator_at(url) as valve:
                await asyncio.gather(one.read(), two.read(), valve.release())
            await one.close()
            await one.close()
            assert (await values_of(two))["hot_c"] == 45.12
        async with asyncio.timeout(60):
            while connects != [True, False]:  # noqa: ASYNC110 the server hears of it later
                await asyncio.sleep(0.01)
        assert not line._lines


async def test_a_late_answer_finds_its_connection_closed() -> None:
    connects: list[bool] = []
    late = asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        await late.wait()

    async with (
        tcp([unit(1, wait)], connects) as url,
        sensor_at(url, timeout_s=3.0) as sensor,
    ):
        with pytest.raises(SensorGone, match="no answer"):
            await sensor.read()
        late.set()
        assert (await values_of(sensor))["hot_c"] == 45.12
        assert connects.count(True) == 2


async def test_an_actuator_waits_for_one_request_and_not_for_a_whole_pass(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    begun = asyncio.Event()

    async def slow(_unit_id: int, address: int, count: int) -> None:
        asked.append((address, count))
        begun.set()
        await asyncio.sleep(0.05)

    async with (
        tcp([unit(1, slow)]) as url,
        sensor_at(url, map=narrow(tmp_path)) as sensor,
        actuator_at(url) as valve,
    ):
        task = asyncio.create_task(sensor.read())
        await begun.wait()
        await valve.release()
        assert len(await task) == 3
    assert asked == [(0, 1), (0, 4), (0, 4), (4, 1), (8, 1)]


async def test_an_actuator_is_not_kept_by_a_unit_that_says_nothing() -> None:
    silent, arrived = asyncio.Event(), asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        arrived.set()
        await silent.wait()

    async with (
        tcp([unit(1), unit(2, wait)]) as url,
        sensor_at(url, unit_id=2, timeout_s=30.0) as dead,
        sensor_at(url, unit_id=2, timeout_s=30.0) as dead_too,
        actuator_at(url, timeout_s=20.0) as valve,
    ):
        tasks = [asyncio.create_task(sensor.read()) for sensor in (dead, dead_too)]
        await arrived.wait()
        async with turning() as turns:
            await valve.release()
        assert turns.passed_s < line.GIVE_WAY_S + SOON_S
        with pytest.raises(SensorBusy, match="gave way"):
            await tasks[0]
        silent.set()
        await tasks[1]


@pytest.mark.parametrize("turns", range(16))
async def test_a_deadline_that_passes_in_the_turn_of_the_connection_is_kept(turns: int) -> None:
    silent = asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        await silent.wait()

    async with tcp([unit(1, wait)]) as url, sensor_at(url, timeout_s=0.05) as sensor:
        task = asyncio.create_task(sensor.read())
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.1)  # noqa: ASYNC251  # the machine stands still meanwhile
        await asyncio.wait([task], timeout=10.0)
        assert task.done(), "nobody ends it any more"
        assert isinstance(task.exception(), SensorGone)
        silent.set()


async def test_a_sensor_that_never_gets_its_turn_is_busy_and_closes_nothing() -> None:
    silent, arrived = asyncio.Event(), asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        arrived.set()
        await silent.wait()

    async with (
        tcp([unit(1), unit(2, wait)]) as url,
        sensor_at(url, unit_id=2) as slow,
        sensor_at(url, timeout_s=0.1) as quick,
    ):
        task = asyncio.create_task(slow.read())
        await arrived.wait()
        with pytest.raises(SensorBusy, match="others held the line"):
            await quick.read()
        silent.set()
        assert await task


async def test_a_pause_of_the_map_lies_between_its_own_requests(tmp_path: Path) -> None:
    loop, times_s = asyncio.get_running_loop(), list[float]()

    async def note(_unit_id: int, _address: int, _count: int) -> None:
        times_s.append(loop.time())

    own = narrow(tmp_path, pause_ms=40)
    async with tcp([unit(1, note)]) as url, sensor_at(url, map=own) as sensor:
        await sensor.read()
    assert all(later - sooner >= 0.04 for sooner, later in pairwise(times_s))
