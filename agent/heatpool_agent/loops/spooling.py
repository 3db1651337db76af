"""The spool behind its one worker thread, and what is kept in memory while the disk refuses."""

import asyncio
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import BootId, MeteringPointId, RegisterRow, Row, SpoolKind
from heatpool_agent.board import Board
from heatpool_agent.core import ranges
from heatpool_agent.core.ledger import Ledger, Page, merged
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.provisional import ProvisionalLedger
from heatpool_agent.ports import Seq, Spool, SpoolMark
from heatpool_agent.spool_files import is_damage

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V", Row, tuple[RegisterRow, ...])
# An hour of 10-s rows and of 60-s registers: enough to free a disk, a few hundred kB at most.
ROWS_KEPT = 360
REGISTERS_KEPT = 360
# Gaps of the ledger that wait; their sums are in the accounts whatever is dropped.
GAPS_KEPT = 1_000
# How often a disk that refused at the start is asked again, s.
LATE_LEAST_S, LATE_MOST_S = 10.0, 60.0


@runtime_checkable
class LateSpool(Protocol):
    """A spool whose disk refused at the start, and which may be opened later."""

    @property
    def is_late(self) -> bool:
        """Whether it still waits for its disk."""
        ...

    def attempt(self) -> Page:
        """Opens it aside; the ledger as its disk has it.

        Raises:
            StoreError: the disk still refuses.
        """
        ...

    def use(self) -> None:
        """From here on it is the opened one."""
        ...


