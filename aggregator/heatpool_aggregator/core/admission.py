"""What may enter: sequence numbers already seen, clocks that are off, figures that cannot be.

Pure bookkeeping. What is refused is durable already; the reason goes back to the site.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import Enum

from heatpool.codec import CHANNELS_LIMIT
from heatpool.sample import BootId, RegisterRow, Schema, SiteId
from heatpool.units import NS_PER_S

RANGES_LIMIT = 64  # normally one; more means a hole that must be asked for or declared a gap
BOOTS_LIMIT = 64  # of one site: each is a spool file that was made anew
FINGERPRINTS_COUNT = 256  # four hours at one message a minute, 1 KiB a spool
SCHEMAS_LIMIT = 32  # of one site and boot id
EXPONENT_LIMIT = 9
SEQ_LIMIT = 2**62  # far beyond any spool, and safe in int64
OFFSETS_COUNT = 20  # the smallest of these has met the shortest queue
AGREE_COUNT = 3
AGREE_NS = 2 * NS_PER_S
FLAG_NS = 2 * NS_PER_S
HOLD_NS = 600 * NS_PER_S
EVENT_LIMIT_NS = 2**62
REGISTER_MIN_NS = 1_577_836_800 * NS_PER_S  # 2020-01-01: before it, a clock that was never set
RAW_LIMIT = 2**63  # one more than int64 holds

Key = tuple[SiteId, BootId]


class Verdict(Enum):
    """What a sequence number is to us."""

    NEW = "new"
    REPEAT = "repeat"
    SCATTERED = "scattered"


class Ranges:
    """Sequence numbers as sorted ranges, ends included, that neither overlap nor touch."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __len__(self) -> int:
        return len(self._firsts)

    def add(self, first: int, last: int) -> None:
        """Takes in first to last, both included; blind to order and repetition."""
        if self._lasts and self._lasts[-1] + 1 == first:
            self._lasts[-1] = last
            return
        # Ranges that touch [first, last] lie between these two places.
        low = bisect_right(self._lasts, first - 2)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def follow(self, seq: int) -> bool:
        """Takes in the number right behind the last one; False, and nothing, if it is another."""
        if not self._lasts or self._lasts[-1] + 1 != seq:
            return False
        self._lasts[-1] = seq
        return True

    def holds(self, seq: int) -> bool:
        """Whether this number is in a range."""
        if not self._lasts or seq > self._lasts[-1]:
            return False
        place = bisect_right(self._firsts, seq) - 1
        return place >= 0 and seq <= self._lasts[place]

    def extends(self, seq: int) -> bool:
        """Whether a range would grow by this number, so that no new one is needed."""
        return self.holds(seq - 1) or self.holds(seq + 1)

    def scatters(self, first: int, last: int) -> bool:
        """Whether first to last would be one range more than a spool may have."""
        if len(self._firsts) < RANGES_LIMIT:
            return False
        return not any(self.holds(seq) for seq in (first - 1, first, last, last + 1))

    def contiguous_from(self, first: int) -> int:
        """The last number without a hole from `first` on; first - 1 if there is none."""
        place = bisect_right(self._firsts, first) - 1
        if place >= 0 and first <= self._lasts[place]:
            return self._lasts[place]
        return first - 1

    def oldest_hole(self, first: int) -> tuple[int, int] | None:
        """The first missing stretch at or after `first` that has a range behind it."""
        start = self.contiguous_from(first) + 1
        place = bisect_right(self._firsts, start)
        return (start, self._firsts[place] - 1) if place < len(self._firsts) else None

    def pairs(self) -> list[tuple[int, int]]:
        """First and last of each range, in order."""
        return list(zip(self._firsts, self._lasts, strict=True))


class DurableRanges:
    """What is durable of each spool: `(site_id, boot_id)` names a spool for good."""

    __slots__ = ("_boots", "_by_key", "forgotten_count")

    def __init__(self) -> None:
        self._by_key: dict[Key, Ranges] = {}
        # Boot ids of each site, the one that was named least lately first.
        self._boots: dict[SiteId, list[BootId]] = {}
        self.forgotten_count = 0

    def of(self, key: Key) -> Ranges:
        """The ranges of a spool; empty for one that was never seen."""
        return self._by_key.get(key) or Ranges()

    def add(self, key: Key, first: int, last: int) -> None:
        """Takes in first to last of a spool, both included."""
        ranges = self._by_key.get(key)
        if ranges is None:
            ranges = self.named(key)
        ranges.add(first, last)

    def named(self, key: Key) -> Ranges:
        """The ranges of a spool that its site names, to be kept; the oldest boot ids go."""
        site_id, boot_id = key
        boots = self._boots.setdefault(site_id, [])
        if boot_id in boots:
            boots.remove(boot_id)
        boots.append(boot_id)
        if len(boots) > BOOTS_LIMIT:
            self._by_key.pop((site_id, boots.pop(0)), None)
            self.forgotten_count += 1
        return self._by_key.setdefault(key, Ranges())

    def verdict(self, key: Key, seq: int) -> Verdict:
        """Whether a number is new, a repeat, or would scatter the spool over too many ranges."""
        ranges = self.of(key)
        if ranges.holds(seq):
            return Verdict.REPEAT
        if len(ranges) >= RANGES_LIMIT and not ranges.extends(seq):
            return Verdict.SCATTERED
        return Verdict.NEW

    def to_list(self) -> list[object]:
        """The same as lists, for a snapshot."""
        return [[site, boot, ranges.pairs()] for (site, boot), ranges in self._by_key.items()]

    @classmethod
    def from_list(cls, items: Iterable[Sequence[object]]) -> "DurableRanges":
        """The same out of a snapshot."""
        durable = cls()
        for site, boot, pairs in items:
            for first, last in pairs:  # type: ignore[attr-defined]  # lists of our own making
                durable.add((SiteId(str(site)), BootId(str(boot))), first, last)
        return durable


