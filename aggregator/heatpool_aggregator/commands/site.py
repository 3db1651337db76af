"""`heatpool-aggregator site`: who is enrolled, who waits, who is cut off."""

from pathlib import Path

import click

from heatpool.sample import SiteId
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office
from heatpool_aggregator.core.enrolment import SiteRecord


@click.group("site")
def command() -> None:
    """Enrolled sites: list, approve, revoke."""


@command.command("list")
@office.at_desk
def list_(*, path: Path | None, directory: Path | None, is_json: bool) -> None:
    """List every site ever enrolled."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def show(desk: Office) -> None:
        rows = [_row(site) for site in await desk.identities.sites()]
        empty = "no site is enrolled: heatpool-aggregator token new --site-id ID"
        setting.say(rows, lambda: office.table(rows, empty=empty))

    office.work(setting, show)


@command.command("add")
@click.argument("site_id", callback=office.name)
@click.option("--owner", callback=office.name, default=None, help="Tenant that owns the site.")
@office.at_desk
def add(
    *,
    site_id: str,
    owner: str | None,
    path: Path | None,
    directory: Path | None,
    is_json: bool,
) -> None:
    """Take in a site whose certificate another CA signs, or give a site another owner.

    That CA is named by tls.ca; a site that joins by a token needs no `add`.
    """
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def take_in(desk: Office) -> None:
        await desk.identities.add_site(SiteId(site_id), owner or "")
        await desk.tell("site.add", f"site/{site_id}", owner=owner or "")
        result = {"site_id": site_id, "owner": owner or ""}
        setting.say(result, lambda: f"site {site_id} may speak; owner: {owner or 'nobody'}")

    office.work(setting, take_in)


@command.command("revoke")
@click.argument("site_id")
@click.option("--reason", required=True, help="Why, for the audit log.")
@office.at_desk
def revoke(
    *, site_id: str, reason: str, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Cut a site off: its certificates and tokens, and its open streams within a minute."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def cut_off(desk: Office) -> None:
        site = await desk.identities.revoke_site(SiteId(site_id), reason)
        await desk.tell("site.revoke", f"site/{site_id}", reason=reason)
        setting.say(
            _row(site),
            lambda: (
                f"site {site_id} is cut off. What it sent stays; it comes back only by "
                f"`heatpool-aggregator token new --site-id {site_id}`"
            ),
        )

    office.work(setting, cut_off)


@command.command("waiting")
@office.at_desk
def waiting(*, path: Path | None, directory: Path | None, is_json: bool) -> None:
    """List who asked to join and waits for an approval."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def show(desk: Office) -> None:
        rows = [
            {
                "site_id": one.site_id,
                "key": one.key_sha256.hex(),
                "peer": one.peer,
                "asked": office.iso(one.asked_ns),
                "token_id": one.token_id,
            }
            for one in await desk.identities.waiting()
        ]
        setting.say(rows, lambda: office.table(rows, empty="nobody waits"))

    office.work(setting, show)


@command.command("approve")
@click.argument("site_id")
@click.option("--key", default="", help="First digits of the key, where several wait.")
@office.at_desk
def approve(
    *, site_id: str, key: str, path: Path | None, directory: Path | None, is_json: bool
) -> None:
    """Let a site in that waits; compare its key with what the agent prints at the site."""
    setting = office.setting(path=path, directory=directory, is_json=is_json)

    async def let_in(desk: Office) -> None:
        start = key.lower().removeprefix("sha256:")
        one = await desk.identities.approve(SiteId(site_id), start)
        shown = one.key_sha256.hex()
        await desk.tell("site.approve", f"site/{site_id}", key_sha256=shown, peer=one.peer)
        result = {"site_id": site_id, "key": shown, "peer": one.peer}
        setting.say(
            result,
            lambda: f"site {site_id} with key {shown} may join; its agent asks again by itself",
        )

    office.work(setting, let_in)


def _row(site: SiteRecord) -> dict[str, object]:
    return {
        "site_id": site.site_id,
        "owner": site.owner,
        "state": "enrolled" if site.revoked_ns is None else "revoked",
        "enrolled": office.iso(site.enrolled_ns),
        "revoked": office.iso(site.revoked_ns),
        "reason": site.revoked_reason,
        "certificate_until": office.iso(site.expires_ns),
        "serial": site.serials[-1] if site.serials else None,
    }
