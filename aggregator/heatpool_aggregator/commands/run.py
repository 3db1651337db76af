"""`heatpool-aggregator run`: the service in the foreground."""

import asyncio
import ctypes
import os
import resource
from contextlib import suppress
from pathlib import Path

import click

from heatpool_aggregator import app
from heatpool_aggregator.config import load
from heatpool_aggregator.rpc.wakeups import EventLoop

# Of glibc: how much freed memory is kept at the top of the heap, and what is too large for it.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES, LARGE_BYTES = 32 << 20, 8 << 20


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
    _keep_memory()
    config = load(path, os.environ)
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        runner.run(app.run(config, environ=os.environ, ready_file=ready_file))


def _take_descriptors() -> None:
    """As many as are allowed: each site has a connection, and most systems begin at 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep_memory() -> None:
    """Keeps what is freed for what comes: arrays of one commit are followed by those of the next.

    To get memory anew from the system costs more than to decode what is put there. Another C
    library than glibc has no such setting, and needs none.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