class Fingerprints:
    """Checksums of the newest frames of one spool: the same number with other content shows."""

    __slots__ = ("_newest", "_ring")

    def __init__(self) -> None:
        self._newest = -1
        self._ring = array("I", bytes(4 * FINGERPRINTS_COUNT))

    def remember(self, seq: int, crc32: int) -> None:
        """Keeps the checksum; 0 is unknown."""
        if seq == self._newest + 1:
            self._ring[seq % FINGERPRINTS_COUNT] = crc32
            self._newest = seq
            return
        if seq <= self._newest - FINGERPRINTS_COUNT:
            return
        for passed in range(max(self._newest + 1, seq - FINGERPRINTS_COUNT + 1), seq):
            self._ring[passed % FINGERPRINTS_COUNT] = 0
        self._ring[seq % FINGERPRINTS_COUNT] = crc32
        self._newest = max(self._newest, seq)

    def is_ahead(self, seq: int) -> bool:
        """Whether this number is beyond all that was remembered."""
        return seq > self._newest

    def differs(self, seq: int, crc32: int) -> bool:
        """Whether this number is known to have had other content."""
        if not self._newest - FINGERPRINTS_COUNT < seq <= self._newest:
            return False
        known = self._ring[seq % FINGERPRINTS_COUNT]
        return bool(known and crc32) and known != crc32


class SiteClock:
    """How far a site's clock is behind ours, ns, from its newest messages; never changed.

    `offset_ns` is to be added to the site's times: the shortest delay seen is still in it.
    `is_flagged` is more than 2 s off: said so, and shown corrected. `is_far` is more than 10 min
    off: `is_held` until three messages agree on it, and then rows are taken in corrected.
    """

    __slots__ = ("is_far", "is_flagged", "is_held", "offset_ns", "offsets_ns")

    def __init__(self, offsets_ns: tuple[int, ...] = ()) -> None:
        self.offsets_ns = offsets_ns
        self.offset_ns = min(offsets_ns, default=0)
        self.is_flagged = not -FLAG_NS <= self.offset_ns <= FLAG_NS
        self.is_far = not -HOLD_NS <= self.offset_ns <= HOLD_NS
        near = self.offset_ns + AGREE_NS
        self.is_held = self.is_far and sum(ns <= near for ns in offsets_ns) < AGREE_COUNT

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SiteClock) and self.offsets_ns == other.offsets_ns

    def __hash__(self) -> int:
        return hash(self.offsets_ns)

    def observed(self, *, sent_ns: int, received_ns: int) -> "SiteClock":
        """The clock after one more message; three that agree replace what a step made wrong."""
        offsets = (*self.offsets_ns[1 - OFFSETS_COUNT :], received_ns - sent_ns)
        newest = offsets[-AGREE_COUNT:]
        lowest = min(newest)
        # Only a step of the clock puts the newest this far above the lowest of all.
        if lowest - self.offset_ns > AGREE_NS and self.offsets_ns:
            is_steady = len(newest) == AGREE_COUNT and max(newest) - lowest <= AGREE_NS
            if is_steady and lowest - min(offsets) > AGREE_NS:
                offsets = newest
        return SiteClock(offsets)

    def corrected_ns(self, event_ns: int) -> int:
        """An event time on our clock, ns; within 2 s it is left alone.

        Rows of a clock that is far off were corrected when they were taken in.
        """
        return event_ns + self.offset_ns if self.is_flagged and not self.is_far else event_ns


NEW_CLOCK = SiteClock()  # of a site that has said nothing yet


def time_mistake(event_ns: int, received_ns: int) -> str | None:
    """Why an event time on our clock cannot be, for people; None if it can."""
    if event_ns > received_ns + HOLD_NS:
        ahead_s = (event_ns - received_ns) / NS_PER_S
        return f"an event lies {ahead_s:.0f} s ahead of its arrival, allowed are 600"
    return None


def schema_mistake(schema: Schema, *, place: int) -> str | None:
    """Why a channel list cannot be used, for people; None if it can. `place` counts from 0."""
    if place >= SCHEMAS_LIMIT:
        return f"is number {place + 1}, allowed are {SCHEMAS_LIMIT} of a site"
    names = [(channel.loop_id, channel.quantity) for channel in schema.channels]
    if not 1 <= len(names) <= CHANNELS_LIMIT:
        return f"has {len(names)} channels, allowed is 1 to {CHANNELS_LIMIT}"
    if len(set(names)) < len(names):
        return f"names {max(names, key=names.count)} more than once"
    if odd := [c for c in schema.channels if not c.quantity or abs(c.exponent) > EXPONENT_LIMIT]:
        return f"has {odd[0]}: needs a quantity and an exponent within ±{EXPONENT_LIMIT}"
    return None


def register_mistake(row: RegisterRow) -> str | None:
    """Why a register row cannot be used, for people; None if it can."""
    if not 0 <= row.raw < RAW_LIMIT:
        return f"raw is {row.raw}, allowed is 0 to {RAW_LIMIT - 1}"
    if row.modulus is not None and not 0 < row.modulus < RAW_LIMIT:
        return f"modulus is {row.modulus}, allowed is 1 to {RAW_LIMIT - 1}"
    if abs(row.exponent) > EXPONENT_LIMIT:
        return f"exponent is {row.exponent}, allowed is ±{EXPONENT_LIMIT}"
    if not 0 < row.event_ns < EVENT_LIMIT_NS:
        return f"event_ns is {row.event_ns}, not a time since 1970"
    if not row.metering_point_id or not row.meter_id:
        return "metering_point_id or meter_id is empty"
    return None
