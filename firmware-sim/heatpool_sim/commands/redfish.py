"""`heatpool-sim redfish`: serves a directory of caught Redfish pages as a BMC."""

import asyncio
import json
import logging
import ssl
from pathlib import Path

import click

from heatpool.errors import ConfigError
from heatpool.process.journal import facts
from heatpool_sim.plant.faults import REDFISH

logger = logging.getLogger(__name__)

_SHOWN_ODDITIES = 20  # a directory of many captures has hundreds; the rest is counted


@click.command("redfish")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--port", default=0, show_default=True, type=click.IntRange(0, 65_535), help="0: a free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--user", default="", help="Account that must log in; without one all may read.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the account's password.",
)
@click.option(
    "--slots", default=4, show_default=True, type=click.IntRange(min=1), help="Sessions at a time."
)
@click.option("--tls", type=click.Path(path_type=Path, dir_okay=False), nargs=2, metavar="CERT KEY")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice(sorted({*REDFISH, "offline"})),
    help="What this BMC gets wrong; may be given more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line when ready.")
def command(
    *,
    folder: Path,
    port: int,
    host: str,
    user: str,
    password_file: Path | None,
    slots: int,
    tls: tuple[Path, Path] | None,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve a directory of Redfish JSON, as a BMC would, until TERM."""
    from heatpool_sim import app
    from heatpool_sim.devices import redfish_folder
    from heatpool_sim.devices.redfish_service import RedfishService

    password = _password(user, password_file)
    context = None if tls is None else _tls(*tls)
    click.echo(f"reading {folder} ...", err=True)
    tree = redfish_folder.read(folder)
    _tell(tree.oddities, tree.made_up)
    counts = {
        "resources": len(tree.pages),
        "made_up": len(tree.made_up),
        "oddities": len(tree.oddities),
    }
    service = RedfishService(
        tree,
        port=port,
        host=host,
        user=user,
        password=password,
        slots=slots,
        tls=context,
        faults=lambda: frozenset(faults),
    )

    async def serve() -> None:
        stop = app.told_to_stop()
        async with service.serve() as address:
            scheme = "http" if context is None else "https"
            shown = f"[{address.host}]" if ":" in address.host else address.host
            url = f"{scheme}://{shown}:{address.port}/redfish/v1/"
            click.echo(_ready(url, counts, as_json=as_json))
            await stop.wait()

    asyncio.run(serve())


def _ready(url: str, counts: dict[str, int], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"url": url, **counts})
    return f"{counts['resources']} resources at {url}\nlook: curl -s {url}\nCtrl-C ends it."


def _tell(oddities: list[str], made_up: tuple[str, ...]) -> None:
    for oddity in oddities[:_SHOWN_ODDITIES]:
        logger.warning("redfish.oddity", extra=facts(what=oddity))
    if len(oddities) > _SHOWN_ODDITIES:
        logger.warning("redfish.oddities", extra=facts(more=len(oddities) - _SHOWN_ODDITIES))
    if made_up:
        why = "no root was captured; links to the captured resources were made up"
        logger.warning("redfish.made_up", extra=facts(what=why, resources=len(made_up)))


def _password(user: str, file: Path | None) -> str:
    if bool(user) != (file is not None):
        raise ConfigError(["--user and --password-file go together; give both or neither"])
    if file is None:
        return ""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot be read: {error}"], file=str(file)) from error
    if not lines or not lines[0]:
        raise ConfigError(["is empty; its first line is the password"], file=str(file))
    return lines[0]


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        text = f"does not serve as a certificate with key {key}: {error}; both must be PEM"
        raise ConfigError([text], file=str(certificate)) from error
    return context
