"""Who speaks, and what they may: one table of roles, read by every door."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

SITE, PERSON, MACHINE = "site", "person", "machine"
KINDS = (SITE, PERSON, MACHINE)
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_NAME = re.compile(NAME_PATTERN)
_SCHEME = "spiffe://"


class Role(StrEnum):
    """What somebody is to us."""

    ADMIN = "admin"
    OPERATOR = "operator"
    SETTLEMENT = "settlement"
    READ_ONLY = "read_only"
    SITE_OWNER = "site_owner"
    SITE = "site"


class Action(StrEnum):
    """What somebody may want."""

    READ = "read"  # sites, sources, capacity, setpoint states, gaps
    READ_ACCOUNTS = "read_accounts"  # statements, prices, the ledger
    COMMAND = "command"  # setpoints
    ENROL = "enrol"  # tokens, sites, people
    AUDIT = "audit"  # the audit log
    SPEAK = "speak"  # telemetry, registers and reports, as a site
    RENEW = "renew"  # a new certificate for oneself


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody whom a door has recognised; `name` is `site/e1`, `person/anna`, `machine/scada`.

    `tenant` bounds what is seen; for a site it is its owner.
    """

    name: str
    role: Role
    tenant: str = ""


# Whoever reaches a door that binds loopback only, without certificates: this machine.
LOCAL = Principal(name="local", role=Role.ADMIN)

_MAY: Mapping[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset(Action) - {Action.SPEAK},
    Role.OPERATOR: frozenset(
        {Action.READ, Action.READ_ACCOUNTS, Action.COMMAND, Action.AUDIT, Action.RENEW}
    ),
    Role.SETTLEMENT: frozenset({Action.READ, Action.READ_ACCOUNTS, Action.AUDIT, Action.RENEW}),
    Role.READ_ONLY: frozenset({Action.READ, Action.RENEW}),
    Role.SITE_OWNER: frozenset({Action.READ, Action.READ_ACCOUNTS, Action.RENEW}),
    Role.SITE: frozenset({Action.SPEAK, Action.RENEW}),
}
# Roles that without a tenant see nothing at all, and not everything.
_BOUND = frozenset({Role.SITE_OWNER, Role.SITE})


def may(principal: Principal, action: Action) -> bool:
    """Whether the role allows the action; on what, `sees` and `speaks_for` say."""
    return principal == LOCAL or action in _MAY[principal.role]


def roles_that_may(action: Action) -> tuple[Role, ...]:
    """Roles that allow the action, the mightiest first."""
    return tuple(role for role in Role if action in _MAY[role])


def covers(role: Role, wanted: Role) -> bool:
    """Whether somebody of this role may hold a token of the wanted one: it may no more."""
    return _MAY[wanted] <= _MAY[role]


def sees(principal: Principal, owner: str) -> bool:
    """Whether rows of this owner are shown; no tenant sees all, but a site or its owner nothing."""
    if principal.tenant:
        return principal.tenant == owner
    return principal.role not in _BOUND


def speaks_for(principal: Principal, site_id: str) -> bool:
    """Whether batches that name this site may come from here."""
    return principal == LOCAL or (
        principal.role is Role.SITE and principal.name == f"{SITE}/{site_id}"
    )


def uri_of(trust_domain: str, name: str) -> str:
    """The SPIFFE URI of a name such as `site/e1`."""
    return f"{_SCHEME}{trust_domain}/{name}"


def name_of(trust_domain: str, uri: str) -> str | None:
    """The name in a SPIFFE URI of this trust domain; None: it is none that we give."""
    start = f"{_SCHEME}{trust_domain}/"
    if not uri.startswith(start):
        return None
    kind, _, rest = uri.removeprefix(start).partition("/")
    # fullmatch: `$` alone would let a line end through.
    return f"{kind}/{rest}" if kind in KINDS and _NAME.fullmatch(rest) else None


def is_name(text: str) -> bool:
    """Whether a site, person, machine or tenant may be called so."""
    return _NAME.fullmatch(text) is not None
