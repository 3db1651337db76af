"""Finds the driver of a sensor kind by its entry point and imports only that one."""

from importlib.metadata import entry_points
from typing import cast

from heatpool.errors import ConfigError
from heatpool_agent.ports import SensorModule

GROUP = "heatpool.sensors"
# What a machine may have of itself: tried, in this order, where the settings name no sensor.
_LOCAL_KINDS = ("rapl", "hwmon", "nvml", "host")


def driver(kind: str) -> SensorModule:
    """The module that reads sensors of this kind.

    Raises:
        ConfigError: no installed package has such a driver, or it cannot be imported.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join(sorted(found))
        raise ConfigError([f"sensor kind {kind!r} is unknown; known kinds: {known}"])
    try:
        # An entry point gives an object of any kind: the port is checked where it is used.
        return cast(SensorModule, found[kind].load())
    except ImportError as error:
        raise ConfigError([f"sensor kind {kind!r} cannot be imported: {error}"]) from error


def local_kinds() -> tuple[str, ...]:
    """The kinds to try where the settings name no sensor at all."""
    return _LOCAL_KINDS
