"""The M-Bus driver at serial ports and by secondary address, against simulated meters."""

import asyncio
import errno
import os
import tty as tty_module
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from integration.mbus_rig import energy_wh, open_, two
from ports.benches.mbus import METER, STATE, Plant
from turns import SOON_S, cancelled, turned, turning

from heatpool.errors import ConfigError, SensorGone
from heatpool_agent.core.mbus import decode
from heatpool_agent.core.mbus_link import SerialPort
from heatpool_agent.sensors import mbus_serial
from heatpool_sim.devices.mbus_bus import MbusBus
from heatpool_sim.devices.mbus_meter import MbusMeter, MeterTalk
from heatpool_sim.devices.mbus_telegram import Request


@pytest.fixture
def plant() -> Any:
    return Plant()


@pytest.fixture
async def tty(plant: Any) -> AsyncIterator[str]:
    async with MbusMeter().serve_pty(plant) as path:
        yield path


# --- serial ports


async def test_a_meter_at_a_serial_port_is_read(tty: str) -> None:
    async with open_(f"serial:{tty}?baud=9600") as sensor:
        values = {r.quantity: r.value for r in await sensor.read()}
        again = await energy_wh(sensor)
    assert values == pytest.approx(
        {
            "energy_wh": 98_765_432,
            "volume_m3": 561.081,
            "delivered_heat_w": 80_000,
            "volume_flow_m3_h": 4.6,
            "hot_c": 45.12,
            "cold_c": 30.21,
        }
    )
    assert again == 98_765_432


async def test_a_serial_read_is_cancelled_at_once(tty: str, plant: Any) -> None:
    async with open_(f"serial:{tty}?baud=300") as sensor:
        await sensor.read()
        plant.faults = frozenset({"meter_offline"})
        task = asyncio.create_task(sensor.read())
        await asyncio.sleep(0.1)  # into the wait for the first byte, which lasts a second here
        await cancelled(task)
        plant.faults = frozenset()
        assert await energy_wh(sensor) == 98_765_432


async def test_silence_at_a_serial_port_is_told_within_the_standards_times(
    tty: str, plant: Any
) -> None:
    plant.faults = frozenset({"meter_offline"})
    async with open_(f"serial:{tty}?baud=2400") as sensor:
        async with turning() as turns:
            with pytest.raises(SensorGone, match="no whole answer in 3 tries") as caught:
                await sensor.read()
        # Three times 330 bits and 50 ms; the driver's own patience is 5 s.
        assert turns.passed_s < SOON_S
    assert "baud" in caught.value.fix


async def test_noise_is_asked_again_and_the_meter_repeats_itself(plant: Any) -> None:
    meter = MbusMeter()
    spoilt = [1]

    class Noisy(MeterTalk):
        def reply(self, request: Request) -> bytes:
            said = super().reply(request)
            if len(said) > 1 and spoilt:
                said = said[:-3] + bytes([spoilt.pop()]) + said[-2:]
            return said

    async with MbusBus([lambda: Noisy(meter, plant)]).serve_pty() as path:
        async with open_(f"serial:{path}") as sensor:
            assert await energy_wh(sensor) == 98_765_432
    assert decode(meter.telegram(plant)).header.access == 2  # type: ignore[union-attr]


async def test_an_echo_of_the_converter_is_no_answer(plant: Any) -> None:
    meter = MbusMeter()

    class Echoing(MeterTalk):
        def reply(self, request: Request) -> bytes:
            body = bytes((request.control, request.address)) + request.user_data
            echo = b"\x10" + body + bytes((sum(body) & 0xFF, 0x16))
            said = super().reply(request)
            return echo + said

    async with MbusBus([lambda: Echoing(meter, plant)]).serve_pty() as path:
        async with open_(f"serial:{path}") as sensor:
            assert await energy_wh(sensor) == 98_765_432


