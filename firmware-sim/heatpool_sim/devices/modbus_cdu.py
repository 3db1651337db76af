"""A coolant unit that speaks Modbus, as its maker's manual lays the cells out.

Over TCP, over a serial line, or the frames of the serial line over TCP. Cells follow the cooling
loop's words: supply is the cold pipe, return the hot one. Faults of its speech: `busy`, `offline`,
`swapped_words` (32 bits, lower word first), `off_by_one` (addresses counted from 1), `torn_pair`
(every third answer catches 32 bits in the middle of a step).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.pty_pair import cable
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.ports import LOOPBACK, Address, Twin

INPUT_CELLS = 12
HOLDING_CELLS = 4
_ABSENT = 0xFFFF
_READ_INPUT = 4
# Where the upper words of the 32-bit numbers stand.
_PAIRS = (0, 6, 10)
_TORN_EVERY_COUNT = 3
# A pseudo terminal has no parity; without one, the standard asks for two stop bits.
BAUD, PARITY, STOP = 19_200, "N", 2
SERIAL_KEYS = "baud=19200&parity=none&stop=2"
_SILENT = frozenset({"offline", "cdu_offline"})


class ModbusCdu:
    """One unit on a line of its own, unit id 1 unless told otherwise."""

    def __init__(self, *, port: int = 0, unit_id: int = 1, is_rtu: bool = False) -> None:
        self._port = port
        self._unit_id = unit_id
        self._framer = FramerType.RTU if is_rtu else FramerType.SOCKET

    @asynccontextmanager
    async def serve(self, plant: Twin) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        server = ModbusTcpServer(
            _device(plant, self._unit_id),
            framer=self._framer,
            address=(LOOPBACK, self._port),
            ignore_missing_devices=True,
            trace_packet=lambda sending, data: _spoken(plant, data) if sending else data,
        )
        if not await server.listen():
            raise HeatpoolError(f"port {self._port} on {LOOPBACK} is taken; free it or give 0")
        try:
            yield Address(host=LOOPBACK, port=_bound_port(server))
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]  # the library leaves it bare

    @asynccontextmanager
    async def serve_pty(self, plant: Twin) -> AsyncIterator[str]:
        """Answers on a serial line, whose url this gives, for as long as the context is open.

        Raises:
            HeatpoolError: this system has no pseudo terminals.
        """
        with cable() as ends:
            server = ModbusSerialServer(
                _device(plant, self._unit_id),
                port=ends.far,
                baudrate=BAUD,
                parity=PARITY,
                stopbits=STOP,
                ignore_missing_devices=True,
                trace_packet=lambda sending, data: _spoken(plant, data) if sending else data,
            )
            if not await server.listen():
                raise HeatpoolError(f"{ends.far} cannot be opened; is /dev/pts mounted?")
            try:
                yield f"rtu:{ends.near}?{SERIAL_KEYS}"
            finally:
                await server.shutdown()  # type: ignore[no-untyped-call]  # as above


def input_cells(gauges: Gauges) -> list[int]:
    """The twelve input cells, big-endian words; cell 9 is reserved by the maker."""
    status = 1 | gauges.has_leak << 1 | gauges.is_expired << 2 | gauges.is_remote << 3
    return [
        *_unsigned32(gauges.volume_flow_m3_h * 1000.0),
        _signed16(gauges.cold_c * 100.0),
        _signed16(gauges.hot_c * 100.0),
        _unsigned16(gauges.pump_frac * 1000.0),
        _unsigned16(gauges.valve_frac * 1000.0),
        *_signed32(gauges.reported_heat_w),
        status,
        _ABSENT,
        *_unsigned32(gauges.rack_electric_w),
    ]


def _device(plant: Twin, unit_id: int) -> SimDevice:
    """Cells are filled from the plant at the moment they are asked for."""
    asked = count()

    async def action(
        function: int,
        _first: int,
        at: int,
        _count: int,
        current: list[int],
        wished: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        if "busy" in plant.faults:
            return ExcCodes.DEVICE_BUSY
        if wished is None:
            is_input = function == _READ_INPUT
            fresh = _shown(plant, next(asked)) if is_input else list(plant.cells())
            current[: len(fresh)] = fresh
            return None
        took = plant.write([int(value) for value in wished], at=at)
        return None if took else ExcCodes.ILLEGAL_VALUE

    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    holding = [SimData(0, count=HOLDING_CELLS, datatype=DataType.REGISTERS)]
    inputs = [SimData(0, count=INPUT_CELLS, datatype=DataType.REGISTERS)]
    # Coils and discrete inputs must be there, the library wants all four blocks.
    return SimDevice(unit_id, simdata=(bits, list(bits), holding, inputs), action=action)


def _shown(plant: Twin, number: int) -> list[int]:
    """The input cells as the `number`th request finds them, faults of speech included."""
    cells = input_cells(plant.gauges())
    if "torn_pair" in plant.faults and number % _TORN_EVERY_COUNT == 0:
        for at in _PAIRS:
            cells[at] = (cells[at] + 1) & 0xFFFF
    if "swapped_words" in plant.faults:
        for at in _PAIRS:
            cells[at : at + 2] = cells[at + 1], cells[at]
    return [_ABSENT, *cells[:-1]] if "off_by_one" in plant.faults else cells


def _spoken(plant: Twin, data: bytes) -> bytes:
    return b"" if plant.faults & _SILENT else data


def _bound_port(server: ModbusTcpServer) -> int:
    listener = server.transport
    if not isinstance(listener, asyncio.Server):
        raise HeatpoolError("the coolant unit's server has no listening socket")
    return int(listener.sockets[0].getsockname()[1])


def _unsigned16(value: float) -> int:
    return min(max(round(value), 0), _ABSENT - 1)


def _signed16(value: float) -> int:
    return min(max(round(value), -0x8000), 0x7FFE) & 0xFFFF


def _unsigned32(value: float) -> tuple[int, int]:
    whole = min(max(round(value), 0), 0xFFFF_FFFE)
    return whole >> 16, whole & 0xFFFF


def _signed32(value: float) -> tuple[int, int]:
    whole = min(max(round(value), -(2**31)), 2**31 - 2) & 0xFFFF_FFFF
    return whole >> 16, whole & 0xFFFF
