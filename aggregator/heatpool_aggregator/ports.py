"""Through what the aggregator meets the world: the durable Log, the Store, the clock."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NewType, Protocol

from heatpool.sample import BootId, MeteringPointId, RegisterRow, SiteId
from heatpool_aggregator.core.audit import AuditEntry, Deed
from heatpool_aggregator.core.enrolment import (
    ApiToken,
    Issued,
    JoinAsk,
    JoinToken,
    SiteRecord,
    UserRecord,
    Waiting,
)
from heatpool_aggregator.core.principal import Principal
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


class Frame(NamedTuple):
    """One message of one site, byte for byte as it came; `seq` is 0 for hello, gap and report.

    A tuple, as one is made of each message.
    """

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


class Chunk(NamedTuple):
    """Rows of one frame as they came, for history: msgpack of columns with their channels.

    A tuple, as one is made of each message.
    """

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

    async def is_new(self) -> bool:
        """Whether nothing was ever flushed: no snapshot can be of this store."""
        ...

    async def close(self) -> None:
        """Flushes and frees the files; may be called twice."""
        ...


class Identities(Protocol):
    """Who may speak; every write is durable on return and seen by every process at once.

    Every verb raises StoreError where the file cannot be used.
    """

    async def principal_of_cert(self, uri: str, serial: str) -> Principal | None:
        """Whose certificate this is; None: unknown, revoked or denied. Its chain TLS has checked.

        `serial` is lower-case hexadecimal without leading zeros.
        """
        ...

    async def principal_of_token(self, token: str) -> Principal | None:
        """Whose API token this is; None: unknown, expired or revoked."""
        ...

    async def principal_of_digest(self, token_sha256: bytes) -> Principal | None:
        """As `principal_of_token`, for who keeps only the token's hash."""
        ...

    async def owner_of(self, site_id: SiteId) -> str:
        """The tenant that owns a site; empty: nobody, or the site is unknown."""
        ...

    async def sites(self) -> Sequence[SiteRecord]:
        """Every site ever enrolled, by id; the revoked ones too."""
        ...

    async def version(self) -> int:
        """Rises with every write, of other processes too."""
        ...

    async def add_site(self, site_id: SiteId, owner: str) -> None:
        """Takes in a site whose certificates come from elsewhere; there already: a new owner."""
        ...

    async def revoke_site(self, site_id: SiteId, reason: str) -> SiteRecord:
        """Denies a site with all its certificates, join tokens and requests.

        Raises:
            NotThere: no such site.
        """
        ...

    async def add_join_token(self, token: JoinToken, token_sha256: bytes) -> None:
        """Keeps a new token's hash."""
        ...

    async def join_tokens(self) -> Sequence[JoinToken]:
        """Every join token, newest first."""
        ...

    async def revoke_join_token(self, token_id: str) -> JoinToken:
        """Nobody joins by it any more.

        Raises:
            NotThere: no such token.
        """
        ...

    async def admit(self, ask: JoinAsk) -> Issued | Waiting | JoinToken:
        """What a newcomer is to get, nothing spent yet.

        Issued: this token gave this key a certificate before, here it is again. Waiting: a person
        has to approve first. JoinToken: sign, then `enrol`.

        Raises:
            JoinRefused: nothing.
        """
        ...

    async def enrol(self, ask: JoinAsk, issued: Issued) -> Issued:
        """Spends a use of the token and records the certificate, both or neither.

        What returns is to be handed out, and nothing else: another answer to the same key may
        have been first. A site has one key: older certificates of it are denied from here on.

        Raises:
            JoinRefused: `admit` would refuse now.
        """
        ...

    async def waiting(self) -> Sequence[Waiting]:
        """Newcomers not yet approved, oldest first."""
        ...

    async def approve(self, site_id: SiteId, key_sha256_start: str) -> Waiting:
        """Lets a waiting newcomer in, the one whose key's hash starts so (hexadecimal).

        Raises:
            NotThere: none waits, or more than one fits.
        """
        ...

    async def of_before(self, issued_ns: int) -> Sequence[str]:
        """Whose newest certificate is older than that, and has neither ended nor been denied."""
        ...

    async def renewed(self, issued: Issued) -> None:
        """Records another certificate of somebody known; the older ones run out by themselves.

        Raises:
            NotThere: the holder is unknown or revoked by now.
            JoinRefused: it had more in a day than any fault explains.
        """
        ...

    async def deny_certificate(self, serial: str, reason: str) -> None:
        """Puts one certificate on the denylist, ours or one from elsewhere; its holder stays."""
        ...

    async def add_user(self, user: UserRecord, issued: Issued | None) -> None:
        """Adds a person or machine, or changes role and tenant; a revoked one is back."""
        ...

    async def users(self) -> Sequence[UserRecord]:
        """People and machines by name, the revoked ones too."""
        ...

    async def revoke_user(self, name: str, reason: str) -> UserRecord:
        """Denies somebody, `person/anna`, with all certificates and API tokens.

        Raises:
            NotThere: nobody has this name.
        """
        ...

    async def add_api_token(self, token: ApiToken, token_sha256: bytes) -> None:
        """Keeps a new token's hash.

        Raises:
            NotThere: nobody has this name.
        """
        ...

    async def api_tokens(self) -> Sequence[ApiToken]:
        """Every API token, newest first."""
        ...


class Audit(Protocol):
    """Who did what and why: entries are added, and never changed or removed."""

    async def append(
        self,
        *,
        who: str,
        action: str,
        subject: str,
        reason: str = "",
        detail: str = "{}",
        at_ns: int,
    ) -> AuditEntry:
        """The entry as it stands in the chain; durable on return.

        Raises:
            StoreError: it is not in the log, so the deed must not be done or told.
        """
        ...

    async def append_all(self, deeds: Sequence[Deed]) -> None:
        """Many deeds, oldest first: all are in the log and durable on return, or none is.

        Raises:
            StoreError: none is in the log.
        """
        ...

    async def read(self, limit: int, before_number: int = 0) -> Sequence[AuditEntry]:
        """Newest first, only those with a lower number than `before_number`; 0: from the newest."""
        ...
