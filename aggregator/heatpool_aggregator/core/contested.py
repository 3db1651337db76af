"""Sites that come again and again while they are here: two machines with one identity, mostly."""

from collections import OrderedDict, deque

from heatpool.sample import SiteId

TAKEN_COUNT = 3
TAKEN_NS = 2 * 3_600 * 10**9  # two machines that give way to each other take turns by the hour
TELL_AGAIN_NS = 86_400 * 10**9
SITES_LIMIT = 1_024  # about 1 MB; whichever falls out is counted anew


class Contested:
    """When each site was last taken over by another stream of its own, in bounded memory."""

    def __init__(self) -> None:
        self._taken_ns: OrderedDict[SiteId, deque[int]] = OrderedDict()
        self._told_ns: dict[SiteId, int] = {}

    def take_over(self, site_id: SiteId, boot_ns: int) -> bool:
        """Notes one; whether it is to be told, because this site was not within a day."""
        times_ns = self._taken_ns.setdefault(site_id, deque(maxlen=TAKEN_COUNT))
        self._taken_ns.move_to_end(site_id)
        times_ns.append(boot_ns)
        if len(self._taken_ns) > SITES_LIMIT:
            gone, _ = self._taken_ns.popitem(last=False)
            self._told_ns.pop(gone, None)
        if not _is_contested(times_ns, boot_ns):
            return False
        told_ns = self._told_ns.get(site_id)
        if told_ns is not None and boot_ns - told_ns < TELL_AGAIN_NS:
            return False
        self._told_ns[site_id] = boot_ns
        return True

    def count(self, boot_ns: int) -> int:
        """How many sites are contested now."""
        return sum(_is_contested(times_ns, boot_ns) for times_ns in self._taken_ns.values())


def _is_contested(times_ns: deque[int], boot_ns: int) -> bool:
    return len(times_ns) == TAKEN_COUNT and boot_ns - times_ns[0] < TAKEN_NS