async def test_a_port_that_another_program_holds_is_told_with_a_cure(tty: str) -> None:
    held = await mbus_serial.OpenPort.of(SerialPort(path=tty))
    try:
        async with open_(f"serial:{tty}") as sensor:
            with pytest.raises(SensorGone, match="another program holds it") as caught:
                await sensor.read()
    finally:
        held.close()
    assert "fuser" in caught.value.fix


async def test_a_port_that_is_not_there_is_told_with_a_cure() -> None:
    async with open_("serial:/dev/heatpool-none") as sensor:
        with pytest.raises(SensorGone, match="is not there") as caught:
            await sensor.read()
    assert "/dev/serial/by-id" in caught.value.fix


def test_a_port_of_a_group_names_the_group_to_join(tmp_path: Any) -> None:
    refused = PermissionError(errno.EACCES, "Permission denied")
    fix = mbus_serial._refusal(str(tmp_path / "none"), refused).fix
    assert fix.startswith("sudo usermod -aG dialout ")


async def test_a_port_that_is_pulled_is_told_and_found_again(plant: Any, tmp_path: Path) -> None:
    port = tmp_path / "converter"
    plug = MbusMeter().serve_pty(plant)
    port.symlink_to(await plug.__aenter__())
    async with open_(f"serial:{port}") as sensor:
        await sensor.read()
        await plug.__aexit__(None, None, None)
        with pytest.raises(SensorGone) as caught:
            await sensor.read()
        assert "/dev/serial/by-id" in caught.value.fix
        port.unlink()
        async with MbusMeter().serve_pty(plant) as path:
            port.symlink_to(path)
            assert await energy_wh(sensor) == 98_765_432


async def test_a_port_may_be_named_in_two_ways(tty: str, tmp_path: Path) -> None:
    other = tmp_path / "by-id"
    other.symlink_to(tty)
    async with open_(f"serial:{tty}") as one, open_(f"serial:{other}", id="two") as two_:
        assert [await energy_wh(sensor) for sensor in (one, two_)] == [98_765_432] * 2


async def test_an_answer_that_comes_late_meets_no_later_request(plant: Any) -> None:
    """The meter speaks in two halves, and the reader was cancelled between them."""
    master, slave = os.openpty()
    tty_module.setraw(slave)
    try:
        async with open_(f"serial:{os.ttyname(slave)}") as sensor:
            talk = MeterTalk(MbusMeter(), plant)
            frame = talk.reply(Request(control=0x7B, address=1))
            task = asyncio.create_task(sensor.read())
            await _asked(master, 5)
            os.write(master, b"\xe5")
            await _asked(master, 5)
            os.write(master, frame[:20])
            await turned(0.1)  # the first half has to arrive
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            task = asyncio.create_task(sensor.read())
            await asyncio.sleep(0.02)  # the rest comes once the next readout has begun
            os.write(master, frame[20:])
            assert (await _asked(master, 5))[1] == 0x40
            os.write(master, b"\xe5")
            assert (await _asked(master, 5))[1] == 0x7B
            os.write(master, frame)
            assert {r.quantity: r.value for r in await task}["energy_wh"] == 98_765_432
    finally:
        os.close(master)
        os.close(slave)


