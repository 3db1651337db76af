"""Command line of the simulated firmware; a sub-command is imported when it is used.

Exit codes: 0 done, 1 it could not go on, 2 the command line or a file is wrong.
"""

import importlib
import sys

import click

from heatpool.errors import ConfigError, HeatpoolError
from heatpool.process import journal

_COMMANDS = ("demo", "load", "redfish", "run", "trace")


class _OnUse(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        found = importlib.import_module(f"heatpool_sim.commands.{cmd_name}").command
        return found if isinstance(found, click.Command) else None


@click.group(cls=_OnUse)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug lines.")
@click.version_option(package_name="heatpool", prog_name="heatpool-sim")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool) -> None:
    """Simulated sites of heatpool: real protocols, physics of their own."""
    ctx.obj = debug
    journal.start(level="debug" if debug else "info")


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        cli(standalone_mode=True)
    except Exception as error:
        if "--debug" in sys.argv[1:]:
            raise
        first = _first(error)
        if not isinstance(first, HeatpoolError | OSError):
            raise
        click.echo(f"heatpool-sim: {first}", err=True)
        sys.exit(2 if isinstance(first, ConfigError) else 1)


def _first(error: Exception) -> Exception:
    """The failure itself, out of the groups that task groups wrap around it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
