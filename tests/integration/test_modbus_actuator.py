"""The actuator against pymodbus' own server: one block, read back, watchdog fed, release."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from turns import cancelled

from heatpool.errors import ActuatorError, ConfigError
from heatpool_agent.actuators import driver, dry_run, modbus
from heatpool_agent.ports import Command, Live, Roots

NS = 1_000_000_000
RELEASED = [0, 0, 0, 0]
Action = Callable[[list[int], list[int] | None], Awaitable[ExcCodes | None]]


class _Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def event_ns(self) -> int:
        return 1_750_000_000 * NS + self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns


class _Unit:
    """Another maker's server with the setpoint block; notes what was written and what it holds."""

    def __init__(self, action: Action | None = None) -> None:
        self.action = action
        self.writes: list[list[int]] = []
        self.words: list[int] = []
        self.port = 0

    async def seen(
        self, function: int, _start: int, _address: int, _count: int, words: list[int], new: Any
    ) -> ExcCodes | None:
        self.words = words
        if self.action and (code := await self.action(words, new)):
            return code
        if new:
            self.writes.append([function, *new])
        return None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["_Unit"]:
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        words = [SimData(0, values=[0, 9, 0, 0], datatype=DataType.REGISTERS)]
        device = SimDevice(1, simdata=(bits, [*bits], words, [*words]), action=self.seen)
        server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await server.serve_forever(background=True)
        self.port = server.transport.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        try:
            yield self
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]


def _actuator(port: int, clock: _Clock | None = None, **more: Any) -> Any:
    tree = {"id": "valve", "kind": "modbus", "map": "generic-cdu", "armed": True}
    config = msgspec.convert(tree | {"url": f"tcp://127.0.0.1:{port}"} | more, modbus.Config)
    return modbus.open(config, Roots(), clock or _Clock())


def _deliver(heat_rate_w: float) -> Command:
    return Command.deliver(heat_rate_w, "plan")


async def test_the_block_is_written_in_one_request_and_confirmed() -> None:
    async with _Unit().serving() as unit, _actuator(unit.port) as actuator:
        assert await actuator.apply(_deliver(70_000.9)) == 70_000
    assert unit.writes == [[16, 1, 4464, 30, 1]]
    assert unit.words[:4] == [1, 4464, 30, 1]


async def test_what_an_actuator_says_and_hears_goes_over_the_tape() -> None:
    kept: list[tuple[str, bytes]] = []

    class _Tape(Live):
        async def exchange(self, request: str, ask: Any, *, hide: Any = None) -> bytes:
            kept.append((request, await ask()))
            return kept[-1][1]

    async with _Unit().serving() as unit:
        tree = {"id": "valve", "kind": "modbus", "map": "generic-cdu", "armed": True}
        config = msgspec.convert(tree | {"url": f"tcp://127.0.0.1:{unit.port}"}, modbus.Config)
        async with modbus.open(config, Roots(tape=_Tape()), _Clock()) as actuator:
            await actuator.apply(_deliver(70_000))
    assert kept == [
        ("unit 1 fn 16 at 0 words 0001 1170 001e 0001", b""),
        ("unit 1 fn 3 at 0 count 4", bytes.fromhex("0001 1170 001e 0001")),
    ]


async def test_the_same_wish_is_not_written_twice() -> None:
    async with _Unit().serving() as unit, _actuator(unit.port) as actuator:
        told = [await actuator.apply(_deliver(500)) for _ in range(5)]
    assert told == [500] * 5
    assert len(unit.writes) == 1


@pytest.mark.parametrize(("waited_s", "writes"), [(9.9, 1), (10.0, 2), (29.0, 2)])
async def test_the_watchdog_is_fed_when_a_third_of_it_has_passed(
    waited_s: float, writes: int
) -> None:
    clock = _Clock()
    async with _Unit().serving() as unit, _actuator(unit.port, clock) as actuator:
        await actuator.apply(_deliver(500))
        clock.now_ns += int(waited_s * NS)
        await actuator.apply(_deliver(500))
    assert len(unit.writes) == writes


async def test_a_release_is_local_mode_without_a_setpoint() -> None:
    async with _Unit().serving() as unit, _actuator(unit.port) as actuator:
        await actuator.apply(_deliver(500))
        assert await actuator.apply(Command.release("no lease")) == 0.0
    assert unit.words[:4] == RELEASED


async def test_a_release_is_written_even_if_nothing_was_ever_applied_and_only_once() -> None:
    async with _Unit().serving() as unit, _actuator(unit.port) as actuator:
        await actuator.release()
        await actuator.release()
    assert unit.writes == [[16, *RELEASED]]


async def test_an_unarmed_actuator_writes_nothing() -> None:
    async with _Unit().serving() as unit, _actuator(unit.port, armed=False) as actuator:
        assert await actuator.apply(_deliver(500)) == 500
        await actuator.release()
    assert unit.writes == []


async def test_a_device_that_keeps_another_setpoint_is_an_error() -> None:
    async def halve(_words: list[int], new: list[int] | None) -> None:
        if new:
            new[1] //= 2

    async with _Unit(halve).serving() as unit, _actuator(unit.port) as actuator:
        with pytest.raises(ActuatorError, match="read back"):
            await actuator.apply(_deliver(500))


