"""The operator's `heatpool` command: asks an aggregator, prints a table or one JSON document.

Exit status: 0 answered, 1 the aggregator said no, 2 wrong usage, 69 nobody answers.
"""

import errno
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.core import ParameterSource

from heatpool.errors import HeatpoolError, UplinkError
from heatpool_aggregator.client import calls, commands_orders, tables
from heatpool_aggregator.client.line import Place, read_identity

DEFAULT_ADDRESS = "127.0.0.1:8443"
REFUSED, UNREACHABLE = 1, 69  # 69 is EX_UNAVAILABLE of sysexits.h

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 2**63 - 1  # the wire's whole numbers end here, in 2262
_SECURE = "https://"
_ADDRESS = re.compile(r"(https://)?(\[[0-9A-Fa-f:.]+\]|[^:/\s]+):(\d{1,5})")
C = TypeVar("C", bound=Callable[..., Any])


class Address(click.ParamType[str]):
    """HOST:PORT, or https://HOST:PORT."""

    name = "[https://]HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """The address as it is."""
        found = _ADDRESS.fullmatch(str(value).removesuffix("/"))
        if found is None or not 0 < int(found[3]) < 65536:
            self.fail(f"{value!r} is no HOST:PORT, for example {DEFAULT_ADDRESS}", param, ctx)
        return found[0]


class Instant(click.ParamType[int]):
    """A time with its zone, as ns since 1970."""

    name = "TIME"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Nanoseconds, exact to the microsecond."""
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time, for example 2026-03-01T12:00:00Z", param, ctx)
        if at.tzinfo is None:
            self.fail(f"{value!r} has no zone, add Z for UTC", param, ctx)
        at_ns = (at - _EPOCH) // timedelta(microseconds=1) * 1000
        if not 0 <= at_ns <= _LAST_NS:
            self.fail(f"{value!r} must lie between 1970 and 2262", param, ctx)
        return at_ns


def _options(command: C) -> C:
    """What every question may say; address and identity reach it as one `place`."""

    @wraps(command)
    def placed(**rest: Any) -> Any:
        place = _place(_said("address", rest), _said("identity", rest))
        return command(place, **rest)

    found: Any = placed
    for option in (
        click.option("--debug", is_flag=True, help="Show where an error came from."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document."),
    ):
        found = option(found)
    return cast("C", _where(found, default=DEFAULT_ADDRESS, is_env_read=True))


def _where(command: C, *, default: str | None, is_env_read: bool) -> C:
    """Options for whom to ask, and as whom."""
    identity = click.option(
        "--identity",
        type=click.Path(path_type=Path),
        envvar="HEATPOOL_IDENTITY" if is_env_read else None,
        show_envvar=True,
        help="Key, certificate and CA in one file; without it only this machine is asked.",
    )
    address = click.option(
        "--address",
        type=Address(),
        envvar="HEATPOOL_ADDRESS" if is_env_read else None,
        default=default,
        show_default=True,
        show_envvar=True,
        help="Where the aggregator listens for gRPC.",
    )
    return address(identity(command))


def _said(name: str, rest: dict[str, Any]) -> Any:
    """What was said behind the command, else before it, else in the environment."""
    after, context = rest.pop(name), click.get_current_context()
    before = (context.obj or {}).get(name)
    is_said = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    return after if is_said or before is None else before


def _place(address: str, identity: Path | None) -> Place:
    """Where to ask, and as whom.

    Raises:
        click.UsageError: these two do not go together, or the identity is none.
    """
    is_secure, bare = address.startswith(_SECURE), address.removeprefix(_SECURE)
    try:
        place = Place(address=bare, identity=read_identity(identity) if identity else None)
    except HeatpoolError as error:
        raise click.UsageError(str(error)) from error
    if identity is None and (is_secure or not place.is_own):
        raise click.UsageError(
            f"{address} wants a certificate: name yours by --identity FILE or HEATPOOL_IDENTITY; "
            "`heatpool-aggregator user add` makes it"
        )
    return place


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heatpool", prog_name="heatpool")
@partial(_where, default=None, is_env_read=False)
@click.pass_context
def main(context: click.Context, /, **said: Any) -> None:
    """Asks an aggregator what its sites and virtual sources do and earn."""
    context.obj = said


@main.command()
@_options
def sites(place: Place, *, as_json: bool, debug: bool) -> None:
    """State of every site."""
    _show(
        lambda: calls.sites(place),
        tables.sites_json if as_json else tables.sites_table,
        debug=debug,
    )


@main.command()
@_options
def sources(place: Place, *, as_json: bool, debug: bool) -> None:
    """State of every virtual source."""
    _show(
        lambda: calls.sources(place),
        tables.sources_json if as_json else tables.sources_table,
        debug=debug,
    )


@main.command()
@_options
@click.option("--at", "at_ns", type=Instant(), help="A time in the period, with its zone.")
def statement(place: Place, at_ns: int | None, *, as_json: bool, debug: bool) -> None:
    """Statement of a closed settlement period, by default of the last one."""
    _show(
        lambda: calls.statement(place, at_ns),
        tables.statement_json if as_json else tables.statement_table,
        debug=debug,
    )


@main.command()
@_options
@click.option("--site", "site_id", default="", metavar="SITE_ID", help="Only this site.")
def gaps(place: Place, site_id: str, *, as_json: bool, debug: bool) -> None:
    """Rows that will never come, with the reason."""
    _show(
        lambda: calls.gaps(place, site_id),
        tables.gaps_json if as_json else tables.gaps_table,
        debug=debug,
    )


def _show(ask: Callable[[], Any], shape: Callable[[Any], Any], *, debug: bool) -> None:
    """Prints the answer; a failure is one line on stderr and its exit status."""
    try:
        shown = shape(ask())
    except HeatpoolError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"heatpool: {error}", err=True)
        sys.exit(UNREACHABLE if isinstance(error, UplinkError) else REFUSED)
    _print(shown if isinstance(shown, str) else json.dumps(shown, indent=2))


def _print(text: str) -> None:
    """Writes to stdout; a place that takes nothing is one line on stderr and status 1."""
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # a reader that went away, such as `head`: click ends quietly
        click.echo(f"heatpool: stdout: {error.strerror}; write it elsewhere", err=True)
        # What is left unwritten must not fail a second time at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(REFUSED)


commands_orders.add_to(main, options=_options, show=_show)

if __name__ == "__main__":
    main()
