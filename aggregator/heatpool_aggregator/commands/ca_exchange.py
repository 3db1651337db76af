"""`init --new-ca` and `--drop-old-ca`: another CA, and no site has to join anew for it."""

from heatpool.errors import ConfigError, HeatpoolError
from heatpool_aggregator.commands import office
from heatpool_aggregator.commands.office import Office, Setting
from heatpool_aggregator.core.enrolment import NotThere
from heatpool_aggregator.core.principal import name_of
from heatpool_aggregator.identity import authority, certificates, people, places, server

_SHOWN_COUNT = 20


def begin(setting: Setting) -> None:
    """Makes the new CA; the old one stays trusted, and signs for the server alone.

    Raises:
        HeatpoolError: there is no CA, or one is being exchanged already.
    """
    setting.authority()

    async def exchange(desk: Office) -> None:
        ca = authority.exchange(setting.files, now_ns=desk.clock.now_ns())
        assert ca.old is not None  # that is what an exchange is
        new_hash = certificates.ca_hash(ca.certificate)
        await desk.tell("ca.exchange", "ca", ca_hash=new_hash, old_ca_hash=ca.old.ca_hash)
        admin = await _renew_admin(desk, ca)
        waiting = await desk.identities.of_before(ca.began_ns)
        result = {"ca_hash": new_hash, "old_ca_hash": ca.old.ca_hash, "admin": admin}
        setting.say(
            result | {"waiting_count": len(waiting)},
            lambda: (
                f"made another CA, {new_hash}\n"
                f"{len(waiting)} sites, people and machines have certificates of the old one, "
                "which counts until it is dropped\n"
                "next:\n"
                "  1. keep a copy of the folder again where nobody else gets at it\n"
                "  2. wait: sites renew by themselves, at two thirds of a certificate's life\n"
                "  3. people: heatpool-aggregator user add NAME --role ROLE --cert FILE\n"
                "  4. heatpool-aggregator init --drop-old-ca; until then it says who is left"
            ),
        )

    office.work(setting, exchange)


def end(setting: Setting, *, is_forced: bool) -> None:
    """Trusts the new CA alone; refused while somebody has a certificate of the old one.

    Raises:
        HeatpoolError: no CA is being exchanged, or somebody is left.
    """
    ca = setting.authority()
    if ca.old is None:
        raise ConfigError(
            [f"{setting.files.ca}: no CA is being exchanged: `init --new-ca` begins that"]
        )
    old = ca.old

    async def drop(desk: Office) -> None:
        left = await desk.identities.of_before(ca.began_ns)
        if left and not is_forced:
            shown = ", ".join(left[:_SHOWN_COUNT]) + (" ..." if len(left) > _SHOWN_COUNT else "")
            raise HeatpoolError(
                f"still without a certificate of the new CA, {len(left)}: {shown}. Sites renew by "
                "themselves, people need `user add` again, `site revoke` ends what is gone; "
                "--force drops it all the same, and they join anew"
            )
        present = certificates.load(places.read(setting.files.server), str(setting.files.server))
        hosts, now_ns = certificates.hosts_of(present), desk.clock.now_ns()
        # Told and in place before the old one goes: who renewed trusts both.
        await desk.tell("ca.drop", "ca", old_ca_hash=old.ca_hash, left=list(left))
        server.make(ca.alone(), setting.files, hosts, now_ns=now_ns)
        authority.drop_old(setting.files)
        new_hash = certificates.ca_hash(ca.certificate)
        setting.say(
            {"ca_hash": new_hash, "dropped": old.ca_hash, "left": list(left)},
            lambda: (
                f"only {new_hash} is trusted now; {len(left)} have to join anew. Tokens that were "
                "printed before say the old CA hash: the new one is to be carried with them"
            ),
        )

    office.work(setting, drop)


async def _renew_admin(desk: Office, ca: authority.Authority) -> str | None:
    """The admin's file, if it still lies here; whoever carried it away asks for another one."""
    setting = desk.setting
    if not setting.files.admin.exists():
        return None
    domain = setting.config.tls.trust_domain
    name = name_of(domain, certificates.named(places.read(setting.files.admin)).uri)
    if name is None:
        return None
    papers = people.make(ca, name, trust_domain=domain, now_ns=desk.clock.now_ns())
    try:
        await desk.identities.renewed(papers.issued)
    except NotThere:
        return None
    places.write(setting.files.admin, papers.pem)
    return str(setting.files.admin)
