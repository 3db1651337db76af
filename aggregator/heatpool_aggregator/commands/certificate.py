"""`heatpool-aggregator certificate`: the server's own one, and single ones to be denied."""

import re
from pathlib import Path

import click

from heatpool.errors import ConfigError
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office
from heatpool_aggregator.identity import certificates, places, server

_SERIAL = re.compile(r"[0-9a-f]{1,40}")


@click.group("certificate")
def command() -> None:
    """The server's certificate, and the denylist."""


@command.command("renew-server")
@click.option("--host", "hosts", multiple=True, help="Other names and addresses than so far.")
@office.at_desk
def renew_server(
    *, hosts: tuple[str, ...], path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Make a new key and certificate for this server; a running service takes it up by itself.

    It also renews by itself, on the same key, at two thirds of its life.
    """
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    ca = setting.authority()

    async def renew(desk: Office) -> None:
        present = certificates.load(places.read(setting.files.server), str(setting.files.server))
        names = list(hosts) or certificates.hosts_of(present)
        issued = server.make(ca, setting.files, names, now_ns=desk.clock.now_ns())
        await desk.tell("certificate.renew_server", "server", serial=issued.serial, hosts=names)
        result = {
            "serial": issued.serial,
            "hosts": names,
            "until": office.iso(issued.expires_ns),
        }
        setting.say(result, lambda: f"for {', '.join(names)} until {result['until']}")

    office.work(setting, renew)


@command.command("deny")
@click.argument("serial")
@click.option("--reason", required=True, help="Why, for the audit log.")
@office.at_desk
def deny(
    *, serial: str, reason: str, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Deny one certificate by its SERIAL in hexadecimal; its holder keeps the others."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    plain = serial.lower().replace(":", "").lstrip("0")
    if not _SERIAL.fullmatch(plain):
        raise ConfigError([f"{serial!r} is no serial number: hexadecimal digits are needed"])

    async def put_down(desk: Office) -> None:
        await desk.identities.deny_certificate(plain, reason)
        await desk.tell("certificate.deny", plain, reason=reason)
        setting.say({"serial": plain}, lambda: f"certificate {plain} is denied")

    office.work(setting, put_down)
