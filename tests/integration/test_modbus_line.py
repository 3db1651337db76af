"""Lines that several share: one connection, one request at a time, serial frames, turns."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.actuators import modbus as actuator_modbus
from heatpool_agent.fieldbus import line
from heatpool_agent.ports import Command, Roots, Sensor
from heatpool_agent.sensors import modbus
from heatpool_sim.devices.modbus_cdu import ModbusCdu
from heatpool_sim.devices.pty_pair import cable

# A pseudo terminal has no parity.
KEYS = "baud=19200&parity=none&stop=2"
Seen = Callable[[int, int, int], Awaitable[ExcCodes | None]]


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


@dataclass
class _Twin:
    """A plant that stands still, so that every figure is known."""

    faults: frozenset[str] = frozenset()
    written: list[list[int]] = field(default_factory=list)

    def gauges(self) -> Any:
        return SimpleNamespace(
            volume_flow_m3_h=5.123,
            hot_c=45.12,
            cold_c=30.21,
            pump_frac=0.655,
            valve_frac=1.0,
            reported_heat_w=87_654.0,
            rack_electric_w=91_000.0,
            has_leak=False,
            is_remote=True,
            is_expired=False,
        )

    def meter(self) -> Any:
        raise NotImplementedError

    def adjust(self, name: Any, value: float | None) -> bool:
        return False

    def cells(self) -> tuple[int, int, int, int]:
        a, b, c, d = self.written[-1] if self.written else [0, 0, 0, 0]
        return a, b, c, d

    def write(self, values: list[int], *, at: int) -> bool:
        self.written.append(values)
        return True


def _unit(unit_id: int, seen: Seen | None = None, *, hot: int = 4512) -> SimDevice:
    """A unit of another maker's making; `seen` is told unit, address and count of each request."""

    async def action(_fc: int, _start: int, address: int, count: int, *_: Any) -> ExcCodes | None:
        return await seen(unit_id, address, count) if seen else None

    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    holding = [SimData(0, values=[0, 0, 0, 0], datatype=DataType.REGISTERS)]
    words = [0, 5123, 3021, hot, 655, 1000, 1, 22118, 9, 0xFFFF, 1, 25464]
    inputs = [SimData(0, values=words, datatype=DataType.REGISTERS)]
    return SimDevice(unit_id, simdata=(bits, [*bits], holding, inputs), action=action)


@asynccontextmanager
async def _tcp(units: list[SimDevice], connects: list[bool] | None = None) -> AsyncIterator[str]:
    heard = connects.append if connects is not None else None
    server = ModbusTcpServer(
        units, address=("127.0.0.1", 0), ignore_missing_devices=True, trace_connect=heard
    )
    await server.serve_forever(background=True)
    try:
        port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        yield f"tcp://127.0.0.1:{port}"
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _serial(
    units: list[SimDevice], *, heard: Callable[[bytes], bytes] = bytes, keys: str = KEYS
) -> AsyncIterator[str]:
    """The units on one serial line; `heard` says what of their answers arrives."""
    with cable(heard=heard) as ends:
        server = ModbusSerialServer(
            units, port=ends.far, baudrate=19_200, stopbits=2, ignore_missing_devices=True
        )
        assert await server.listen()
        try:
            yield f"rtu:{ends.near}?{keys}"
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]


def _sensor(url: str, **more: Any) -> Any:
    tree = {"id": "cdu", "kind": "modbus", "map": "generic-cdu", "url": url} | more
    return modbus.open(msgspec.convert(tree, modbus.Config), Roots(), _Clock())


def _actuator(url: str, **more: Any) -> Any:
    tree = {"id": "a", "kind": "modbus", "map": "generic-cdu", "url": url, "armed": True} | more
    config = msgspec.convert(tree, actuator_modbus.Config)
    return actuator_modbus.open(config, Roots(), _Clock())


def _narrow(folder: Path, *, pause_ms: int = 0) -> str:
    """A map that needs three requests."""
    points = "".join(
        f'[[point]]\nquantity = "q{at}"\nfunction = 4\naddress = {at}\ntype = "uint16"\n'
        for at in (0, 4, 8)
    )
    path = folder / "narrow.toml"
    head = f'name = "narrow"\nholes = "forbidden"\npause_ms = {pause_ms}\n'
    path.write_text(head + points, encoding="utf-8")
    return str(path)


async def _values(sensor: Sensor) -> dict[str, float]:
    return {reading.quantity: reading.value for reading in await sensor.read()}


