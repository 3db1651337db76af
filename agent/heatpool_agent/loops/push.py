"""Keeps the line to the aggregator: sends what is spooled, lets go what is durable, for ever."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from heatpool.errors import HeatpoolError, StoreError, UplinkError, WireError
from heatpool.process.journal import facts
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.board import Board
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import (
    Resend,
    Seq,
    Speaker,
    Spool,
    SpoolFrame,
    SpoolLoss,
    SpoolMark,
    Uplink,
)

logger = logging.getLogger(__name__)

RETRY_LEAST_S = 1.0
RETRY_MOST_S = 300.0
READ_FRAMES = 16
# Billing leads: money must not wait behind a backlog of estimates.
ORDER = (SpoolKind.BILLING, SpoolKind.TELEMETRY)

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
    ) -> None:
        self._spool = spool
        self._spooling = spooling
        self._board = board
        self._speaker = speaker
        self._open_uplink = open_uplink
        self._sent: dict[BootId, Seq] = {}
        self._resends = 0
        self._tries = 0

    async def run(self) -> None:
        """Connects and serves until cancelled."""
        while True:
            wait_s: float | None = None
            try:
                await self._connected()
            except* (UplinkError, StoreError) as group:
                wait_s = self._lost(group)
            if self._board.is_line_closing:
                return
            await asyncio.sleep(self._wait_s() if wait_s is None else wait_s)

    async def _connected(self) -> None:
        speaker = await self._spooling.call(self._speaker)
        async with self._open_uplink(speaker) as uplink:
            self._tries = 0
            await self._check_age(uplink, speaker)
            # What was sent on an older line may be lost, and so may the other end's disk: begin
            # behind what it says now that it has.
            self._sent = {
                mark.boot_id: uplink.durable.get(mark.boot_id, Seq(mark.first_seq - 1))
                for mark in speaker.marks
            }
            self._post(state="connected", detail="")
            logger.info("uplink.connected")
            async with asyncio.TaskGroup() as tasks:
                for name, work in (
                    ("send", self._send(uplink, speaker)),
                    ("acks", self._take_acks(uplink)),
                    ("wishes", self._take_wishes(uplink)),
                    ("reports", self._send_reports(uplink)),
                ):
                    tasks.create_task(work, name=f"push.{name}")

    async def _check_age(self, uplink: Uplink, speaker: Speaker) -> None:
        """A file brought back from a copy would give numbers again that others hold for good."""
        older = [
            mark for mark in speaker.marks if uplink.durable.get(mark.boot_id, 0) >= mark.next_seq
        ]
        for mark in older:
            durable_seq = uplink.durable[mark.boot_id]
            logger.error(
                "spool.older_than_sent",
                extra=facts(
                    kind=mark.kind.name.lower(), next_seq=mark.next_seq, durable_seq=durable_seq
                ),
            )
            await self._spooling.begin_anew(mark.kind)
        if older:
            raise UplinkError("new boot id: saying Hello again", wait_s=0.0)

    def _lost(self, group: ExceptionGroup[HeatpoolError]) -> float | None:
        error = _first(group)
        wait_s: float | None = getattr(error, "wait_s", None)
        if self._board.uplink.state != "waiting" or self._board.uplink.detail != str(error):
            # With no wait it was our own wish, and nothing that a person must look at.
            level = logging.INFO if wait_s == 0.0 else logging.WARNING
            logger.log(level, "uplink.lost", extra=facts(reason=str(error)))
        self._post(state="waiting", detail=str(error))
        return wait_s

    async def _send(self, uplink: Uplink, speaker: Speaker) -> None:
        for loss in await self._spooling.call(self._spool.losses):
            await uplink.tell(loss)
        while True:
            self._board.spooled.clear()
            if len(await self._spooling.call(self._spool.schemas)) > len(speaker.schemas):
                raise UplinkError("new channels: saying Hello again", wait_s=0.0)
            sent = [await self._send_some(uplink, kind) for kind in ORDER]
            if not any(sent):
                await self._board.spooled.wait()

    async def _send_some(self, uplink: Uplink, kind: SpoolKind) -> int:
        boot_id = self._spool.mark(kind).boot_id
        after = self._sent.get(boot_id, Seq(0))
        frames = await self._spooling.call(self._spool.read, kind, after, READ_FRAMES)
        resends = self._resends
        for frame in frames:
            try:
                await uplink.send(frame)
            except WireError as error:
                await self._unreadable(uplink, frame, error)
            if self._resends != resends:
                break  # gone back meanwhile: this frame's number may lie behind what is due now
            self._sent[boot_id] = frame.seq
            self._post(batches_sent=self._board.uplink.batches_sent + 1)
        return len(frames)

    async def _unreadable(self, uplink: Uplink, frame: SpoolFrame, error: WireError) -> None:
        """A frame that the disk spoiled is told as a gap; those behind it still go."""
        logger.error(
            "spool.unreadable",
            extra=facts(kind=frame.kind.name.lower(), seq=frame.seq, reason=str(error)),
        )
        await uplink.tell(
            SpoolLoss(
                kind=frame.kind,
                boot_id=frame.boot_id,
                first_seq=frame.seq,
                last_seq=frame.seq,
                reason=GapReason.DAMAGED,
                start_ns=None,
                end_ns=None,
            )
        )

    async def _take_acks(self, uplink: Uplink) -> None:
        async for acked in uplink.acks():
            if isinstance(acked, Resend):
                await self._again(uplink, acked)
                continue
            before = {mark.boot_id: mark.durable_seq for mark in self._board.marks.values()}
            await self._spooling.acked(acked)
            known = before.get(acked.boot_id, acked.durable_seq)
            fresh = max(0, acked.durable_seq - known)
            self._post(batches_acked=self._board.uplink.batches_acked + fresh)

    async def _again(self, uplink: Uplink, missed: Resend) -> None:
        """Goes back to the first missed number; what is no longer held is told as a gap."""
        # Before anything is awaited: the sender must not go on with its batch.
        self._resends += 1
        for kind in ORDER:
            mark = self._spool.mark(kind)
            if mark.boot_id != missed.boot_id:
                continue
            # Repeats are harmless at the other end.
            back = Seq(max(missed.first_seq, mark.first_seq) - 1)
            self._sent[missed.boot_id] = min(self._sent.get(missed.boot_id, back), back)
            self._board.spooled.set()
            if missed.first_seq < mark.first_seq:
                await uplink.tell(_lost(missed, mark))

    async def _take_wishes(self, uplink: Uplink) -> None:
        async for wish in uplink.setpoints():
            self._board.post_wish(wish)

    async def _send_reports(self, uplink: Uplink) -> None:
        while True:
            report = await self._board.reports.get()
            await uplink.report(report)

    def _post(self, **changes: object) -> None:
        self._board.uplink = replace(self._board.uplink, **changes)  # type: ignore[arg-type]

    def _wait_s(self) -> float:
        """Full jitter below a doubling bound, for ever: nobody gives up, nobody marches in step."""
        self._tries += 1
        most_s = min(RETRY_MOST_S, RETRY_LEAST_S * 2 ** min(self._tries, 16))
        return random.uniform(0.0, most_s)


def _lost(missed: Resend, mark: SpoolMark) -> SpoolLoss:
    return SpoolLoss(
        kind=mark.kind,
        boot_id=mark.boot_id,
        first_seq=missed.first_seq,
        last_seq=Seq(min(missed.last_seq, mark.first_seq - 1)),
        reason=GapReason.DROPPED,
        start_ns=None,
        end_ns=None,
    )


def _first(group: ExceptionGroup[HeatpoolError]) -> HeatpoolError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, ExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
