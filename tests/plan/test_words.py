"""Names that we define keep to docs/vocabulary.md, section 5; this test reads its table."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

SCOPES = frozenset({"part", "whole", "suffix", "text"})
# Names that a library's interface gives us, each with the interface.
NOT_OURS: Mapping[str, str] = {}
PROSE = (".md", ".html", ".js")
FOLDERS = ("agent", "aggregator", "firmware-sim", "protos", "docs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """One forbidden word: where it may not stand, and what is exempt."""

    word: str
    scopes: frozenset[str]
    exempt: tuple[str, ...]

    def is_in(self, name: str, path: str) -> bool:
        """Whether the name breaks this ban, in snake case, at this place."""
        if any("/" in ok and fnmatch(path, ok) for ok in self.exempt):
            return False
        for ok in self.exempt:
            name = name.replace(ok, "")
        if "suffix" in self.scopes:
            return name.removesuffix("_u").endswith(f"_{self.word}")
        if "whole" in self.scopes:
            return name == self.word
        return "part" in self.scopes and f"_{self.word}_" in f"_{name}_"


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def read_bans(page: str) -> list[Ban]:
    section = page.split("## 5. ")[1].split("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [
        Ban(
            word=word,
            scopes=frozenset(scope.strip() for scope in row[1].split(",")),
            exempt=tuple(quoted(row[3])) if len(row) > 3 else (),
        )
        for row in rows
        for word in quoted(row[0])
    ]


@pytest.fixture(scope="module")
def bans(repository: Path) -> list[Ban]:
    return read_bans((repository / "docs" / "vocabulary.md").read_text())


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")


def defined_names(tree: ast.Module) -> Iterator[str]:
    """What a module defines: classes, functions, arguments, variables, fields, import aliases."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.AsyncFunctionDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(asname=str(name)):
                yield name
            case ast.Constant(value=str(text)) if "CREATE TABLE" in text:
                yield from re.findall(r"[a-z_]{3,}", text)


def proto_names(text: str) -> Iterator[str]:
    code = re.sub(r"//.*", "", text)
    yield from re.findall(r"\b([A-Za-z_][A-Za-z0-9_]*)\s*=\s*\d+;", code)
    yield from re.findall(r"\b(?:message|enum|service|rpc|oneof)\s+(\w+)", code)


def keys(table: object) -> Iterator[str]:
    if isinstance(table, dict):
        yield from table
        for value in table.values():
            yield from keys(value)
    elif isinstance(table, list):
        for value in table:
            yield from keys(value)


def broken(names: Iterable[str], path: str, bans: list[Ban]) -> list[str]:
    return [
        f"{path}: {name} ({ban.word})"
        for name in sorted(set(names) - set(NOT_OURS))
        for ban in bans
        if ban.is_in(snake(name), path)
    ]


def files(repository: Path, *suffixes: str) -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        for path in sorted((repository / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path.relative_to(repository).as_posix(), path


def test_the_table_is_read_whole(bans: list[Ban]) -> None:
    assert len(bans) > 40
    assert {scope for ban in bans for scope in ban.scopes} == SCOPES


@pytest.mark.parametrize(
    "name", ["byte_buffer", "flow", "thread_pool", "register_kwh", "inlet_c", "HeatManager"]
)
def test_a_banned_word_is_seen(name: str, bans: list[Ban]) -> None:
    assert broken([name], "agent/heatpool_agent/core/x.py", bans)


@pytest.mark.parametrize(
    "name", ["volume_flow_m3_h", "swimming_pool", "price_eur_mwh", "tmp_path", "heatpool", "format"]
)
def test_a_good_name_passes(name: str, bans: list[Ban]) -> None:
    assert not broken([name], "agent/heatpool_agent/core/x.py", bans)


def test_our_names_in_python_are_the_vocabulary_s(
    trees: Mapping[str, ast.Module], bans: list[Ban]
) -> None:
    found = [
        line
        for path, tree in trees.items()
        for line in broken([*defined_names(tree), Path(path).stem], path, bans)
    ]
    assert not found, "\n".join(found)


def test_our_names_on_the_wire_are_the_vocabulary_s(repository: Path, bans: list[Ban]) -> None:
    protos = files(repository, ".proto")
    found = [line for name, p in protos for line in broken(proto_names(p.read_text()), name, bans)]
    assert not found, "\n".join(found)


def test_our_keys_in_toml_are_the_vocabulary_s(repository: Path, bans: list[Ban]) -> None:
    found = [
        line
        for name, path in files(repository, ".toml")
        for line in broken(toml_keys(path), name, bans)
    ]
    assert not found, "\n".join(found)


def toml_keys(path: Path) -> Iterator[str]:
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    yield from keys(table)


def test_no_page_uses_a_word_that_is_banned_from_text(repository: Path, bans: list[Ban]) -> None:
    spoken = [ban.word for ban in bans if "text" in ban.scopes]
    found = [
        f"{name}: {word}"
        for name, path in files(repository, *PROSE)
        if name != "docs/vocabulary.md"
        for word in spoken
        if word.lower() in path.read_text(encoding="utf-8").lower()
    ]
    assert not found, "\n".join(found)
