"""Which documents of a service matter, told by their links alone; paths are never built."""

from collections.abc import Iterator

from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.shapes import has_content, inside, kind_of, nested

# Properties behind which power, energy, heat, leaks or their owners are found.
# fmt: off
FOLLOWED = frozenset({
    "Chassis", "Systems", "Processors", "ThermalEquipment", "PowerEquipment",
    "CDUs", "RPUs", "ImmersionUnits", "HeatExchangers",
    "RackPDUs", "FloorPDUs", "Switchgear", "TransferSwitches", "PowerShelves", "ElectricalBuses",
    "EnvironmentMetrics", "Power", "PowerSubsystem", "PowerSupplies", "Metrics",
    "Sensors", "Controls", "ThermalSubsystem", "LeakDetection", "LeakDetectors", "Fans",
    "Pumps", "PrimaryCoolantConnectors", "SecondaryCoolantConnectors", "CoolantConnectors",
    "Members",
})
# Excerpts whose Sensor is read; voltages, rails and fan speeds are left alone.
EXCERPTS = frozenset({
    "PowerWatts", "EnergykWh", "EnergyJoules", "InputPowerWatts", "OutputPowerWatts",
    "AmbientTemperatureCelsius", "TemperatureCelsius", "Sensor", "FlowLitersPerMinute",
    "SupplyTemperatureCelsius", "ReturnTemperatureCelsius", "HeatRemovedkW",
    "SupplyPressurekPa", "ReturnPressurekPa", "LeakDetectorGroups",
})
# fmt: on
# Of other owners, metrics count packets and errors.
_METERED = frozenset({"PowerSupply", "PowerDistribution", ""})
_NEXT = "Members@odata.nextLink"
_MAX_EXPANDED = 8


def followed(body: Document) -> list[str]:
    """The properties of a resource that lead on, in its own order."""
    return [name for name in body if name in FOLLOWED]


def wanted(path: str, document: Document) -> tuple[str, ...]:
    """Paths that this document links to and that discovery must read next, without fragments.

    Resources that stand in it whole (`$expand`) are not asked for again, their links are. Links
    that leave the service are left out; an inline member's path is never in the result.
    """
    found = dict.fromkeys(_linked(document, _MAX_EXPANDED))
    found.pop(inside(path), None)
    return tuple(found)


def resources_in(path: str, document: Document) -> Iterator[tuple[str, Document]]:
    """The document's resource and those that stand in it whole, each with its path."""
    yield from _expanded(path, document, _MAX_EXPANDED)


def _expanded(path: str, body: Document, depth: int) -> Iterator[tuple[str, Document]]:
    yield path, body
    if not depth:
        return
    for name in followed(body):
        # The older Power keeps its own lists, which are no resources.
        if isinstance(body[name], list) and name not in {"Members", "LeakDetectors"}:
            continue
        for pointer, inner in nested(body, name):
            if has_content(inner):
                own = inside(inner.get("@odata.id"))
                # A path that points back at its holder would hide the holder.
                where = own if own and own != path else f"{path}#{pointer}"
                yield from _expanded(where, inner, depth - 1)


def _linked(body: Document, depth: int) -> Iterator[str]:
    kind = kind_of(body)
    for name, value in body.items():
        if name == "Metrics" and kind not in _METERED:
            continue
        if name in FOLLOWED:
            yield from _behind(body, name, depth)
        elif name == _NEXT:
            yield from _path(value)
        elif name in EXCERPTS:
            yield from _pointed(value)


def _behind(body: Document, name: str, depth: int) -> Iterator[str]:
    for _, inner in nested(body, name):
        if not has_content(inner):
            yield from _path(inner.get("@odata.id"))
        elif depth:
            yield from _linked(inner, depth - 1)


def _pointed(value: object) -> Iterator[str]:
    """Sensors and leak detectors that an excerpt is taken from, one list level down at most."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if isinstance(item, dict):
            yield from _path(item.get("DataSourceUri"))
            for _, detector in nested(item, "Detectors"):
                yield from _path(detector.get("DataSourceUri"))


def _path(link: object) -> Iterator[str]:
    if path := inside(link):
        yield path
