"""One telemetry stream as the gateway sees it: who speaks, and what is to be said to them.

What is to be said is a set of spools, not a list of messages: a slow reader costs no memory.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from heatpool.errors import WireError
from heatpool.sample import BootId, SiteId, SpoolKind
from heatpool_aggregator.core.admission import (
    DurableRanges,
    Key,
    schema_mistake,
)
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.wire.messages import (
    AckedSpool,
    DurableRange,
    Hello,
    HelloSite,
    MessageKind,
    Peek,
    Refusal,
    RefusedSchema,
    SpoolState,
)
from heatpool_aggregator.wire.telemetry import (
    ack_to_bytes,
    gap_from_bytes,
    hello_reply_to_bytes,
    hellos_of_sites,
    resend_to_bytes,
    slow_to_bytes,
)

REFUSALS_LIMIT = 1_000  # in one Ack; all of them are events in the store

_SPOOLS = {
    MessageKind.TELEMETRY: (SpoolKind.TELEMETRY, FrameKind.TELEMETRY),
    MessageKind.REGISTERS: (SpoolKind.BILLING, FrameKind.BILLING),
}


class Inbox(Protocol):
    """What a stream needs of the gateway."""

    durable: DurableRanges

    async def put(self, peek: Peek, frame: Frame, session: "Session | None") -> bool:
        """Takes a frame; False if there was no room for it in time."""
        ...

    def listen(self, session: "Session", site_ids: tuple[SiteId, ...]) -> None:
        """From now on the stream hears of these sites."""
        ...

    def is_staged(self, key: Key, seq: int) -> bool:
        """Whether this number is on its way into the log."""
        ...

    def close(self, session: "Session") -> None:
        """The stream has gone."""
        ...

    def now_ns(self) -> int:
        """Our clock, ns since 1970, UTC."""
        ...


class Session:
    """One stream; `pending_count` frames of it are on their way into the log.

    `site_ids` are those that the gateway tells it of.
    """

    def __init__(self, inbox: Inbox) -> None:
        self.pending_count = 0
        self.site_ids: tuple[SiteId, ...] = ()
        self._inbox = inbox
        self._sites: tuple[HelloSite, ...] = ()
        self._spools: dict[Key, tuple[int, SpoolState]] = {}
        self._replies: list[bytes] = []
        self._dirty: dict[Key, None] = {}
        self._refused: list[tuple[int, Refusal]] = []
        self._asked: set[tuple[Key, int]] = set()
        self._is_finished = self._is_slowed = False
        self._outgoing = asyncio.Event()

    @property
    def has_hello(self) -> bool:
        """Whether the other end has said who it is."""
        return bool(self._sites)

    async def hello(self, hello: Hello, data: bytes) -> bool:
        """Takes a hello, the first or a later one; False if there was no room for it in time."""
        self._sites = hello.sites
        self._spools = {
            (site.site_id, spool.boot_id): (index, spool)
            for index, site in enumerate(hello.sites)
            for spool in site.spools
        }
        self._inbox.listen(self, tuple(site.site_id for site in hello.sites))
        for site, payload in zip(hello.sites, hellos_of_sites(data), strict=True):
            frame = Frame(
                site_id=site.site_id,
                boot_id=BootId(""),
                kind=FrameKind.HELLO,
                seq=0,
                received_ns=self._inbox.now_ns(),
                payload=payload,
            )
            if not await self._inbox.put(Peek(kind=MessageKind.HELLO), frame, self):
                return False
        self._replies.append(self._hello_reply())
        self._outgoing.set()
        return True

    def _hello_reply(self) -> bytes:
        durable = [
            DurableRange(
                site_index=spool.site_index,
                boot_id=spool.boot_id,
                first_seq=start,
                last_seq=spool.durable_seq,
            )
            for key in self._spools
            for spool, start in self._watermarks(key)
        ]
        refused = [
            RefusedSchema(site_index=index, schema_id=schema.schema_id, reason=mistake)
            for index, site in enumerate(self._sites)
            for place, schema in enumerate(site.schemas)
            if (mistake := schema_mistake(schema, place=place))
        ]
        return hello_reply_to_bytes(durable, refused, server_ns=self._inbox.now_ns())

    async def put(self, peek: Peek, data: bytes) -> bool:
        """Takes a batch, registers or a gap; False if there was no room for it in time.

        Raises:
            WireError: it is of a site or spool that hello did not name.
        """
        if peek.kind is MessageKind.GAP:
            return await self._put_gap(peek, data)
        site = self._site(peek.site_index)
        spool_kind, frame_kind = _SPOOLS[peek.kind]
        spools = [spool for spool in site.spools if spool.kind is spool_kind]
        if not spools:
            raise WireError(f"hello names no {spool_kind.name.lower()} spool of {site.site_id!r}")
        frame = Frame(
            site_id=site.site_id,
            boot_id=spools[0].boot_id,
            kind=frame_kind,
            seq=peek.seq,
            received_ns=self._inbox.now_ns(),
            payload=data,
        )
        return await self._inbox.put(peek, frame, self)

    async def _put_gap(self, peek: Peek, data: bytes) -> bool:
        gap = gap_from_bytes(data)
        frame = Frame(
            site_id=self._site(gap.site_index).site_id,
            boot_id=gap.boot_id,
            kind=FrameKind.GAP,
            seq=0,
            received_ns=self._inbox.now_ns(),
            payload=data,
        )
        return await self._inbox.put(peek, frame, self)

    def _site(self, index: int) -> HelloSite:
        if index >= len(self._sites):
            raise WireError(f"site_index is {index}, hello names {len(self._sites)} sites")
        return self._sites[index]

    def touch(self, key: Key) -> None:
        """The watermark of this spool is worth saying."""
        if key in self._spools:
            self._dirty[key] = None
        self._outgoing.set()

    def ask_again(self, key: Key) -> None:
        """Holes of this spool are to be asked for once more."""
        self._asked = {(asked, hole) for asked, hole in self._asked if asked != key}

    def slow_down(self) -> None:
        """The limits are worth saying once more; they are said once per stream."""
        if not self._is_slowed:
            self._is_slowed = True
            self._replies.append(slow_to_bytes())
            self._outgoing.set()

    def refuse(self, refusal: Refusal) -> None:
        """The next Ack names this frame."""
        for index, site in enumerate(self._sites):
            if site.site_id == refusal.site_id:
                self._refused = [*self._refused, (index, refusal)][-REFUSALS_LIMIT:]
                self._outgoing.set()

    def finish(self) -> None:
        """Nothing more comes up."""
        self._is_finished = True
        self._outgoing.set()

    def close(self) -> None:
        """The stream has gone."""
        self._inbox.close(self)

    async def outgoing(self) -> list[bytes]:
        """What is to be said now; waits for it. Empty: all is said, the other end has finished."""
        while True:
            if messages := self._messages():
                return messages
            if self._is_finished and not self.pending_count:
                return []
            self._outgoing.clear()
            await self._outgoing.wait()

    def _messages(self) -> list[bytes]:
        messages, self._replies = self._replies, []
        dirty, self._dirty = list(self._dirty), {}
        refused, self._refused = self._refused, []
        acked = [spool for key in dirty for spool in self._acked(key)]
        if acked or refused:
            messages.append(ack_to_bytes(acked, refused, server_ns=self._inbox.now_ns()))
        messages += [resend_to_bytes(hole) for key in dirty for hole in self._holes(key)]
        return messages

    def _acked(self, key: Key) -> list[AckedSpool]:
        return [spool for spool, _ in self._watermarks(key)]

    def _watermarks(self, key: Key) -> list[tuple[AckedSpool, int]]:
        """Watermark of each lane with the lane's start; none where not even the start is durable.

        What is durable behind a hole is not said: it comes again, and is dropped as a repeat.
        """
        if key not in self._spools:
            return []
        index, spool = self._spools[key]
        ranges = self._inbox.durable.of(key)
        found = []
        for lane, start in spool.lanes():
            durable = ranges.contiguous_from(start)
            if durable < start:
                continue
            received = durable
            while self._inbox.is_staged(key, received + 1):
                received += 1
            acked = AckedSpool(
                site_index=index,
                boot_id=key[1],
                lane=lane,
                received_seq=received,
                durable_seq=durable,
            )
            found.append((acked, start))
        return found

    def _holes(self, key: Key) -> list[DurableRange]:
        """The oldest hole, once; with two lanes it is the backlog that is still to come."""
        if key not in self._spools:
            return []
        index, spool = self._spools[key]
        hole = self._inbox.durable.of(key).oldest_hole(spool.first_seq)
        if hole is None or len(spool.lanes()) > 1 or (key, hole[0]) in self._asked:
            return []
        self._asked.add((key, hole[0]))
        return [DurableRange(site_index=index, boot_id=key[1], first_seq=hole[0], last_seq=hole[1])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A frame on its way into the log; checksum 0 is unknown, no stream: our own record."""

    frame: Frame
    crc32: int
    session: Session | None

    @property
    def is_counted(self) -> bool:
        """Whether people count it as a batch."""
        return self.frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING)
