"""One telemetry stream as the gateway sees it: who speaks, and what is to be said to them.

What is to be said is a set of spools, not a list of messages: a slow reader costs no memory.
"""

from collections.abc import Callable
from typing import Protocol

from heatpool.errors import WireError
from heatpool.sample import BootId, SiteId, SpoolKind
from heatpool_aggregator.core.admission import Key, schema_mistake
from heatpool_aggregator.core.quotas import NO_QUOTA, STEADY, Account, Limits
from heatpool_aggregator.loops.admitting import ROOM_S, Admitting
from heatpool_aggregator.loops.arrivals import Arrivals, Watch
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.wire.acks import ack_of
from heatpool_aggregator.wire.messages import (
    Gap,
    Hello,
    MessageKind,
    Peek,
    Refusal,
    RefusedSchema,
    SpoolState,
)
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import (
    gap_from_bytes,
    hello_reply_to_bytes,
    hellos_of_sites,
    later_in_ack,
    refused_in_ack,
    resend_to_bytes,
    slow_to_bytes,
)

NO_ACCOUNT = Account(NO_QUOTA)  # of a stream that has not said whose it is
REPLIES_LIMIT = 16  # said and not yet read: hellos come as fast as a stream likes
REFUSALS_LIMIT = 1_000  # in one Ack; all of them are events in the store

_SPOOLS = {
    MessageKind.TELEMETRY: SpoolKind.TELEMETRY,
    MessageKind.REGISTERS: SpoolKind.BILLING,
}
_WATCHED = {kind: message for message, kind in _SPOOLS.items()}


class Inbox(Protocol):
    """What a stream needs of the gateway."""

    admitting: Admitting
    server_time: bytes

    def take(self, watch: Watch, seq: int, data: bytes, session: "Session") -> None:
        """Takes a batch or registers, for which there is room."""
        ...

    def take_gap(self, gap: Gap, frame: Frame, session: "Session") -> None:
        """Takes a gap, for which there is room."""
        ...

    def stage(self, frame: Frame, session: "Session | None") -> None:
        """Takes a hello, for which there is room."""
        ...

    def watched(self, key: Key) -> Arrivals:
        """What is known of a spool, kept for as long as somebody watches it."""
        ...

    def unwatched(self, arrivals: Arrivals) -> None:
        """Nobody watches this spool any more."""
        ...

    def listen(self, session: "Session", site_ids: tuple[SiteId, ...]) -> None:
        """From now on the stream hears of these sites."""
        ...

    def close(self, session: "Session") -> None:
        """The stream has gone."""
        ...

    def now_ns(self) -> int:
        """Our clock, ns since 1970, UTC."""
        ...


