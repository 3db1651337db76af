"""`heatpool-aggregator user`: people and machines, their roles, certificates and API tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from heatpool.errors import ConfigError
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office, Setting
from heatpool_aggregator.core.enrolment import ApiToken, UserRecord
from heatpool_aggregator.core.principal import MACHINE, PERSON, Role
from heatpool_aggregator.identity import people, places
from heatpool_aggregator.identity.people import Papers
from heatpool_aggregator.identity.tokens import new_api_token

_ROLES = [role.value for role in Role if role is not Role.SITE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What `user add` was asked for."""

    user: UserRecord
    cert: Path | None
    token_life_s: int | None  # None: no API token


@click.group("user")
def command() -> None:
    """People and machines: add, list, revoke."""


@command.command("add")
@click.argument("name", callback=office.name)
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What they may do.")
@click.option("--tenant", callback=office.name, default=None, help="Show rows of this owner only.")
@click.option("--machine", is_flag=True, help="A machine and no person.")
@click.option("--cert", type=click.Path(path_type=Path), help="Write key and certificate there.")
@click.option("--api-token", is_flag=True, help="Print a token for REST and the page, once.")
@click.option(
    "--expires",
    "life_s",
    callback=office.span_s,
    default="90d",
    show_default=True,
    help="Life of the token.",
)
@office.at_desk
def add(
    *,
    name: str,
    role: str,
    tenant: str | None,
    machine: bool,
    cert: Path | None,
    api_token: bool,
    life_s: int,
    path: Path | None,
    directory: Path | None,
    is_json: bool,
) -> None:
    """Add somebody, or give role and tenant anew; certificate for gRPC, token for HTTPS."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    if role == Role.SITE_OWNER and tenant is None:
        raise ConfigError(["--tenant: a site owner sees nothing without one; name the owner"])
    if cert is not None and cert.exists():
        raise ConfigError([f"--cert: {cert} is there already: name another file"])
    user = UserRecord(
        name=f"{MACHINE if machine else PERSON}/{name}",
        role=Role(role),
        tenant=tenant or "",
        added_ns=0,
        revoked_ns=None,
        expires_ns=None,
    )
    wish = Wish(user=user, cert=cert, token_life_s=life_s if api_token else None)
    office.work(setting, lambda desk: _add(desk, wish))


@command.command("list")
@office.at_desk
def list_(*, path: Path | None, directory: Path | None, is_json: bool) -> None:
    """List people and machines."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def show(desk: Office) -> None:
        now_ns = desk.clock.now_ns()
        tokens = await desk.identities.api_tokens()
        rows = [_row(user, tokens, now_ns) for user in await desk.identities.users()]
        empty = "nobody yet: heatpool-aggregator init makes an admin"
        setting.say(rows, lambda: office.table(rows, empty=empty))

    office.work(setting, show)


@command.command("revoke")
@click.argument("name")
@click.option("--reason", required=True, help="Why, for the audit log.")
@office.at_desk
def revoke(
    *, name: str, reason: str, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Take certificates and tokens from NAME, `anna` or `machine/scada`."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)
    full = name if "/" in name else f"{PERSON}/{name}"

    async def end(desk: Office) -> None:
        user = await desk.identities.revoke_user(full, reason)
        await desk.tell("user.revoke", full, reason=reason)
        row = _row(user, await desk.identities.api_tokens(), desk.clock.now_ns())
        setting.say(row, lambda: f"{full} is revoked, with all certificates and API tokens")

    office.work(setting, end)


async def _add(desk: Office, wish: Wish) -> None:
    now_ns, user = desk.clock.now_ns(), wish.user
    papers = None if wish.cert is None else _papers(desk.setting, user.name, now_ns)
    record = UserRecord(
        name=user.name,
        role=user.role,
        tenant=user.tenant,
        added_ns=now_ns,
        revoked_ns=None,
        expires_ns=None,
    )
    await desk.identities.add_user(record, papers.issued if papers else None)
    await desk.tell(
        "user.add",
        user.name,
        role=user.role,
        tenant=user.tenant,
        serial=papers.issued.serial if papers else None,
    )
    if wish.cert is not None and papers is not None:
        places.write(wish.cert, papers.pem)
    secret = await _api_token(desk, user, wish.token_life_s)
    _say(desk.setting, wish, secret)


def _papers(setting: Setting, name: str, now_ns: int) -> Papers:
    domain = setting.config.tls.trust_domain
    return people.make(setting.authority(), name, trust_domain=domain, now_ns=now_ns)


async def _api_token(desk: Office, user: UserRecord, life_s: int | None) -> str | None:
    if life_s is None:
        return None
    now_ns = desk.clock.now_ns()
    secret = new_api_token()
    token = ApiToken(
        token_id=secret.token_id,
        name=user.name,
        role=user.role,
        created_ns=now_ns,
        expires_ns=now_ns + life_s * office.NS_PER_S,
    )
    await desk.identities.add_api_token(token, secret.sha256)
    await desk.tell(
        "api_token.new",
        user.name,
        token_id=token.token_id,
        role=token.role,
        expires=office.iso(token.expires_ns),
    )
    return secret.text


def _say(setting: Setting, wish: Wish, api_token: str | None) -> None:
    user = wish.user
    result = {
        "name": user.name,
        "role": user.role,
        "tenant": user.tenant,
        "cert": None if wish.cert is None else str(wish.cert),
        "api_token": api_token,
    }
    tenant = f", sees {user.tenant} only" if user.tenant else ""
    lines = [f"{user.name} is {user.role}{tenant}"]
    if wish.cert is not None:
        lines.append(
            f"key and certificate are in {wish.cert}: carry it there, use it by "
            "`heatpool sites --address HOST:8443 --identity FILE`, leave no copy"
        )
    if api_token is not None:
        lines.append(f"the API token is shown this once:\n  {api_token}")
    if wish.cert is None and api_token is None:
        lines.append("no certificate and no API token was made: --cert FILE, --api-token")
    setting.say(result, lambda: "\n".join(lines))


def _row(user: UserRecord, tokens: Sequence[ApiToken], now_ns: int) -> dict[str, object]:
    mine = [
        token
        for token in tokens
        if token.name == user.name and token.revoked_ns is None and token.expires_ns > now_ns
    ]
    return {
        "name": user.name,
        "role": user.role,
        "tenant": user.tenant,
        "state": "known" if user.revoked_ns is None else "revoked",
        "added": office.iso(user.added_ns),
        "certificate_until": office.iso(user.expires_ns),
        "api_tokens_count": len(mine),
        "api_tokens_until": office.iso(max((token.expires_ns for token in mine), default=None)),
    }
