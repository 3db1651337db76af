"""Units on lines for the Modbus tests: another maker's servers, on loopback and on ptys."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from heatpool_agent.actuators import modbus as actuator_modbus
from heatpool_agent.ports import Roots, Sensor
from heatpool_agent.sensors import modbus
from heatpool_sim.devices.pty_pair import cable

# A pseudo terminal has no parity.
KEYS = "baud=19200&parity=none&stop=2"
Seen = Callable[[int, int, int], Awaitable[ExcCodes | None]]


class Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


@dataclass
class Twin:
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


def unit(unit_id: int, seen: Seen | None = None, *, hot: int = 4512) -> SimDevice:
    """A unit of another maker's making; `seen` is told unit, address and count of each request."""

    async def action(_fc: int, _start: int, address: int, count: int, *_: Any) -> ExcCodes | None:
        return await seen(unit_id, address, count) if seen else None

    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    holding = [SimData(0, values=[0, 0, 0, 0], datatype=DataType.REGISTERS)]
    words = [0, 5123, 3021, hot, 655, 1000, 1, 22118, 9, 0xFFFF, 1, 25464]
    inputs = [SimData(0, values=words, datatype=DataType.REGISTERS)]
    return SimDevice(unit_id, simdata=(bits, [*bits], holding, inputs), action=action)


@asynccontextmanager
async def tcp(units: list[SimDevice], connects: list[bool] | None = None) -> AsyncIterator[str]:
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
async def serial(
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


def sensor_at(url: str, **more: Any) -> Any:
    tree = {"id": "cdu", "kind": "modbus", "map": "generic-cdu", "url": url} | more
    return modbus.open(msgspec.convert(tree, modbus.Config), Roots(), Clock())


def actuator_at(url: str, **more: Any) -> Any:
    tree = {"id": "a", "kind": "modbus", "map": "generic-cdu", "url": url, "armed": True} | more
    config = msgspec.convert(tree, actuator_modbus.Config)
    return actuator_modbus.open(config, Roots(), Clock())


def narrow(folder: Path, *, pause_ms: int = 0) -> str:
    """A map that needs three requests."""
    points = "".join(
        f'[[point]]\nquantity = "q{at}"\nfunction = 4\naddress = {at}\ntype = "uint16"\n'
        for at in (0, 4, 8)
    )
    path = folder / "narrow.toml"
    head = f'name = "narrow"\nholes = "forbidden"\npause_ms = {pause_ms}\n'
    path.write_text(head + points, encoding="utf-8")
    return str(path)


async def values_of(sensor: Sensor) -> dict[str, float]:
    return {reading.quantity: reading.value for reading in await sensor.read()}
