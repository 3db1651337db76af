"""Reads the map of a device model: one that comes along, or a file of one's own."""

from pathlib import Path

from heatpool.errors import ConfigError
from heatpool.process import settings
from heatpool_agent.core.device_map import DeviceMap, mistakes

# Beside the code, as wheels install it; importlib.resources would cost 2 MB.
SHELF = Path(__file__).parents[1] / "sensors" / "maps"


def read_map(name: str) -> DeviceMap:
    """The map of that name, or in that file if the name ends in `.toml`; blocking.

    Raises:
        ConfigError: with every mistake in it.
    """
    path = SHELF / f"{name}.toml" if not name.endswith(".toml") else Path(name)
    device = settings.convert(settings.read_toml(path), DeviceMap, file=str(path))
    if found := mistakes(device):
        raise ConfigError(found, file=str(path))
    return device
