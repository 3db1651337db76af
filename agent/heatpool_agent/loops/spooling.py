"""The spool behind its one worker thread, and what is kept in memory while the disk refuses."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import MeteringPointId, RegisterRow, Row, SpoolKind
from heatpool_agent.board import Board
from heatpool_agent.ports import Acked, Spool, SpoolMark

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
# An hour of 10-s rows and of 60-s registers: enough to free a disk, a few hundred kB at most.
ROWS_KEPT = 360
REGISTERS_KEPT = 360


class Spooling:
    """Async door to the spool; a row that the disk refuses waits here, oldest dropped first."""

    def __init__(self, spool: Spool, board: Board) -> None:
        self._spool = spool
        self._board = board
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._rows: deque[Row] = deque(maxlen=ROWS_KEPT)
        self._registers: deque[tuple[RegisterRow, ...]] = deque(maxlen=REGISTERS_KEPT)

    async def call(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a method of the spool on its thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: act(*args, **kwargs))

    async def append(self, row: Row) -> None:
        """Puts a row on disk, or keeps it for the next try."""
        self._rows.append(row)
        await self._drain()

    async def append_registers(self, rows: tuple[RegisterRow, ...]) -> None:
        """Puts register rows on disk, or keeps them for the next try."""
        self._registers.append(rows)
        await self._drain()

    async def _drain(self) -> None:
        try:
            await self.call(self._write_all)
        except StoreError as error:
            self._note(str(error))
        else:
            self._note("")
        await self._post()

    def _write_all(self) -> None:
        while self._registers:
            self._spool.append_registers(self._registers[0])
            self._registers.popleft()
        while self._rows:
            self._spool.append(self._rows[0])
            self._rows.popleft()

    def _note(self, error: str) -> None:
        """A change of state is logged once, its end once."""
        if error and not self._board.spool_error:
            logger.error("spool.refused", extra=facts(reason=error, kept_rows=len(self._rows)))
        elif self._board.spool_error and not error:
            logger.info("spool.again")
        self._board.spool_error = error

    async def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point on disk."""
        return await self.call(self._spool.last_register, point_id)

    async def acked(self, acked: Acked) -> None:
        """Lets go what is durable at the other end."""
        for kind in SpoolKind:
            if self._spool.mark(kind).boot_id == acked.boot_id:
                await self.call(self._spool.forget, kind, acked.durable_seq)
        await self._post()

    async def close_frame(self) -> None:
        """Numbers the open rows, so that they can be sent."""
        try:
            await self.call(self._spool.close_frame)
        except StoreError as error:
            self._note(str(error))
        await self._post()

    async def _post(self) -> None:
        marks, size_bytes = await self.call(self._state)
        self._board.post_spool(marks, size_bytes)

    def _state(self) -> tuple[Sequence[SpoolMark], int]:
        return [self._spool.mark(kind) for kind in SpoolKind], self._spool.size_bytes()

    async def close(self) -> None:
        """Closes the spool and its thread."""
        try:
            await self.call(self._spool.close)
        finally:
            self._thread.shutdown(wait=False)
