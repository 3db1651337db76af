"""Serial lines: frames over real pseudo terminals and plain gateways, silence, settings."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from integration.modbus_units import (
    KEYS,
    Twin,
    actuator_at,
    sensor_at,
    serial,
    unit,
    values_of,
)

from heatpool.errors import ConfigError, SensorGone
from heatpool_agent.ports import Command
from heatpool_sim.devices.modbus_cdu import ModbusCdu


async def test_a_unit_on_a_serial_line_is_read_and_obeys() -> None:
    twin = Twin()
    async with (
        ModbusCdu().serve_pty(twin) as url,
        sensor_at(url) as sensor,
        actuator_at(url) as valve,
    ):
        values = await values_of(sensor)
        confirmed_w = await valve.apply(Command.deliver(70_000, "plan"))
    assert (values["hot_c"], values["volume_flow_m3_h"], values["power_w"]) == (45.12, 5.123, 91e3)
    assert confirmed_w == 70_000
    assert twin.written == [[1, 4464, 30, 1]]


async def test_serial_frames_come_through_a_plain_tcp_gateway() -> None:
    cdu = ModbusCdu(is_rtu=True)
    async with cdu.serve(Twin()) as address, sensor_at(f"rtu+{address.url}") as sensor:
        assert (await values_of(sensor))["hot_c"] == 45.12


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("rtu:/dev/ttyUSB0", "baud is missing; parity is missing; stop is missing"),
        ("rtu:/dev/ttyUSB0?baud=9600&stop=1", "parity is missing"),
        ("rtu:/dev/ttyUSB0?baud=9600&parity=mark&stop=1", "parity is 'mark', must be one of none"),
        ("rtu:/dev/ttyUSB0?baud=9601&parity=even&stop=3", "baud is '9601'.*stop is '3'"),
        ("rtu:/dev/ttyUSB0?baud=9600&parity=even&stop=1&bits=7", "bits is unknown"),
        ("rtu+tcp://there:0", "1..65535"),
    ],
)
async def test_a_line_that_is_told_by_halves_is_a_mistake(url: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        async with sensor_at(url):
            pass


@pytest.mark.parametrize("url", [f"rtu:/dev/ttyUSB0?{KEYS}", "rtu+tcp://h:502"])
async def test_nobody_answers_for_everybody_on_a_serial_line(url: str) -> None:
    with pytest.raises(ConfigError, match="unit_id: is 0"):
        async with sensor_at(url, unit_id=0):
            pass


@pytest.mark.parametrize("url", ["udp://h:1", "rtu:ttyUSB0", "rtu:/dev/x?BAUD=1", "tcp://h"])
def test_what_is_no_url_is_refused_with_the_settings(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        sensor_at(url)


async def test_units_on_one_serial_line_never_talk_at_once() -> None:
    asked: list[int] = []

    async def note(unit_id: int, _address: int, _count: int) -> None:
        asked.append(unit_id)

    units = [unit(1, note, hot=4000), unit(2, note, hot=5000), unit(3, note, hot=6000)]
    async with serial(units) as url, AsyncExitStack() as stack:
        sensors = [
            await stack.enter_async_context(sensor_at(url, unit_id=unit_id))
            for unit_id in (1, 2, 3)
        ]
        rows = await asyncio.gather(*(values_of(sensor) for sensor in sensors * 3))
    assert [row["hot_c"] for row in rows] == [40.0, 50.0, 60.0] * 3
    assert sorted(asked) == [1] * 3 + [2] * 3 + [3] * 3


async def test_another_name_of_a_port_is_the_same_line(tmp_path: Path) -> None:
    async with serial([unit(1)]) as url:
        path, _, keys = url.removeprefix("rtu:").partition("?")
        (tmp_path / "meter").symlink_to(path)
        async with sensor_at(url) as one, sensor_at(f"rtu:{tmp_path / 'meter'}?{keys}") as two:
            assert await values_of(one) == await values_of(two)


async def test_two_blocks_that_open_a_port_differently_are_a_mistake() -> None:
    other = KEYS.replace("stop=2", "stop=1")
    async with serial([unit(1)]) as url, sensor_at(url):
        with pytest.raises(ConfigError, match=r"opens .* differently"):
            async with sensor_at(url.replace(KEYS, other)):
                pass
    async with serial([unit(1)]) as url, sensor_at(url.replace(KEYS, other)):
        pass


async def test_a_serial_line_rests_for_three_and_a_half_characters() -> None:
    loop, times_s = asyncio.get_running_loop(), list[float]()

    async def note(_unit_id: int, _address: int, _count: int) -> None:
        times_s.append(loop.time())

    slow = "baud=300&parity=none&stop=2"
    async with (
        serial([unit(1, note)], keys=slow) as url,
        sensor_at(url) as one,
        sensor_at(url) as two,
    ):
        await asyncio.gather(one.read(), two.read())
    assert times_s[1] - times_s[0] > 3.5 * 11 / 300


async def test_a_frame_with_a_wrong_checksum_is_refused_and_the_next_one_counts() -> None:
    is_bad = True

    def heard(data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 0x55,)) if is_bad else data

    async with serial([unit(1)], heard=heard) as url, sensor_at(url, timeout_s=3.0) as sensor:
        with pytest.raises(SensorGone, match="no answer in 3 s"):
            await sensor.read()
        is_bad = False
        assert (await values_of(sensor))["hot_c"] == 45.12


async def test_a_late_answer_on_a_serial_line_is_thrown_away() -> None:
    answer_now, asked = asyncio.Event(), 0

    async def slow_once(_unit_id: int, _address: int, _count: int) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await answer_now.wait()
            await asyncio.sleep(0.03)

    units = [unit(1, slow_once, hot=4000), unit(2, hot=5000)]
    async with (
        serial(units) as url,
        sensor_at(url, timeout_s=3.0) as slow,
        sensor_at(url, unit_id=2) as other,
    ):
        with pytest.raises(SensorGone, match="no answer in 3 s"):
            await slow.read()
        answer_now.set()
        assert (await values_of(other))["hot_c"] == 50.0
        assert (await values_of(slow))["hot_c"] == 40.0


async def test_the_answer_of_another_unit_on_the_line_is_refused() -> None:
    def heard(data: bytes) -> bytes:
        return bytes((7,)) + data[1:]

    async with serial([unit(1)], heard=heard) as url, sensor_at(url, timeout_s=0.3) as sensor:
        with pytest.raises(SensorGone):
            await sensor.read()


async def test_a_port_that_cannot_do_what_the_url_asks_is_told() -> None:
    async with serial([unit(1)], keys="baud=9600&parity=even&stop=1") as url:
        async with sensor_at(url) as sensor:
            with pytest.raises(SensorGone, match="refuses baud, parity or stop bits"):
                await sensor.read()


async def test_a_port_that_is_not_there_is_told_with_a_cure(tmp_path: Path) -> None:
    async with sensor_at(f"rtu:{tmp_path}/none?{KEYS}") as sensor:
        with pytest.raises(SensorGone, match="cannot connect") as caught:
            await sensor.read()
    assert "dialout" in caught.value.fix
