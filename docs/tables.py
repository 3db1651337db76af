"""Rewrites the generated tables of the manual: everything between `table:` and `end` comments.

`make docs` runs it; tests/plan/test_docs.py fails where a page does not hold what it would write.
"""

import importlib
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import inspect as kinds

from heatpool import errors

DOCS = Path(__file__).resolve().parent
PROGRAMS = ("heatpool-agent", "heatpool-aggregator", "heatpool", "heatpool-sim")
BLOCK = re.compile(r"(<!-- table: ([^\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
BOUNDS = (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def project() -> dict[str, Any]:
    """The project's table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]
    return table


def command_line(program: str) -> click.Group:
    """The group of sub-commands behind a program's entry point."""
    module = importlib.import_module(project()["scripts"][program].partition(":")[0])
    return next(value for value in vars(module).values() if isinstance(value, click.Group))


def command_rows(words: str, group: click.Group) -> Iterator[tuple[str, str]]:
    """Each command with its first line of help; a group is opened, not listed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{words} lists {name} but has no such command"
        if isinstance(command, click.Group):
            yield from command_rows(f"{words} {name}", command)
        else:
            yield f"`{words} {name}`", command.get_short_help_str(limit=200)


def commands() -> str:
    """Every command of every program."""
    rows = [row for name in PROGRAMS for row in command_rows(name, command_line(name))]
    return table(("command", "what it does"), rows)


def bounds_text(kind: Any) -> str:
    """Bounds of a number, such as ` ≥ 1, ≤ 900`; none, nothing."""
    bounds = [(sign, getattr(kind, name)) for name, sign in BOUNDS]
    told = [f"{sign} {bound:,}" for sign, bound in bounds if bound is not None]
    return f" {', '.join(told)}" if told else ""


def type_text(kind: Any) -> str:
    """What a key holds, in the words of TOML."""
    match kind:
        case kinds.FloatType() | kinds.IntType():
            return ("number" if isinstance(kind, kinds.FloatType) else "whole") + bounds_text(kind)
        case kinds.Metadata(type=inner):
            return type_text(inner)
        case kinds.StrType():
            return "text"
        case kinds.BoolType():
            return "true or false"
        case kinds.DecimalType():
            return "decimal text"
        case kinds.DateTimeType():
            return "time with zone"
        case kinds.LiteralType(values=values):
            return ", ".join(f"`{value}`" if value else "empty" for value in values)
        case kinds.EnumType(cls=cls):
            return ", ".join(f"`{member.value}`" for member in cls)
        case kinds.UnionType(types=types):
            return " or ".join(type_text(t) for t in types if not isinstance(t, kinds.NoneType))
        case kinds.VarTupleType(item_type=item):
            return f"list of {type_text(item)}"
        case kinds.DictType():
            return "table"
    return "anything"


def default_text(field: kinds.Field) -> str:
    """What holds when the key is left out."""
    if field.required:
        return "needed"
    value = field.default if field.default is not msgspec.NODEFAULT else None
    if isinstance(value, Enum):
        value = value.value
    if value is None or value in ("", ()):
        return ""
    return f"`{json.dumps(value)}`" if isinstance(value, bool | int | float | str) else f"`{value}`"


def key_rows(struct: Any, before: str = "") -> Iterator[tuple[str, str, str]]:
    """One row per key, tables and lists of tables opened."""
    for field in struct.fields:
        match field.type:
            case kinds.StructType() as inner:
                yield from key_rows(inner, f"{before}{field.encode_name}.")
            case kinds.VarTupleType(item_type=kinds.StructType() as inner):
                yield from key_rows(inner, f"{before}{field.encode_name}[].")
            case kind:
                name = f"`{before}{field.encode_name}`"
                yield name, type_text(kind), default_text(field)


def keys(module: str, leave_out: str = "") -> str:
    """The keys of a module's `Config`, less those of another class of settings."""
    config = importlib.import_module(module).Config
    known = set()
    if leave_out:
        place, _, name = leave_out.partition(":")
        known = set(getattr(importlib.import_module(place), name).__struct_fields__) - {"kind"}
    rows = [row for row in key_rows(kinds.type_info(config)) if row[0].strip("`") not in known]
    return table(("key", "holds", "left out"), rows)


def struct(place: str) -> str:
    """The keys of one class of settings, named `module:class`."""
    module, _, name = place.partition(":")
    kind = kinds.type_info(getattr(importlib.import_module(module), name))
    return table(("key", "holds", "left out"), key_rows(kind))


def drivers() -> str:
    """Entry points of the agent's and the aggregator's extension points."""
    groups = {name: group for name, group in project()["entry-points"].items() if group}
    found = [
        (f"`{group}`", f"`{name}`", f"`{module}`")
        for group, entries in groups.items()
        for name, module in entries.items()
    ]
    return table(("entry point", "name", "module"), found)


def error_tree() -> str:
    """Every error and what its catcher does."""
    found = [
        (f"`{name}`", (inspect.getdoc(kind) or "").splitlines()[0])
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.HeatpoolError)
    ]
    return table(("error", "meaning"), found)


MAKERS: dict[str, Callable[..., str]] = {
    "commands": commands,
    "keys": keys,
    "struct": struct,
    "drivers": drivers,
    "errors": error_tree,
}


def rewritten(page: str) -> str:
    """The page with every generated table made anew."""

    def fresh(found: re.Match[str]) -> str:
        name, *arguments = found[2].split()
        return found[1] + MAKERS[name](*arguments) + found[3]

    return BLOCK.sub(fresh, page)


def main() -> None:
    """Rewrites the pages that are out of date and names them."""
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (fresh := rewritten(page)) != page:
            path.write_text(fresh, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    main()
