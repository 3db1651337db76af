"""Finds the Log back end that a URL names, by its scheme, and imports only that one."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from heatpool.errors import ConfigError
from heatpool_aggregator.ports import Log

GROUP = "heatpool.logs"


def open_log(url: str, directory: Path) -> AbstractAsyncContextManager[Log]:
    """The Log behind a URL such as `sqlite:`; files without a path of their own lie in `directory`.

    Raises:
        ConfigError: no back end has this scheme.
    """
    scheme, _, target = url.partition(":")
    found = [point for point in entry_points(group=GROUP) if point.name == scheme]
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP)))
        raise ConfigError([f"state.log: {scheme!r} is unknown; known here: {known}"])
    # An entry point is a module of any maker: the port is what it promises.
    opener = cast(
        "Callable[[str, Path], AbstractAsyncContextManager[Log]]", found[0].load().open_log
    )
    return opener(target, directory)
