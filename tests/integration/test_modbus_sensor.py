"""The Modbus driver against pymodbus' own server, and against peers that misbehave."""

import asyncio
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from turns import cancelled

from heatpool.errors import ConfigError, SensorBusy, SensorGone
from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.sensors import modbus

# Flow 5.123 m3/h, supply 30.21, return 45.12 degC, pump 65.5 %, valve 100 %, 87654 W, running.
UNIT = list(
    struct.unpack(
        ">12H", struct.pack(">IhhHHiHHI", 5123, 3021, 4512, 655, 1000, 87654, 9, 0xFFFF, 91000)
    )
)
Action = Callable[[int, int], Awaitable[ExcCodes | None]]


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    now_ns = 7

    def boot_ns(self) -> int:
        return self.now_ns


@asynccontextmanager
async def _serving(
    inputs: list[SimData] | None = None, *, action: Action | None = None, port: int = 0
) -> AsyncIterator[int]:
    """Another maker's server on loopback; `action` sees address and count of each request."""

    async def seen(_fc: int, _start: int, address: int, count: int, *_: Any) -> ExcCodes | None:
        return await action(address, count) if action else None

    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    holding = [SimData(0, values=[0, 0, 0, 0], datatype=DataType.REGISTERS)]
    words = inputs or [SimData(0, values=[*UNIT], datatype=DataType.REGISTERS)]
    device = SimDevice(1, simdata=(bits, [*bits], holding, words), action=seen)
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _peer(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """A TCP peer that answers each request with the bytes given; None closes the connection."""
    talks: set[asyncio.Future[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = asyncio.get_running_loop().create_future()
        talks.add(over)
        with suppress(ConnectionResetError):
            while (request := await reader.read(300)) and (reply := answer(request)) is not None:
                writer.write(reply)
                await writer.drain()
        writer.close()
        over.set_result(None)

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*talks)


def _sensor(port: int, clock: Any = None, **more: Any) -> Any:
    tree = {"id": "cdu", "kind": "modbus", "loop": "rack", "map": "generic-cdu"}
    config = msgspec.convert(tree | {"url": f"tcp://127.0.0.1:{port}"} | more, modbus.Config)
    return modbus.open(config, Roots(), clock or _Clock())


async def _values(sensor: Sensor) -> dict[str, float]:
    return {reading.quantity: reading.value for reading in await sensor.read()}


async def test_a_units_words_arrive_in_our_units() -> None:
    async with _serving() as port, _sensor(port) as sensor:
        values = await _values(sensor)
    assert values["volume_flow_m3_h"] == 5.123
    assert (values["hot_c"], values["cold_c"]) == (45.12, 30.21)
    assert (values["pump_frac"], values["valve_frac"]) == (0.655, 1.0)
    assert (values["reported_heat_w"], values["power_w"]) == (87_654.0, 91_000.0)
    assert (values["leak"], values["pump_runs"]) == (0.0, 1.0)


async def test_probing_names_the_channels_again_and_again() -> None:
    async with _serving() as port, _sensor(port) as sensor:
        first, second = await sensor.probe(), await sensor.probe()
    assert first == second
    assert "words/4/3" in first


async def test_a_whole_unit_costs_one_request() -> None:
    asked: list[tuple[int, int]] = []

    async def note(address: int, count: int) -> None:
        asked.append((address, count))

    async with _serving(action=note) as port, _sensor(port) as sensor:
        await sensor.read()
    assert asked == [(0, 12)]


async def test_a_hole_that_the_device_refuses_is_never_asked_for_again() -> None:
    asked: list[tuple[int, int]] = []

    async def note(address: int, count: int) -> None:
        asked.append((address, count))

    with_hole = [
        SimData(0, values=UNIT[:9], datatype=DataType.REGISTERS),
        SimData(10, values=UNIT[10:], datatype=DataType.REGISTERS),
    ]
    async with _serving(with_hole, action=note) as port, _sensor(port) as sensor:
        values = await _values(sensor)
        await sensor.read()
    assert values["power_w"] == 91_000.0
    assert asked == [(0, 9), (10, 2)] * 2


@pytest.mark.parametrize(
    "code", [ExcCodes.ACKNOWLEDGE, ExcCodes.DEVICE_BUSY, ExcCodes.GATEWAY_NO_RESPONSE]
)
async def test_a_device_at_work_is_busy_and_answers_later(code: ExcCodes) -> None:
    answers = [code, None]

    async def busy(_address: int, _count: int) -> ExcCodes | None:
        return answers.pop(0)

    async with _serving(action=busy) as port, _sensor(port) as sensor:
        with pytest.raises(SensorBusy, match=f"exception {code.value}"):
            await sensor.read()
        assert (await _values(sensor))["hot_c"] == 45.12


@pytest.mark.parametrize(
    "code", [ExcCodes.ILLEGAL_FUNCTION, ExcCodes.DEVICE_FAILURE, ExcCodes.GATEWAY_PATH_UNAVIABLE]
)
async def test_a_refusal_names_its_code_and_a_cure(code: ExcCodes) -> None:
    async def refuse(_address: int, _count: int) -> ExcCodes:
        return code

    async with _serving(action=refuse) as port, _sensor(port) as sensor:
        with pytest.raises(SensorGone, match=f"exception {code.value}") as caught:
            await sensor.read()
    assert "map generic-cdu" in caught.value.fix


async def test_words_that_are_not_there_are_left_out_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = [SimData(0, values=UNIT[:4], datatype=DataType.REGISTERS)]
    async with _serving(short) as port, _sensor(port) as sensor:
        values = await _values(sensor)
        await sensor.read()
        missing = sensor.missing
    assert set(values) == {"volume_flow_m3_h", "cold_c", "hot_c"}
    assert missing == ("pump_frac", "valve_frac", "reported_heat_w", "status", "power_w")
    assert [r.getMessage() for r in caplog.records] == ["modbus.points_missing"]


async def test_what_was_cut_out_stays_so_until_the_device_is_probed() -> None:
    short = [SimData(0, values=UNIT[:4], datatype=DataType.REGISTERS)]
    plugged = _serving(short)
    port = await plugged.__aenter__()
    async with _sensor(port) as sensor:
        await sensor.read()
        await plugged.__aexit__(None, None, None)
        async with _serving(port=port):
            with suppress(SensorGone):
                await sensor.read()
            before = await sensor.read()
            probed = await sensor.probe()
    assert (len(before), len(probed)) == (3, 12)
    assert sensor.missing == ()


async def test_what_was_cut_out_is_asked_for_again_after_a_while() -> None:
    is_starting, clock = True, _Clock()

    async def half(address: int, count: int) -> ExcCodes | None:
        return ExcCodes.ILLEGAL_ADDRESS if is_starting and address + count > 4 else None

    async with _serving(action=half) as port, _sensor(port, clock) as sensor:
        seen = []
        for clock.now_ns in (0, 601 * 10**9, 1200 * 10**9, 1202 * 10**9):
            seen.append((len(await sensor.read()), len(sensor.missing)))
            is_starting = clock.now_ns < 601 * 10**9
    assert seen == [(3, 5), (3, 5), (3, 5), (12, 0)]


async def test_a_device_without_any_word_of_the_map_is_gone_and_asked_in_full_again() -> None:
    elsewhere = [SimData(100, values=[1, 2], datatype=DataType.REGISTERS)]
    plugged = _serving(elsewhere)
    port = await plugged.__aenter__()
    async with _sensor(port) as sensor:
        for _ in range(2):
            with pytest.raises(SensorGone, match="refused every word with exception 2") as caught:
                await sensor.read()
        assert "address_base" in caught.value.fix
        await plugged.__aexit__(None, None, None)
        async with _serving(port=port):
            with suppress(SensorGone):
                await sensor.read()
            assert len(await _values(sensor)) == 12


async def test_a_read_is_cancelled_within_half_a_second_and_the_next_one_works() -> None:
    slow, arrived = asyncio.Event(), asyncio.Event()

    async def wait(_address: int, _count: int) -> None:
        arrived.set()
        await slow.wait()

    async with _serving(action=wait) as port, _sensor(port) as sensor:
        task = asyncio.create_task(sensor.read())
        await arrived.wait()
        await cancelled(task)
        slow.set()
        assert (await _values(sensor))["hot_c"] == 45.12


async def test_the_callers_own_timeout_is_felt_as_a_timeout() -> None:
    slow = asyncio.Event()

    async def wait(_address: int, _count: int) -> None:
        await slow.wait()

    async with _serving(action=wait) as port, _sensor(port) as sensor:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sensor.read()
        slow.set()


async def test_the_reason_is_told_before_a_caller_with_the_same_patience_gives_up() -> None:
    slow = asyncio.Event()

    async def wait(_address: int, _count: int) -> None:
        await slow.wait()

    async with _serving(action=wait) as port, _sensor(port, timeout_s=4.0) as sensor:
        with pytest.raises(SensorGone, match="no answer"):
            # A twentieth of it lies between.
            async with asyncio.timeout(4.0):
                await sensor.read()
        slow.set()


async def test_a_slow_answer_is_given_up_and_never_taken_for_the_next() -> None:
    slow = asyncio.Event()

    async def wait(_address: int, _count: int) -> None:
        await slow.wait()

    async with _serving(action=wait) as port, _sensor(port, timeout_s=3.0) as sensor:
        with pytest.raises(SensorGone, match=r"no answer in 3 s"):
            await sensor.read()
        slow.set()
        assert (await _values(sensor))["hot_c"] == 45.12


async def test_a_pulled_plug_is_told_and_the_device_found_again() -> None:
    plugged = _serving()
    port = await plugged.__aenter__()
    async with _sensor(port) as sensor:
        await sensor.read()
        await plugged.__aexit__(None, None, None)
        with pytest.raises(SensorGone):
            await sensor.read()
        async with _serving(port=port):
            assert (await _values(sensor))["hot_c"] == 45.12


async def test_nobody_there_is_told_with_a_cure() -> None:
    async with _serving() as port:
        pass
    async with _sensor(port) as sensor:
        with pytest.raises(SensorGone, match="cannot connect") as caught:
            await sensor.read()
    assert f"port {port}" in caught.value.fix


def _reply(request: bytes, pdu: bytes) -> bytes:
    """A Modbus TCP answer with the request's transaction id and unit."""
    return request[:4] + (len(pdu) + 1).to_bytes(2, "big") + request[6:7] + pdu


GOOD = b"\x04\x18" + struct.pack(">12H", *UNIT)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(lambda r: None, "connection lost", id="hangs up"),
        pytest.param(lambda r: b"HTTP/1.1 400 Bad Request\r\n\r\n", "no answer", id="speaks HTTP"),
        pytest.param(lambda r: _reply(r, GOOD[:8]), "connection lost", id="cut short"),
        pytest.param(lambda r: _reply(r, b"\x04\x06" + bytes(6)), "3 words", id="too few words"),
        pytest.param(lambda r: _reply(r, GOOD)[:20], "no answer", id="unfinished"),
        pytest.param(lambda r: _reply(r, b"\x03" + GOOD[1:]), "of function 3", id="other function"),
        pytest.param(lambda r: b"\xff\xfe" + _reply(r, GOOD)[2:], "no answer", id="other tid"),
        pytest.param(lambda r: _reply(r[:6] + b"\x07", GOOD), "no answer", id="other unit"),
    ],
)
async def test_an_answer_that_is_none_is_refused(
    answer: Callable[[bytes], bytes | None], reason: str
) -> None:
    async with _peer(answer) as port, _sensor(port, timeout_s=1.0) as sensor:
        with pytest.raises(SensorGone, match=reason):
            await sensor.read()


