"""What the aggregator knows of sites, people and their papers; no secret is in any of it."""

from dataclasses import dataclass
from enum import StrEnum

from heatpool.errors import HeatpoolError
from heatpool.sample import SiteId
from heatpool_aggregator.core.principal import Role, is_name

_ANY = "*"  # no name has it


class JoinReason(StrEnum):
    """Why a join was refused; the word counted and logged."""

    UNKNOWN_TOKEN = "unknown_token"
    WRONG_SITE = "wrong_site"
    ENROLLED = "enrolled"
    EXPIRED = "expired"
    USED = "used"
    REVOKED = "revoked"
    TOO_MANY_WAITING = "too_many_waiting"
    TOO_OFTEN = "too_often"
    BAD_REQUEST = "bad_request"


class JoinRefused(HeatpoolError):
    """A newcomer who gets no certificate: `reason` for counters, the text for a person."""

    def __init__(self, reason: JoinReason, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class NotThere(HeatpoolError):
    """A site, person, token or request that somebody named is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRecord:
    """An enrolled site; `revoked_ns` None: it may speak. Serials are hexadecimal, newest last."""

    site_id: SiteId
    owner: str
    enrolled_ns: int
    revoked_ns: int | None
    revoked_reason: str
    serials: tuple[str, ...]
    expires_ns: int | None  # of the newest certificate; None: none of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """Leave for one site to join so many times until then; the secret is kept as a hash only.

    `load-*` as `site_id` means a fleet: each site once, whose name begins so and is new here.
    """

    token_id: str
    site_id: SiteId
    owner: str
    uses_count: int
    uses_left: int
    created_ns: int
    expires_ns: int
    is_approval_needed: bool
    revoked_ns: int | None = None

    @property
    def is_for_fleet(self) -> bool:
        """Whether it is for all sites whose names begin alike."""
        return self.site_id.endswith(_ANY)

    def is_for(self, site_id: SiteId) -> bool:
        """Whether a site of this name may join by it."""
        if self.is_for_fleet:
            return site_id.startswith(self.site_id.removesuffix(_ANY))
        return site_id == self.site_id


def is_fleet(pattern: str) -> bool:
    """Whether this is the beginning of a name and one `*` behind it."""
    return pattern.endswith(_ANY) and is_name(pattern.removesuffix(_ANY))


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAsk:
    """A newcomer's wish; `key_sha256` is over the public key for which a certificate is asked."""

    token: str
    site_id: SiteId
    key_sha256: bytes
    peer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that we signed; `name` is its holder, as `site/e1`."""

    serial: str
    name: str
    key_sha256: bytes
    issued_ns: int
    expires_ns: int
    chain_pem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A newcomer who waits for a person's approval."""

    site_id: SiteId
    token_id: str
    key_sha256: bytes
    peer: str
    asked_ns: int
    approved_ns: int | None = None
    is_new: bool = False  # this very call put it on the list


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """A person or machine, `name` as `person/anna`."""

    name: str
    role: Role
    tenant: str
    added_ns: int
    revoked_ns: int | None
    expires_ns: int | None  # of the newest certificate; None: none of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiToken:
    """Leave to read or act on HTTPS in somebody's name; the secret is kept as a hash only."""

    token_id: str
    name: str
    role: Role
    created_ns: int
    expires_ns: int
    revoked_ns: int | None = None
