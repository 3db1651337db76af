"""How often somebody may ask: a bucket of leave per key, refilled with time, in bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

KEYS_LIMIT = 10_000  # about 2 MB; whoever falls out starts with a full bucket
_IPV6_SITE_BITS = 64  # what one household or machine is given
_NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class _Bucket:
    left_count: float
    at_ns: int


class Pace:
    """At most `burst_count` at once, and one more each `refill_s`."""

    def __init__(self, burst_count: int, refill_s: float) -> None:
        self._burst_count = burst_count
        self._refill_ns = refill_s * _NS_PER_S
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, key: str, boot_ns: int) -> int:
        """Takes one of this key's; not 0: there was none, come again after so many seconds."""
        bucket = self._buckets.pop(key, None) or _Bucket(self._burst_count, boot_ns)
        gained = (boot_ns - bucket.at_ns) / self._refill_ns
        left_count = min(float(self._burst_count), bucket.left_count + gained)
        is_given = left_count >= 1
        self._buckets[key] = _Bucket(left_count - 1 if is_given else left_count, boot_ns)
        if len(self._buckets) > KEYS_LIMIT:
            self._buckets.popitem(last=False)
        if is_given:
            return 0
        return 1 + int((1 - left_count) * self._refill_ns / _NS_PER_S)

    def give_back(self, key: str) -> None:
        """What was taken last was well used, and does not count."""
        if (bucket := self._buckets.get(key)) is not None:
            bucket.left_count = min(self._burst_count, bucket.left_count + 1)


def place_of(address: str | None) -> str:
    """Whom an address stands for: itself, or its whole IPv6 network, which one caller has."""
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        bits = 128 - _IPV6_SITE_BITS
        return f"{IPv6Address(int(found) >> bits << bits)}/{_IPV6_SITE_BITS}"
    return str(found)
