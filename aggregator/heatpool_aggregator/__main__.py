"""`heatpool-aggregator`: one sub-command a file, imported on use; exit codes in one place."""

import importlib
import logging
import os
import sys
from importlib.metadata import version
from typing import Any

try:
    import click
except ImportError as error:
    sys.exit(f"{error.name} is missing; install it by: pip install 'heatpool[aggregator]'")

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process import journal
from heatpool_aggregator.rpc import GRPC_POLLING

EXIT_RUN, EXIT_USAGE = 1, 2
COMMANDS = ("run", "config", "init", "token", "site", "user", "certificate", "audit")


class Lazy(click.Group):
    """Imports a sub-command's module only when it is called for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the sub-commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The sub-command of that name."""
        if name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"heatpool_aggregator.commands.{name}")
        command: click.Command = module.command
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("heatpool"), prog_name="heatpool-aggregator")
@click.option("--debug", is_flag=True, help="Log everything, and show where an error comes from.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool) -> None:
    """Pools the waste heat of edge sites into virtual heat sources, and settles it."""
    journal.start(level="debug" if debug else "info")
    ctx.obj = debug


def main() -> None:
    """Runs the command line; every expected failure is a line on stderr and an exit code."""
    is_debug = "--debug" in sys.argv
    # Read when grpc is imported: else each failed handshake, and each head that is too large, is a
    # line on stderr, past the journal.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_POLLING)
    try:
        cli(standalone_mode=True)
    except ConfigError as error:
        _leave(error, EXIT_USAGE, is_debug)
    except (HeatpoolError, OSError) as error:
        _leave(error, EXIT_RUN, is_debug)
    except ExceptionGroup as group:
        _leave(_innermost(group), EXIT_RUN, is_debug)


def _leave(error: BaseException, code: int, is_debug: bool) -> None:  # noqa: FBT001  # one flag
    if is_debug:
        logging.getLogger(__name__).error("failed", exc_info=error)
    sys.stderr.write(f"heatpool-aggregator: {error}\n")
    sys.exit(code)


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
