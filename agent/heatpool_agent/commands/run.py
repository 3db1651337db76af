"""`heatpool-agent run`: the daemon in the foreground."""

import asyncio
import os
from pathlib import Path

import click

from heatpool_agent import app
from heatpool_agent.config import load


@click.command("run")
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Write the page's address there, as JSON, once the agent serves.",
)
def command(*, path: Path | None, ready_file: Path | None) -> None:
    """Read, estimate, keep and send, until TERM or Ctrl-C.

    Without settings it finds what this machine has, and sends nowhere.
    """
    config = load(path, os.environ)
    asyncio.run(app.run(config, environ=os.environ, ready_file=ready_file))
