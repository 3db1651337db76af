"""Keeps the line to the aggregator: sends what is spooled, lets go what is durable, for ever."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from heatpool.codec import ROWS_LIMIT
from heatpool.errors import ConfigError, HeatpoolError, StoreError, UplinkError
from heatpool.process.journal import facts
from heatpool.sample import BootId, SpoolKind
from heatpool.units import NS_PER_S
from heatpool_agent.board import BacklogView, Board
from heatpool_agent.core.drain import Drain
from heatpool_agent.core.frame_size import rows_per_frame
from heatpool_agent.core.line import LineReplaced
from heatpool_agent.core.pace import Pace
from heatpool_agent.core.patience import Patience
from heatpool_agent.core.ranges import SeqRanges
from heatpool_agent.loops.lanes import Lanes, Line
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import (
    Clock,
    Durable,
    Lane,
    LineBusy,
    LineLimits,
    LineRefused,
    Resend,
    Sent,
    Speaker,
    Spool,
    Uplink,
)

logger = logging.getLogger(__name__)

# The shortest message period that is followed.
PERIOD_LEAST_S = 1.0
SCHEMAS_SHOWN = 3

OpenUplink = Callable[[Speaker], AbstractAsyncContextManager[Uplink]]


class Push:
    """One line at a time; whatever ends it, the next try comes after full jitter."""

    def __init__(
        self,
        spool: Spool,
        spooling: Spooling,
        board: Board,
        *,
        speaker: Callable[[], Speaker],
        open_uplink: OpenUplink,
        clock: Clock,
        first_wait_s: float = 0.0,
        message_period_s: float = float("inf"),
        report_period_s: float | None = None,
    ) -> None:
        self._spool = spool
        self._spooling = spooling
        self._board = board
        self._speaker = speaker
        self._open_uplink = open_uplink
        self._clock = clock
        self._first_wait_s = first_wait_s
        self._message_period_s = message_period_s
        self._report_period_s = report_period_s
        self._row_bytes: float | None = None
        self._patience = Patience()
        self._pace = Pace()
        self._durable: dict[BootId, SeqRanges] = {}
        self._drain = Drain(0, 0.0)
        self._is_asked = asyncio.Event()
        self._told_schemas: set[str] = set()

    async def run(self) -> None:
        """Connects and serves until cancelled."""
        await self._first_wait()
        while True:
            wait_s = 0.0
            try:
                await self._connected()
            except* (UplinkError, StoreError, ConfigError) as group:
                wait_s = self._lost(_weightiest(group))
            if self._board.is_line_closing:
                return
            await asyncio.sleep(wait_s)

    async def _first_wait(self) -> None:
        if self._first_wait_s:
            told = f"first connect in {self._first_wait_s:.0f} s: sites come one by one"
            next_ns = self._next_try_ns(self._first_wait_s)
            self._post(state="waiting", detail=told, fix="", next_try_boot_ns=next_ns)
            await asyncio.sleep(self._first_wait_s)

    async def _connected(self) -> None:
        speaker = await self._spooling.call(self._speaker)
        async with self._open_uplink(speaker) as uplink:
            opened_s = _now_s()
            try:
                await self._served(uplink, speaker)
            finally:
                self._patience.held(_now_s() - opened_s)

    async def _served(self, uplink: Uplink, speaker: Speaker) -> None:
        await self._check_age(uplink, speaker)
        self._begin(uplink, speaker)
        line = Line(uplink=uplink, speaker=speaker, durable=self._durable)
        lanes = Lanes(line, self._spool, self._spooling, pace=self._pace, sent=self._sent)
        self._pace.begin()
        self._drain = Drain(lanes.left_count(), _now_s())
        self._post(state="connected", detail=self._complaint(uplink), fix="", next_try_boot_ns=None)
        self._post_drain()
        logger.info("uplink.connected", extra=facts(backlog_frames=self._drain.start_count))
        for mark in speaker.marks:
            await self._spooling.lower(mark, _durable_of(uplink, mark.boot_id))
        for known in uplink.durable:
            await self._let_go(known)
        async with asyncio.TaskGroup() as tasks:
            for name, work in (
                ("billing", lanes.billing()),
                ("live", lanes.live()),
                ("backlog", lanes.backlog()),
                ("news", self._news(lanes)),
                ("acks", self._take_acks(uplink, lanes)),
                ("wishes", self._take_wishes(uplink)),
                ("reports", self._send_reports(uplink)),
                ("period", self._keep_period(uplink)),
                ("age", _until_aged(uplink)),
            ):
                tasks.create_task(work, name=f"push.{name}")

    def _complaint(self, uplink: Uplink) -> str:
        """What the other end will not read, empty for nothing; one bad schema stops no other."""
        refused = uplink.refused_schemas
        for schema in refused:
            if schema not in self._told_schemas:
                logger.error("uplink.schema_refused", extra=facts(schema=schema))
        self._told_schemas = {*refused}
        if not refused:
            return ""
        shown = "; ".join(refused[:SCHEMAS_SHOWN])
        return f"{len(refused)} refused, whose rows are kept aside there, unread: {shown}"

    async def _check_age(self, uplink: Uplink, speaker: Speaker) -> None:
        """A file that lost its newest would give numbers again that others hold for good."""
        is_older = False
        for mark in speaker.marks:
            there = _durable_of(uplink, mark.boot_id)
            if await self._spooling.go_beyond(mark.kind, there):
                is_older = True
                kind, next_seq = mark.kind.name.lower(), mark.next_seq
                logger.error(
                    "spool.older_than_sent",
                    extra=facts(kind=kind, next_seq=next_seq, durable=there[-1:]),
                )
        if is_older:
            # Not at once: an end that says so of every queue would have it renumbered for ever.
            raise UplinkError("new numbers: saying Hello again")

    def _begin(self, uplink: Uplink, speaker: Speaker) -> None:
        """Begins with what the other end says that it has: it may know less than it once said."""
        before, self._durable = self._durable, {}
        for mark in speaker.marks:
            self._durable[mark.boot_id] = SeqRanges(_durable_of(uplink, mark.boot_id))
            known = before.get(mark.boot_id, SeqRanges([(1, mark.durable_seq)]))
            span = (mark.first_seq, mark.next_seq)
            self._count(self._durable[mark.boot_id].count(*span) - known.count(*span))
        self._keep_limits(uplink.limits)

    def _lost(self, error: HeatpoolError) -> float:
        view = self._board.uplink
        state = "refused" if isinstance(error, LineRefused | ConfigError) else "waiting"
        wait_s = self._patience.wait_s(error, random.random())
        if isinstance(error, LineBusy):
            self._pace.slow()
        if (view.state, view.detail) != (state, str(error)):
            # With no wait it was our own wish, and nothing that a person must look at.
            level = logging.WARNING if wait_s else logging.INFO
            logger.log(level, "uplink.lost", extra=facts(reason=str(error), state=state))
        self._post(
            state=state,
            detail=str(error),
            fix=getattr(error, "fix", ""),
            next_try_boot_ns=self._next_try_ns(wait_s),
            # A backlog that had arrived says nothing of what waits from now on.
            backlog=view.backlog if view.backlog and view.backlog.frames_count else None,
        )
        return wait_s

    def _next_try_ns(self, wait_s: float) -> int:
        return self._clock.boot_ns() + round(wait_s * NS_PER_S)

    async def _news(self, lanes: Lanes) -> None:
        """Tells the lanes of new frames, and the other end of new losses."""
        while True:
            self._board.spooled.clear()
            lanes.wake()
            await lanes.tell_new_losses()
            await self._board.spooled.wait()

    def _keep_limits(self, limits: LineLimits) -> None:
        self._board.asked = limits
        self._set_frame_size()

    def _set_frame_size(self) -> None:
        """Frames of the size that is asked for, from the next one on.

        Those that are on disk keep theirs: a number is a frame, so none can be split.
        """
        if self._report_period_s is None:
            return
        rows = rows_per_frame(
            self._board.asked,
            message_period_s=self._message_period_s,
            report_period_s=self._report_period_s,
            rows_most=ROWS_LIMIT,
            row_bytes=self._row_bytes,
        )
        if rows != self._spool.rows_per_frame:
            logger.info("spool.frame_size", extra=facts(rows=rows))
            self._spool.rows_per_frame = rows

    def _sent(self, lane: Lane, sent: Sent) -> None:
        if lane is not Lane.LIVE:
            self._drain.sent(sent)
        elif sent.rows_count and self._board.asked.batch_bytes:
            self._row_bytes = sent.size_bytes / sent.rows_count
            self._set_frame_size()
        self._post(batches_sent=self._board.uplink.batches_sent + 1)

    async def _take_acks(self, uplink: Uplink, lanes: Lanes) -> None:
        async for word in uplink.acks():
            if isinstance(word, Resend):
                await lanes.again(word)
            elif isinstance(word, LineLimits):
                if word.is_tighter(self._board.asked):
                    self._pace.slow()
                self._keep_limits(word)
                self._is_asked.set()
            else:
                await self._take_ack(word, lanes)
            self._drain.left(lanes.left_count(), _now_s())
            self._post_drain()

    async def _take_ack(self, durable: Durable, lanes: Lanes) -> None:
        self._check_given(durable)
        known = self._durable.setdefault(durable.boot_id, SeqRanges())
        span = (durable.first_seq, durable.last_seq)
        fresh_count = durable.last_seq - durable.first_seq + 1 - known.count(*span)
        known.add(*span)
        self._count(fresh_count)
        await self._let_go(durable)
        for loss in lanes.early_losses(durable) if fresh_count > 0 else ():
            gone = Durable(boot_id=loss.boot_id, first_seq=loss.first_seq, last_seq=loss.last_seq)
            await self._let_go(gone)

    def _check_given(self, durable: Durable) -> None:
        """What was never numbered cannot have arrived: believed, it would never be sent."""
        for kind in SpoolKind:
            mark = self._spool.mark(kind)
            if mark.boot_id == durable.boot_id and durable.last_seq >= mark.next_seq:
                raise UplinkError(
                    f"the aggregator acknowledges number {durable.last_seq} of the "
                    f"{kind.name.lower()} queue, whose newest is {mark.next_seq - 1}"
                )

    async def _let_go(self, durable: Durable) -> None:
        await self._spooling.durable(durable.boot_id, durable.first_seq, durable.last_seq)

    def _count(self, fresh_count: int) -> None:
        self._post(batches_acked=self._board.uplink.batches_acked + max(0, fresh_count))

    async def _take_wishes(self, uplink: Uplink) -> None:
        async for wish in uplink.setpoints():
            self._board.post_wish(wish)

    async def _send_reports(self, uplink: Uplink) -> None:
        while True:
            report = await self._board.reports.get()
            await uplink.report(report)

    async def _keep_period(self, uplink: Uplink) -> None:
        """Closes frames sooner than the site would where the aggregator asks for that."""
        while True:
            self._is_asked.clear()
            asked_s = uplink.limits.message_period_s
            if asked_s is None or asked_s >= self._message_period_s:
                await self._is_asked.wait()
                continue
            await asyncio.sleep(max(PERIOD_LEAST_S, asked_s))
            await self._spooling.close_frame()

    def _post(self, **changes: object) -> None:
        self._board.uplink = replace(self._board.uplink, **changes)  # type: ignore[arg-type]

    def _post_drain(self) -> None:
        drain = self._drain
        view = BacklogView(
            frames_count=drain.left_count,
            rows_count=drain.rows_left,
            size_bytes=drain.bytes_left,
            start_frames_count=drain.start_count,
            done_frac=drain.done_frac,
            frames_s=drain.frames_s,
            left_s=drain.left_s,
        )
        self._post(backlog=view, link_bytes_s=self._pace.link_bytes_s)


def _durable_of(uplink: Uplink, boot_id: BootId) -> list[tuple[int, int]]:
    """What Hello's answer says of one life, as ranges."""
    return [
        (int(one.first_seq), int(one.last_seq)) for one in uplink.durable if one.boot_id == boot_id
    ]


async def _until_aged(uplink: Uplink) -> None:
    await uplink.aged()
    raise UplinkError("a newer certificate is due: saying Hello again", wait_s=0.0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _weightiest(group: ExceptionGroup[HeatpoolError]) -> HeatpoolError:
    """Of what failed together, that which says most of what is to be done."""
    ranks = (LineRefused, ConfigError, LineReplaced, LineBusy)
    errors = list(_leaves(group))
    ranked = [error for rank in ranks for error in errors if isinstance(error, rank)]
    named = [error for error in errors if getattr(error, "wait_s", None) is not None]
    return (ranked + named + errors)[0]


def _leaves(group: ExceptionGroup[HeatpoolError]) -> Iterator[HeatpoolError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
