"""One spool as the gateway knows it, and each stream that watches it."""

from typing import Protocol

from heatpool.sample import BootId, SiteId, SpoolKind
from heatpool_aggregator.core.admission import Key, Ranges
from heatpool_aggregator.ports import FrameKind
from heatpool_aggregator.wire.acks import AckedPrefix
from heatpool_aggregator.wire.messages import AckedSpool, DurableRange, Lane, SpoolState


class Arrivals:
    """Numbers of one spool: those that are durable, and those on their way into the log."""

    __slots__ = ("is_dirty", "key", "ranges", "staged", "watches")

    def __init__(self, key: Key, ranges: Ranges) -> None:
        self.key, self.ranges = key, ranges
        self.staged: dict[int, bytes] = {}
        self.watches: list[Watch] = []
        self.is_dirty = False

    def holds(self, seq: int) -> bool:
        """Whether this number is here already, or on its way."""
        return self.ranges.holds(seq) or seq in self.staged


class Touched(Protocol):
    """A stream, as far as a spool knows it."""

    def touch(self, watch: "Watch") -> None:
        """The watermark of this spool is worth saying."""
        ...


class Watch:
    """A spool as one stream speaks of it."""

    __slots__ = (
        "arrivals",
        "asked",
        "boot_id",
        "index",
        "is_dirty",
        "is_scattered",
        "kind",
        "lanes",
        "session",
        "site_id",
        "spool",
    )

    def __init__(
        self,
        session: Touched,
        *,
        index: int,
        site_id: SiteId,
        spool: SpoolState,
        arrivals: Arrivals,
    ) -> None:
        self.session = session
        self.index, self.site_id, self.spool, self.arrivals = index, site_id, spool, arrivals
        self.boot_id: BootId = spool.boot_id
        is_billing = spool.kind is SpoolKind.BILLING
        self.kind = FrameKind.BILLING if is_billing else FrameKind.TELEMETRY
        self.lanes = tuple(
            (start, AckedPrefix(site_index=index, boot_id=spool.boot_id, lane=lane))
            for lane, start in spool.lanes()
        )
        self.is_dirty = self.is_scattered = False
        self.asked = -1

    @property
    def has_lanes(self) -> bool:
        """Whether live and backlog run apart."""
        return len(self.lanes) > 1

    def is_backlog(self, seq: int) -> bool:
        """Whether this number is of the history, and not live."""
        return self.has_lanes and seq < self.spool.boundary_seq

    def is_behind(self) -> bool:
        """Whether some of the history is not durable; what was told to be lost is."""
        if not self.has_lanes:
            return False
        last = self.arrivals.ranges.contiguous_from(self.spool.first_seq)
        return last < self.spool.boundary_seq - 1

    def marks(self) -> list[AckedSpool]:
        """Watermark of each lane; none where not even the lane's start is durable.

        What is durable behind a hole is not said: it comes again, and is dropped as a repeat.
        """
        return [
            AckedSpool(
                site_index=self.index,
                boot_id=self.boot_id,
                lane=prefix.lane,
                received_seq=received,
                durable_seq=durable,
            )
            for prefix, received, durable in self._marks()
        ]

    def acked(self) -> list[bytes]:
        """The same as parts of an Ack."""
        return [prefix.with_marks(received, durable) for prefix, received, durable in self._marks()]

    def _marks(self) -> list[tuple[AckedPrefix, int, int]]:
        ranges, staged = self.arrivals.ranges, self.arrivals.staged
        found = []
        for start, prefix in self.lanes:
            durable = ranges.contiguous_from(start)
            if prefix.lane is Lane.BACKLOG:
                # What is durable beyond the boundary is the other lane's.
                durable = min(durable, self.spool.boundary_seq - 1)
            if durable < start:
                continue
            received = durable
            while received + 1 in staged:
                received += 1
            found.append((prefix, received, durable))
        return found

    def durable(self) -> list[DurableRange]:
        """What the answer to hello says: all ranges, or the first alone to who knows one lane."""
        if not self.spool.boundary_seq:
            pairs = [
                (start, durable)
                for (start, _), (_, _, durable) in zip(self.lanes, self._marks(), strict=False)
            ]
        else:
            pairs = self.arrivals.ranges.pairs()
        return [self._range(first, last) for first, last in pairs]

    def _range(self, first: int, last: int) -> DurableRange:
        return DurableRange(
            site_index=self.index, boot_id=self.boot_id, first_seq=first, last_seq=last
        )

    def scatter(self) -> None:
        """Too many holes: the oldest is to be asked for, once more if it was already."""
        self.is_scattered, self.asked = True, -1

    def hole(self) -> DurableRange | None:
        """The oldest hole, once; with two lanes the backlog is still to come, and no hole."""
        is_backlog_open = self.has_lanes and not self.is_scattered
        start = self.spool.boundary_seq if is_backlog_open else self.spool.first_seq
        hole = self.arrivals.ranges.oldest_hole(start)
        if hole is None or hole[0] == self.asked:
            return None
        self.asked = hole[0]
        return self._range(*hole)
