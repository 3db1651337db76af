"""`heatpool-agent run`: the daemon in the foreground."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from heatpool_agent.config import Config

# Kinds that read this machine or a plain line; whatever else may want to speak TLS.
PLAIN_KINDS = frozenset({"rapl", "hwmon", "nvml", "host", "mbus"})


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
        from heatpool_agent.config import load, state_dir
    config = load(path, os.environ)
    # What the agent leaves on disk is nobody else's: registers, its name, sessions to log out of.
    os.umask(0o077)
    if is_plain(config) and not has_joined(state_dir(config, os.environ)):
        _leave_openssl_out()
    import asyncio

    from heatpool_agent import app
    from heatpool_agent.commands.leaving import leave_if_hung, workers

    with asyncio.Runner() as runner:
        threads = workers()
        runner.get_loop().set_default_executor(threads)
        runner.run(app.run(config, environ=os.environ, ready_file=ready_file))
        # Here, since the runner's own end waits for them without limit.
        leave_if_hung(threads)


def has_joined(folder: Path) -> bool:
    """Whether this site has an identity, and so somewhere to send to over TLS."""
    return (folder / "identity" / "place.json").exists()


def is_plain(config: "Config") -> bool:
    """Whether nothing that the settings name can ever speak TLS or serve a page."""
    if config.http.listen or config.aggregator.url or config.actuator or not config.sensor:
        return False
    return {str(block.get("kind")) for block in config.sensor} <= PLAIN_KINDS


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


def _leave_openssl_out() -> None:
    """Spares 4 MB: asyncio and hashlib load OpenSSL if it is there, and do as well without it.

    Both run on Pythons built without OpenSSL; a name that is None in sys.modules is such a Python.
    """
    if "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]
        sys.modules["_hashlib"] = None  # type: ignore[assignment]
