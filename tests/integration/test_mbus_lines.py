"""The M-Bus driver at serial ports and by secondary address, against simulated meters."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.benches.mbus import METER, STATE, Plant

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.core.mbus import decode, heat_view
from heatpool_agent.core.mbus_link import SerialPort
from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.sensors import mbus, mbus_serial
from heatpool_sim.devices.mbus_bus import MbusBus
from heatpool_sim.devices.mbus_meter import MbusMeter, MeterTalk
from heatpool_sim.devices.mbus_telegram import Request

DAY_NS = 86_400 * 10**9


class _Clock:
    def __init__(self) -> None:
        self.now_ns = 7

    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return self.now_ns


def open_(url: str, **more: Any) -> Any:
    roots, clock = more.pop("roots", Roots()), more.pop("clock", _Clock())
    tree = {"id": "meter", "kind": "mbus", "url": url} | more
    if "secondary" not in tree:
        tree.setdefault("address", 1)
    return mbus.open(msgspec.convert(tree, mbus.Config), roots, clock)


async def energy_wh(sensor: Sensor) -> float:
    return {reading.quantity: reading.value for reading in await sensor.read()}["energy_wh"]


@pytest.fixture
def plant() -> Any:
    return Plant()


@pytest.fixture
async def tty(plant: Any) -> AsyncIterator[str]:
    async with MbusMeter().serve_pty(plant) as path:
        yield path


@asynccontextmanager
async def two(
    first: Any, second: Any, *, addresses: tuple[int, int] = (1, 2)
) -> AsyncIterator[Any]:
    """Two meters on one bus: its TCP url."""
    meters = [MbusMeter(address=address) for address in addresses]
    pairs = zip(meters, (first, second), strict=True)
    bus = MbusBus([lambda m=m, p=p: MeterTalk(m, p) for m, p in pairs])  # type: ignore[misc]
    async with bus.serve() as where:
        yield where.url


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


async def test_a_serial_read_is_cancelled_within_half_a_second(tty: str, plant: Any) -> None:
    async with open_(f"serial:{tty}?baud=300") as sensor:
        await sensor.read()
        plant.faults = frozenset({"meter_offline"})
        task = asyncio.create_task(sensor.read())
        await asyncio.sleep(0.1)  # into the wait for the first byte, which lasts a second here
        begun = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - begun < 0.5
        plant.faults = frozenset()
        assert await energy_wh(sensor) == 98_765_432


async def test_silence_at_a_serial_port_is_told_within_the_standards_times(
    tty: str, plant: Any
) -> None:
    plant.faults = frozenset({"meter_offline"})
    async with open_(f"serial:{tty}?baud=2400") as sensor:
        begun = asyncio.get_running_loop().time()
        with pytest.raises(SensorGone, match="no whole answer in 3 tries") as caught:
            await sensor.read()
        assert asyncio.get_running_loop().time() - begun < 1.5
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


# --- what meters say


async def test_an_old_meter_of_two_counters_is_read(plant: Any) -> None:
    async with MbusMeter(is_fixed=True).serve(plant) as where, open_(where.url) as sensor:
        values = {r.quantity: r.value for r in await sensor.read()}
    assert values == {"energy_wh": 98_765_432, "volume_m3": pytest.approx(561.081)}


async def test_a_broken_temperature_sensor_is_no_reading(plant: Any) -> None:
    plant.faults = frozenset({"meter_sensor_broken"})
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        found = {r.quantity for r in await sensor.read()}
    assert found == {"energy_wh", "volume_m3", "delivered_heat_w", "volume_flow_m3_h"}


async def test_a_frozen_meter_says_so_in_its_status(plant: Any) -> None:
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        plant.faults = frozenset({"meter_frozen"})
        await sensor.read()
        plant.state = replace(STATE, register_wh=STATE.register_wh + 1000)
        energy, *_ = await sensor.read()
    assert energy.value == STATE.register_wh
    assert set(energy.flags) >= {"permanent_error", "temporary_error"}


async def test_a_meter_that_allows_no_more_readouts_is_left_alone_for_a_day(plant: Any) -> None:
    clock = _Clock()
    async with MbusMeter().serve(plant) as where, open_(where.url, clock=clock) as sensor:
        plant.faults = frozenset({"meter_too_many_readouts"})
        with pytest.raises(SensorBusy, match="too many readouts") as caught:
            await sensor.read()
        plant.faults = frozenset()
        clock.now_ns += DAY_NS // 2
        with pytest.raises(SensorBusy) as again:
            await sensor.read()
        clock.now_ns += DAY_NS // 2
        assert await energy_wh(sensor) == 98_765_432
    assert (caught.value.wait_s, again.value.wait_s) == (86_400, 43_200)


@pytest.mark.parametrize(
    ("expected", "is_marked"),
    [("HPS.12345678.1.4", False), ("12345678", False), ("HPS.12345679.1.4", True), ("", False)],
)
async def test_another_meter_than_expected_is_marked(
    plant: Any, expected: str, *, is_marked: bool
) -> None:
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, meter_id=expected) as sensor:
            readings = await sensor.read()
    assert {"other_meter" in r.flags for r in readings} == {is_marked}
    assert {r.meter_id for r in readings} == {"HPS.12345678.1.4"}


async def test_an_exchanged_meter_shows_its_own_number(plant: Any) -> None:
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        before, *_ = await sensor.read()
        plant.plate = replace(METER, number=23456789)
        after, *_ = await sensor.read()
    assert (before.meter_id, after.meter_id) == ("HPS.12345678.1.4", "HPS.23456789.1.4")


async def test_a_register_that_rolls_over_keeps_its_modulus(plant: Any) -> None:
    plant.state = replace(STATE, register_wh=10**8 - 1)
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        before, *_ = await sensor.read()
        plant.state = replace(STATE, register_wh=3)
        after, *_ = await sensor.read()
    assert (before.raw, after.raw, after.modulus) == (10**8 - 1, 3, 10**8)


async def test_a_bus_that_others_keep_is_busy_and_not_broken(plant: Any) -> None:
    plant.faults = frozenset({"meter_offline"})
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url) as one, open_(where.url, id="two", timeout_s=0.1) as other:
            first = asyncio.create_task(one.read())
            await asyncio.sleep(0)
            with pytest.raises(SensorBusy, match="other meters kept the bus"):
                await other.read()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first


# --- tape


class _Tape:
    """Keeps what passes; then plays it."""

    def __init__(self) -> None:
        self.is_playing = False
        self.kept: dict[str, list[bytes | Exception]] = {}

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.is_playing:
            answer = self.kept[request].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        try:
            found = await ask()
        except (OSError, TimeoutError) as error:
            self.kept.setdefault(request, []).append(error)
            raise
        self.kept.setdefault(request, []).append(hide(found) if hide else found)
        return found

    def look(self, request: str, see: Any, *, hide: Any = None) -> bytes:
        raise AssertionError("a bus is asked, not looked at")


@pytest.mark.parametrize("name", [{"address": 1}, {"secondary": "12345678"}], ids=str)
async def test_a_recording_plays_without_a_line_and_without_numbers(
    plant: Any, name: dict[str, Any]
) -> None:
    tape: Any = _Tape()
    roots = Roots(tape=tape)
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, roots=roots, meter_id="12345678", **name) as sensor:
            told = [await sensor.read() for _ in range(2)]
    assert "12345678" not in "".join(tape.kept)
    frames = [a for row in tape.kept.values() for a in row if len(a) > 1]
    assert len(frames) == 2
    assert all(bytes.fromhex("78563412") not in frame for frame in frames)
    assert len({heat_view(decode(frame)).meter_id for frame in frames}) == 1

    tape.is_playing = True
    async with open_("tcp://127.0.0.1:1", roots=roots, meter_id="12345678", **name) as sensor:
        played = [await sensor.read() for _ in range(2)]
    assert [[(r.quantity, r.value, r.flags) for r in row] for row in played] == [
        [(r.quantity, r.value, r.flags) for r in row] for row in told
    ]
    assert tape.kept.keys() and not any(tape.kept.values())


async def test_silence_is_recorded_as_silence(plant: Any) -> None:
    tape: Any = _Tape()
    plant.faults = frozenset({"meter_offline"})
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, roots=Roots(tape=tape), timeout_s=0.05) as sensor:
            with pytest.raises(SensorGone):
                await sensor.read()
    tape.is_playing = True
    async with open_("tcp://127.0.0.1:1", roots=Roots(tape=tape)) as sensor:
        with pytest.raises(SensorGone, match="no whole answer"):
            await sensor.read()
