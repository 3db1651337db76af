"""Power and energy of whole things: chassis, processors, power distribution."""

from heatpool_agent.core.reading import Node
from heatpool_agent.core.redfish import flags
from heatpool_agent.core.redfish.figures import AMBIENT, ENERGY_J, POWER, REGISTER
from heatpool_agent.core.redfish.findings import Findings, Place
from heatpool_agent.core.redfish.service import Resource
from heatpool_agent.core.redfish.shapes import nested, text

METRICS, SENSORS, LEGACY = 0, 10, 20
_PROCESSORS = {"CPU": Node.PACKAGE, "GPU": Node.GPU, "Accelerator": Node.GPU}
_OWNED = {
    "CoolingUnit": Node.CDU,
    "Memory": Node.DRAM,
    "Fan": Node.FAN,
    "Drive": Node.DRIVE,
    "PowerDistribution": Node.PDU,
}
# What an example or a lone document says of its owner, where no link was read.
_TOLD_BY_PATH = (
    ("/Processors/", Node.PACKAGE),
    ("/ThermalEquipment/", Node.CDU),
    ("/PowerEquipment/", Node.PDU),
    ("/Chassis/", Node.CHASSIS),
)
CONTEXTS = {
    "CPU": Node.PACKAGE,
    "CPUSubsystem": Node.PACKAGE,
    "GPU": Node.GPU,
    "GPUSubsystem": Node.GPU,
    "Accelerator": Node.GPU,
    "Memory": Node.DRAM,
    "MemorySubsystem": Node.DRAM,
    "Fan": Node.FAN,
    "StorageDevice": Node.DRIVE,
    "StorageSubsystem": Node.DRIVE,
    "SystemBoard": Node.BOARD,
}
_AIR = frozenset({"Intake", "Room", "Ambient"})


def environment(found: Findings) -> None:
    """`EnvironmentMetrics` of chassis, processors, cooling units; the parts first.

    A Sensor that both a processor and its carrier point to is the processor's.
    """
    placed = [
        (resource, place)
        for resource in found.service.of_kind("EnvironmentMetrics")
        if (place := _environment_place(resource, found))
    ]
    for resource, place in sorted(placed, key=lambda pair: pair[1].node is Node.CHASSIS):
        found.excerpt(resource, "PowerWatts", POWER, place)
        found.excerpt(resource, "EnergykWh", REGISTER, place)
        found.excerpt(resource, "EnergyJoules", ENERGY_J, place)
        if place.node is Node.CHASSIS:
            _ambient(resource, place, found)


def _environment_place(resource: Resource, found: Findings) -> Place | None:
    service, path = found.service, resource.path
    owner = next((above for above, _ in service.ancestry(path)), None)
    kind = owner.kind if owner else ""
    if owner and kind == "Processor":
        node = _PROCESSORS.get(text(owner.body, "ProcessorType"), Node.CHIP)
        return Place(node=node, group=node.value, label=text(owner.body, "Name"))
    if kind in _OWNED:
        return Place(node=_OWNED[kind], group=_OWNED[kind].value)
    by_path = next((node for part, node in _TOLD_BY_PATH if part in path), None)
    node_found = Node.CHASSIS if kind == "Chassis" else by_path
    if node_found is not Node.CHASSIS:
        return Place(node=node_found, group=path) if node_found else None
    chassis = service.chassis_of(path)
    return chassis_place(chassis, found, rank=METRICS)


def chassis_place(chassis: str, found: Findings, *, rank: int) -> Place:
    """Where the input of a chassis belongs."""
    node = Node.CDU if chassis in found.service.cooling else Node.CHASSIS
    return Place(node=node, group=chassis, rank=rank)


def _ambient(resource: Resource, place: Place, found: Findings) -> None:
    if found.excerpt(resource, "AmbientTemperatureCelsius", AMBIENT, place):
        return
    # The plain temperature of a chassis may be anything's, such as the processor's.
    path = text(_table(resource, "TemperatureCelsius"), "DataSourceUri")
    sensor = found.service.resources.get(path)
    if sensor and text(sensor.body, "PhysicalContext") in _AIR:
        found.excerpt(resource, "TemperatureCelsius", AMBIENT, place)


def _table(resource: Resource, name: str) -> dict[str, object]:
    value = resource.body.get(name)
    return value if isinstance(value, dict) else {}


def legacy_input(found: Findings) -> None:
    """`PowerControl` of the older `Power`: the whole first, named parts by their context."""
    for resource in found.service.of_kind("Power"):
        chassis = found.service.chassis_of(resource.path) or resource.path
        wholes = 0
        for pointer, row in nested(resource.body, "PowerControl"):
            node = CONTEXTS.get(text(row, "PhysicalContext"))
            place = chassis_place(chassis, found, rank=LEGACY + wholes)
            if node:
                place = Place(node=node, group=node.value, rank=LEGACY)
            wholes += node is None
            found.excerpt(resource, "PowerConsumedWatts", POWER, place, pointer=pointer)


def distribution(found: Findings) -> None:
    """Power distribution units by their summary; circuits and outlets are parts of them."""
    for resource in found.service.of_kind("PowerDistributionMetrics"):
        place = Place(node=Node.PDU, group=resource.path)
        found.excerpt(resource, "PowerWatts", POWER, place)
        found.excerpt(resource, "EnergykWh", REGISTER, place)
    for resource in found.service.of_kind("Outlet", "OutletGroup", "Circuit"):
        part = Place(node=Node.PDU, group=resource.path, flags=(flags.LOWER_RANK,))
        found.excerpt(resource, "PowerWatts", POWER, part)
        found.excerpt(resource, "EnergykWh", REGISTER, part)


def fans(found: Findings) -> None:
    """Power of fans that measure it."""
    for resource in found.service.of_kind("Fan"):
        place = Place(node=Node.FAN, group=Node.FAN.value, label=text(resource.body, "Name"))
        found.excerpt(resource, "PowerWatts", POWER, place)
