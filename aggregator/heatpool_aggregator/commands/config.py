"""`heatpool-aggregator config`: what the settings are, whether they hold, and which there are."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from heatpool.errors import ConfigError
from heatpool_aggregator.config import Config, load, state_dir, tls_files
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.rpc import server as rpc
from heatpool_aggregator.rpc.tls import check_files
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.web import address as web

_path = click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")


@click.group("config")
def command() -> None:
    """Check, show and describe the settings."""


@command.command("check")
@_path
def check(*, path: Path | None) -> None:
    """Say every mistake with its key; exit 2 if there is one."""
    _refuse_what_run_refuses(load(path, os.environ))
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


def _refuse_what_run_refuses(config: Config) -> None:
    """The mistakes beyond the file itself, all at once.

    Raises:
        ConfigError: `run` would refuse these settings.
    """
    here = Path()
    mistakes: list[str] = []
    try:
        files = tls_files(config, state_dir(config, os.environ))
        has_tls = files is not None
        if files is not None:
            check_files(files)
    except ConfigError as error:
        mistakes += error.mistakes
        has_tls = True
    looks: tuple[Callable[[], object], ...] = (
        lambda: (rpc.check_listen if has_tls else rpc.check_loopback)(config.listen.grpc),
        lambda: (web.check_listen if has_tls else web.check_loopback)(config.listen.http),
        lambda: open_log(config.state.log, here),  # opens nothing before it is entered
        lambda: open_store(config.state.store, here),
    )
    for look in looks:
        try:
            look()
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
