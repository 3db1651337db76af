"""The manual names every check of `doctor`, and none that is not there."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

VERDICTS = frozenset({"ok", "warn", "fail", "skip"})
# Where a name is made of a prefix and a sensor's id it ends in a colon.
PREFIX = re.compile(r"[a-z_]+:$")


def names(tree: ast.Module) -> Iterator[str]:
    """Ids of verdicts as they stand in the code, and prefixes of those that are put together."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=kind), args=[ast.Constant(value=str(name)), *_]):
                if kind in VERDICTS:
                    yield name
            case ast.JoinedStr(values=[ast.Constant(value=str(name)), *_]) if PREFIX.match(name):
                yield name


def test_the_manual_names_every_check(trees: Mapping[str, ast.Module], repository: Path) -> None:
    text = (repository / "docs" / "operate.md").read_text(encoding="utf-8")
    told = text.split("### What `doctor` checks")[1].split("###")[0]
    listed = set(re.findall(r"`([a-z_]+:?)`", told.split("|---|---|")[1].split("\n\n")[0]))
    room = "agent/heatpool_agent/doctor/"
    found = {name for path, tree in trees.items() if path.startswith(room) for name in names(tree)}
    prefixes = {name.removesuffix(":") for name in found if name.endswith(":")}
    # `map` alone says that no sensor has one; `file:` is no check but an address.
    assert listed == found - prefixes - {"file:"}
    assert len(listed) >= 30
