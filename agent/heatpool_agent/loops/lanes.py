"""Frames on their way over one open line: billing, the backlog behind it, and live rows beside."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heatpool.errors import UplinkError, WireError
from heatpool.process.journal import facts
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.core import ranges
from heatpool_agent.core.line import boundary_of, lane_share
from heatpool_agent.core.pace import Pace
from heatpool_agent.core.ranges import SeqRanges
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import (
    Durable,
    Lane,
    Resend,
    Sent,
    Seq,
    Speaker,
    Spool,
    SpoolFrame,
    SpoolLoss,
    SpoolMark,
    Uplink,
)

logger = logging.getLogger(__name__)

READ_FRAMES = 16
SETTLE_S = 10.0


@dataclass(slots=True)
class Route:
    """One lane of one queue; `sent_seq` is how far it is, `before_seq` where it ends."""

    lane: Lane
    kind: SpoolKind
    boot_id: BootId
    start_seq: int
    before_seq: int | None
    sent_seq: int
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def again(self, missed: Resend) -> None:
        """Goes back to the first missed number of this lane."""
        first = max(missed.first_seq, self.start_seq)
        is_ours = self.before_seq is None or first < self.before_seq
        if missed.boot_id == self.boot_id and first <= missed.last_seq and is_ours:
            self.sent_seq = min(self.sent_seq, first - 1)
            self.woken.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An open line and who speaks on it; what is known to be durable at its other end."""

    uplink: Uplink
    speaker: Speaker
    durable: dict[BootId, SeqRanges]


