"""`heatpool-agent detect`: what this machine and named hosts offer, as settings to paste."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from heatpool_agent.assembly import SystemClock
from heatpool_agent.config import Config, load
from heatpool_agent.search.found import Found, document, toml
from heatpool_agent.search.hosts import ask_host, split_host
from heatpool_agent.search.machine import own_sensors, serial_ports

SCHEMA = "heatpool.detect/1"
EXIT_NOTHING = 4
Place = tuple[str, int | None]


@click.command("detect")
@click.argument("hosts", metavar="[HOST[:PORT]]...", nargs=-1)
@click.option("--config", "path", type=click.Path(path_type=Path), help="For [roots] alone.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of TOML.")
def command(*, hosts: tuple[str, ...], path: Path | None, as_json: bool) -> None:
    """Find sensors of this machine, and of the HOSTs named; print settings ready to paste.

    The network is touched only for hosts named: a few questions at the usual ports of Redfish,
    Modbus TCP, M-Bus gateways, MQTT and IPMI, or at the one PORT. Nothing is written, nobody is
    logged in. Exit 4 if a HOST offers nothing.
    """
    try:
        places = list(dict.fromkeys(split_host(host) for host in hosts))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="HOST") from error
    own, theirs = asyncio.run(_look(load(path, os.environ), places))
    found = [*own, *(one for some in theirs for one in some)]
    if as_json:
        told = {"schema": SCHEMA, "found": [document(one) for one in found], "toml": toml(found)}
        json.dump(told, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        click.echo(f"# what heatpool-agent detect found on {socket.gethostname()}\n{toml(found)}")
    if any(not one.kind for some in theirs for one in some):
        sys.exit(EXIT_NOTHING)


async def _look(config: Config, places: Sequence[Place]) -> tuple[list[Found], list[list[Found]]]:
    """The machine's own sensors, and each host's; hosts side by side, each asked in a row."""
    own, ports, *theirs = await asyncio.gather(
        own_sensors(config, SystemClock()),
        asyncio.to_thread(serial_ports, config.roots.roots().dev),
        *(ask_host(host, port) for host, port in places),
    )
    return [*own, *ports], theirs
