"""Any device whose Modbus manual is on the shelf `modbus_models`, over TCP.

It shows plain values, or what a site's plant has at the device's place. Faults of its speech:
`offline`, `busy`, and those of its registers, see `modbus_manual.filled`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.counting import EnergyCount
from heatpool_sim.devices.modbus_manual import Manual, Value, filled, read_manual
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.ports import LOOPBACK, Address, Twin

_FUNCTIONS = {"holding": 3, "input": 4}


class ModbusModel:
    """One device of the named model on a port of its own; its `faults` may be changed meanwhile."""

    def __init__(self, name: str, *, port: int = 0, unit_id: int = 1) -> None:
        self.manual = read_manual(name)
        self.faults: set[str] = set()
        self._port = port
        self._unit_id = unit_id

    @asynccontextmanager
    async def serve(self, plant: Twin | Mapping[str, Value]) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        server = ModbusTcpServer(
            self._device(plant, self.shown(plant)),
            address=(LOOPBACK, self._port),
            ignore_missing_devices=True,
            trace_packet=lambda sending, data: self._spoken(plant, data) if sending else data,
        )
        if not await server.listen():
            raise HeatpoolError(f"port {self._port} on {LOOPBACK} is taken; free it or give 0")
        try:
            yield Address(host=LOOPBACK, port=_bound_port(server))
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]  # the library leaves it bare

    def shown(self, plant: Twin | Mapping[str, Value]) -> Callable[[], Mapping[str, Value]]:
        """How to look at what the device shows: the values, or the plant's at its place."""
        if isinstance(plant, Mapping):
            values = plant
            return lambda: values
        twin, wall = plant, _Wall()
        if self.manual.place == "network":
            return lambda: _network_values(twin)
        if self.manual.place == "wall":
            return lambda: wall.values(twin.gauges()) | {"meter_number": twin.meter()[0].number}
        return lambda: _loop_values(twin)

    def _device(
        self, plant: Twin | Mapping[str, Value], show: Callable[[], Mapping[str, Value]]
    ) -> SimDevice:
        """Registers are filled at the moment they are asked for."""
        first, end = self.manual.span()
        own = _FUNCTIONS[self.manual.table]

        async def action(
            function: int,
            _first: int,
            at: int,
            length: int,
            current: list[int],
            wished: list[int] | list[bool] | None,
        ) -> ExcCodes | None:
            faults = self._faults(plant)
            if "busy" in faults:
                return ExcCodes.DEVICE_BUSY
            if function != own or wished is not None:
                return ExcCodes.ILLEGAL_FUNCTION
            cells = filled(self.manual, show(), faults=faults)
            if _lacks(self.manual, cells, at, length, faults=faults):
                return ExcCodes.ILLEGAL_ADDRESS
            current[:] = [cells.get(address, 0) for address in range(first, end)]
            return None

        shown = [SimData(first, count=end - first, datatype=DataType.REGISTERS)]
        other = [SimData(0, datatype=DataType.REGISTERS)]
        bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        registers = (shown, other) if self.manual.table == "holding" else (other, shown)
        # Coils and discrete inputs must be there, the library wants all four blocks.
        return SimDevice(self._unit_id, simdata=(bits, list(bits), *registers), action=action)

    def _faults(self, plant: Twin | Mapping[str, Value]) -> frozenset[str]:
        own = frozenset(self.faults)
        return own if isinstance(plant, Mapping) else own | plant.faults

    def _spoken(self, plant: Twin | Mapping[str, Value], data: bytes) -> bytes:
        return b"" if "offline" in self._faults(plant) else data


@dataclass(slots=True)
class _Wall:
    """Electric energy behind the power that a plant shows now and then."""

    count: EnergyCount = field(default_factory=EnergyCount)
    at_ns: int | None = None

    def values(self, gauges: Gauges) -> dict[str, Value]:
        """Power, and what has come together since the first look; nothing is fed back."""
        gap_s = 0.0 if self.at_ns is None else (gauges.at_ns - self.at_ns) / 1e9
        self.count.add(gauges.rack_electric_w, max(gap_s, 0.0))
        self.at_ns = gauges.at_ns
        return {
            "electric_w": gauges.rack_electric_w,
            "electric_energy_wh": self.count.uj // 3_600_000_000,
            "fed_energy_wh": 0,
        }


def _loop_values(twin: Twin) -> dict[str, Value]:
    shown = twin.gauges()
    return {
        "hot_c": shown.hot_c,
        "cold_c": shown.cold_c,
        "volume_flow_m3_h": shown.volume_flow_m3_h,
        "heat_w": shown.reported_heat_w,
        "electric_w": shown.rack_electric_w,
        "pump_frac": shown.pump_frac,
        "valve_frac": shown.valve_frac,
        "pump_runs": True,
        "leak": shown.has_leak,
        "watchdog_ran_out": shown.is_expired,
        "remote_control": shown.is_remote,
    }


def _network_values(twin: Twin) -> dict[str, Value]:
    """The site's side of the network; a heat pump there draws from the loop."""
    plate, state = twin.meter()
    shown = twin.gauges()
    return {
        "hot_c": state.hot_c,
        "cold_c": state.cold_c,
        "volume_flow_m3_h": state.volume_flow_m3_h,
        "heat_w": state.heat_rate_w,
        "heat_energy_wh": state.register_wh,
        "cooling_energy_wh": 0,
        "volume_m3": state.register_l / 1000,
        "meter_number": plate.number,
        "error_code": 0,
        "valve_frac": shown.valve_frac,
        "source_hot_c": shown.hot_c,
        "source_cold_c": shown.cold_c,
    }


def _lacks(
    manual: Manual, cells: Mapping[int, int], at: int, length: int, *, faults: frozenset[str]
) -> bool:
    """Whether a number that this device does not have is asked for; gaps read 0."""
    if "off_by_one" in faults:
        return False
    asked = range(at, at + length)
    return any(
        address in asked and address not in cells
        for row in manual.register
        for address in range(manual.wire(row), manual.wire(row) + row.length)
    )


def _bound_port(server: ModbusTcpServer) -> int:
    listener = server.transport
    if not isinstance(listener, asyncio.Server):
        raise HeatpoolError("the device's server has no listening socket")
    return int(listener.sockets[0].getsockname()[1])
