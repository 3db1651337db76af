"""`heatpool-agent join`: enrols this site with an aggregator, or forgets that it was."""

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import click
import msgspec

from heatpool.errors import ConfigError, StoreError
from heatpool.units import NS_PER_S
from heatpool_agent.assembly import inhabited_dir, site_id
from heatpool_agent.config import Config, Name, load
from heatpool_agent.enrol import files, joining, keys
from heatpool_agent.enrol.files import Enrolled, Papers
from heatpool_agent.enrol.https import Unreachable, door
from heatpool_agent.enrol.joining import HASH_PATTERN, TOKEN_PATTERN, Ask
from heatpool_agent.spool import aside

SCHEMA = "heatpool.join/1"
EXIT_NOT_JOINED, EXIT_UNREACHABLE = 3, 69
_TOKEN_MOST_BYTES = 4096
# As much of a key's hash as a person compares.
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asks for; `other_id` is the name that the spool is of, if another."""

    url: str
    token: str
    ca_hash: str
    folder: Path
    site_id: str
    other_id: str = ""


@click.command("join")
@click.argument("url", required=False, default="")
@click.option("--token", default="", help="What `heatpool-aggregator token new` printed.")
@click.option("--token-file", type=click.File(), help="The same from a file; - is stdin.")
@click.option("--ca-hash", default="", help="sha256:…, printed beside the token.")
@click.option(
    "--site-id", "told_id", default="", help="Join as this site; else as the settings say."
)
@click.option("--config", "path", type=click.Path(path_type=Path), help="Settings, TOML.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option("--force", is_flag=True, help="Replace the identity that this site has.")
@click.option("--no-wait", is_flag=True, help="Leave with exit 3 where somebody has to approve.")
@click.option("--forget", is_flag=True, help="Remove the identity; what is spooled stays.")
def command(
    *,
    url: str,
    token: str,
    token_file: TextIO | None,
    ca_hash: str,
    told_id: str,
    path: Path | None,
    as_json: bool,
    force: bool,
    no_wait: bool,
    forget: bool,
) -> None:
    """Enrol this site at URL, https://HOST:8080, the web port of an aggregator.

    The key is made here and never leaves. A running agent takes the identity up by itself. Exit 3:
    somebody has to approve; 69: no answer.
    """
    config = load(path, os.environ)
    folder = inhabited_dir(config, os.environ)
    # Read as who called; written as who runs the agent.
    told = "" if forget else _token(token, token_file)
    files.become_owner(folder)
    if forget:
        _forget(folder, as_json=as_json)
        return
    before = _replaced(folder, force=force)
    spooled_as = str(before.site_id) if before is not None else aside.owner(folder)
    own_id = _site_id(config, folder, told_id or (spooled_as if config.site.id == "auto" else ""))
    wish = Wish(
        url=url,
        token=told,
        ca_hash=_checked_hash(ca_hash),
        folder=folder,
        site_id=own_id,
        other_id=spooled_as if spooled_as != own_id else "",
    )
    try:
        found = _joined(wish, is_waiting=not no_wait)
    except Unreachable as error:
        click.echo(f"heatpool-agent: {error}", err=True)
        sys.exit(EXIT_UNREACHABLE)
    if found is None:
        sys.exit(EXIT_NOT_JOINED)
    _tell(found, folder, as_json=as_json)


def _joined(wish: Wish, *, is_waiting: bool) -> Enrolled | None:
    with ExitStack() as stack:
        if wish.other_id:
            stack.enter_context(aside.held(wish.folder))
            _check_sent(wish)
        papers = _papers(wish, is_waiting=is_waiting)
        if papers is None:
            return None
        if wish.other_id:
            # Before the new name is there: a kill in between sends nothing under it.
            for path in aside.move(wish.folder, wish.other_id, at_ns=time.time_ns()):
                click.echo(f"what was written as {wish.other_id} is now {path}", err=True)
        files.keep(wish.folder, papers)
    aside.note_owner(wish.folder, "")
    return files.load(wish.folder)


def _check_sent(wish: Wish) -> None:
    """Rows bear no name of a site: what waits would be sent under the new one."""
    if found := aside.waiting(wish.folder):
        raise ConfigError(
            [
                f"{wish.folder}: {', '.join(found)} of site {wish.other_id} wait there, and would "
                f"be sent as {wish.site_id}; let the agent send them first (heatpool-agent spool "
                "stat), or give this site a state folder of its own (site.state_dir)"
            ]
        )


def _papers(wish: Wish, *, is_waiting: bool) -> Papers | None:
    at = door(wish.url)
    context = joining.trusted(at, wish.ca_hash)
    ask = Ask(
        door=at,
        token=wish.token,
        ca_hash=wish.ca_hash,
        site_id=wish.site_id,
        request=_request(wish.folder),
    )
    if is_waiting:
        return joining.waited(ask, context, told=_progress(ask), sleep=time.sleep)
    found = joining.join(ask, context)
    if isinstance(found, Papers):
        return found
    _progress(ask)(found.told)
    click.echo("run the same command again to go on", err=True)
    return None


def _request(folder: Path) -> keys.Request:
    """The key that has waited already, or a new one, kept: approval is given to one key."""
    asking = files.make_folder(folder) / files.ASKING
    try:
        made = keys.request(asking.read_text(encoding="ascii") if asking.exists() else "")
        files.write(asking, made.key_pem)
    except OSError as error:
        raise StoreError(f"{asking}: {error.strerror}; look at the disk and the owner") from error
    return made


def _progress(ask: Ask) -> Callable[[str], None]:
    key = ask.request.key_sha256[:_SHOWN_DIGITS]
    approve = f"heatpool-aggregator site approve {ask.site_id} --key {key}"
    last = ""

    def tell(what: str) -> None:
        nonlocal last
        if what != last:
            click.echo(f"{ask.door}: site {ask.site_id} with key {key}: {what}", err=True)
            if what == joining.FOR_APPROVAL:
                click.echo(f"whoever runs the aggregator lets it in by: {approve}", err=True)
        last = what

    return tell


def _token(token: str, file: TextIO | None) -> str:
    if token and file:
        raise ConfigError(["--token and --token-file: give one of them, and not both"])
    if not token and not file:
        raise ConfigError(["--token or --token-file: is missing; `token new` prints one"])
    found = token or (file.read(_TOKEN_MOST_BYTES) if file else "")
    found = found.strip()
    if not TOKEN_PATTERN.fullmatch(found):
        # What it is, is not said: it may be most of a token, and stderr is often kept.
        raise ConfigError(
            [
                f"--token: has {len(found)} characters, must be as abc123.0123456789abcdef; copy "
                "what `heatpool-aggregator token new` printed"
            ]
        )
    return found


def _checked_hash(ca_hash: str) -> str:
    if not HASH_PATTERN.fullmatch(ca_hash.lower()):
        raise ConfigError(
            [
                f"--ca-hash: is {ca_hash!r}, must be sha256: and 64 hexadecimal digits; "
                "`heatpool-aggregator token new` prints it beside the token"
            ]
        )
    return ca_hash.lower()


def _site_id(config: Config, folder: Path, told_id: str) -> str:
    if told_id and config.site.id not in ("auto", told_id):
        raise ConfigError(
            [f"--site-id: is {told_id!r}, and site.id in the settings says {config.site.id!r}"]
        )
    try:
        return msgspec.convert(told_id, Name) if told_id else site_id(config, folder)
    except msgspec.ValidationError as error:
        raise ConfigError(
            [
                f"--site-id: is {told_id!r}, must be one name of up to 64 of A-Z a-z 0-9 . _ -, "
                "the first a letter or digit"
            ]
        ) from error


def _replaced(folder: Path, *, force: bool) -> Enrolled | None:
    """The identity that this site has and that is to be replaced; None: there is none."""
    try:
        found = files.load(folder)
    except StoreError as error:
        if force:
            return None
        raise ConfigError([str(error)]) from error
    if found is not None and not force:
        raise ConfigError(
            [
                f"{files.folder_of(folder)}: this site has joined already, as {found.site_id} to "
                f"{found.place.grpc}, until {_day(found)}; --force replaces that"
            ]
        )
    return found


def _forget(folder: Path, *, as_json: bool) -> None:
    with suppress(StoreError):  # what cannot be read names nobody, and has to go all the same
        if (found := files.load(folder)) is not None:
            aside.note_owner(folder, found.site_id)
    was_there = files.forget(folder)
    if as_json:
        _print({"schema": SCHEMA, "is_joined": False, "was_joined": was_there})
    elif was_there:
        click.echo(
            "forgotten; what is spooled stays, and nothing is sent from here. At the aggregator, "
            "`heatpool-aggregator site revoke` ends the certificate too"
        )
    else:
        click.echo("this site had not joined")


def _tell(found: Enrolled, folder: Path, *, as_json: bool) -> None:
    if as_json:
        _print(
            {
                "schema": SCHEMA,
                "is_joined": True,
                "site_id": found.site_id,
                "grpc": found.place.grpc,
                "fingerprint": found.certificate.fingerprint,
                "expires_ns": found.certificate.end_ns,
                "renew_after_ns": found.place.renew_after_ns,
                "folder": str(files.folder_of(folder)),
            }
        )
        return
    click.echo(
        f"joined as {found.site_id}; sends to {found.place.grpc}\n"
        f"certificate until {_day(found)}, renewed by the running agent before that\n"
        f"kept in {files.folder_of(folder)}"
    )


def _day(found: Enrolled) -> str:
    return f"{datetime.fromtimestamp(found.certificate.end_ns // NS_PER_S, UTC):%Y-%m-%d %H:%M} UTC"


def _print(document: dict[str, object]) -> None:
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
