"""`heatpool-agent run`: the daemon in the foreground."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heatpool_agent.commands import without_tls

if TYPE_CHECKING:
    from heatpool_agent.config import Config

# Kinds that read this machine, a plain line or a child's words; whatever else may speak TLS.
PLAIN_KINDS = frozenset({"rapl", "hwmon", "nvml", "host", "ipmi", "modbus", "mbus", "dry_run"})


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
    with _without("typing_extensions"):
        from heatpool_agent.config import load
    config = load(path, os.environ)
    # What the agent leaves on disk is nobody else's: registers, its name, sessions to log out of.
    os.umask(0o077)
    if is_plain(config):
        without_tls.leave_out(has_page=bool(config.http.listen))
    import asyncio

    from heatpool_agent import app
    from heatpool_agent.commands.leaving import leave_if_hung, workers

    with asyncio.Runner() as runner:
        threads = workers()
        runner.get_loop().set_default_executor(threads)
        runner.run(app.run(config, environ=os.environ, ready_file=ready_file))
        # Here, since the runner's own end waits for them without limit.
        leave_if_hung(threads)


def is_plain(config: "Config") -> bool:
    """Whether no device that the settings name can ever speak TLS; a machine's own cannot."""
    blocks = (*config.sensor, *config.actuator)
    return {str(block.get("kind")) for block in blocks} <= PLAIN_KINDS


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Spares 0.5 MB: msgspec loads typing_extensions if it is there, and does as well with typing.

    Only while it is imported: others may need the library later.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
