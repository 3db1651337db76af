"""Where each setting comes from: a file, an environment variable, or its default."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from heatpool.process.settings import read_toml
from heatpool_agent.config import ENV_PREFIX, Config

DEFAULT = "default"


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value of a tree with its key, such as `loop[0].fluid`."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list | tuple) and tree and isinstance(tree[0], Mapping):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree


def origins(config: Config, path: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The origin of every setting by its key: a file's name, a variable's, or "default"."""
    written = _written(path)
    tree = msgspec.to_builtins(config)
    return {
        key: _variable(key, tree, environ) or written.get(key, DEFAULT) for key, _ in leaves(tree)
    }


def told(config: Config, path: Path | None, environ: Mapping[str, str]) -> frozenset[str]:
    """Keys that somebody wrote down."""
    return frozenset(key for key, at in origins(config, path, environ).items() if at != DEFAULT)


def _written(path: Path | None) -> dict[str, str]:
    """Keys in the files, each with the file that wins: the last one, and lists as a whole."""
    found: dict[str, str] = {}
    files = (path, *sorted(path.parent.glob("conf.d/*.toml"))) if path else ()
    for file in files:
        tree = read_toml(file)
        lists = tuple(f"{name}[" for name, value in tree.items() if isinstance(value, list))
        found = {key: at for key, at in found.items() if not key.startswith(lists)}
        found |= {key: str(file) for key, _ in leaves(tree)}
    return found


def _variable(key: str, tree: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """The environment variable that sets this key; empty if none does.

    Items of lists are called by their id there: `HEATPOOL__SENSOR__METER__PERIOD_S`.
    """
    parts = [ENV_PREFIX.lower()]
    node: Any = tree
    for part in key.split("."):
        name, _, index = part.partition("[")
        parts.append(name)
        node = node[name]
        if index:
            node = node[int(index.removesuffix("]"))]
            parts.append(str(node.get("id")))
    wanted = [part.lower() for part in parts]
    for name in environ:
        told_parts = [part.lower() for part in name.split("__")]
        # A variable may set a whole table or list at once.
        if len(told_parts) > 1 and wanted[: len(told_parts)] == told_parts:
            return name
    return ""
