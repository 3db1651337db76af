"""Who was turned away at a door: counted by reason, and told once, in bounded memory."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from enum import StrEnum

PEERS_LIMIT = 1_024  # about 200 kB; whoever falls out is told of again
TELL_AGAIN_NS = 86_400 * 10**9


class Reason(StrEnum):
    """Why; a label of a metric, so this list is all there is."""

    UNKNOWN = "unknown_certificate"  # not of our trust domain, or of nobody we know
    REVOKED = "revoked"
    EXPIRED = "expired"
    ROLE = "role"  # known, and may not do this
    OTHER_SITE = "other_site"  # speaks for a site that it is not
    OTHER_TENANT = "other_tenant"
    NO_SUCH_METHOD = "no_such_method"
    MALFORMED = "malformed"
    OUT_OF_ORDER = "out_of_order"
    TOO_SLOW = "too_slow"
    OVERLOAD = "overload"
    REPLACED = "replaced"  # the same site came again elsewhere
    BROKEN = "broken"  # a fault of ours


class TurnedAway:
    """Counts since the process started, and which peers were told of already."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._told_ns: OrderedDict[tuple[str, Reason], int] = OrderedDict()

    @property
    def counts(self) -> Mapping[Reason, int]:
        """How often for each reason; one that never was is 0."""
        return {reason: self._counts[reason] for reason in Reason}

    def count(self, peer: str, reason: Reason, *, boot_ns: int) -> bool:
        """Counts one; whether it is to be told, because this peer's was not within a day."""
        self._counts[reason] += 1
        key = (peer, reason)
        told_ns = self._told_ns.get(key)
        if told_ns is not None and boot_ns - told_ns < TELL_AGAIN_NS:
            self._told_ns.move_to_end(key)
            return False
        self._told_ns[key] = boot_ns
        self._told_ns.move_to_end(key)
        if len(self._told_ns) > PEERS_LIMIT:
            self._told_ns.popitem(last=False)
        return True
