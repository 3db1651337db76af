"""`heatpool-agent config`: what the settings are, whether they hold, and which there are."""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import click
import msgspec

from heatpool.sample import SiteId
from heatpool_agent.assembly import SystemClock, open_parts
from heatpool_agent.board import Board
from heatpool_agent.config import Config, load

_path = click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")


@click.group("config")
def command() -> None:
    """Check, show and describe the settings."""


@command.command("check")
@_path
def check(*, path: Path | None) -> None:
    """Say every mistake with its key; exit 2 if there is one. Touches no device."""
    config = load(path, os.environ)
    asyncio.run(_opened(config))
    click.echo("no mistake found")


async def _opened(config: Config) -> None:
    """Drivers check their own blocks when they are opened; opening touches no device."""
    board, clock = Board(site_id=SiteId("check")), SystemClock()
    async with AsyncExitStack() as stack:
        await open_parts(config, board, clock, stack)


@command.command("show")
@_path
def show(*, path: Path | None) -> None:
    """Print the effective settings as JSON."""
    shown = msgspec.to_builtins(load(path, os.environ))
    json.dump(shown, sys.stdout, indent=2)
    sys.stdout.write("\n")


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of the settings, for editors."""
    json.dump(msgspec.json.schema(Config), sys.stdout, indent=2)
    sys.stdout.write("\n")
