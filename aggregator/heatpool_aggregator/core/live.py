"""State of all sites as columns, and how rows and registers change it.

A slot is one loop of one site; the empty loop is the site itself. The newest event time wins in
each cell, so neither late rows nor repeats turn the clock back, and the order of arrival is naught.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import msgpack
import numpy as np
from numpy.typing import NDArray

from heatpool.sample import BootId, Channel, LoopId, MeteringPointId, RegisterRow, SiteId
from heatpool_aggregator.core.chunk import Rows
from heatpool_aggregator.core.metered import Metered, counted, followed_by, metered_from_list
from heatpool_aggregator.core.quantity import INDEX, LIMITS, QUANTITIES

NEVER_NS = -1  # no row yet, in event columns
SLOTS_COUNT = 64  # room at first; doubles when full
# Of one site, over all its life: each is asked for in every period, or a kilobyte for good.
POINTS_LIMIT = 1_000
LOOPS_LIMIT = 8_192  # as many as one hello can name

Slot = tuple[SiteId, LoopId]
Point = tuple[SiteId, MeteringPointId]


class LiveState:
    """Newest values of every slot, and the energy of every metering point.

    `values`, `event_ns`, `rank` are (n_slots, n_quantities): unit of the quantity with NaN for
    absent; ns or NEVER_NS; which of two rows of one instant counts.
    """

    def __init__(self) -> None:
        self.slots: dict[Slot, int] = {}
        self.metered: dict[Point, Metered] = {}
        # Points that got a row out of order: to be counted again from all their rows.
        self.to_recount: set[Point] = set()
        self._points_count: Counter[SiteId] = Counter()
        self._loops_count: Counter[SiteId] = Counter()
        self._values = np.full((SLOTS_COUNT, len(QUANTITIES)), np.nan)
        self._event_ns = np.full((SLOTS_COUNT, len(QUANTITIES)), NEVER_NS, np.int64)
        self._rank = np.zeros((SLOTS_COUNT, len(QUANTITIES)), np.int64)

    @property
    def values(self) -> NDArray[np.float64]:
        """(n_slots, n_quantities), in the unit of each quantity; NaN is absent."""
        return self._values[: len(self.slots)]

    @property
    def event_ns(self) -> NDArray[np.int64]:
        """(n_slots, n_quantities), event time of each value; NEVER_NS without a row."""
        return self._event_ns[: len(self.slots)]

    def apply(self, site_id: SiteId, boot_id: BootId, seq: int, rows: Rows) -> None:
        """Takes in the newest row of a frame; older rows are history's."""
        newest = _newest(rows.times_ns)
        at_ns, rank = int(rows.times_ns[newest]), rank_of(boot_id, seq)
        for place, channel in enumerate(rows.channels):
            column = INDEX.get(channel.quantity)
            if column is None:
                continue
            slot = self._slot((site_id, LoopId(channel.loop_id)))
            known = (self._event_ns[slot, column], self._rank[slot, column])
            if (at_ns, rank) > known:
                self._event_ns[slot, column] = at_ns
                self._rank[slot, column] = rank
                self._values[slot, column] = rows.values[place, newest]

    def newest(self, slot: int, boot_id: BootId) -> tuple[int, int]:
        """Event time of the newest row of a slot, ns, and its number in this spool, -1 of another.

        Numbers are known up to 2^32.
        """
        column = int(self._event_ns[slot].argmax())
        rank = int(self._rank[slot, column])
        seq = rank & 0xFFFFFFFF
        return int(self._event_ns[slot, column]), seq if rank_of(boot_id, seq) == rank else -1

    def cells_of(self, site_id: SiteId, channels: Sequence[Channel]) -> NDArray[np.intp]:
        """Flat places of those channels that are kept, in their order; good for good."""
        return np.array(
            [
                self._slot((site_id, LoopId(channel.loop_id))) * len(QUANTITIES)
                + INDEX[channel.quantity]
                for channel in channels
                if channel.quantity in INDEX
            ],
            np.intp,
        )

    def apply_newest(
        self,
        cells: NDArray[np.intp],
        values: NDArray[np.float64],
        *,
        at_ns: NDArray[np.int64],
        rank: NDArray[np.int64],
    ) -> None:
        """Takes in the newest rows of many frames, (n_frames, n_kept), as `apply` does of one."""
        # The later of two in this order overwrites the other, so one look at what is known is due.
        order = np.lexsort((rank, at_ns))
        flat, wide = cells[order].ravel(), cells.shape[1]
        at_ns, rank = np.repeat(at_ns[order], wide), np.repeat(rank[order], wide)
        known_ns = self._event_ns.reshape(-1)[flat]
        is_newer = at_ns > known_ns
        is_newer |= (at_ns == known_ns) & (rank > self._rank.reshape(-1)[flat])
        flat = flat[is_newer]
        self._event_ns.reshape(-1)[flat] = at_ns[is_newer]
        self._rank.reshape(-1)[flat] = rank[is_newer]
        self._values.reshape(-1)[flat] = values[order].ravel()[is_newer]

    def meter(self, site_id: SiteId, row: RegisterRow) -> None:
        """Takes in a register row; one out of order marks its point for `recount`."""
        point = (site_id, row.metering_point_id)
        known = self.metered.get(point)
        self._points_count[site_id] += known is None
        metered = followed_by(known, row)
        if metered is None:
            self.to_recount.add(point)
        else:
            self.metered[point] = metered

    def has_room(self, site_id: SiteId, rows: Iterable[RegisterRow]) -> bool:
        """Whether a site has not too many metering points with those of these rows."""
        points = {(site_id, row.metering_point_id) for row in rows}
        new_count = sum(point not in self.metered for point in points)
        return not new_count or self._points_count[site_id] + new_count <= POINTS_LIMIT

    def has_room_for(self, site_id: SiteId, channels: Iterable[Channel]) -> bool:
        """Whether a site has not too many loops with those of these channels."""
        slots = {(site_id, LoopId(one.loop_id)) for one in channels}
        new_count = sum(slot not in self.slots for slot in slots)
        return not new_count or self._loops_count[site_id] + new_count <= LOOPS_LIMIT

    def recount(self, point: Point, rows: Iterable[RegisterRow]) -> None:
        """Counts a point again from all the rows it ever had."""
        if metered := counted(rows):
            self.metered[point] = metered
        self.to_recount.discard(point)

    def to_bytes(self) -> bytes:
        """The whole state, for a snapshot."""
        data: bytes = msgpack.packb(
            {
                "quantities": QUANTITIES,
                "slots": list(self.slots),
                "values": self.values.tobytes(),
                "event_ns": self.event_ns.tobytes(),
                "rank": self._rank[: len(self.slots)].tobytes(),
                "metered": [[*point, m.to_list()] for point, m in self.metered.items()],
                "to_recount": sorted(self.to_recount),
            }
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "LiveState":
        """The state out of a snapshot; a quantity that is new in this version is absent."""
        fields = msgpack.unpackb(data)
        live = cls()
        for site_id, loop_id in fields["slots"]:
            live._slot((site_id, loop_id))
        live._fill(fields)
        for site_id, point_id, metered in fields["metered"]:
            live.metered[(site_id, point_id)] = metered_from_list(metered)
            live._points_count[site_id] += 1
        live.to_recount = {(site, point) for site, point in fields["to_recount"]}
        return live

    def _fill(self, fields: dict[str, Any]) -> None:
        known = fields["quantities"]
        shape, count = (len(self.slots), len(known)), len(self.slots)
        ours = [INDEX[quantity] for quantity in known if quantity in INDEX]
        theirs = [place for place, quantity in enumerate(known) if quantity in INDEX]
        for name, target in (
            ("values", self._values),
            ("event_ns", self._event_ns),
            ("rank", self._rank),
        ):
            column = np.frombuffer(fields[name], target.dtype).reshape(shape)
            target[:count, ours] = column[:, theirs]

    def _slot(self, name: Slot) -> int:
        slot = self.slots.get(name)
        if slot is None:
            slot = self.slots[name] = len(self.slots)
            self._loops_count[name[0]] += 1
            if slot == len(self._values):
                self._grow()
        return slot

    def _grow(self) -> None:
        width = len(QUANTITIES)
        more = len(self._values)
        self._values = np.vstack([self._values, np.full((more, width), np.nan)])
        self._event_ns = np.vstack([self._event_ns, np.full((more, width), NEVER_NS, np.int64)])
        self._rank = np.vstack([self._rank, np.zeros((more, width), np.int64)])


def _newest(times_ns: NDArray[np.int64]) -> int:
    """Place of the newest row; of several at one instant, the last."""
    return len(times_ns) - 1 - int(times_ns[::-1].argmax())


def rank_of(boot_id: BootId, seq: int) -> int:
    """Which of two rows of one instant counts: the later frame of a spool, any fixed one of two."""
    return (crc32(boot_id.encode()) >> 1) << 32 | (seq & 0xFFFFFFFF)


def rows_mistake(rows: Rows) -> str | None:
    """A figure that cannot be, for people; None if all can."""
    for place, channel in enumerate(rows.channels):
        limits = LIMITS.get(channel.quantity)
        if limits is None:
            continue
        values = rows.values[place]
        beyond = values[(values < limits[0]) | (values > limits[1])]
        if len(beyond):
            what = f"{channel.loop_id or 'site'}.{channel.quantity}"
            return f"{what} is {beyond[0]:g}, allowed is {limits[0]:g} to {limits[1]:g}"
    return None
