"""Finds the driver of a sensor kind and imports only that one.

Our own kinds are modules of this room; other packages bring theirs by the entry point
`heatpool.sensors`. Reading entry points costs 7 MB in a bare interpreter and 3 MB on top of what
an agent has loaded anyway, so it is done only for a kind that is not ours.
"""

from importlib import import_module
from typing import Any, cast

from heatpool.errors import ConfigError
from heatpool_agent.ports import SensorModule

GROUP = "heatpool.sensors"
# A test holds this list against the entry points that pyproject.toml names.
OWN = ("host", "rapl", "hwmon", "nvml", "ipmi", "redfish", "modbus", "mbus", "mqtt")
# No device: plays what the driver of another kind was told, so nothing of a bench applies to it.
PLAYED = "replay"
# What a machine may have of itself: tried, in this order, where the settings name no sensor.
_LOCAL_KINDS = ("rapl", "hwmon", "nvml", "host")


def driver(kind: str) -> SensorModule:
    """The module that reads sensors of this kind.

    Raises:
        ConfigError: no installed package has such a driver, or it cannot be imported.
    """
    try:
        if kind in OWN or kind == PLAYED:
            module: Any = import_module(f"{__name__}.{kind}")
        else:
            module = _of_others(kind)
    except ImportError as error:
        raise ConfigError([f"sensor kind {kind!r} cannot be imported: {error}"]) from error
    # A module gives an object of any kind: the port is checked where it is used.
    return cast(SensorModule, module)


def _of_others(kind: str) -> Any:
    found = {point.name: point for point in _entry_points()}
    if kind not in found:
        known = ", ".join(sorted({*OWN, PLAYED, *found}))
        raise ConfigError([f"sensor kind {kind!r} is unknown; known kinds: {known}"])
    return found[kind].load()


def _entry_points() -> Any:
    metadata = import_module("importlib.metadata")
    return metadata.entry_points(group=GROUP)


def local_kinds() -> tuple[str, ...]:
    """The kinds to try where the settings name no sensor at all."""
    return _LOCAL_KINDS
