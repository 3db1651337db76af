"""Which devices stand before a site's plant, where each answers, and what outlives a restart."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.devices import machine
from heatpool_sim.devices.mbus_meter import MbusMeter
from heatpool_sim.devices.memory import SavedSite
from heatpool_sim.devices.modbus_cdu import ModbusCdu
from heatpool_sim.devices.modbus_model import ModbusModel
from heatpool_sim.devices.nvml import GpuModel
from heatpool_sim.devices.redfish_bmc import RedfishBmc
from heatpool_sim.devices.redfish_cdu import RedfishCdu
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import faults
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.control import Control
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.plant.meter import MODULUS, Meter, MeterState
from heatpool_sim.plant.steering import Wished
from heatpool_sim.ports import Address, Device, Twin
from heatpool_sim.scenario import SiteSpec

logger = logging.getLogger(__name__)

# The one account of every simulated device that asks for a login.
USER, PASSWORD = "agent", "wort"
_SCHEMES = {"redfish_cdu": "http", "redfish_bmc": "http", "ipmi_bmc": "ipmi", "mqtt_cdu": "mqtt"}
# The device at a port; 0 is a free one. A kind that is not here cannot be served.
_DEVICES: dict[str, Callable[[SiteSpec, int], Device]] = {
    "modbus_cdu": lambda spec, port: ModbusCdu(port=port),
    "mbus_meter": lambda spec, port: MbusMeter(port=port, address=spec.meter_address),
    "redfish_cdu": lambda spec, port: RedfishCdu(
        port=port, user=USER, password=PASSWORD, site_id=spec.site_id
    ),
    "redfish_bmc": lambda spec, port: RedfishBmc(
        port=port, user=USER, password=PASSWORD, site_id=spec.site_id
    ),
    "ipmi_bmc": lambda spec, port: _ipmi_bmc(port),
    "mqtt_cdu": lambda spec, port: _mqtt_cdu(port),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDoor:
    """A served site: its running plant and where its devices answer."""

    spec: SiteSpec
    running: RunningSite
    addresses: Mapping[str, Address]
    roots: machine.Roots | None = None
    follow: Callable[[], Awaitable[None]] | None = None

    @property
    def cdu(self) -> Address:
        """Where the coolant unit speaks Modbus."""
        return self.addresses["modbus_cdu"]

    @property
    def meter(self) -> Address:
        """Where the heat meter speaks M-Bus."""
        return self.addresses["mbus_meter"]

    @property
    def urls(self) -> dict[str, str]:
        """Where each device answers, as agents are told it."""
        return {name: url(name, address) for name, address in self.addresses.items()}


class Behind:
    """The plant as one device sees it: pulled alone, the device is offline."""

    def __init__(self, plant: Twin, device: str) -> None:
        self._plant = plant
        self._pulled = {name for name, pulled in faults.PULLED.items() if pulled == device}

    @property
    def faults(self) -> frozenset[str]:
        """Names of the faults that last now."""
        lasting = self._plant.faults
        return lasting | {faults.OFFLINE} if lasting & self._pulled else lasting

    def gauges(self) -> Gauges:
        """The coolant unit's display."""
        return self._plant.gauges()

    def meter(self) -> tuple[Meter, MeterState]:
        """The heat meter's plate and its registers."""
        return self._plant.meter()

    def cells(self) -> tuple[int, int, int, int]:
        """The coolant unit's holding block."""
        return self._plant.cells()

    def write(self, values: list[int], *, at: int) -> bool:
        """Whether the block took these cells; a write restarts the watchdog."""
        return self._plant.write(values, at=at)

    def adjust(self, name: Wished, value: float | None) -> bool:
        """Whether the cooling loop took this setting; None: as it was commissioned."""
        return self._plant.adjust(name, value)


def url(device: str, address: Address) -> str:
    """Where a device answers, as an agent is told it."""
    return f"{_SCHEMES.get(device, 'tcp')}://{address.host}:{address.port}"


async def opened(
    stack: AsyncExitStack, spec: SiteSpec, saved: SavedSite | None, *, folder: Path
) -> SiteDoor:
    """The site with all its devices open until the stack ends; a machine's files go to `folder`."""
    running = _running(spec, saved)
    addresses: dict[str, Address] = {}
    for name, device in _devices(spec).items():
        port = saved.port(name) if saved else 0
        addresses[name] = await _at(stack, Behind(running, name), device, spec, port)
    if "machine" not in spec.devices:
        return SiteDoor(spec=spec, running=running, addresses=addresses)
    server = machine.Machine(folder / spec.site_id, _parts(spec), seed=spec.plant.seed)
    roots = await stack.enter_async_context(server.serve(running))
    return SiteDoor(
        spec=spec, running=running, addresses=addresses, roots=roots, follow=server.follow
    )


