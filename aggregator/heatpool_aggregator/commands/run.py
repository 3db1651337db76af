"""`heatpool-aggregator run`: the service in the foreground."""

import asyncio
import os
import resource
from pathlib import Path

import click

from heatpool_aggregator import app
from heatpool_aggregator.config import load
from heatpool_aggregator.rpc.wakeups import EventLoop


@click.command("run")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Write the addresses there, as JSON, once the aggregator serves.",
)
def command(*, path: Path | None, ready_file: Path | None) -> None:
    """Take in what sites send, settle it, and serve it, until TERM or Ctrl-C."""
    # Log, store and ledger are for whoever runs the service: meters and money are in them.
    os.umask(0o077)
    _take_descriptors()
    config = load(path, os.environ)
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(app.run(config, environ=os.environ, ready_file=ready_file))


def _take_descriptors() -> None:
    """As many as are allowed: each site has a connection, and most systems begin at 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
