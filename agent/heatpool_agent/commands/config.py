"""`heatpool-agent config`: what the settings are, whether they hold, and which there are."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from heatpool.errors import ConfigError
from heatpool.sample import SiteId
from heatpool_agent import actuators, sensors
from heatpool_agent.assembly import SystemClock, open_parts
from heatpool_agent.board import Board
from heatpool_agent.config import Config, load, load_what_holds
from heatpool_agent.origins import leaves, origins

SCHEMA = "heatpool.config/1"
CHECK_SCHEMA = "heatpool.config_check/1"
MISTAKEN = 2
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_path = click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
# Secrets belong into files; a key that ends so, set by mistake, is still not shown.
_SECRET_ENDS = ("password", "secret", "token", "passphrase")
_HIDDEN = "(hidden)"


@click.group("config")
def command() -> None:
    """Check, show and describe the settings."""


@command.command("check")
@_path
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def check(*, path: Path | None, as_json: bool) -> None:
    """Say every mistake with its key; exit 2 if there is one. Touches no device."""
    found = _mistakes(path)
    if as_json:
        _print({"schema": CHECK_SCHEMA, "ok": not found, "mistakes": found})
        sys.exit(MISTAKEN if found else 0)
    if found:
        raise ConfigError(found, file=str(path or ""))
    click.echo("no mistake found")


def _mistakes(path: Path | None) -> list[str]:
    """Every mistake of the file, the environment and the drivers' own blocks."""
    config, found = load_what_holds(path, os.environ)
    if config is not None:
        further = asyncio.run(_blocks_mistaken(config))
        found += [said for said in further if not _may_follow(said, found)]
    return found


def _print(document: Mapping[str, Any]) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _may_follow(said: str, found: Sequence[str]) -> bool:
    """Whether a mistake may be there only because another one of its section took a key away."""
    # A key too many takes nothing away.
    broken = {_section(one) for one in found if ": is unknown;" not in one} - {"sensor"}
    is_about_loop = ": loop: is " in said or ": primary_loop: is " in said
    return _section(said) in broken or (is_about_loop and "loop" in broken)


def _section(said: str) -> str:
    return re.split(r"\W", said, maxsplit=1)[0]


async def _blocks_mistaken(config: Config) -> Sequence[str]:
    """Drivers check their own blocks when they are opened; opening touches no device."""
    try:
        await _opened(config)
    except ConfigError as error:
        return error.mistakes
    return ()


async def _opened(config: Config) -> None:
    board, clock = Board(site_id=SiteId("check")), SystemClock()
    async with AsyncExitStack() as stack:
        await open_parts(config, board, clock, stack)


@command.command("show")
@_path
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of lines.")
def show(*, path: Path | None, as_json: bool) -> None:
    """Print the effective settings, each with the file or variable it comes from."""
    config = load(path, os.environ)
    tree = _open_to_all(msgspec.to_builtins(config))
    found = origins(config, path, os.environ)
    if as_json:
        _print({"schema": SCHEMA, "settings": tree, "origins": found})
    else:
        click.echo("\n".join(_lines(tree, found)))


def _open_to_all(tree: Any) -> Any:
    """The tree without secrets."""
    if isinstance(tree, Mapping):
        return {
            key: _HIDDEN if str(key).endswith(_SECRET_ENDS) and value else _open_to_all(value)
            for key, value in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [_open_to_all(item) for item in tree]
    # A login in front of a host is a secret, too.
    if isinstance(tree, str) and "://" in tree and "@" in tree:
        scheme, _, rest = tree.partition("://")
        return f"{scheme}://{_HIDDEN}@{rest.rpartition('@')[2]}"
    return tree


def _lines(tree: Mapping[str, Any], found: Mapping[str, str]) -> Iterator[str]:
    rows = [(f"{key} = {_toml(value)}", found[key]) for key, value in leaves(tree)]
    width = min(max(len(said) for said, _ in rows), 64)
    for said, origin in rows:
        yield f"{said.ljust(width)}  # {origin}"


def _toml(value: Any) -> str:
    """A value as it would stand in the file; TOML has no null, so absent is empty."""
    return "" if value is None else json.dumps(value, ensure_ascii=False)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of the settings, for editors, each driver's block in it."""
    _print(json_schema())


def json_schema() -> dict[str, Any]:
    """JSON Schema of the whole file: a sensor's or actuator's keys follow from its kind."""
    blocks = {
        "sensor": _blocks(sensors, sensors.OWN),
        "actuator": _blocks(actuators, actuators.OWN),
    }
    every = [Config, *(kind for found in blocks.values() for kind in found.values())]
    shapes, parts = msgspec.json.schema_components(every, ref_template="#/$defs/{name}")
    whole, *others = (_name(shape) for shape in shapes)
    names = iter(others)
    document = {"$schema": DIALECT, **parts[whole], "title": "heatpool agent"}
    for place, kinds in blocks.items():
        choices = [_of_kind(parts[next(names)], kind) for kind in kinds]
        document["properties"][place]["items"] = {"oneOf": choices}
    rest = {name: part for name, part in parts.items() if name not in (whole, *others)}
    return {**document, "$defs": rest}


def _of_kind(block: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The schema of a driver's block, told apart from the others by its kind."""
    return {
        **block,
        "title": kind,
        "properties": {**block["properties"], "kind": {"const": kind}},
        "required": list(dict.fromkeys([*block.get("required", ()), "kind"])),
    }


def _name(shape: Mapping[str, Any]) -> str:
    return str(shape["$ref"]).rpartition("/")[2]


def _blocks(room: Any, kinds: tuple[str, ...]) -> dict[str, type[msgspec.Struct]]:
    """The settings of every driver that can be imported here, by its kind."""
    found = {}
    for kind in kinds:
        try:
            found[kind] = room.driver(kind).Config
        except ConfigError:
            continue
    return found