@pytest.mark.parametrize("cell", [2, 3])
async def test_a_device_without_watchdog_or_in_another_mode_is_an_error(cell: int) -> None:
    async def ignore(_words: list[int], new: list[int] | None) -> None:
        if new:
            new[cell] = 0

    async with _Unit(ignore).serving() as unit, _actuator(unit.port) as actuator:
        with pytest.raises(ActuatorError, match="read back"):
            await actuator.apply(_deliver(500))


async def test_a_watchdog_seen_running_down_is_confirmed() -> None:
    async def tick(words: list[int], new: list[int] | None) -> None:
        if not new:
            words[2] -= 1

    async with _Unit(tick).serving() as unit, _actuator(unit.port) as actuator:
        assert await actuator.apply(_deliver(500)) == 500


async def test_what_failed_is_written_again() -> None:
    codes: list[ExcCodes | None] = [ExcCodes.DEVICE_BUSY, None, None]

    async def busy_once(_words: list[int], _new: list[int] | None) -> ExcCodes | None:
        return codes.pop(0)

    async with _Unit(busy_once).serving() as unit, _actuator(unit.port) as actuator:
        with pytest.raises(ActuatorError, match="exception 6"):
            await actuator.apply(_deliver(500))
        assert await actuator.apply(_deliver(500)) == 500


async def test_a_device_that_does_not_answer_is_an_error_in_time() -> None:
    slow = asyncio.Event()

    async def wait(_words: list[int], _new: list[int] | None) -> None:
        await slow.wait()

    async with _Unit(wait).serving() as unit, _actuator(unit.port, timeout_s=0.1) as actuator:
        with pytest.raises(ActuatorError, match=r"not confirmed in 0\.1 s"):
            await actuator.apply(_deliver(500))
        slow.set()


async def test_a_cancelled_write_counts_as_unknown_and_the_release_goes_out() -> None:
    slow, arrived = asyncio.Event(), asyncio.Event()

    async def wait(_words: list[int], _new: list[int] | None) -> None:
        arrived.set()
        await slow.wait()

    async with _Unit(wait).serving() as unit, _actuator(unit.port) as actuator:
        slow.set()
        await actuator.release()
        slow.clear()
        arrived.clear()
        task = asyncio.create_task(actuator.apply(_deliver(500)))
        await arrived.wait()
        await cancelled(task)
        slow.set()
        await actuator.release()
    assert unit.writes[-1] == [16, *RELEASED]
    assert unit.words[:4] == RELEASED


async def test_a_device_that_was_away_is_told_again_when_it_returns() -> None:
    clock, unit = _Clock(), _Unit()
    async with _actuator(await _port_of(unit), clock, timeout_s=30.0) as actuator:
        async with unit.serving():
            await actuator.apply(_deliver(500))
        clock.now_ns += 15 * NS
        with pytest.raises(ActuatorError, match=r"connection lost|cannot connect"):
            await actuator.apply(_deliver(500))
        async with unit.serving():
            assert await actuator.apply(_deliver(500)) == 500
    assert len(unit.writes) == 2


async def _port_of(unit: _Unit) -> int:
    async with unit.serving():
        return unit.port


async def test_nobody_there_is_an_error_with_a_cure() -> None:
    port = await _port_of(_Unit())
    async with _actuator(port) as actuator:
        with pytest.raises(ActuatorError, match="cannot connect; check"):
            await actuator.release()


@pytest.mark.parametrize("heat_rate_w", [-1.0, float("nan"), float("inf"), 2.0**32])
async def test_a_heat_rate_that_no_device_can_take_is_never_written(heat_rate_w: float) -> None:
    async with _Unit().serving() as unit, _actuator(unit.port) as actuator:
        with pytest.raises(ActuatorError):
            await actuator.apply(_deliver(heat_rate_w))
    assert unit.writes == []


async def test_a_map_without_a_setpoint_block_cannot_be_obeyed(tmp_path: Any) -> None:
    plain = tmp_path / "plain.toml"
    plain.write_text(
        'name = "x"\n[[point]]\nquantity = "a"\nfunction = 4\naddress = 0\ntype = "int16"\n'
    )
    with pytest.raises(ConfigError, match="setpoint: is missing"):
        async with _actuator(1, map=str(plain)):
            pass


@pytest.mark.parametrize(("kind", "module"), [("modbus", modbus), ("dry_run", dry_run)])
def test_a_driver_is_found_by_its_kind(kind: str, module: object) -> None:
    assert driver(kind) is module


def test_an_unknown_kind_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'tea' is unknown; known: dry_run, modbus"):
        driver("tea")


async def test_a_dry_run_logs_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = dry_run.Config(id="valve", kind="dry_run")
    async with dry_run.open(config, Roots(), _Clock()) as actuator:
        told = [await actuator.apply(_deliver(500)) for _ in range(3)]
        await actuator.release()
        await actuator.release()
    assert told == [500.0] * 3
    assert [record.getMessage() for record in caplog.records] == ["actuator.dry_run"] * 2
