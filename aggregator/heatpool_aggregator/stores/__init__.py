"""Finds the Store back end that a URL names, by its scheme, and imports only that one."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from heatpool.errors import ConfigError
from heatpool_aggregator.ports import Store

GROUP = "heatpool.stores"


def open_store(url: str, directory: Path) -> AbstractAsyncContextManager[Store]:
    """The Store behind a URL such as `sqlite:`; files without a path lie in `directory`.

    Raises:
        ConfigError: no back end has this scheme.
    """
    scheme, _, target = url.partition(":")
    found = [point for point in entry_points(group=GROUP) if point.name == scheme]
    if not found:
        known = ", ".join(sorted(point.name for point in entry_points(group=GROUP)))
        raise ConfigError([f"state.store: {scheme!r} is unknown; known here: {known}"])
    # An entry point is a module of any maker: the port is what it promises.
    opener = cast(
        "Callable[[str, Path], AbstractAsyncContextManager[Store]]", found[0].load().open_store
    )
    return opener(target, directory)
