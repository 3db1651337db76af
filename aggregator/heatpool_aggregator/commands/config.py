"""`heatpool-aggregator config`: what the settings are, whether they hold, and which there are."""

import json
import os
import sys
from pathlib import Path

import click
import msgspec

from heatpool_aggregator.config import Config, load
from heatpool_aggregator.rpc.server import check_loopback

_path = click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")


@click.group("config")
def command() -> None:
    """Check, show and describe the settings."""


@command.command("check")
@_path
def check(*, path: Path | None) -> None:
    """Say every mistake with its key; exit 2 if there is one."""
    check_loopback(load(path, os.environ).listen.grpc)
    click.echo("no mistake found")


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
