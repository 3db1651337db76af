"""Drivers that write: our own in this room, others by entry point; only one asked for is imported.

Reading entry points costs 5 MB, so it is done only for a kind that is not ours.
"""

from importlib import import_module
from typing import Any

from heatpool.errors import ConfigError

GROUP = "heatpool.actuators"
# A test holds this list against the entry points that pyproject.toml names.
OWN = ("modbus", "dry_run")


def driver(kind: str) -> Any:
    """The module of an actuator kind, with `Config` and `open`. Any: modules have no type.

    Raises:
        ConfigError: no such kind is installed.
    """
    if kind in OWN:
        return import_module(f"{__name__}.{kind}")
    metadata = import_module("importlib.metadata")
    found = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if kind not in found:
        known = ", ".join(sorted({*OWN, *found}))
        raise ConfigError([f"actuator kind {kind!r} is unknown; known: {known}"])
    return found[kind].load()