class Session:
    """One stream; `pending_count` frames of it, `pending_bytes`, are on their way into the log.

    `site_ids` are those that the gateway tells it of. `retry_after_s` is when to come back after a
    False, s. `on_news` is called when there is something to say, or all is said.
    """

    __slots__ = (
        "_dirty",
        "_inbox",
        "_is_finished",
        "_is_greeted",
        "_limits",
        "_refused",
        "_replies",
        "_watches",
        "account",
        "on_news",
        "pending_bytes",
        "pending_count",
        "retry_after_s",
        "site_ids",
    )

    def __init__(self, inbox: Inbox) -> None:
        self.pending_count = self.pending_bytes = 0
        self.retry_after_s = 0.0
        self.account = NO_ACCOUNT
        self.site_ids: tuple[SiteId, ...] = ()
        self._inbox = inbox
        self._watches: dict[tuple[MessageKind, int], Watch] = {}
        self._replies: list[bytes] = []
        self._dirty: list[Watch] = []
        self._refused: list[tuple[int, Refusal]] = []
        self._limits = STEADY
        self._is_finished = self._is_greeted = False
        self.on_news: Callable[[], None] = _nobody

    @property
    def has_hello(self) -> bool:
        """Whether the other end has said who it is."""
        return bool(self.site_ids)

    async def hello(self, hello: Hello, data: bytes) -> bool:
        """Takes a hello, the first or a later one; False if there was no room for it in time."""
        if not await self._is_admitted(hello):
            return False
        self._inbox.listen(self, tuple(site.site_id for site in hello.sites))
        self._unwatch()
        for index, site in enumerate(hello.sites):
            for spool in site.spools:
                self._watch(index, site.site_id, spool)
        for site, payload in zip(hello.sites, hellos_of_sites(data), strict=True):
            frame = Frame(
                site_id=site.site_id,
                boot_id=BootId(""),
                kind=FrameKind.HELLO,
                seq=0,
                received_ns=self._inbox.now_ns(),
                payload=payload,
            )
            if not await self._inbox.admitting.room(self, len(payload)):
                self._answer_later()
                return False
            self._inbox.stage(frame, self)
        self._inbox.admitting.greeted(self)
        self._say(self._hello_reply(hello))
        self._is_greeted = True
        return True

    async def _is_admitted(self, hello: Hello) -> bool:
        """Whether this stream is let in, under the account of its sites' owner."""
        account = self.account
        if not self.has_hello:
            account = await self._inbox.admitting.account_of(hello.sites[0].site_id)
        if len(self._replies) >= REPLIES_LIMIT:
            self.retry_after_s = ROOM_S
            return False
        if not await self._inbox.admitting.hello(self, account, hello.sites[0].site_id):
            self._answer_later()
            return False
        if not self.has_hello:
            self.account = account
            account.streams += 1
        return True

    def _watch(self, index: int, site_id: SiteId, spool: SpoolState) -> None:
        arrivals = self._inbox.watched((site_id, spool.boot_id))
        watch = Watch(self, index=index, site_id=site_id, spool=spool, arrivals=arrivals)
        arrivals.watches.append(watch)
        self._watches[_WATCHED[spool.kind], index] = watch

    def _say_later(self) -> None:
        """The last word before a stream that sends too much is ended."""
        parts = [self._inbox.server_time, later_in_ack(self.retry_after_s)]
        self._say(ack_of(parts))

    def _answer_later(self) -> None:
        now_ns, later_s = self._inbox.now_ns(), self.retry_after_s
        self._say(hello_reply_to_bytes([], [], server_ns=now_ns, retry_after_s=later_s))

    def _hello_reply(self, hello: Hello) -> bytes:
        durable = [known for watch in self._watches.values() for known in watch.durable()]
        refused = [
            RefusedSchema(site_index=index, schema_id=schema.schema_id, reason=mistake)
            for index, site in enumerate(hello.sites)
            # Counted from the newest, as rows of now are packed by it.
            for number, schema in enumerate(site.schemas, 1)
            if (mistake := schema_mistake(schema, place=len(site.schemas) - number))
        ]
        now_ns = self._inbox.now_ns()
        return hello_reply_to_bytes(durable, refused, server_ns=now_ns, limits=self._limits)

    def take(self, data: bytes) -> bool:
        """Takes a batch or registers; False, and nothing, if more is to be done about it.

        Raises:
            WireError: the message has no identity.
        """
        kind, site_index, seq = peek(data)
        watch = self._watches.get((kind, site_index))
        if watch is None or not self._inbox.admitting.has_room(self):
            return False
        self._inbox.take(watch, seq, data, self)
        return True

    async def put(self, head: Peek, data: bytes) -> bool:
        """Takes a batch, registers or a gap; False if there was no room for it in time.

        Raises:
            WireError: it is of a site or spool that hello did not name.
        """
        watch = self._watches.get((head.kind, head.site_index))
        if watch is None and head.kind is not MessageKind.GAP:
            raise self._unknown(head)
        admitting = self._inbox.admitting
        if not admitting.has_room(self) and not await admitting.room(self, len(data)):
            self._say_later()
            return False
        if watch is None:
            self._put_gap(data)
        else:
            self._inbox.take(watch, head.seq, data, self)
        return True

    def _unknown(self, peek: Peek) -> WireError:
        if peek.site_index >= len(self.site_ids):
            return _no_site(peek.site_index, len(self.site_ids))
        kind = _SPOOLS[peek.kind].name.lower()
        return WireError(f"hello names no {kind} spool of {self.site_ids[peek.site_index]!r}")

    def _put_gap(self, data: bytes) -> None:
        gap = gap_from_bytes(data)
        if gap.site_index >= len(self.site_ids):
            raise _no_site(gap.site_index, len(self.site_ids))
        frame = Frame(
            site_id=self.site_ids[gap.site_index],
            boot_id=gap.boot_id,
            kind=FrameKind.GAP,
            seq=0,
            received_ns=self._inbox.now_ns(),
            payload=data,
        )
        self._inbox.take_gap(gap, frame, self)

    def touch(self, watch: Watch) -> None:
        """The watermark of this spool is worth saying."""
        if not watch.is_dirty:
            watch.is_dirty = True
            self._dirty.append(watch)
            self.on_news()

    def staged(self, n_bytes: int) -> None:
        """A frame of this stream is on its way into the log."""
        self.pending_count += 1
        self.pending_bytes += n_bytes
        self.account.staged_bytes += n_bytes

    def settled(self, n_bytes: int) -> None:
        """A frame of this stream is durable."""
        self.pending_count -= 1
        self.pending_bytes -= n_bytes
        self.account.staged_bytes -= n_bytes
        if self._is_finished:
            self.on_news()

    def slow_down(self, limits: Limits) -> None:
        """These limits are worth saying, if they are others than before."""
        if limits != self._limits:
            self._limits = limits
            # Agents take what comes before the answer to their hello for no answer; it says these.
            if self._is_greeted:
                self._say(slow_to_bytes(limits))

    def is_behind(self) -> bool:
        """Whether it has history that is not durable here."""
        return any(watch.is_behind() for watch in self._watches.values())

    def refuse(self, refusal: Refusal) -> None:
        """The next Ack names this frame."""
        if refusal.site_id in self.site_ids:
            index = self.site_ids.index(refusal.site_id)
            self._refused = [*self._refused, (index, refusal)][-REFUSALS_LIMIT:]
            self.on_news()

    def _say(self, message: bytes) -> None:
        self._replies.append(message)
        self.on_news()

    def finish(self) -> None:
        """Nothing more comes up."""
        self._is_finished = True
        self.on_news()

    def close(self) -> None:
        """The stream has gone."""
        self._unwatch()
        if self.has_hello:
            self.account.streams -= 1
        self._inbox.close(self)

    def _unwatch(self) -> None:
        for watch in self._watches.values():
            watch.arrivals.watches.remove(watch)
            self._inbox.unwatched(watch.arrivals)
        self._watches = {}
        self._dirty = []

    def is_all_said(self) -> bool:
        """Whether nothing is to be said, now or about what is on its way into the log."""
        return not (self._dirty or self._replies or self._refused or self.pending_count)

    def messages(self) -> list[bytes]:
        """What is to be said now."""
        messages: list[bytes] = []
        if self._replies:
            messages, self._replies = self._replies, []
        if self._dirty or self._refused:
            dirty, self._dirty = self._dirty, []
            refused, self._refused = self._refused, []
            parts = [part for watch in dirty for part in watch.acked()]
            parts += refused_in_ack(refused)
            if parts:
                messages.append(ack_of([*parts, self._inbox.server_time]))
            for watch in dirty:
                watch.is_dirty = False
                if len(watch.arrivals.ranges) > 1 and (hole := watch.hole()):
                    messages.append(resend_to_bytes(hole))
        return messages


def _nobody() -> None:
    """Nobody listens yet."""


def _no_site(index: int, count: int) -> WireError:
    return WireError(f"site_index is {index}, hello names {count} sites")
