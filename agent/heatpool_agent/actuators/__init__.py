"""Drivers that write: found by entry point, and only the one that is asked for is imported."""

from importlib.metadata import entry_points
from typing import Any

from heatpool.errors import ConfigError

GROUP = "heatpool.actuators"


def driver(kind: str) -> Any:
    """The module of an actuator kind, with `Config` and `open`. Any: modules have no type.

    Raises:
        ConfigError: no such kind is installed.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in known:
        raise ConfigError([f"actuator kind {kind!r} is unknown; known: {', '.join(sorted(known))}"])
    return known[kind].load()