async def test_after_garbage_the_next_good_answer_counts() -> None:
    pdus = [GOOD[:8], GOOD]
    async with _peer(lambda r: _reply(r, pdus.pop(0))) as port, _sensor(port) as sensor:
        with pytest.raises(SensorGone):
            await sensor.read()
        assert (await _values(sensor))["hot_c"] == 45.12


async def test_two_sensors_on_one_device_do_not_meet() -> None:
    async with _serving() as port, _sensor(port) as one, _sensor(port, id="again") as two:
        rows = await asyncio.gather(*(sensor.read() for sensor in [one, two] * 5))
    assert [len(row) for row in rows] == [12] * 10


async def test_closing_twice_is_closing() -> None:
    async with _serving() as port, _sensor(port) as sensor:
        await sensor.read()
        await sensor.close()
        await sensor.close()


async def test_a_map_of_ones_own_is_read_from_its_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'name = "mine"\n[[point]]\nquantity = "temperature"\npipe = "hot"\nfunction = 4\n'
        'address = 3\ntype = "int16"\nscale = 0.01\nunit = "degC"\n'
    )
    async with _serving() as port, _sensor(port, map=str(mine)) as sensor:
        readings = await sensor.read()
    assert [(r.quantity, r.value, r.flags) for r in readings] == [
        ("hot_c", 45.12, ("map_unverified",))
    ]


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        ("", ["name: is missing", "point: is missing"]),
        (
            'name = "x"\npoimt = 1\n[[point]]\nquantity = "a"\nfunction = 5\naddress = 0\n'
            'type = "int8"',
            ["poimt: is unknown", r"point\[0\].function", r"point\[0\].type"],
        ),
        (
            'name = "x"\n[[point]]\nquantity = "a"\nfunction = 4\naddress = 0\ntype = "int32"\n'
            '[[point]]\nquantity = "a"\nfunction = 4\naddress = 1\ntype = "int16"',
            ["overlap", "a is there twice"],
        ),
    ],
)
async def test_a_wrong_map_tells_all_its_mistakes(
    tmp_path: Path, text: str, mistakes: list[str]
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text)
    with pytest.raises(ConfigError) as caught:
        async with _sensor(1, map=str(wrong)):
            pass
    told = "\n".join(caught.value.mistakes)
    assert len(caught.value.mistakes) == len(mistakes)
    assert [text for text in mistakes if not re.search(text, told)] == []


async def test_a_map_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        async with _sensor(1, map="no-such-unit"):
            pass