async def _asked(master: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await asyncio.to_thread(os.read, master, size - len(data))
    return data


async def test_one_port_has_one_speed(tty: str) -> None:
    async with open_(f"serial:{tty}?baud=2400"):
        with pytest.raises(ConfigError, match="is used at 2400 baud"):
            async with open_(f"serial:{tty}?baud=300"):
                pass


async def test_meters_at_one_port_take_turns(tty: str) -> None:
    url = f"serial:{tty}?baud=38400"
    async with open_(url) as one, open_(url, id="other") as other:
        rows = await asyncio.gather(*(energy_wh(sensor) for sensor in [one, other] * 4))
    assert rows == [98_765_432] * 8


# --- secondary addresses


@pytest.mark.parametrize(
    "secondary",
    ["12345678", "12345678.HPS.1.4", "1234FFFF.HPS", "FFFFFFFF.*.*.4", "ffffffff"],
)
async def test_a_meter_is_found_by_what_it_is(plant: Any, secondary: str) -> None:
    async with MbusMeter(address=0).serve(plant) as where:
        async with open_(where.url, secondary=secondary) as sensor:
            rows = [await energy_wh(sensor) for _ in range(3)]
    assert rows == [98_765_432] * 3


async def test_a_selected_meter_is_let_go_after_its_readout(plant: Any) -> None:
    meter, asked = MbusMeter(), []

    class Noting(MeterTalk):
        def reply(self, request: Request) -> bytes:
            asked.append((request.control, request.address))
            return super().reply(request)

    async with MbusBus([lambda: Noting(meter, plant)]).serve() as where:
        async with open_(where.url, secondary="12345678") as sensor:
            for _ in range(2):
                await sensor.read()
    assert asked == [(0x53, 0xFD), (0x7B, 0xFD), (0x40, 0xFD)] * 2


async def test_a_meter_that_answers_to_a_number_of_another_is_refused(plant: Any) -> None:
    meter = MbusMeter()

    class Forward(MeterTalk):
        def reply(self, request: Request) -> bytes:
            if request.selection is not None:
                return b"\xe5"
            return super().reply(replace(request, address=meter.address))

    async with MbusBus([lambda: Forward(meter, plant)]).serve() as where:
        async with open_(where.url, secondary="12345679") as sensor:
            with pytest.raises(SensorGone, match="meter 12345678 answered"):
                await sensor.read()


async def test_a_meter_that_says_no_goodbye_is_read_all_the_same(plant: Any) -> None:
    meter = MbusMeter()

    class Rude(MeterTalk):
        def reply(self, request: Request) -> bytes:
            return b"" if request.is_reset else super().reply(request)

    async with MbusBus([lambda: Rude(meter, plant)]).serve_pty() as path:
        async with open_(f"serial:{path}?baud=38400", secondary="12345678") as sensor:
            assert [await energy_wh(sensor) for _ in range(2)] == [98_765_432] * 2


async def test_each_of_two_meters_at_one_address_is_found_by_its_number(plant: Any) -> None:
    other = Plant(replace(METER, number=87654321), replace(STATE, register_wh=5))
    async with two(plant, other, addresses=(0, 0)) as url:
        async with open_(url, secondary="12345678") as one:
            async with open_(url, id="two", secondary="87654321") as second:
                rows = [await energy_wh(sensor) for sensor in (one, second, one)]
    assert rows == [98_765_432, 5, 98_765_432]


async def test_two_meters_that_fit_are_told_as_such(plant: Any) -> None:
    other = Plant(replace(METER, number=12345679), replace(STATE, register_wh=5))
    async with two(plant, other) as url, open_(url, secondary="1234567F") as sensor:
        with pytest.raises(SensorGone, match="two meters answered at once") as caught:
            await sensor.read()
    assert "only one meter fits secondary address 1234567F" in caught.value.fix


async def test_two_meters_at_one_address_are_told_as_such(plant: Any) -> None:
    plant.faults = frozenset({"meter_collision"})
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        with pytest.raises(SensorGone, match="two meters answered at once") as caught:
            await sensor.read()
    assert "only one meter has address 1" in caught.value.fix


async def test_a_number_that_nobody_has_is_told(plant: Any) -> None:
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, secondary="99999999", timeout_s=0.2) as sensor:
            with pytest.raises(SensorGone, match=r"secondary address 99999999.*no whole answer"):
                await sensor.read()


@pytest.mark.parametrize(
    "wrong",
    [
        {"secondary": "1234567"},
        {"secondary": "12345678.abc"},
        {"secondary": "12345678.HPS.256"},
        {"secondary": "12345678", "address": 1},
        {"address": None},
    ],
)
async def test_a_meter_is_named_in_one_way(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="secondary"):
        async with open_("tcp://127.0.0.1:1", **wrong):
            pass
