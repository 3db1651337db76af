"""When frames become durable and are acknowledged: one commit, then one Ack per stream.

Frames of 50 ms go to the log together. Nothing is acknowledged before the log has it; nothing that
was not acknowledged is lost, because it is still at its site.
"""

import asyncio
import logging
from collections import deque
from contextlib import suppress

from heatpool.errors import LogError, WireError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board, IngestCounts
from heatpool_aggregator.core.admission import (
    SEQ_LIMIT,
    DurableRanges,
    Fingerprints,
    Key,
    Verdict,
)
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.sessions import Session, Staged
from heatpool_aggregator.ports import START, Clock, Frame, FrameKind, Log, Partition, Position
from heatpool_aggregator.wire.messages import UNACKED_LIMIT, MessageKind, Peek, Refusal
from heatpool_aggregator.wire.telemetry import gap_from_bytes

logger = logging.getLogger(__name__)

FLUSH_S = 0.05  # twice an HDD's sync; acks at p99 stay near 0.1 s
FLUSH_BYTES = 4 << 20
STAGED_LIMIT_BYTES = 64 << 20  # a second of a storm; beyond it, streams wait
# Four windows: a stream that goes on without waiting for acks is held, not cut.
UNACKED_HOLD_COUNT = 4 * UNACKED_LIMIT
ROOM_S = 10.0  # longer than any commit; then the site is told to come back
RETRY_S = 1.0
POST_S = 1.0
TAIL_FRAMES = 5_000


