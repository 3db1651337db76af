"""Through what the aggregator meets the world: the durable Log, the Store, the clock."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, Protocol

from heatpool.sample import BootId, MeteringPointId, RegisterRow, SiteId
from heatpool_aggregator.core.settlement import LedgerEntry

Position = NewType("Position", int)
START = Position(0)


class Clock(Protocol):
    """The only source of time; passed in, so that tests own it."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
        ...

    def boot_ns(self) -> int:
        """Nanoseconds since boot; no clock step touches it."""
        ...


class FrameKind(IntEnum):
    """What a frame of the log holds; telemetry and billing have the numbers of SpoolKind."""

    TELEMETRY = 1
    BILLING = 2
    HELLO = 3
    GAP = 4
    SETPOINT_REPORT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message of one site, byte for byte as it came; `seq` is 0 for hello, gap and report."""

    site_id: SiteId
    boot_id: BootId
    kind: FrameKind
    seq: int
    received_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of a partition and the position that is applied in it, saved together."""

    position: Position
    state: bytes


class Partition(Protocol):
    """One share of the log, held by one reader."""

    snapshot: Snapshot | None

    async def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        """Frames behind a position, in order; frames of one commit share its position."""
        ...

    async def save(self, snapshot: Snapshot) -> None:
        """Makes state and position durable in one transaction, and cuts the log behind it."""
        ...


class Log(Protocol):
    """The durable inbox."""

    async def append(self, frames: Sequence[Frame]) -> Position:
        """Position of the commit; returns when the frames are durable.

        Raises:
            LogError: nothing of this was taken; do not acknowledge.
        """
        ...

    def partition(self, number: int) -> AbstractAsyncContextManager[Partition]:
        """Holds one partition for reading."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Rows of one frame as they came, for history: msgpack of columns with their channels."""

    site_id: SiteId
    boot_id: BootId
    seq: int
    start_ns: int
    end_ns: int
    received_ns: int
    blob: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRegister:
    """A register row with the identity that makes storing it twice harmless."""

    site_id: SiteId
    boot_id: BootId
    seq: int
    index: int
    received_ns: int
    row: RegisterRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a person may ask about: gap, refusal, conflict, setpoint state."""

    site_id: SiteId
    name: str
    event_ns: int
    detail: str
    key: str  # storing the same key twice stores it once


class Chunks(Protocol):
    """History of telemetry."""

    async def put(self, chunks: Sequence[Chunk]) -> None:
        """Stores; a chunk that is there already is left alone."""
        ...

    async def read(self, site_id: SiteId, start_ns: int, end_ns: int) -> Sequence[Chunk]:
        """Chunks that overlap [start, end), by start."""
        ...


class Registers(Protocol):
    """The legal facts."""

    async def put(self, rows: Sequence[StoredRegister]) -> None:
        """Stores; a row that is there already is left alone."""
        ...

    async def series(
        self, site_id: SiteId, point_id: MeteringPointId, start_ns: int, end_ns: int
    ) -> Sequence[RegisterRow]:
        """Rows in [start, end) by event time, and the nearest one before and at or after them."""
        ...

    async def points(self) -> Sequence[tuple[SiteId, MeteringPointId]]:
        """Every metering point that ever sent a register."""
        ...


class Ledger(Protocol):
    """Append-only accounts."""

    async def post(self, entries: Sequence[LedgerEntry]) -> None:
        """Appends; an entry whose key is there already is left alone."""
        ...

    async def read(self, start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        """Entries of periods that lie in [start, end), in posting order."""
        ...


class Events(Protocol):
    """What happened, for people."""

    async def put(self, events: Sequence[Event]) -> None:
        """Stores; an event whose key is there already is left alone."""
        ...

    async def read(self, name: str, site_id: SiteId | None, limit: int) -> Sequence[Event]:
        """Newest first."""
        ...


class Store(Protocol):
    """What came in, and what was made of it."""

    chunks: Chunks
    registers: Registers
    ledger: Ledger
    events: Events

    async def flush(self) -> None:
        """Returns when everything put so far would survive a power cut."""
        ...

    async def close(self) -> None:
        """Flushes and frees the files; may be called twice."""
        ...
