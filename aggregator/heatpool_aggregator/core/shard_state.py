"""All that a shard remembers, saved as one: a frame is in all of it or in none of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from heatpool.errors import LogError
from heatpool.sample import BootId, Channel, LoopId, Schema, SiteId
from heatpool.setpoint import SetpointState
from heatpool_aggregator.core.admission import EVENT_LIMIT_NS, DurableRanges, SiteClock
from heatpool_aggregator.core.course import Course
from heatpool_aggregator.core.live import LiveState
from heatpool_aggregator.core.own_clock import Mistake, OwnClock

VERSION = 1
PIECE_COUNT = 200  # sites in a piece of a snapshot

SchemaKey = tuple[SiteId, BootId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What a site's nameplate says; W."""

    rejection_capacity_w: float | None = None
    loop_ids: tuple[LoopId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The newest setpoint of a site that we know of, and what became of it; W.

    `heat_rate_w` is None where nothing is asked any more: it ended an order.
    """

    setpoint_seq: int
    heat_rate_w: float | None
    state: SetpointState
    applied_heat_rate_w: float | None = None
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class ShardState:
    """Everything applied up to a position of the log."""

    ranges: DurableRanges = field(default_factory=DurableRanges)
    live: LiveState = field(default_factory=LiveState)
    schemas: dict[SchemaKey, Schema] = field(default_factory=dict)
    clocks: dict[SiteId, SiteClock] = field(default_factory=dict)
    # Of sites alone whose clock is or was far off.
    courses: dict[SiteId, Course] = field(default_factory=dict)
    own_clock: OwnClock = field(default_factory=OwnClock)
    capabilities: dict[SiteId, Capability] = field(default_factory=dict)
    asked: dict[SiteId, Asked] = field(default_factory=dict)
    # Rows ever taken in, a sum that shows at once what is lost or counted twice.
    rows_count: dict[SiteId, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state for a snapshot, msgpack."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The same, some ms of work a piece; nothing may be applied before the last of them."""
        whole = {"version": VERSION, "live": self.live.to_bytes()}
        whole["own_clock"] = self.own_clock.to_list()
        many: dict[str, tuple[Sequence[Any], Callable[[Any], object]]] = {
            "ranges": (self.ranges.to_list(), _itself),
            "schemas": (list(self.schemas.items()), _schema_to_list),
            "clocks": (list(self.clocks.items()), _clock_to_list),
            "courses": (list(self.courses.items()), _course_to_list),
            "capabilities": (list(self.capabilities.items()), _capability_to_list),
            "rows_count": (list(self.rows_count.items()), _itself),
            "asked": (list(self.asked.items()), _asked_to_list),
        }
        packer = msgpack.Packer()
        yield packer.pack_map_header(len(whole) + len(many))
        for name, value in whole.items():
            yield packer.pack(name) + packer.pack(value)
        for name, (items, to_list) in many.items():
            yield packer.pack(name) + packer.pack_array_header(len(items))
            for first in range(0, len(items), PIECE_COUNT):
                piece = items[first : first + PIECE_COUNT]
                yield b"".join(packer.pack(to_list(item)) for item in piece)

    def count(self, site_id: SiteId, n_rows: int) -> None:
        """Rows of a site that are taken in now."""
        self.rows_count[site_id] = self.rows_count.get(site_id, 0) + n_rows

    def came_right(self, mistakes: Mapping[int, Mistake]) -> None:
        """Our own clock is right again: what is held came at other times than it showed."""
        for course in self.courses.values():
            course.came_right(mistakes)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ShardState":
        """The state out of a snapshot.

        Raises:
            LogError: it was written by a newer version.
        """
        fields = msgpack.unpackb(data)
        if fields["version"] != VERSION:
            raise LogError(
                f"snapshot: version is {fields['version']}, known is {VERSION}: start the version "
                "of heatpool that wrote it"
            )
        return cls(
            ranges=DurableRanges.from_list(fields["ranges"]),
            live=LiveState.from_bytes(fields["live"]),
            schemas=dict(_schema_from_list(*item) for item in fields["schemas"]),
            clocks={site: _clock_from_list(ns) for site, ns in fields["clocks"]},
            # Versions before this one held out what was far off.
            courses={site: Course.from_list(one) for site, one in fields.get("courses", ())},
            own_clock=_own_clock_from_list(fields.get("own_clock")),
            capabilities={
                site: Capability(rejection_capacity_w=capacity, loop_ids=tuple(loop_ids))
                for site, capacity, loop_ids in fields["capabilities"]
            },
            asked={site: _asked_from_list(*rest) for site, *rest in fields["asked"]},
            # Versions before this one did not count.
            rows_count=dict(fields.get("rows_count", ())),
        )


def _itself(item: object) -> object:
    return item


def _schema_to_list(item: tuple[SchemaKey, Schema]) -> list[object]:
    (site_id, *_), schema = item
    channels = [(c.loop_id, c.quantity, c.exponent) for c in schema.channels]
    return [site_id, schema.boot_id, schema.schema_id, channels]


def _schema_from_list(
    site_id: SiteId, boot_id: BootId, schema_id: int, channels: list[Any]
) -> tuple[SchemaKey, Schema]:
    schema = Schema(
        schema_id=schema_id,
        boot_id=boot_id,
        channels=tuple(Channel(*channel) for channel in channels),
    )
    return (site_id, boot_id, schema_id), schema


def _clock_to_list(item: tuple[SiteId, SiteClock]) -> list[object]:
    site_id, clock = item
    return [site_id, clock.offsets_ns]


def _course_to_list(item: tuple[SiteId, Course]) -> list[object]:
    site_id, course = item
    return [site_id, course.to_list()]


def _capability_to_list(item: tuple[SiteId, Capability]) -> list[object]:
    site_id, capability = item
    return [site_id, capability.rejection_capacity_w, capability.loop_ids]


def _clock_from_list(offsets_ns: list[int]) -> SiteClock:
    # Older versions let any sent_ns in; an offset beyond all times would overflow int64.
    return SiteClock(offsets_ns=tuple(ns for ns in offsets_ns if abs(ns) <= EVENT_LIMIT_NS))


def _own_clock_from_list(items: list[Any] | None) -> OwnClock:
    # Versions before this one believed their own clock.
    return OwnClock() if items is None else OwnClock.from_list(items)


def _asked_to_list(item: tuple[SiteId, Asked]) -> list[object]:
    site_id, asked = item
    return [
        site_id,
        asked.setpoint_seq,
        asked.heat_rate_w,
        int(asked.state),
        asked.applied_heat_rate_w,
        asked.detail,
    ]


def _asked_from_list(*fields: Any) -> Asked:
    setpoint_seq, heat_rate_w, state, applied, detail = fields
    return Asked(
        setpoint_seq=setpoint_seq,
        heat_rate_w=heat_rate_w,
        state=SetpointState(state),
        applied_heat_rate_w=applied,
        detail=detail,
    )
