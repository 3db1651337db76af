"""`heatpool-aggregator init`: a CA, a server certificate and an admin, whole or not at all."""

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from heatpool.errors import ConfigError, HeatpoolError
from heatpool_aggregator.commands import ca_exchange, office
from heatpool_aggregator.commands.office import Office, Setting
from heatpool_aggregator.core.enrolment import Issued, UserRecord
from heatpool_aggregator.core.principal import PERSON, Role
from heatpool_aggregator.identity import authority, certificates, people, places, server
from heatpool_aggregator.identity.authority import Authority
from heatpool_aggregator.identity.places import Places

_ADMIN = "admin"


@click.command("init")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="Name or address by which sites reach this server; may be given again.  "
    "[default: this host's name]",
)
@click.option(
    "--admin", callback=office.name, help=f"Name of the first admin.  [default: {_ADMIN}]"
)
@click.option("--force", is_flag=True, help="Replace what is there: every site has to join anew.")
@click.option(
    "--new-ca",
    is_flag=True,
    help="Exchange the CA: sites get certificates of a new one as they renew; the old one counts.",
)
@click.option(
    "--drop-old-ca",
    is_flag=True,
    help="End the exchange, once everybody has renewed; --force: whoever has not joins anew.",
)
@office.at_desk
def command(
    *,
    hosts: tuple[str, ...],
    admin: str | None,
    force: bool,
    new_ca: bool,
    drop_old_ca: bool,
    path: Path | None,
    directory: Path | None,
    is_json: bool,
) -> None:
    """Make a CA, a server certificate and an admin in the state folder.

    From its next start on the service speaks TLS, and may bind other addresses than loopback.
    """
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    _check_options(
        {"--host": hosts, "--admin": admin, "--force": force},
        is_new=new_ca,
        is_end=drop_old_ca,
    )
    if new_ca:
        ca_exchange.begin(setting)
    elif drop_old_ca:
        ca_exchange.end(setting, is_forced=force)
    else:
        names = list(dict.fromkeys((*(hosts or (socket.gethostname(),)), *office.HERE)))
        _check(setting, names, is_forced=force)
        office.begin(setting, lambda desk: _init(desk, names, admin or _ADMIN))


def _check_options(given: Mapping[str, object], *, is_new: bool, is_end: bool) -> None:
    """Refuses what an exchange of the CA would not do, though it was asked for."""
    if is_new and is_end:
        raise click.UsageError("--new-ca begins what --drop-old-ca ends, weeks later")
    if not (is_new or is_end):
        return
    command = "--new-ca" if is_new else "--drop-old-ca"
    instead = {
        "--host": "keeps the server's names: `certificate renew-server --host NAME` changes them",
        "--admin": "keeps who is admin: `user add NAME --role admin --cert FILE` adds one",
    }
    if is_new:
        instead["--force"] = (
            "puts nothing aside: only `init --force` does, and every site joins anew"
        )
    for name, why in instead.items():
        if given[name]:
            raise click.UsageError(f"{name}: {command} {why}")


def _check(setting: Setting, names: Sequence[str], *, is_forced: bool) -> None:
    """Refuses before anything is made."""
    for name in names:
        certificates.general_name(name)
    if setting.files.folder.exists() and not is_forced:
        raise ConfigError(
            [
                f"{setting.files.folder}: is there already, and sites may rely on its CA; --force "
                "puts it aside and makes a new one, --new-ca exchanges it and no site joins anew, "
                "`certificate renew-server` only renews"
            ]
        )


async def _init(desk: Office, names: Sequence[str], admin: str) -> None:
    setting, now_ns = desk.setting, desk.clock.now_ns()
    # A folder that is renamed when it is whole: a killed `init` leaves nothing half made.
    made = Places(setting.files.folder.with_name(f".identity.{os.getpid()}"))
    try:
        places.make_folder(made.folder)
        ca = authority.make(made, now_ns=now_ns)
        server.make(ca, made, names, now_ns=now_ns)
        issued = _write_admin(ca, made.admin, setting, name=admin, now_ns=now_ns)
        user = UserRecord(
            name=issued.name,
            role=Role.ADMIN,
            tenant="",
            added_ns=now_ns,
            revoked_ns=None,
            expires_ns=None,
        )
        await desk.identities.add_user(user, issued)
        await desk.tell("init", "ca", ca_hash=ca.ca_hash, hosts=list(names), admin=issued.name)
        aside = _put_in_place(made.folder, setting.files.folder, now_ns)
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)
    _say(setting, ca, names, aside)


def _write_admin(ca: Authority, file: Path, setting: Setting, *, name: str, now_ns: int) -> Issued:
    person = people.make(
        ca,
        f"{PERSON}/{name}",
        trust_domain=setting.config.tls.trust_domain,
        now_ns=now_ns,
    )
    places.write(file, person.pem)
    return person.issued


def _put_in_place(made: Path, folder: Path, now_ns: int) -> Path | None:
    """Where the older folder went, if there was one."""
    aside = None
    try:
        if folder.exists():
            aside = folder.with_name(f"identity.before-{now_ns // office.NS_PER_S}")
            folder.rename(aside)
        made.rename(folder)
    except OSError as error:
        raise HeatpoolError(f"{folder}: cannot be made ({error.strerror})") from error
    return aside


def _say(setting: Setting, ca: Authority, names: Sequence[str], aside: Path | None) -> None:
    files = setting.files
    result = {
        "folder": str(files.folder),
        "ca_hash": ca.ca_hash,
        "hosts": list(names),
        "admin": str(files.admin),
        "replaced": None if aside is None else str(aside),
    }
    put_aside = "" if aside is None else f"the older one is in {aside}: every site joins anew\n"
    setting.say(
        result,
        lambda: (
            f"made {files.folder}: CA, certificate for {', '.join(names)}, {files.admin.name}\n"
            f"{put_aside}"
            f"CA hash  {ca.ca_hash}\n"
            "next:\n"
            "  1. keep a copy of that folder where nobody else gets at it\n"
            '  2. let the service listen: listen.grpc = "0.0.0.0:8443", '
            'listen.http = "0.0.0.0:8080"; start it anew\n'
            "  3. for each site: heatpool-aggregator token new --site-id ID\n"
            "  4. for your browser: heatpool-aggregator user add NAME --role operator --api-token\n"
            f"  5. for `heatpool`: HEATPOOL_IDENTITY={files.admin}"
        ),
    )