class Lanes:
    """Sends what is spooled, each lane at its own pace; `sent` hears of every frame."""

    def __init__(
        self,
        line: Line,
        spool: Spool,
        spooling: Spooling,
        *,
        pace: Pace,
        sent: Callable[[Lane, Sent], None],
    ) -> None:
        self._line = line
        self._spool = spool
        self._spooling = spooling
        self._pace = pace
        self._sent = sent
        self._told: set[tuple[BootId, int, int]] = set()
        self._resends = 0
        self._early: Sequence[SpoolLoss] = ()
        self._has_told = False
        self._billing_led = asyncio.Event()
        self.routes = {
            route.lane: route for mark in line.speaker.marks for route in self._routes(mark)
        }
        self._old_billing_seq = {mark.kind: mark.next_seq for mark in line.speaker.marks}[
            SpoolKind.BILLING
        ]

    def _routes(self, mark: SpoolMark) -> Sequence[Route]:
        first = mark.first_seq
        if mark.kind is SpoolKind.BILLING:
            return (self._route(Lane.BILLING, mark, first, None),)
        bound = boundary_of(mark.kind, first_seq=first, next_seq=mark.next_seq)
        return (
            self._route(Lane.BACKLOG, mark, first, bound),
            self._route(Lane.LIVE, mark, bound, None),
        )

    def _route(self, lane: Lane, mark: SpoolMark, start: int, before: int | None) -> Route:
        return Route(lane, mark.kind, mark.boot_id, start, before, start - 1)

    def left_count(self) -> int:
        """Frames that waited when the line was opened and are not known to have arrived."""
        ends = {Lane.BILLING: self._old_billing_seq, Lane.BACKLOG: None}
        return sum(self._left(self.routes[lane], end) for lane, end in ends.items())

    def _left(self, route: Route, end: int | None) -> int:
        last = (route.before_seq if end is None else end) or 0
        known = self._line.durable[route.boot_id]
        return max(0, last - route.start_seq - known.count(route.start_seq, last - 1))

    def wake(self) -> None:
        """There is something new on the disk."""
        for route in self.routes.values():
            route.woken.set()

    async def billing(self) -> None:
        """What waited goes at the backlog's pace and ahead of it; what is new goes at once.

        What will never come is told before either.
        """
        self._early = await self.tell_losses()
        self._has_told = True
        await self._tell_forgotten()
        route = self.routes[Lane.BILLING]
        while await self._burst(route, before=self._old_billing_seq):
            pass
        self._billing_led.set()
        await self._forwards(route)

    async def backlog(self) -> None:
        """Oldest first, in bursts with pauses, so that the link is free for the rest."""
        await self._billing_led.wait()
        route = self.routes[Lane.BACKLOG]
        while True:
            route.woken.clear()
            resends = self._resends
            if not await self._burst(route, before=route.before_seq):
                if self._resends == resends and route.before_seq is not None:
                    await self._tell_passed(route, route.before_seq)
                await route.woken.wait()

    async def live(self) -> None:
        """From the boundary on, as rows come."""
        await self._forwards(self.routes[Lane.LIVE])

    async def _forwards(self, route: Route) -> None:
        while True:
            route.woken.clear()
            resends = self._resends
            frames = await self._read(route, READ_FRAMES, before=None)
            if not frames:
                await route.woken.wait()
            await self._send(route, frames, resends=resends)

    async def _burst(self, route: Route, *, before: int | None) -> bool:
        """Sends some frames, waits for their arrival, then pauses; False if there were none."""
        limits = self._line.uplink.limits
        most = lane_share(route.lane, limits.unacked_count)
        resends = self._resends
        frames = await self._read(route, min(self._pace.burst_count, most), before=before)
        if not frames:
            return False
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        sent = await self._send(route, frames, resends=resends)
        if sent and await self._settled(route.lane):
            size_bytes = sum(one.size_bytes for one in sent)
            pause_s = self._pace.pause_s(
                size_bytes,
                loop.time() - start_s,
                count=len(sent),
                limit_bytes_s=limits.backlog_bytes_s,
            )
            await asyncio.sleep(pause_s)
        return True

    async def _settled(self, lane: Lane) -> bool:
        """Whether a burst has arrived; one that does not in time is not waited for.

        What comes behind it shows the other end that it misses something.
        """
        try:
            async with asyncio.timeout(SETTLE_S):
                return await self._line.uplink.settled(lane)
        except TimeoutError:
            self._pace.slow()
            return False

    async def _read(self, route: Route, limit: int, *, before: int | None) -> Sequence[SpoolFrame]:
        return await self._spooling.call(self._look, route, limit, before)

    def _look(self, route: Route, limit: int, before: int | None) -> Sequence[SpoolFrame]:
        """The next frames of a lane; on the spool's thread, so that nothing changes meanwhile.

        Raises:
            UplinkError: they are of a queue or of channels that Hello did not name.
        """
        after = self._line.durable[route.boot_id].contiguous_from(route.sent_seq + 1)
        bound = None if before is None else Seq(before)
        frames = self._spool.read(route.kind, Seq(after), limit, before=bound)
        if self._spool.mark(route.kind).boot_id != route.boot_id:
            raise UplinkError("new boot id: saying Hello again", wait_s=0.0)
        named = {schema.schema_id for schema in self._line.speaker.schemas}
        if any(schema.schema_id not in named for schema in self._spool.schemas()):
            raise UplinkError("new channels: saying Hello again", wait_s=0.0)
        return frames

    async def _send(
        self, route: Route, frames: Sequence[SpoolFrame], *, resends: int
    ) -> list[Sent]:
        """Hands frames to the line until a Resend comes; what went.

        `resends` are those that had come before the frames were read.
        """
        went: list[Sent] = []
        for frame in frames:
            if self._resends != resends:
                break
            await self._tell_passed(route, frame.seq)
            if self._resends != resends:
                break
            sent = await self._sent_one(route, frame)
            if self._resends != resends:
                break  # gone back meanwhile: this number may lie behind what is due now
            route.sent_seq = frame.seq
            if sent is not None:
                went.append(sent)
        return went

    async def _sent_one(self, route: Route, frame: SpoolFrame) -> Sent | None:
        if not frame.payload:  # the disk spoiled it: by now it is among the losses
            await self.tell_losses()
            return None
        if self._line.durable[route.boot_id].holds(frame.seq, frame.seq):
            return None
        try:
            sent = await self._line.uplink.send(frame)
        except WireError as error:
            await self._unreadable(frame, error)
            return None
        if sent is not None:
            self._sent(route.lane, sent)
        return sent

    async def _unreadable(self, frame: SpoolFrame, error: WireError) -> None:
        """A frame that the disk spoiled is told as a gap; those behind it still go."""
        logger.error(
            "spool.unreadable",
            extra=facts(kind=frame.kind.name.lower(), seq=frame.seq, reason=str(error)),
        )
        gone = _loss(frame.kind, frame.boot_id, (frame.seq, frame.seq), GapReason.DAMAGED)
        await self._line.uplink.tell(gone)

    async def _tell_passed(self, route: Route, seq: int) -> None:
        """What lies before this number and is not held: untold, it would be a hole for ever.

        It was durable or told once, and the other end has forgotten it since.
        """
        if seq > route.sent_seq + 1:
            await self._tell_gone(route.kind, route.boot_id, (route.sent_seq + 1, seq - 1))

    async def _tell_gone(self, kind: SpoolKind, boot_id: BootId, span: ranges.Range) -> None:
        """Tells what of these numbers is not known there; with its reason where that is known."""
        holes = self._unknown(boot_id, span)
        if not holes:
            return
        await self.tell_losses()
        for first, last in holes:
            await self._spooling.untold(boot_id, Seq(first), Seq(last))
        await self.tell_losses()
        # Of these alone: a Resend that came meanwhile may ask for what is held.
        for gone in [part for hole in holes for part in self._unknown(boot_id, hole)]:
            self._told.add((boot_id, *gone))
            await self._line.uplink.tell(_loss(kind, boot_id, gone, GapReason.DROPPED))

    def _unknown(self, boot_id: BootId, span: ranges.Range) -> list[ranges.Range]:
        """What of these numbers is neither durable there nor told on this line."""
        told = ranges.of_pairs(
            (first, last)
            for boot, first, last in self._told
            if boot == boot_id and first <= span[1] and last >= span[0]
        )
        holes = self._line.durable[boot_id].holes(*span)
        return [part for hole in holes for part in ranges.holes(told, *hole)]

    async def _tell_forgotten(self) -> None:
        """What the other end misses of a life that it knows, and that went here long ago."""
        for mark in self._line.speaker.marks:
            known = self._line.durable[mark.boot_id]
            if known.first is not None:
                await self._tell_gone(mark.kind, mark.boot_id, (known.first, mark.first_seq - 1))

    async def tell_new_losses(self) -> None:
        """Says what was lost since the line was opened."""
        if self._has_told:
            await self.tell_losses()

    def early_losses(self, durable: Durable) -> Sequence[SpoolLoss]:
        """What is durable with the first frames that were sent behind it, each told once.

        A stream is taken in its order, and marks begin at the oldest number held: they never name
        a loss below it, or one of an older queue. Live rows do not wait for what is lost.
        """
        live = self.routes[Lane.LIVE]
        if durable.boot_id == live.boot_id and durable.first_seq >= live.start_seq:
            return ()
        early, self._early = self._early, ()
        return early

    async def tell_losses(self) -> Sequence[SpoolLoss]:
        """Says which rows will never come, each once on this line; those told now."""
        now = []
        for loss in await self._spooling.call(self._spool.losses):
            key = (loss.boot_id, loss.first_seq, loss.last_seq)
            if key not in self._told:
                self._told.add(key)
                await self._line.uplink.tell(loss)
                now.append(loss)
        return now

    async def again(self, missed: Resend) -> None:
        """Goes back to the first missed number; what is no longer held is told as a gap."""
        if missed.last_seq < missed.first_seq:
            return
        # Before anything is awaited: the senders must not go on with their batch.
        self._resends += 1
        if missed.boot_id in self._line.durable:
            self._line.durable[missed.boot_id].remove(missed.first_seq, missed.last_seq)
        for route in self.routes.values():
            route.again(missed)
        self._told = {key for key in self._told if not _overlaps(key, missed)}
        await self.tell_losses()
        if any(_overlaps(key, missed) for key in self._told):
            return
        for kind in SpoolKind:
            mark = self._spool.mark(kind)
            if mark.boot_id == missed.boot_id and missed.first_seq < mark.first_seq:
                span = (int(missed.first_seq), min(missed.last_seq, mark.first_seq - 1))
                gone = _loss(kind, mark.boot_id, span, GapReason.DROPPED)
                await self._line.uplink.tell(gone)


def _overlaps(key: tuple[BootId, int, int], missed: Resend) -> bool:
    boot_id, first, last = key
    return boot_id == missed.boot_id and first <= missed.last_seq and last >= missed.first_seq


def _loss(kind: SpoolKind, boot_id: BootId, numbers: ranges.Range, reason: GapReason) -> SpoolLoss:
    return SpoolLoss(
        kind=kind,
        boot_id=boot_id,
        first_seq=Seq(numbers[0]),
        last_seq=Seq(numbers[1]),
        reason=reason,
        start_ns=None,
        end_ns=None,
    )