def saved(door: SiteDoor, ahead_s: float) -> SavedSite:
    """What a restart needs to go on from here, if the meters count on for so many seconds."""
    now = door.running.state
    # Twice the present load: it may rise before the kill, and too far ahead hurts nobody.
    most_w = 2 * door.spec.plant.load.it_w(time.time_ns())
    return SavedSite(
        meter_number=now.meter.number,
        register_wh=now.metered.register_wh,
        ahead_wh=math.ceil(most_w * ahead_s / 3600),
        remainder_wh=now.metered.remainder_wh,
        register_l=now.metered.register_l,
        remainder_l=now.metered.remainder_l,
        hot_c=now.loop.hot_c,
        held_j=now.held_j,
        electric_j=now.electric_j + most_w * ahead_s,
        unit_j=now.unit_j + most_w * ahead_s,
        ports={name: address.port for name, address in door.addresses.items()},
    )


def _devices(spec: SiteSpec) -> dict[str, Callable[[SiteSpec, int], Device]]:
    """What stands at a port, by name; a device of the Modbus shelf is called after its model."""
    named = {name: _DEVICES[name] for name in spec.devices if name in _DEVICES}
    return named | {name: _model(name) for name in spec.models}


def _model(name: str) -> Callable[[SiteSpec, int], Device]:
    return lambda _, port: ModbusModel(name, port=port)


async def _at(
    stack: AsyncExitStack,
    plant: Twin,
    device: Callable[[SiteSpec, int], Device],
    spec: SiteSpec,
    port: int,
) -> Address:
    """Where the device answers: at its old port, or at a free one if that is taken by now."""
    try:
        return await stack.enter_async_context(device(spec, port).serve(plant))
    except HeatpoolError as error:
        if not port:
            raise
        logger.warning("device.moved", extra=facts(reason=str(error)))
        return await stack.enter_async_context(device(spec, 0).serve(plant))


def _ipmi_bmc(port: int) -> Device:
    from heatpool_sim.devices.ipmi_bmc import IpmiBmc  # noqa: PLC0415  # pyghmi, for one only

    return IpmiBmc(port=port, user=USER, password=PASSWORD)


def _mqtt_cdu(port: int) -> Device:
    from heatpool_sim.devices.mqtt_cdu import MqttCdu  # noqa: PLC0415  # amqtt, for one only

    for neighbour in ("amqtt", "transitions"):  # each connection and state is news to them
        logging.getLogger(neighbour).setLevel(logging.ERROR)
    return MqttCdu(port=port)


def _parts(spec: SiteSpec) -> machine.Parts:
    plate = spec.machine
    gpu = GpuModel(name=plate.gpu_name, idle_w=plate.gpu_idle_w, most_w=plate.gpu_most_w)
    return machine.Parts(cpu_name=plate.cpu_name, cpu_most_w=plate.cpu_most_w, gpu=gpu)


def _running(spec: SiteSpec, saved: SavedSite | None) -> RunningSite:
    boot_ns = time.monotonic_ns()
    first = plants.steady(
        spec.plant,
        at_ns=time.time_ns(),
        meter=spec.meter,
        metered=MeterState(register_wh=spec.register_wh, register_l=spec.register_l),
    )
    first = replace(first, control=Control(mode=spec.mode, written_ns=boot_ns))
    return RunningSite(
        spec.plant,
        first if saved is None else _resumed(first, saved),
        errors=spec.errors,
        planned=spec.faults,
        boot_ns=boot_ns,
    )


def _resumed(first: plants.SiteState, saved: SavedSite) -> plants.SiteState:
    return replace(
        first,
        meter=replace(first.meter, number=saved.meter_number),
        metered=MeterState(
            register_wh=(saved.register_wh + saved.ahead_wh) % MODULUS,
            remainder_wh=saved.remainder_wh,
            register_l=saved.register_l,
            remainder_l=saved.remainder_l,
        ),
        loop=replace(first.loop, hot_c=saved.hot_c),
        held_j=saved.held_j,
        electric_j=saved.electric_j,
        unit_j=saved.unit_j,
    )
