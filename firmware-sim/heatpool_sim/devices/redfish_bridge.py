"""What lies between a root and caught resources when a capture has only the latter.

A bridge holds a name and links, never a reading: clients come by links, not by paths.
"""

from collections.abc import Iterable
from typing import Any

from heatpool_sim.devices.redfish_session import SERVICE, SESSIONS
from heatpool_sim.devices.redfish_tree import ROOT, Resource

# What a collection's members are called, where it is not the collection's name in the singular.
_KINDS = {
    "Chassis": "Chassis",
    "Systems": "ComputerSystem",
    "CDUs": "CoolingUnit",
    "ImmersionUnits": "CoolingUnit",
    "HeatExchangers": "CoolingUnit",
    "RackPDUs": "PowerDistribution",
    "PowerSupplies": "PowerSupply",
    "PrimaryCoolantConnectors": "CoolantConnector",
    "SecondaryCoolantConnectors": "CoolantConnector",
    "Facilities": "Facility",
    "Memory": "Memory",
}


def bridges(caught: Iterable[str]) -> dict[str, Resource]:
    """The missing resources between the root and those caught, by path."""
    known = {path for path in caught if path.startswith(f"{ROOT}/")}
    missing = {parent for path in known for parent in _parents(path)} - known
    children: dict[str, list[str]] = {path: [] for path in missing | {ROOT}}
    for path in sorted(known | missing):
        parent = path.rpartition("/")[0]
        if parent in children:
            children[parent].append(path)
    made = {path: _bridge(path, below) for path, below in children.items() if path != ROOT}
    return made | {ROOT: _root(children[ROOT])}


def _parents(path: str) -> list[str]:
    parts = path.removeprefix(f"{ROOT}/").split("/")
    return [f"{ROOT}/{'/'.join(parts[:count])}" for count in range(1, len(parts))]


def _root(below: list[str]) -> Resource:
    return {
        "@odata.id": f"{ROOT}/",
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot",
        "Id": "RootService",
        "Name": "Root made up for a capture that has none",
        "RedfishVersion": "1.15.0",
        **_named(below),
        "SessionService": {"@odata.id": SERVICE},
        "Links": {"Sessions": {"@odata.id": SESSIONS}},
    }


def _bridge(path: str, below: list[str]) -> Resource:
    name = path.rpartition("/")[2]
    if _is_collection(path):
        kind = f"{_kind(name)}Collection"
        return {
            "@odata.id": path,
            "@odata.type": f"#{kind}.{kind}",
            "Name": name,
            "Members": [{"@odata.id": child} for child in below],
            "Members@odata.count": len(below),
        }
    folder = path.split("/")[-2]
    kind = _kind(folder) if _is_collection(path.rpartition("/")[0]) else name
    return {
        "@odata.id": path,
        "@odata.type": f"#{kind}.v1_0_0.{kind}",
        "Id": name,
        "Name": name,
        **_named(below),
    }


def _named(below: list[str]) -> dict[str, Any]:
    return {path.rpartition("/")[2]: {"@odata.id": path} for path in below}


def _is_collection(path: str) -> bool:
    """Whether a path looks like a collection's: a plural that is no member of another one."""
    if path == ROOT:
        return False
    parent, _, name = path.rpartition("/")
    is_plural = name in _KINDS or (name.endswith("s") and not name.endswith(("Metrics", "Status")))
    return is_plural and not _is_collection(parent)


def _kind(name: str) -> str:
    return _KINDS.get(name, name.removesuffix("s"))
