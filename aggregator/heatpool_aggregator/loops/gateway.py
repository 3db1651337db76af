"""When frames become durable and are acknowledged: one commit, then one Ack per stream.

Frames of 50 ms go to the log together, live ones first: a week of history that many sites send at
once goes in by and by, a part with each commit, and no live frame waits for more of it. Nothing is
acknowledged before the log has it; nothing that was not acknowledged is lost, because it is still
at its site.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

from heatpool.errors import LogDamaged, LogError, WireError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board, IngestCounts
from heatpool_aggregator.core.admission import SEQ_LIMIT, DurableRanges, Fingerprints, Key
from heatpool_aggregator.core.quotas import Quota
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.admitting import Admitting, OwnerOf, nobody
from heatpool_aggregator.loops.arrivals import Arrivals, Watch
from heatpool_aggregator.loops.sessions import Session
from heatpool_aggregator.ports import START, Clock, Frame, FrameKind, Log, Partition, Position
from heatpool_aggregator.wire.acks import server_time
from heatpool_aggregator.wire.messages import Gap, Peek, Refusal
from heatpool_aggregator.wire.peek import content_crc32
from heatpool_aggregator.wire.telemetry import gap_from_bytes

logger = logging.getLogger(__name__)

FLUSH_S = 0.05  # twice an HDD's sync; acks at p99 stay below 0.1 s at half of a core
FLUSH_BYTES = 4 << 20
BEHIND_BYTES = 256 << 10  # of history in one commit: what a live frame waits for at the most
RETRY_S = 1.0
POST_S = 1.0
TAIL_FRAMES = 5_000

# A frame on its way into the log, the spool of a batch, the stream; no stream: our own record.
Staged = tuple[Frame, Arrivals | None, Session | None]


class Gateway:
    """The way of a frame from a stream into the log, and of the Ack back.

    `fingerprints` of what is applied are the shard's to write.
    """

    def __init__(
        self,
        *,
        log: Log,
        clock: Clock,
        board: Board,
        refusals: deque[Refusal],
        quotas: Mapping[str, Quota] | None = None,
        owner_of: OwnerOf = nobody,
    ) -> None:
        self._log, self._clock, self._board, self._refusals = log, clock, board, refusals
        self.admitting = Admitting(clock=clock, quotas=quotas or {}, owner_of=owner_of)
        self.durable = DurableRanges()
        self.fingerprints: dict[Key, Fingerprints] = {}
        self.server_time = server_time(clock.now_ns())
        self._arrivals: dict[Key, Arrivals] = {}
        self._sessions: dict[SiteId, set[Session]] = {}
        self._live: list[Staged] = []
        self._behind: deque[Staged] = deque()
        self._flush_bytes = 0
        self._touched: list[Arrivals] = []
        self._work, self._full = asyncio.Event(), asyncio.Event()
        self._position = START
        self._received = self._committed = self._duplicates = self._refused = self._streams = 0
        self._posted_boot_ns: int | None = None

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
        self.admitting.forget(session)
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

    def watched(self, key: Key) -> Arrivals:
        """What is known of a spool, kept for as long as somebody watches it."""
        arrivals = self._arrivals.get(key)
        if arrivals is None:
            arrivals = self._arrivals[key] = Arrivals(key, self.durable.named(key))
        return arrivals

    def unwatched(self, arrivals: Arrivals) -> None:
        """Nobody watches this spool any more."""
        if not arrivals.watches and not arrivals.staged:
            self._arrivals.pop(arrivals.key, None)

    async def put(self, _: Peek, frame: Frame, session: Session | None) -> bool:
        """Takes a record of our own; False if there was no room for it in time."""
        if not await self.admitting.own_room():
            return False
        self.stage(frame, session)
        return True

    def stage(self, frame: Frame, session: Session | None) -> None:
        """Takes a hello, a gap or a record, for which there is room."""
        self._stage((frame, None, session), self._live)

    def take_gap(self, gap: Gap, frame: Frame, session: Session) -> None:
        """Takes a gap, for which there is room; not one that would tear a spool further apart."""
        key = (frame.site_id, gap.boot_id)
        if gap.last_seq >= SEQ_LIMIT or self.durable.of(key).scatters(gap.first_seq, gap.last_seq):
            if arrivals := self._arrivals.get(key):
                for watch in arrivals.watches:
                    watch.scatter()
                self._touch(arrivals)
            return
        # Not before a frame of the same number that is still on its way.
        self._stage((frame, None, session), self._behind)

    def take(self, watch: Watch, seq: int, data: bytes, session: Session) -> None:
        """Takes a batch or registers, for which there is room."""
        self._received += 1
        arrivals = watch.arrivals
        is_repeat = arrivals.holds(seq)
        if not is_repeat and (seq >= SEQ_LIMIT or arrivals.ranges.scatters(seq, seq)):
            watch.scatter()
            self._touch(arrivals)
            return
        frame = Frame(watch.site_id, watch.boot_id, watch.kind, seq, self._clock.now_ns(), data)
        if not is_repeat:
            arrivals.staged[seq] = data
            queue = self._behind if watch.is_backlog(seq) else self._live
            self._stage((frame, arrivals, session), queue)
            return
        self._duplicates += 1
        self._touch(arrivals)
        if self._may_differ(arrivals, seq, data):
            # Into the log with it, behind the first: the shard keeps it aside, and says so.
            self._stage((frame, None, session), self._behind)

    def _may_differ(self, arrivals: Arrivals, seq: int, data: bytes) -> bool:
        """Whether a repeat is not known to be one in all that it holds."""
        if (staged := arrivals.staged.get(seq)) is not None:
            return content_crc32(staged) != content_crc32(data)
        known = self.fingerprints.get(arrivals.key)
        if known is None or known.is_ahead(seq):
            return True  # The shard has not come to it yet.
        return known.differs(seq, content_crc32(data))

    def _touch(self, arrivals: Arrivals) -> None:
        if not arrivals.is_dirty:
            arrivals.is_dirty = True
            self._touched.append(arrivals)
            self._work.set()

    def _stage(self, one: Staged, queue: list[Staged] | deque[Staged]) -> None:
        frame, _, session = one
        n_bytes = len(frame.payload)
        if session is not None:
            session.staged(n_bytes)
        queue.append(one)
        self.admitting.staged_bytes += n_bytes
        self._flush_bytes += n_bytes
        self._work.set()
        if self._flush_bytes >= FLUSH_BYTES:
            self._full.set()

    async def run(self) -> None:
        """Commits and acknowledges until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POST_S):
                    await self._work.wait()
            if self._work.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._rest_s()):
                        await self._full.wait()
            await self._turn()

    def _rest_s(self) -> float:
        """Time until the oldest live frame has waited for FLUSH_S; it may have come meanwhile."""
        if not self._live:
            return FLUSH_S
        waited_s = (self._clock.now_ns() - self._live[0][0].received_ns) / 1e9
        return FLUSH_S - min(FLUSH_S, max(0.0, waited_s))

    async def step(self) -> None:
        """Commits all that is staged, and what follows from it."""
        await self._turn()
        while self._behind:
            await self._turn()

    async def _turn(self) -> None:
        """One commit of all that is live and of some history, and what follows from it."""
        self._work.clear()
        self._full.clear()
        since_ns = self._live[0][0].received_ns if self._live else None
        if staged := self._taken():
            await self._commit(staged)
            self.admitting.free(sum(len(frame.payload) for frame, _, _ in staged))
            if since_ns is not None:
                self.admitting.pressure.waited(max(0, self._clock.now_ns() - since_ns) / 1e9)
        self._route_refusals()
        self.server_time = server_time(self._clock.now_ns())
        touched, self._touched = self._touched, []
        for arrivals in touched:
            arrivals.is_dirty = False
            for watch in arrivals.watches:
                watch.session.touch(watch)
        boot_ns, posted_ns = self._clock.boot_ns(), self._posted_boot_ns
        if posted_ns is None or boot_ns - posted_ns >= POST_S * 1e9:
            self.admitting.relax()
            self._post()

    def _taken(self) -> list[Staged]:
        """What goes into the next commit; the rest of the history asks for one at once."""
        staged, self._live, self._flush_bytes = self._live, [], 0
        n_bytes = 0
        while self._behind and n_bytes < BEHIND_BYTES:
            one = self._behind.popleft()
            n_bytes += len(one[0].payload)
            staged.append(one)
        self.admitting.pressure.came(n_bytes)
        if self._behind:
            self._work.set()
            self._full.set()
        return staged

    async def _commit(self, staged: list[Staged]) -> None:
        self._position = await self._append([frame for frame, _, _ in staged])
        for frame, arrivals, session in staged:
            if arrivals is None:
                self._settle(frame)
            else:
                seq = frame.seq
                arrivals.ranges.add(seq, seq)
                arrivals.staged.pop(seq, None)
                self._committed += 1
                if arrivals.watches:
                    self._touch(arrivals)
                else:
                    self.unwatched(arrivals)  # its stream has gone before this commit
            if session is not None:
                session.settled(len(frame.payload))

    async def _append(self, frames: list[Frame]) -> Position:
        """Position of the commit; a log that does not take it is asked until it does."""
        is_failing = False
        while True:
            try:
                position = await self._log.append(frames)
            except LogDamaged:
                raise
            except LogError as error:
                if not is_failing:
                    logger.error("ingest.log_failed", extra=facts(reason=str(error)))
                is_failing = True
                self._board.note_disk("log", str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if is_failing:
                logger.warning("ingest.log_back", extra=facts(position=position))
                self._board.note_disk("log", "")
            return position

    def _settle(self, frame: Frame) -> None:
        """Counts a durable frame among what is durable."""
        key = (frame.site_id, frame.boot_id)
        if frame.kind in (FrameKind.TELEMETRY, FrameKind.BILLING):
            self.durable.add(key, frame.seq, frame.seq)
        elif frame.kind is FrameKind.GAP:
            # A gap was read at the door before it came in; an unreadable one moves nothing.
            with suppress(WireError):
                gap = gap_from_bytes(frame.payload)
                key = (frame.site_id, gap.boot_id)
                self.durable.add(key, gap.first_seq, gap.last_seq)
                if arrivals := self._arrivals.get(key):
                    self._touch(arrivals)

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
        self._posted_boot_ns = self._clock.boot_ns()
