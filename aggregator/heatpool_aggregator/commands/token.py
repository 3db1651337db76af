"""`heatpool-aggregator token`: leave for a site to join, carried there by a person."""

from collections.abc import Sequence
from pathlib import Path

import click

from heatpool.sample import SiteId
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office, Setting
from heatpool_aggregator.core.enrolment import JoinToken, is_fleet
from heatpool_aggregator.identity import certificates, places
from heatpool_aggregator.identity.tokens import Secret, new_join_token

_USES_MAX, _FLEET_USES_MAX = 1_000, 100_000


def _sites(context: click.Context, option: click.Parameter, value: str) -> str | None:
    """A name, or the beginning of one with a `*` behind it."""
    if "*" not in value:
        return office.name(context, option, value)
    if not is_fleet(value):
        raise click.BadParameter(
            f"{value!r} cannot name a fleet: write the beginning of its sites' names and one * at "
            "the end, as 'load-*'"
        )
    return value


@click.group("token")
def command() -> None:
    """Let sites join: make, list and revoke tokens."""


@command.command("new")
@click.option(
    "--site-id",
    callback=_sites,
    required=True,
    help="The site that may join by it; 'load-*': a fleet of new sites whose names begin so.",
)
@click.option("--owner", callback=office.name, default=None, help="Tenant that owns the site.")
@click.option(
    "--uses",
    type=click.IntRange(1, _FLEET_USES_MAX),
    default=1,
    show_default=True,
    help="How often it serves.",
)
@click.option(
    "--expires",
    "life_s",
    callback=office.span_s,
    default="24h",
    show_default=True,
    help="Life: 90m, 24h, 7d.",
)
@click.option("--approve", is_flag=True, help="Who joins waits until `site approve` lets it in.")
@office.at_desk
def new(
    *,
    site_id: str,
    owner: str | None,
    uses: int,
    life_s: int,
    approve: bool,
    path: Path | None,
    directory: Path | None,
    is_json: bool,
) -> None:
    """Make a token and print it once, with the command for the site.

    A site whose machine was replaced joins by a new token; its older certificate then ends. A
    fleet's token serves each site once, and none that was ever enrolled.
    """
    if uses > _USES_MAX and not is_fleet(site_id):
        raise click.BadParameter(f"--uses: at most {_USES_MAX} for one site")
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    ca_hash = setting.authority().ca_hash

    async def make(desk: Office) -> None:
        now_ns = desk.clock.now_ns()
        secret = new_join_token()
        token = JoinToken(
            token_id=secret.token_id,
            site_id=SiteId(site_id),
            owner=owner or "",
            uses_count=uses,
            uses_left=uses,
            created_ns=now_ns,
            expires_ns=now_ns + life_s * office.NS_PER_S,
            is_approval_needed=approve,
        )
        await desk.identities.add_join_token(token, secret.sha256)
        await desk.tell(
            "token.new",
            f"site/{site_id}",
            token_id=token.token_id,
            uses_count=uses,
            expires=office.iso(token.expires_ns),
            is_approval_needed=approve,
        )
        _say(setting, token, secret, ca_hash)

    office.work(setting, make)


@command.command("list")
@office.at_desk
def list_(*, path: Path | None, directory: Path | None, is_json: bool) -> None:
    """List tokens, newest first; their secrets are kept nowhere."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def show(desk: Office) -> None:
        now_ns = desk.clock.now_ns()
        rows = [_row(token, now_ns) for token in await desk.identities.join_tokens()]
        setting.say(rows, lambda: office.table(rows, empty="no token was made yet"))

    office.work(setting, show)


@command.command("revoke")
@click.argument("token_id")
@click.option("--reason", default="", help="Why, for the audit log.")
@office.at_desk
def revoke(
    *, token_id: str, reason: str, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Revoke the token with this id, the six signs before its dot."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def end(desk: Office) -> None:
        # Whoever pastes the whole token means its id; the secret goes nowhere.
        token = await desk.identities.revoke_join_token(token_id.partition(".")[0])
        await desk.tell(
            "token.revoke", f"site/{token.site_id}", reason=reason, token_id=token.token_id
        )
        row = _row(token, desk.clock.now_ns())
        setting.say(row, lambda: f"token {token.token_id} for site {token.site_id} is revoked")

    office.work(setting, end)


def _row(token: JoinToken, now_ns: int) -> dict[str, object]:
    return {
        "token_id": token.token_id,
        "site_id": token.site_id,
        "owner": token.owner,
        "state": _state(token, now_ns),
        "uses_left": token.uses_left,
        "uses_count": token.uses_count,
        "expires": office.iso(token.expires_ns),
        "is_approval_needed": token.is_approval_needed,
    }


def _state(token: JoinToken, now_ns: int) -> str:
    if token.revoked_ns is not None:
        return "revoked"
    if not token.uses_left:
        return "used"
    return "expired" if now_ns >= token.expires_ns else "open"


def _say(setting: Setting, token: JoinToken, secret: Secret, ca_hash: str) -> None:
    present = certificates.load(places.read(setting.files.server), str(setting.files.server))
    host = _reached_by(certificates.hosts_of(present))
    port = setting.config.listen.http.rpartition(":")[2]
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    join = f"heatpool-agent join {url} --token {secret.text} --ca-hash {ca_hash}"
    if not token.is_for_fleet:  # a fresh site has no id yet, or one of its own making
        join += f" --site-id {token.site_id}"
    result = {
        "token": secret.text,
        "token_id": token.token_id,
        "site_id": token.site_id,
        "expires": office.iso(token.expires_ns),
        "ca_hash": ca_hash,
        "join": join,
    }
    who, where = f"site {token.site_id} may join", "At the site:"
    uses = "once" if token.uses_count == 1 else f"{token.uses_count} times"
    if token.is_for_fleet:
        who = f"new sites {token.site_id} may join"
        uses = f"once each, {token.uses_count} in all,"
        where = "At each site, named by site.id there or by --site-id:"
    wait = "\nthen here: heatpool-aggregator site waiting, site approve ID"
    setting.say(
        result,
        lambda: (
            f"{who} {uses} until {office.iso(token.expires_ns)}. "
            f"The token is shown this once. {where}\n"
            f"  {join}{wait if token.is_approval_needed else ''}"
        ),
    )


def _reached_by(hosts: Sequence[str]) -> str:
    """The first that other machines can reach; an address of this one for want of such."""
    return next((host for host in hosts if host not in office.HERE), hosts[0])
