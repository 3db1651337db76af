"""When the log is applied: frames into live state and store, what people see onto the board.

The store is flushed before the snapshot says that a frame is applied: after a power cut the log
still has whatever the store lost.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TypeVar

from heatpool.errors import LogDamaged, LogError, StoreError
from heatpool.process.journal import facts
from heatpool.sample import SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.admission import Fingerprints, Key
from heatpool_aggregator.core.live import Point
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.applying import Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.loops.own_clock import ClockWatch
from heatpool_aggregator.loops.views import Views
from heatpool_aggregator.ports import (
    START,
    Chunk,
    Clock,
    Frame,
    Partition,
    Position,
    Snapshot,
    Store,
)
from heatpool_aggregator.wire.messages import Refusal

logger = logging.getLogger(__name__)

READ_FRAMES = 2_000
READ_S = 0.25  # the more there is at once, the less a frame costs
POST_S = 1.0
POST_LIMIT_S = 10.0
POST_FRAC = 0.01  # of a core, for views of the whole fleet
SAVE_S = 10.0
RETRY_S = 1.0
ALWAYS_NS = 2**62
APPLY_S = 0.005
HISTORY_COUNT = 20_000  # some megabytes; or as old as the last snapshot
HISTORY_PART_COUNT = 1_000
APPLY_FRAMES = 500  # decoded at once: some ms, and all that bulk can gain
APPLY_BYTES = 128 << 10  # of history, whose frames hold more rows

T = TypeVar("T")


class Shard:
    """Keeps the state of its sites, and what follows from it."""

    def __init__(
        self,
        *,
        partition: Partition,
        store: Store,
        board: Board,
        clock: Clock,
        config: Config,
        refusals: deque[Refusal],
        fingerprints: dict[Key, Fingerprints] | None = None,
        told_wait: Callable[[float], None] | None = None,
    ) -> None:
        self._told_wait = told_wait
        self._partition, self._store, self._board = partition, store, board
        self._clock, self._refusals = clock, refusals
        snapshot = partition.snapshot
        self._position = START if snapshot is None else snapshot.position
        self._saved = self._position
        self.state = ShardState() if snapshot is None else ShardState.from_bytes(snapshot.state)
        asked_w = {SiteId(wish.site_id): wish.heat_rate_w for wish in config.setpoint}
        self._applying = Applying(self.state, asked_w=asked_w, fingerprints=fingerprints)
        self._views = Views(config, asked_w)
        self._watch = ClockWatch(self.state, clock, board)
        self._pending = Effects()
        self._history: list[Chunk] = []
        # Frames of one commit share a position: a cancelled step leaves the rest of them here.
        self._unapplied: deque[tuple[Position, Frame]] = deque()

    async def run(self) -> None:
        """Applies the log until cancelled."""
        posted_ns = saved_ns = self._clock.boot_ns()
        pause_s = self._posted()
        while True:
            began_s = time.monotonic()
            count = await self.step()
            now_ns = self._clock.boot_ns()
            if now_ns - posted_ns >= pause_s * 1e9:
                pause_s = self._posted()
                posted_ns = now_ns
            if now_ns - saved_ns >= SAVE_S * 1e9:
                await self._patiently(self.save)
                saved_ns = now_ns
            # Not at once for what has come meanwhile: of few frames each costs more.
            rest_s = READ_S - (time.monotonic() - began_s)
            if count < READ_FRAMES and rest_s > 0:
                await asyncio.sleep(rest_s)

    def _posted(self) -> float:
        """Posts; time until it is to be done again, s: a large fleet is not looked at all day."""
        began_s = time.thread_time()
        self.post()
        cost_s = time.thread_time() - began_s
        return min(POST_LIMIT_S, max(POST_S, cost_s / POST_FRAC))

    async def step(self) -> int:
        """Applies some frames; how many there were."""
        # What a cancelled step left behind comes first: its frames are in the state already.
        await self._store_pending()
        if not self._unapplied:
            self._unapplied.extend(await self._patiently(self._read))
        self._tell_wait()
        self._watch.is_caught_up = not self._unapplied
        self._watch.look()
        count, yielded_s = len(self._unapplied), time.monotonic()
        while self._unapplied:
            self._apply_some()
            # Streams and pages wait for nothing longer than this while a backlog is applied.
            if time.monotonic() - yielded_s >= APPLY_S:
                await asyncio.sleep(0)
                yielded_s = time.monotonic()
        await self._store_pending()
        return count

    def is_clock_suspect(self) -> bool:
        """Whether no period may be closed by our wall clock as it stands now."""
        return self._watch.is_suspect()

    def _tell_wait(self) -> None:
        """Says how long the oldest frame has waited, s."""
        if self._told_wait is not None:
            now_ns = self._clock.now_ns()
            oldest_ns = self._unapplied[0][1].received_ns if self._unapplied else now_ns
            self._told_wait(max(0, now_ns - oldest_ns) / 1e9)

    def _apply_some(self) -> None:
        frames: list[Frame] = []
        n_bytes = 0
        while self._unapplied and len(frames) < APPLY_FRAMES and n_bytes < APPLY_BYTES:
            self._position, frame = self._unapplied.popleft()
            frames.append(frame)
            n_bytes += len(frame.payload)
        self._applying.apply_all(frames, self._pending)

    async def _read(self) -> Sequence[tuple[Position, Frame]]:
        return await self._partition.read(self._position, READ_FRAMES)

    async def _store_pending(self) -> None:
        """Asks the store until it takes everything: nobody brings these frames again."""
        self._history += self._pending.chunks
        self._pending.chunks = []
        if len(self._history) >= HISTORY_COUNT:
            await self._patiently(self._put_history)
        await self._patiently(self._put)
        for point in sorted(self.state.live.to_recount):
            await self._patiently(partial(self._recount, point))

    async def _put_history(self) -> None:
        """Chunks wait for others of their site, which lie beside them; the log has them all."""
        self._history.sort(key=_place)
        while part := self._history[:HISTORY_PART_COUNT]:
            await self._store.chunks.put(part)
            del self._history[: len(part)]

    async def _put(self) -> None:
        effects = self._pending
        if effects.registers:
            await self._store.registers.put(effects.registers)
        if effects.events:
            await self._store.events.put(effects.events)
        self._refusals.extend(effects.refusals)
        self._pending = Effects()

    async def _recount(self, point: Point) -> None:
        """Late rows: the sum of all rows is the same in whatever order they came."""
        rows = await self._store.registers.series(*point, 0, ALWAYS_NS)
        self.state.live.recount(point, rows)

    async def _patiently(self, act: Callable[[], Coroutine[None, None, T]]) -> T:
        is_failing = False
        while True:
            try:
                done = await act()
            except LogDamaged:
                raise
            except (StoreError, LogError) as error:
                if not is_failing:
                    logger.error("shard.store_failed", extra=facts(reason=str(error)))
                is_failing = True
                self._board.note_disk("store", str(error))
                # What people see grows old meanwhile, and must say so.
                self.post()
                await asyncio.sleep(RETRY_S)
                continue
            if is_failing:
                logger.warning("shard.store_back", extra=facts())
                self._board.note_disk("store", "")
            return done

    def post(self) -> None:
        """Puts what people see onto the board, if it has changed."""
        sites, sources = self._views.at(self.state, self._clock.now_ns())
        board = self._board
        seen = (board.sites, board.sources, board.applied_position)
        if (sites, sources, self._position) != seen:
            board.post(sites=sites, sources=sources, applied_position=int(self._position))

    async def save(self) -> None:
        """Makes store and state durable, in this order.

        Raises:
            StoreError, LogError: not saved; the log keeps the frames.
        """
        if self._position == self._saved:
            return
        position, state = self._position, await self._state_bytes()
        await self._put_history()
        await self._store.flush()
        await self._partition.save(Snapshot(position=position, state=state))
        self._saved = position

    async def _state_bytes(self) -> bytes:
        """The state now: nobody but this task changes it; acks do not wait for all of it."""
        pieces = []
        for piece in self.state.pieces():
            pieces.append(piece)
            await asyncio.sleep(0)
        return b"".join(pieces)

    async def finish(self) -> None:
        """Applies what is left in the log, and saves."""
        while await self.step():
            pass
        self.post()
        await self.save()


def _place(chunk: Chunk) -> tuple[str, str, int]:
    return chunk.site_id, chunk.boot_id, chunk.seq
