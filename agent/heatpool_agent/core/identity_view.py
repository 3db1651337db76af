"""How a site's identity stands, for the board and for whoever looks at it."""

from dataclasses import dataclass
from enum import StrEnum


class IdentityState(StrEnum):
    """Whether a site can prove who it is."""

    NONE = "none"  # it has not joined
    VALID = "valid"
    UNRENEWED = "unrenewed"  # good for now, and the next one is late
    EXPIRED = "expired"  # or not valid yet, by this machine's clock
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityView:
    """One identity; `fingerprint` is SHA-256 over its certificate, `end_ns` the end of its life."""

    state: IdentityState = IdentityState.NONE
    detail: str = ""
    fix: str = ""
    site_id: str = ""
    grpc: str = ""
    fingerprint: str = ""
    start_ns: int | None = None
    end_ns: int | None = None
