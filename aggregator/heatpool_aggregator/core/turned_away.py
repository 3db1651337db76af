"""Who was turned away at a door: counted by reason, and told once, in bounded memory."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from enum import StrEnum

from heatpool_aggregator.core.contested import Contested

PEERS_LIMIT = 1_024  # about 200 kB; whoever falls out is told of again
TELL_AGAIN_NS = 86_400 * 10**9
MET_LIMIT = 20_000  # connections; about 4 MB when full


class Reason(StrEnum):
    """Why; a label of a metric, so this list is all there is."""

    TLS = "tls"  # a handshake that no call came of: no certificate, a foreign one, no TLS at all
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
    # On HTTPS.
    API_TOKEN = "api_token"  # none, or none that counts
    JOIN = "join"  # a join token that does not count, or a request that is not signed
    ORIGIN = "origin"  # a page of somebody else makes a browser of ours ask
    HOST = "host"  # without TLS: a name that is not this machine's
    TOO_OFTEN = "too_often"


class TurnedAway:
    """Counts since the process started, and which peers were told of already."""

    def __init__(self) -> None:
        self._counts: Counter[Reason] = Counter()
        self._told_ns: OrderedDict[tuple[str, Reason], int] = OrderedDict()
        self.contested = Contested()
        self.contested_count = 0  # kept by who looks at it from time to time
        self.handshakes_begun = 0  # kept by who does them
        self._begun_before = self._met_count = 0
        self._met: OrderedDict[str, None] = OrderedDict()

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

    def meet(self, connection: str) -> None:
        """A call came over this connection, `address:port` of its other end."""
        if connection in self._met:
            return
        self._met[connection] = None
        self._met_count += 1
        if len(self._met) > MET_LIMIT:
            self._met.popitem(last=False)

    def settle_handshakes(self) -> int:
        """Counts those begun before the last settling that no call came of; how many are new.

        Who does the handshakes does not say why one fails. Calls of handshakes begun since then
        are set against older ones, so that this counts late, and never too many.
        """
        lost = self._begun_before - self._met_count - self._counts[Reason.TLS]
        self._begun_before = self.handshakes_begun
        self._counts[Reason.TLS] += max(0, lost)
        return max(0, lost)