class Gateway:
    """The way of a frame from a stream into the log, and of the Ack back."""

    def __init__(self, *, log: Log, clock: Clock, board: Board, refusals: deque[Refusal]) -> None:
        self._log, self._clock, self._board, self._refusals = log, clock, board, refusals
        self.durable = DurableRanges()
        self._fingerprints: dict[Key, Fingerprints] = {}
        self._sessions: dict[SiteId, set[Session]] = {}
        self._staged: list[Staged] = []
        self._staged_bytes = 0
        self._staged_seqs: set[tuple[Key, int]] = set()
        self._touched: set[tuple[Session, Key]] = set()
        self._work, self._full, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._position = START
        self._received = self._committed = self._duplicates = self._refused = self._streams = 0
        self._posted_at_ns = 0

    async def load(self, partition: Partition) -> None:
        """Learns what is durable: the last snapshot, and the log behind it.

        Raises:
            LogError: the log is damaged.
        """
        if partition.snapshot is not None:
            self.durable = ShardState.from_bytes(partition.snapshot.state).ranges
            self._position = partition.snapshot.position
        while frames := await partition.read(self._position, TAIL_FRAMES):
            for position, frame in frames:
                self._position = position
                self._settle(frame)
        self._post()

    def open(self) -> Session:
        """A stream has come."""
        self._streams += 1
        self._work.set()
        return Session(self)

    def close(self, session: Session) -> None:
        """A stream has gone; what it staged goes on to the log."""
        self._streams -= 1
        self.listen(session, ())
        self._work.set()

    def listen(self, session: Session, site_ids: tuple[SiteId, ...]) -> None:
        """From now on the stream hears of these sites, and of no others."""
        for site_id in session.site_ids:
            self._sessions[site_id].discard(session)
            if not self._sessions[site_id]:
                del self._sessions[site_id]
        session.site_ids = site_ids
        for site_id in site_ids:
            self._sessions.setdefault(site_id, set()).add(session)

    def now_ns(self) -> int:
        """Our clock, ns since 1970, UTC."""
        return self._clock.now_ns()

    def is_staged(self, key: Key, seq: int) -> bool:
        """Whether this number is on its way into the log."""
        return (key, seq) in self._staged_seqs

    async def put(self, peek: Peek, frame: Frame, session: Session | None) -> bool:
        """Takes a frame; False if there was no room for it in time."""
        if frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
            self._received += 1
            if self._is_known(peek, frame, session):
                return True
        if not await self._has_room(session):
            return False
        key = (frame.site_id, frame.boot_id)
        # Another stream of the same site may have brought it while this one waited.
        if peek.kind in (MessageKind.TELEMETRY, MessageKind.REGISTERS):
            if self.is_staged(key, frame.seq) or self.durable.of(key).holds(frame.seq):
                self._repeat(session, key)
                return True
            self._staged_seqs.add((key, frame.seq))
        self._stage(Staged(frame=frame, crc32=peek.content_crc32, session=session))
        return True

    def _is_known(self, peek: Peek, frame: Frame, session: Session | None) -> bool:
        """Whether the frame goes no further, because it is here already or must not come yet."""
        key = (frame.site_id, frame.boot_id)
        verdict = self.durable.verdict(key, frame.seq)
        if verdict is Verdict.SCATTERED or frame.seq >= SEQ_LIMIT:
            if session is not None:
                session.ask_again(key)
                self._touch(session, key)
            return True
        if verdict is Verdict.NEW and not self.is_staged(key, frame.seq):
            return False
        if self._differs(key, frame.seq, peek.content_crc32):
            # Into the log with it: the shard keeps it aside, and says so.
            self._stage(Staged(frame=frame, crc32=0, session=session))
        self._repeat(session, key)
        return True

    def _differs(self, key: Key, seq: int, crc32: int) -> bool:
        known = self._fingerprints.get(key)
        return known is not None and known.differs(seq, crc32)

    def _repeat(self, session: Session | None, key: Key) -> None:
        self._duplicates += 1
        if session is not None:
            self._touch(session, key)

    def _touch(self, session: Session, key: Key) -> None:
        self._touched.add((session, key))
        self._work.set()

    def _stage(self, staged: Staged) -> None:
        key = (staged.frame.site_id, staged.frame.boot_id)
        if staged.crc32:
            self._fingerprints.setdefault(key, Fingerprints()).remember(
                staged.frame.seq, staged.crc32
            )
        if staged.session is not None:
            staged.session.pending_count += 1
        self._staged.append(staged)
        self._staged_bytes += len(staged.frame.payload)
        self._work.set()
        if self._staged_bytes >= FLUSH_BYTES:
            self._full.set()

    async def _has_room(self, session: Session | None) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(ROOM_S):
                while self._is_full(session):
                    if session is not None:
                        session.slow_down()
                    self._room.clear()
                    await self._room.wait()
        return not self._is_full(session)

    def _is_full(self, session: Session | None) -> bool:
        is_held = session is not None and session.pending_count >= UNACKED_HOLD_COUNT
        return is_held or self._staged_bytes >= STAGED_LIMIT_BYTES

    async def run(self) -> None:
        """Commits and acknowledges until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POST_S):
                    await self._work.wait()
            if self._work.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        await self._full.wait()
            await self.step()

    async def step(self) -> None:
        """One commit of what is staged, and what follows from it."""
        self._work.clear()
        self._full.clear()
        staged, self._staged = self._staged, []
        if staged:
            await self._commit(staged)
        self._route_refusals()
        for session, key in self._touched:
            session.touch(key)
        self._touched.clear()
        if self._clock.now_ns() - self._posted_at_ns >= POST_S * 1e9:
            self._post()

    async def _commit(self, staged: list[Staged]) -> None:
        self._position = await self._append([one.frame for one in staged])
        self._committed += sum(one.is_counted for one in staged)
        self._staged_bytes -= sum(len(one.frame.payload) for one in staged)
        for one in staged:
            key = self._settle(one.frame)
            self._staged_seqs.discard((key, one.frame.seq))
            if one.session is not None:
                one.session.pending_count -= 1
                self._touched.add((one.session, key))
        for key in {(one.frame.site_id, one.frame.boot_id) for one in staged}:
            self._touched.update((session, key) for session in self._sessions.get(key[0], ()))
        self._room.set()

    async def _append(self, frames: list[Frame]) -> Position:
        """Position of the commit; a log that does not take it is asked until it does."""
        is_failing = False
        while True:
            try:
                position = await self._log.append(frames)
            except LogError as error:
                if not is_failing:
                    logger.error("ingest.log_failed", extra=facts(reason=str(error)))
                is_failing = True
                await asyncio.sleep(RETRY_S)
                continue
            if is_failing:
                logger.warning("ingest.log_back", extra=facts(position=position))
            return position

    def _settle(self, frame: Frame) -> Key:
        """Counts a durable frame among what is durable."""
        key = (frame.site_id, frame.boot_id)
        if frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
            self.durable.add(key, frame.seq, frame.seq)
        elif frame.kind is FrameKind.GAP:
            # A gap was read at the door before it came in; an unreadable one moves nothing.
            with suppress(WireError):
                gap = gap_from_bytes(frame.payload)
                self.durable.add(key, gap.first_seq, gap.last_seq)
        return key

    def _route_refusals(self) -> None:
        while self._refusals:
            refusal = self._refusals.popleft()
            self._refused += 1
            for session in self._sessions.get(refusal.site_id, ()):
                session.refuse(refusal)

    def _post(self) -> None:
        counts = IngestCounts(
            batches_received=self._received,
            batches_durable=self._committed,
            duplicates_ignored=self._duplicates,
            refused=self._refused,
            streams=self._streams,
        )
        if (counts, self._position) != (self._board.ingest, self._board.log_position):
            self._board.post(ingest=counts, log_position=int(self._position))
        self._posted_at_ns = self._clock.now_ns()