class Spooling:
    """Async door to the spool; a row that the disk refuses waits here, oldest dropped first."""

    def __init__(self, spool: Spool, board: Board) -> None:
        self._spool = spool
        self._board = board
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        # The loop appends and drops the oldest; the worker takes out what it wrote.
        self._lock = threading.Lock()
        self._rows: deque[Row] = deque()
        self._registers: deque[tuple[RegisterRow, ...]] = deque()
        self._page: Page | None = None
        self._dropped = 0
        self._lost: dict[SpoolKind, tuple[int, int]] = {}
        self._unwritable = 0
        self._known: dict[BootId, tuple[ranges.Range, ...]] = {}
        self._late = spool if isinstance(spool, LateSpool) and spool.is_late else None
        self._late_wait_s = LATE_LEAST_S
        self._late_s = float("-inf")
        self._ledger: ProvisionalLedger | None = None

    def ledger(self) -> Ledger:
        """The energy ledger as it was saved, to be stepped and saved again here."""
        saved, boot_id = self._spool.saved_ledger, self._spool.kernel_boot_id
        if self._late is None:
            return Ledger(saved, boot_id=boot_id)
        self._ledger = ProvisionalLedger(saved, boot_id=boot_id)
        return self._ledger

    def estimators(self, loop_id: str) -> dict[str, SavedEstimator]:
        """What a loop's estimator left when it was saved, by part."""
        saved = self._spool.saved_ledger.estimators
        return {one.part: one for one in saved if one.loop_id == loop_id}

    @property
    def boot_id(self) -> str:
        """The life of this machine's kernel."""
        return self._spool.kernel_boot_id

    async def call(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a method of the spool on its thread; a damaged file is healed, then once again.

        Raises:
            StoreError: the disk refused, for writing or reading.
        """
        try:
            return await self._done(act, *args, **kwargs)
        except StoreError as error:
            if not is_damage(error):
                raise
            healed = await self._done(self._spool.heal)
            logger.error(
                "spool.healed", extra=facts(queues=[kind.name for kind in healed], after=str(error))
            )
        return await self._done(act, *args, **kwargs)

    async def _done(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: act(*args, **kwargs))
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"spool: {error}; look at the disk") from error

    async def append(self, row: Row, page: Page | None = None) -> None:
        """Puts a row on disk with a page of the ledger, or keeps both for the next try."""
        self._keep(self._rows, row, ROWS_KEPT)
        if page is not None:
            self.keep_page(page)
        await self._write()

    async def save(self, page: Page) -> None:
        """Puts a page of the ledger on disk, or keeps it for the next try."""
        self.keep_page(page)
        await self._write()

    def keep_page(self, page: Page) -> None:
        """Keeps a page for the next try to write."""
        with self._lock:
            self._page = merged(self._page, page, most_count=GAPS_KEPT)

    async def append_registers(self, rows: tuple[RegisterRow, ...]) -> None:
        """Puts register rows on disk, or keeps them for the next try; no rows are no frame."""
        if rows:
            self._keep(self._registers, rows, REGISTERS_KEPT)
        await self._write()

    def _keep(self, waiting: deque[V], value: V, most: int) -> None:
        with self._lock:
            if len(waiting) >= most:
                self._drop(waiting.popleft())
            waiting.append(value)

    def _drop(self, value: Row | tuple[RegisterRow, ...]) -> None:
        """What finds no room here either: its span is told once the disk takes it."""
        self._dropped += 1
        kind = SpoolKind.TELEMETRY if isinstance(value, Row) else SpoolKind.BILLING
        rows = (value,) if isinstance(value, Row) else value
        start_ns, end_ns = self._lost.get(kind, (rows[0].event_ns, rows[-1].event_ns))
        self._lost[kind] = (
            min(start_ns, *(row.event_ns for row in rows)),
            max(end_ns, *(row.event_ns for row in rows)),
        )

    def _tell_dropped(self, kind: SpoolKind) -> None:
        """What was dropped here gets a number and is lost under it, before what came later."""
        with self._lock:
            span = self._lost.get(kind)
        if span is not None:
            self._spool.lose(kind, *span)
            with self._lock:
                if self._lost[kind] == span:
                    del self._lost[kind]

    async def _write(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._late is not None and now_s >= self._late_s + self._late_wait_s:
            self._late_s, self._late_wait_s = now_s, min(2 * self._late_wait_s, LATE_MOST_S)
            await self.open_late()
        await self._attempt(self._write_all)
        await self._post()

    async def open_late(self) -> None:
        """Opens a spool whose disk refused before; what was counted meanwhile joins its totals."""
        if (late := self._late) is None:
            return
        try:
            saved = await self.call(late.attempt)
        except StoreError as error:
            self._note(str(error))
            return
        # No await from here on: no page may be written that knows nothing of the saved totals.
        with self._lock:
            if self._ledger is not None:
                self._page = self._ledger.rebase(saved, self._page)
        late.use()
        self._late = None
        logger.info("spool.opened_late", extra=facts(rows=len(self._rows)))

    async def _attempt(self, act: Callable[[], None]) -> None:
        """Writes, or notes why the disk refused; the next call tries again."""
        try:
            await self.call(act)
        except StoreError as error:
            self._note(str(error))
        else:
            # Another act's success says nothing of the rows that the disk refused.
            if not self._rows and not self._registers and self._page is None:
                self._note("")

    def _write_all(self) -> None:
        try:
            self._tell_dropped(SpoolKind.BILLING)
            while self._registers:
                self._write_first(self._registers, self._spool.append_registers)
        finally:
            # Two files: what one of them refuses must not hold up the other.
            self._tell_dropped(SpoolKind.TELEMETRY)
            while self._rows:
                self._write_first(self._rows, self._append)
            self._write_page()

    def _append(self, row: Row) -> None:
        """Writes a row; the newest one takes the page along, as one commit."""
        with self._lock:
            page = self._page if len(self._rows) == 1 else None
        self._spool.append(row, page)
        self._note_saved(page)

    def _write_page(self) -> None:
        with self._lock:
            page = self._page
        if page is not None:
            self._spool.save(page)
            self._note_saved(page)

    def _note_saved(self, page: Page | None) -> None:
        with self._lock:
            # The loop may have added to it meanwhile: then all of it is written once more.
            if self._page is page:
                self._page = None

    def _write_first(self, waiting: deque[V], write: Callable[[V], None]) -> None:
        """Writes the oldest one, and takes it out only then; one that no disk takes is dropped."""
        with self._lock:
            value = waiting[0]
        try:
            write(value)
        except (StoreError, sqlite3.Error, OSError):
            raise
        except Exception as error:  # one row that cannot be packed must not stop all behind it
            self._unwritable += 1
            logger.exception(
                "spool.unwritable", extra=facts(reason=str(error), so_far=self._unwritable)
            )
        with self._lock:
            # The loop may have dropped it meanwhile.
            if waiting and waiting[0] is value:
                waiting.popleft()

    def _note(self, error: str) -> None:
        """A change of state is logged once, its end once."""
        if error and not self._board.spool_error:
            logger.error("spool.refused", extra=facts(reason=error, kept_rows=len(self._rows)))
        elif self._board.spool_error and not error:
            logger.info("spool.again", extra=facts(dropped_meanwhile=self._dropped))
            self._dropped = 0
        dropped = f"; {self._dropped} dropped so far" if error and self._dropped else ""
        self._board.spool_error = f"{error}{dropped}"

    async def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point, waiting here or on disk."""
        with self._lock:
            waiting = [row for rows in self._registers for row in rows]
        own = [row for row in waiting if row.metering_point_id == point_id]
        return own[-1] if own else await self.call(self._spool.last_register, point_id)

    async def durable(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Lets go these numbers, both ends included, and the losses that are known there now.

        The other end says so of gaps as of frames, hence of every number of a life in the end.
        """
        await self._attempt(partial(self._let_go, boot_id, first_seq, last_seq))
        await self._post()

    async def lower(self, mark: SpoolMark, there: Sequence[ranges.Range]) -> None:
        """Takes back what the other end has lost; a refusing disk keeps it until the next Hello."""
        self._known = {**self._known, mark.boot_id: ()}
        await self._attempt(partial(self._spool.lower, mark.kind, there))
        await self._post()

    async def untold(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Has losses there said again; where the disk refuses, only that they are gone is said."""
        kept = ranges.without(self._known.get(boot_id, ()), first_seq, last_seq)
        self._known = {**self._known, boot_id: kept}
        with suppress(StoreError):
            await self.call(self._spool.untold, boot_id, first_seq, last_seq)

    def _let_go(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        known = ranges.added(self._known.get(boot_id, ()), first_seq, last_seq)
        self._known = {**self._known, boot_id: known}
        for kind in SpoolKind:
            if self._spool.mark(kind).boot_id == boot_id:
                self._spool.forget(kind, last_seq, after=Seq(first_seq - 1))
        (whole,) = [one for one in known if one[0] <= first_seq and last_seq <= one[1]]
        self._spool.told(boot_id, Seq(whole[0]), Seq(whole[1]))

    async def go_beyond(self, kind: SpoolKind, there: Sequence[ranges.Range]) -> bool:
        """Gives no number again that is durable elsewhere; False: none was.

        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        is_older = await self.call(self._spool.go_beyond, kind, there)
        if is_older:
            await self._post()
        return is_older

    async def close_frame(self) -> None:
        """Numbers the open rows, so that they can be sent."""
        await self._attempt(self._spool.close_frame)
        await self._post()

    async def _post(self) -> None:
        # A disk that cannot be read leaves the last marks: they were true.
        with suppress(StoreError):
            self._board.post_spool(*await self.call(self._state))

    def _state(self) -> tuple[Sequence[SpoolMark], int]:
        return [self._spool.mark(kind) for kind in SpoolKind], self._spool.size_bytes()

    async def close(self) -> None:
        """Tries once more to write what waits, then closes the spool and its thread."""
        try:
            await self.open_late()
            await self._attempt(self._write_all)
            await self.call(self._spool.close)
        finally:
            self._thread.shutdown(wait=False)
