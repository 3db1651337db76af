"""One thing that was found, and the settings that would read it."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_COLUMNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A sensor, or what might become one.

    `seen` is for people. `block` is its [[sensor]] block; where `missing` tells what a person must
    add, the block is a suggestion and stays commented out. `options` are keys worth setting.
    """

    place: str
    kind: str
    seen: Sequence[str] = ()
    block: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    options: Sequence[str] = ()


def toml(found: Sequence[Found]) -> str:
    """The blocks of a file of settings; it holds as it stands."""
    return "\n".join(line for one in found for line in (*_lines(one), "")).rstrip()


def _lines(one: Found) -> Iterator[str]:
    for said in one.seen:
        yield from textwrap.wrap(
            _printable(f"{one.place}: {said}"),
            _COLUMNS,
            initial_indent="# ",
            subsequent_indent="#   ",
        )
    if not one.block:
        return
    mark = ""
    if one.missing:
        mark = "#"
        told = f"to use it, {one.missing} and take the marks away:"
        yield from textwrap.wrap(told, _COLUMNS, initial_indent="# ", subsequent_indent="#   ")
    yield f"{mark}[[sensor]]"
    for key, value in one.block.items():
        # JSON's numbers, texts and lists of texts are TOML's too.
        yield f"{mark}{key} = {json.dumps(value, ensure_ascii=False)}"
    yield from (f"#{option}" for option in one.options)


def _printable(said: str) -> str:
    """What a device says of itself must not end a comment, nor colour a terminal."""
    return "".join(sign if sign.isprintable() else "?" for sign in said)


def document(one: Found) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "place": one.place,
        "kind": one.kind,
        "seen": list(one.seen),
        "block": dict(one.block) or None,
        "missing": one.missing,
    }


def name_of(kind: str, host: str, port: int | None = None) -> str:
    """An id for a sensor there, of characters that ids may have."""
    kept = "".join(sign if sign.isalnum() else "-" for sign in host).strip("-")
    tail = f"-{port}" if port else ""
    return f"{kind}-{kept}{tail}"[:64]
