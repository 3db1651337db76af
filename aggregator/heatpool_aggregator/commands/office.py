"""What the commands on identity share: settings, the open doors, the audit log, the printing."""

import asyncio
import getpass
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from heatpool.errors import HeatpoolError
from heatpool.units import NS_PER_S as NS_PER_S
from heatpool_aggregator.config import Config, load, state_dir
from heatpool_aggregator.core.instant import utc
from heatpool_aggregator.core.principal import is_name
from heatpool_aggregator.identity import authority
from heatpool_aggregator.identity.authority import Authority
from heatpool_aggregator.identity.places import Places, places
from heatpool_aggregator.ports import Audit, Clock, Identities

F = TypeVar("F", bound=Callable[..., Any])
Row = Mapping[str, object]
# Whoever is on this machine reaches the service by these, and nobody else does.
HERE = ("localhost", "127.0.0.1", "::1")
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,5})([mhd])")


class _Clock:
    """The clocks of this machine; the service's own would bring all of its libraries along."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        return time.time_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot; no clock step touches it."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Which aggregator is meant, and how to print."""

    config: Config
    state_dir: Path
    is_json: bool

    @property
    def files(self) -> Places:
        """Its keys and certificates."""
        return places(self.state_dir)

    def authority(self) -> Authority:
        """Its CA.

        Raises:
            HeatpoolError: it has none.
        """
        if not self.files.ca_key.is_file():
            raise HeatpoolError(
                f"{self.files.folder}: there is no CA here: run `heatpool-aggregator init`, or "
                "name the service's state folder with --dir or --config"
            )
        return authority.load(self.files)

    def say(self, result: object, text: Callable[[], str]) -> None:
        """The result as JSON, or the text about it."""
        sys.stdout.write(f"{json.dumps(result, indent=2) if self.is_json else text()}\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """The open doors."""

    setting: Setting
    identities: Identities
    audit: Audit
    clock: Clock

    async def tell(self, action: str, subject: str, *, reason: str = "", **detail: object) -> None:
        """Puts into the audit log what a person did at this machine."""
        await self.audit.append(
            who="local",
            action=action,
            subject=subject,
            reason=reason,
            detail=json.dumps({"os_user": _os_user(), **detail}),
            at_ns=self.clock.now_ns(),
        )


def at_desk(function: F) -> F:
    """Options of every command here: --config, --dir, --json."""
    kind = click.Path(path_type=Path)
    for option in (
        click.option("--json", "is_json", is_flag=True, help="Print JSON."),
        click.option("--dir", "directory", type=kind, help="The service's state folder."),
        click.option("--config", "path", type=kind, help="Settings, TOML."),
    ):
        function = option(function)
    return function


def setting(*, path: Path | None, directory: Path | None, is_json: bool) -> Setting:
    """The aggregator that the options mean.

    Raises:
        ConfigError: the settings cannot be used.
    """
    config = load(path, os.environ)
    folder = directory or state_dir(config, os.environ)
    return Setting(config=config, state_dir=folder, is_json=is_json)


def work(setting: Setting, task: Callable[[Office], Awaitable[None]]) -> None:
    """Runs the task with the doors open, beside a running service or without one.

    Raises:
        HeatpoolError: no aggregator keeps its state there, and a slip must not begin another one.
    """
    from heatpool_aggregator.stores.identities import FILE_NAME

    if not (setting.state_dir / FILE_NAME).is_file():
        raise HeatpoolError(
            f"{setting.state_dir}: no aggregator keeps its state here: name the service's state "
            "folder with --dir or --config; `heatpool-aggregator init` or the service's first "
            "start makes it"
        )
    begin(setting, task)


def begin(setting: Setting, task: Callable[[Office], Awaitable[None]]) -> None:
    """Runs the task with the doors open, in a new folder too."""

    async def inside() -> None:
        async with opened(setting) as office:
            await task(office)

    asyncio.run(inside())


@asynccontextmanager
async def opened(setting: Setting) -> AsyncIterator[Office]:
    """The doors of this aggregator.

    Raises:
        StoreError: a file cannot be used.
    """
    from heatpool_aggregator.stores.audit import open_audit
    from heatpool_aggregator.stores.identities import open_identities

    clock = _Clock()
    domain = setting.config.tls.trust_domain
    async with (
        open_identities(setting.state_dir, trust_domain=domain, clock=clock) as identities,
        open_audit(setting.state_dir) as audit,
    ):
        yield Office(setting=setting, identities=identities, audit=audit, clock=clock)


def span_s(_: click.Context, __: click.Parameter, value: str) -> int:
    """`90m`, `24h`, `30d` as seconds; a callback of options."""
    found = _SPAN.fullmatch(value)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is no span of time: write 90m, 24h or 30d")
    return int(found[1]) * _UNITS_S[found[2]]


def name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A name as certificates and URIs can carry it; a callback of options and arguments."""
    if value is not None and not is_name(value):
        raise click.BadParameter(
            f"{value!r} cannot be a name: up to 64 of A-Z a-z 0-9 . _ -, the first a letter or "
            "digit"
        )
    return value


def table(rows: Sequence[Row], *, empty: str) -> str:
    """Rows as columns under their names; what is None or empty is a dash."""
    if not rows:
        return empty
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def iso(at_ns: int | None) -> str | None:
    """A time as people and programs read it."""
    return None if at_ns is None else utc(at_ns)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "" if value is None else str(value)
    return "".join(sign if sign.isprintable() else "?" for sign in text) or "-"


def _os_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name
        return str(os.getuid())
