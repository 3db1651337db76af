"""Messages of the telemetry stream as plain values; what is already in the contract is not here."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from heatpool.codec import Columns
from heatpool.sample import (
    BootId,
    GapReason,
    LoopId,
    RefusedReason,
    RegisterRow,
    Schema,
    SiteId,
    SpoolKind,
)

WIRE_VERSION = 1
BATCH_BYTES_LIMIT = 1 << 20
UNACKED_LIMIT = 16


class MessageKind(IntEnum):
    """What travels upwards; the numbers are the field numbers of the request."""

    HELLO = 1
    TELEMETRY = 2
    REGISTERS = 3
    GAP = 4


class Lane(IntEnum):
    """Which lane of a spool a watermark belongs to; the numbers are those of the wire."""

    LIVE = 1
    BACKLOG = 2


class Peek(NamedTuple):
    """What the door needs to know of a message; a tuple, as one is made of each message."""

    kind: MessageKind
    site_index: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState:
    """A queue of a site: oldest number held, next one to be given, start of the live lane."""

    kind: SpoolKind
    boot_id: BootId
    first_seq: int
    next_seq: int
    boundary_seq: int = 0

    def lanes(self) -> tuple[tuple[Lane, int], ...]:
        """Each lane with the number that it starts from."""
        if self.boundary_seq <= self.first_seq:
            return ((Lane.LIVE, self.first_seq),)
        return ((Lane.BACKLOG, self.first_seq), (Lane.LIVE, self.boundary_seq))


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloSite:
    """One site of a stream; capacity in W."""

    site_id: SiteId
    spools: tuple[SpoolState, ...] = ()
    schemas: tuple[Schema, ...] = ()
    rejection_capacity_w: float | None = None
    loop_ids: tuple[LoopId, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who speaks, and how the columns are to be read."""

    wire_version: int
    agent_version: str
    sites: tuple[HelloSite, ...]
    sent_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of telemetry."""

    site_index: int
    seq: int
    sent_ns: int
    columns: Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """Rows of meters' registers."""

    site_index: int
    seq: int
    sent_ns: int
    rows: tuple[RegisterRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Numbers first to last, both included, that will never come; times where known, ns."""

    site_index: int
    boot_id: BootId
    first_seq: int
    last_seq: int
    reason: GapReason
    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableRange:
    """Numbers first to last, both included, are durable."""

    site_index: int
    boot_id: BootId
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedSchema:
    """A channel list that cannot be used."""

    site_index: int
    schema_id: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AckedSpool:
    """Watermarks of one lane of one spool, both cumulative."""

    site_index: int
    boot_id: BootId
    lane: Lane
    received_seq: int
    durable_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A frame that is durable and cannot be used."""

    site_id: SiteId
    boot_id: BootId
    seq: int
    reason: RefusedReason
    detail: str