async def test_a_unit_on_a_serial_line_is_read_and_obeys() -> None:
    twin = _Twin()
    async with ModbusCdu().serve_pty(twin) as url, _sensor(url) as sensor, _actuator(url) as valve:
        values = await _values(sensor)
        confirmed_w = await valve.apply(Command.deliver(70_000, "plan"))
    assert (values["hot_c"], values["volume_flow_m3_h"], values["power_w"]) == (45.12, 5.123, 91e3)
    assert confirmed_w == 70_000
    assert twin.written == [[1, 4464, 30, 1]]


async def test_serial_frames_come_through_a_plain_tcp_gateway() -> None:
    cdu = ModbusCdu(is_rtu=True)
    async with cdu.serve(_Twin()) as address, _sensor(f"rtu+{address.url}") as sensor:
        assert (await _values(sensor))["hot_c"] == 45.12


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
        async with _sensor(url):
            pass


@pytest.mark.parametrize("url", [f"rtu:/dev/ttyUSB0?{KEYS}", "rtu+tcp://h:502"])
async def test_nobody_answers_for_everybody_on_a_serial_line(url: str) -> None:
    with pytest.raises(ConfigError, match="unit_id: is 0"):
        async with _sensor(url, unit_id=0):
            pass


@pytest.mark.parametrize("url", ["udp://h:1", "rtu:ttyUSB0", "rtu:/dev/x?BAUD=1", "tcp://h"])
def test_what_is_no_url_is_refused_with_the_settings(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        _sensor(url)


async def test_units_on_one_serial_line_never_talk_at_once() -> None:
    asked: list[int] = []

    async def note(unit_id: int, _address: int, _count: int) -> None:
        asked.append(unit_id)

    units = [_unit(1, note, hot=4000), _unit(2, note, hot=5000), _unit(3, note, hot=6000)]
    async with _serial(units) as url, AsyncExitStack() as stack:
        sensors = [
            await stack.enter_async_context(_sensor(url, unit_id=unit_id)) for unit_id in (1, 2, 3)
        ]
        rows = await asyncio.gather(*(_values(sensor) for sensor in sensors * 3))
    assert [row["hot_c"] for row in rows] == [40.0, 50.0, 60.0] * 3
    assert sorted(asked) == [1] * 3 + [2] * 3 + [3] * 3


async def test_another_name_of_a_port_is_the_same_line(tmp_path: Path) -> None:
    async with _serial([_unit(1)]) as url:
        path, _, keys = url.removeprefix("rtu:").partition("?")
        (tmp_path / "meter").symlink_to(path)
        async with _sensor(url) as one, _sensor(f"rtu:{tmp_path / 'meter'}?{keys}") as two:
            assert await _values(one) == await _values(two)


async def test_two_blocks_that_open_a_port_differently_are_a_mistake() -> None:
    other = KEYS.replace("stop=2", "stop=1")
    async with _serial([_unit(1)]) as url, _sensor(url):
        with pytest.raises(ConfigError, match=r"opens .* differently"):
            async with _sensor(url.replace(KEYS, other)):
                pass
    async with _serial([_unit(1)]) as url, _sensor(url.replace(KEYS, other)):
        pass


async def test_a_serial_line_rests_for_three_and_a_half_characters() -> None:
    loop, times_s = asyncio.get_running_loop(), list[float]()

    async def note(_unit_id: int, _address: int, _count: int) -> None:
        times_s.append(loop.time())

    slow = "baud=300&parity=none&stop=2"
    async with (
        _serial([_unit(1, note)], keys=slow) as url,
        _sensor(url) as one,
        _sensor(url) as two,
    ):
        await asyncio.gather(one.read(), two.read())
    assert times_s[1] - times_s[0] > 3.5 * 11 / 300


async def test_a_frame_with_a_wrong_checksum_is_refused_and_the_next_one_counts() -> None:
    is_bad = True

    def heard(data: bytes) -> bytes:
        return data[:-1] + bytes((data[-1] ^ 0x55,)) if is_bad else data

    async with _serial([_unit(1)], heard=heard) as url, _sensor(url, timeout_s=0.3) as sensor:
        with pytest.raises(SensorGone, match=r"no answer in 0\.3 s"):
            await sensor.read()
        is_bad = False
        assert (await _values(sensor))["hot_c"] == 45.12


async def test_a_late_answer_on_a_serial_line_is_thrown_away() -> None:
    answer_now, asked = asyncio.Event(), 0

    async def slow_once(_unit_id: int, _address: int, _count: int) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await answer_now.wait()
            await asyncio.sleep(0.03)

    units = [_unit(1, slow_once, hot=4000), _unit(2, hot=5000)]
    async with (
        _serial(units) as url,
        _sensor(url, timeout_s=0.1) as slow,
        _sensor(url, unit_id=2) as other,
    ):
        with pytest.raises(SensorGone, match=r"no answer in 0\.1 s"):
            await slow.read()
        answer_now.set()
        assert (await _values(other))["hot_c"] == 50.0
        assert (await _values(slow))["hot_c"] == 40.0


async def test_the_answer_of_another_unit_on_the_line_is_refused() -> None:
    def heard(data: bytes) -> bytes:
        return bytes((7,)) + data[1:]

    async with _serial([_unit(1)], heard=heard) as url, _sensor(url, timeout_s=0.3) as sensor:
        with pytest.raises(SensorGone):
            await sensor.read()


async def test_a_port_that_cannot_do_what_the_url_asks_is_told() -> None:
    async with _serial([_unit(1)], keys="baud=9600&parity=even&stop=1") as url:
        async with _sensor(url) as sensor:
            with pytest.raises(SensorGone, match="refuses baud, parity or stop bits"):
                await sensor.read()


async def test_a_port_that_is_not_there_is_told_with_a_cure(tmp_path: Path) -> None:
    async with _sensor(f"rtu:{tmp_path}/none?{KEYS}") as sensor:
        with pytest.raises(SensorGone, match="cannot connect") as caught:
            await sensor.read()
    assert "dialout" in caught.value.fix


async def test_everybody_on_an_endpoint_shares_one_connection_and_the_last_one_closes_it() -> None:
    connects: list[bool] = []
    async with _tcp([_unit(1), _unit(2)], connects) as url:
        async with _sensor(url) as one, _sensor(url, unit_id=2) as two:
            async with _actuator(url) as valve:
                await asyncio.gather(one.read(), two.read(), valve.release())
            await one.close()
            await one.close()
            assert (await _values(two))["hot_c"] == 45.12
        async with asyncio.timeout(2):
            while connects != [True, False]:  # noqa: ASYNC110 the server hears of it later
                await asyncio.sleep(0.01)
        assert not line._lines


async def test_a_late_answer_finds_its_connection_closed() -> None:
    connects: list[bool] = []
    late = asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        await late.wait()

    async with (
        _tcp([_unit(1, wait)], connects) as url,
        _sensor(url, timeout_s=0.1) as sensor,
    ):
        with pytest.raises(SensorGone, match="no answer"):
            await sensor.read()
        late.set()
        assert (await _values(sensor))["hot_c"] == 45.12
        assert connects.count(True) == 2


async def test_an_actuator_waits_for_one_request_and_not_for_a_whole_pass(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    begun = asyncio.Event()

    async def slow(_unit_id: int, address: int, count: int) -> None:
        asked.append((address, count))
        begun.set()
        await asyncio.sleep(0.05)

    async with (
        _tcp([_unit(1, slow)]) as url,
        _sensor(url, map=_narrow(tmp_path)) as sensor,
        _actuator(url) as valve,
    ):
        task = asyncio.create_task(sensor.read())
        await begun.wait()
        await valve.release()
        assert len(await task) == 3
    assert asked == [(0, 1), (0, 4), (0, 4), (4, 1), (8, 1)]


async def test_an_actuator_is_not_kept_by_a_unit_that_says_nothing() -> None:
    loop, silent, arrived = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        arrived.set()
        await silent.wait()

    async with (
        _tcp([_unit(1), _unit(2, wait)]) as url,
        _sensor(url, unit_id=2, timeout_s=30.0) as dead,
        _sensor(url, unit_id=2, timeout_s=30.0) as dead_too,
        _actuator(url) as valve,
    ):
        tasks = [asyncio.create_task(sensor.read()) for sensor in (dead, dead_too)]
        await arrived.wait()
        begun_s = loop.time()
        await valve.release()
        assert loop.time() - begun_s < line.GIVE_WAY_S + 0.5
        with pytest.raises(SensorBusy, match="gave way"):
            await tasks[0]
        silent.set()
        await tasks[1]


async def test_a_sensor_that_never_gets_its_turn_is_busy_and_closes_nothing() -> None:
    silent, arrived = asyncio.Event(), asyncio.Event()

    async def wait(_unit_id: int, _address: int, _count: int) -> None:
        arrived.set()
        await silent.wait()

    async with (
        _tcp([_unit(1), _unit(2, wait)]) as url,
        _sensor(url, unit_id=2) as slow,
        _sensor(url, timeout_s=0.1) as quick,
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

    own = _narrow(tmp_path, pause_ms=40)
    async with _tcp([_unit(1, note)]) as url, _sensor(url, map=own) as sensor:
        await sensor.read()
    assert all(later - sooner >= 0.04 for sooner, later in pairwise(times_s))
