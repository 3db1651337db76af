"""Zones of the kernel's powercap tree by their folders' names and labels: nesting, nodes, twins."""

from collections.abc import Mapping
from dataclasses import dataclass

from heatpool_agent.core.reading import Node

# The same package seen a second time, through another door of the CPU.
TWIN = "twin"
UNKNOWN_ZONE = "unknown_zone"
_NODES = {
    "package": Node.PACKAGE,
    "core": Node.CORE,
    "uncore": Node.UNCORE,
    "dram": Node.DRAM,
    "psys": Node.PSYS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One zone: its folder, its place in the tree of zones and in the power tree."""

    folder: str
    channel: str
    label: str
    node: Node
    flags: tuple[str, ...]


def zones(labels: Mapping[str, str]) -> tuple[Zone, ...]:
    """The zones among these folders, plain control type before its twins.

    `labels` is what each folder's `name` file says, empty where it says nothing. A twin is a zone
    of another control type with the same names all the way down; names do repeat within one
    type, and there they are different zones.
    """
    first_of: dict[tuple[str, ...], str] = {}
    found: list[Zone] = []
    for folder in sorted(filter(_is_zone, labels), key=lambda name: (_control(name), name)):
        names = tuple(labels.get(part, "") for part in _path(folder))
        is_first = first_of.setdefault(names, _control(folder)) == _control(folder)
        found.append(_zone(folder, labels[folder], is_twin=not is_first and "" not in names))
    return tuple(found)


def _is_zone(name: str) -> bool:
    # Control types themselves have no colon, and other makers' trees other names.
    return name.startswith("intel-rapl") and ":" in name


def _control(name: str) -> str:
    return name.partition(":")[0]


def _path(name: str) -> tuple[str, ...]:
    """`intel-rapl:0:1` -> its parents and itself, outermost first."""
    parts = name.split(":")
    return tuple(":".join(parts[: end + 1]) for end in range(1, len(parts)))


def _zone(folder: str, label: str, *, is_twin: bool) -> Zone:
    node = _NODES.get(label.partition("-")[0])
    return Zone(
        folder=folder,
        channel="/".join(("powercap", *_path(folder))),
        label=label,
        # A zone of unknown meaning is read and never added, as an inner zone is.
        node=node or Node.UNCORE,
        flags=((TWIN,) if is_twin else ()) + (() if node else (UNKNOWN_ZONE,)),
    )
