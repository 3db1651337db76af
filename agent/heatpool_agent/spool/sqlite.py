"""Both queues of a site, as the rest of the agent sees them.

`telemetry.db` may lose its last commits in a power cut (NORMAL); `billing.db` may not (FULL), and
damage to one cannot touch the other. A kill loses nothing of either. Nothing is ever changed under
a number that was read. The tables are made by `spool_schema`.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import BootId, MeteringPointId, RegisterRow, Row, Schema, SpoolKind
from heatpool_agent.core.ledger import GapRecord, Page
from heatpool_agent.ports import Clock, QueueStat, Seq, SpoolFrame, SpoolLoss, SpoolMark
from heatpool_agent.spool import beyond, billing, ledger, twin
from heatpool_agent.spool.file import QueueFile
from heatpool_agent.spool.heal import Known, heal
from heatpool_agent.spool.reserve import Reserve
from heatpool_agent.spool.room import Room
from heatpool_agent.spool.sound import is_sound
from heatpool_agent.spool.state import stat_of
from heatpool_agent.spool.telemetry import Telemetry
from heatpool_agent.spool_files import (
    FILES,
    exclusive,
    is_damage,
    is_full,
    kernel_boot_id,
    mark_closed,
    mark_open,
)

logger = logging.getLogger(__name__)

BILLING_KEEP_S = 2 * 366 * 86_400  # claims are limited to two years (physics.md 17)
# How often the billing file notes how far the telemetry file is, frames.
TWIN_FRAMES = 60
_NS = 1_000_000_000


class SqliteSpool:
    """Both queues of one site. Not thread-safe: one worker thread owns it."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        rows_per_frame: int,
        max_bytes: int,
        keep_s: float,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self.rows_per_frame = rows_per_frame
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._lock = exclusive(folder)
        self._reserve = Reserve(folder)
        try:
            self._reserve.keep()
            self._open()
            mark_open(self._lock)
            self._tidy(lambda: ledger.forget_gaps(self._file))
            self.saved_ledger = ledger.stored(self._file.db)
        except (StoreError, sqlite3.Error, OSError):
            self._lock.close()  # a later try must not find the folder in use
            raise
        self.kernel_boot_id = kernel_boot_id()

    def _open(self) -> None:
        self._files = {kind: QueueFile(self._folder / FILES[kind], kind) for kind in FILES}
        self._file = self._files[SpoolKind.TELEMETRY]
        self._telemetry = Telemetry(self._file)
        self._room = Room(
            self._telemetry, self._folder, clock=self._clock, max_bytes=self._max_bytes
        )

    @property
    def _db(self) -> Mapping[SpoolKind, sqlite3.Connection]:
        return {kind: file.db for kind, file in self._files.items()}

    def gaps(self, limit: int) -> Sequence[GapRecord]:
        """The newest gaps of all counters, oldest first."""
        return ledger.gaps(self._file, limit)

    def save(self, page: Page) -> None:
        """Puts a page of the ledger on disk, whole.

        Raises:
            StoreError: the disk did not take it; nothing of it is there.
        """
        with self._file.commit() as db:
            ledger.put(db, page)

    def append(self, row: Row, page: Page | None = None) -> None:
        """Adds a row to the open frame, which closes when it is full or its channels change.

        A page of the ledger goes with it: both are there, or neither.

        Raises:
            StoreError: the disk did not take it; the row is not in the spool.
        """
        self._leave_room_for_billing()
        try:
            self._telemetry.append(row, page)
        except StoreError as error:
            if not is_full(error):
                raise
            self._reuse_room()
            self._telemetry.append(row, page)
        if len(self._telemetry.open_rows) >= self.rows_per_frame:
            self.close_frame()

    def _leave_room_for_billing(self) -> None:
        if self._reserve.is_needed:
            raise StoreError(
                f"spool {self._folder}: the disk is full, and what is left of it is kept for"
                " billing; free room on the disk"
            )

    def _reuse_room(self) -> None:
        """On a full disk: begins the write-ahead file anew, and lets the oldest go."""
        self._checkpoint(SpoolKind.TELEMETRY)
        self._tidy(self._room.make)

    def _checkpoint(self, kind: SpoolKind) -> None:
        try:
            self._files[kind].db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            logger.warning("spool.no_room_made", extra=facts(reason=str(error)))

    def close_frame(self) -> None:
        """Gives the open rows their number, so that they can be sent.

        Raises:
            StoreError: the disk did not take it; the rows stay open.
        """
        if self._telemetry.close_frame():
            self._tidy(
                lambda: ledger.forget_gaps(self._file),
                self._room.make,
                self._note_twin,
                self._keep_reserve,
            )

    def _keep_reserve(self) -> None:
        self._reserve.keep()

    def _note_twin(self) -> None:
        if self._file.mark.next_seq % TWIN_FRAMES == 0:
            with self._files[SpoolKind.BILLING].commit() as db:
                twin.put(db, self._file.mark)

    def _tidy(self, *acts: Callable[[], None]) -> None:
        """Makes room; what the disk refuses is tried again after the next frame."""
        try:
            for act in acts:
                act()
        except (StoreError, sqlite3.Error, OSError) as error:
            # The frame is on disk: an error now would have it written twice.
            logger.warning("spool.no_room_made", extra=facts(reason=str(error)))
            if is_damage(error):
                self._heal_quietly()

    def _heal_quietly(self) -> None:
        try:
            self.heal()
        except (StoreError, sqlite3.Error, OSError) as error:
            logger.error("spool.not_healed", extra=facts(reason=str(error)))

    def append_registers(self, rows: Sequence[RegisterRow]) -> None:
        """Adds one billing frame, hash-chained to the one before, synced when this returns.

        Raises:
            StoreError: the disk did not take it; the rows are not in the spool.
        """
        file = self._files[SpoolKind.BILLING]
        try:
            billing.append(file, rows, self._file.mark)
        except StoreError as error:
            if not is_full(error) or not self._reserve.free():
                raise
            logger.warning("spool.reserve_freed", extra=facts(folder=self._folder))
            billing.append(file, rows, self._file.mark)
        self._tidy(self._note_billing)

    def _note_billing(self) -> None:
        if not self._reserve.is_held:
            return  # what the reserve gave back is for billing alone
        with self._file.commit() as db:
            twin.put(db, self._files[SpoolKind.BILLING].mark)

    def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point; None before the first one."""
        return billing.last_register(self._files[SpoolKind.BILLING], point_id)

    def lose(self, kind: SpoolKind, start_ns: int, end_ns: int) -> None:
        """Gives a number to rows that never came to the disk, and says that they are dropped.

        Raises:
            StoreError: the disk did not take it; nothing is said.
        """
        self._files[kind].lose(start_ns, end_ns)

    def read(
        self, kind: SpoolKind, after: Seq, limit: int, *, before: Seq | None = None
    ) -> Sequence[SpoolFrame]:
        """The next closed frames of a queue behind `after` and below `before`, oldest first."""
        return self._files[kind].read(after, limit, before)

    def forget(self, kind: SpoolKind, durable_seq: Seq, *, after: Seq | None = None) -> None:
        """Notes what is durable elsewhere; frames go `keep_s` after they became so.

        Raises:
            StoreError: the disk did not take it; the frames will be sent once more.
        """
        keep_s = BILLING_KEEP_S if kind is SpoolKind.BILLING else self._keep_s
        self._files[kind].forget(
            durable_seq, after, at_ns=self._clock.event_ns(), keep_ns=int(keep_s * _NS)
        )

    def lower(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> None:
        """Takes back what is not among these, which is all that is durable elsewhere.

        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        self._files[kind].lower(there)

    def begin_anew(self, kind: SpoolKind) -> None:
        """A new boot id for a queue; its frames keep their order and are numbered from 1.

        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        beyond.begin_anew(self._files[kind])
        self._telemetry.rename()

    def go_beyond(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> bool:
        """Gives no number again that is durable elsewhere; False: none was, and nothing changed.

        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        is_older = beyond.go_beyond(self._files[kind], there)
        self._telemetry.rename()
        return is_older

    def losses(self) -> Sequence[SpoolLoss]:
        """What of both queues will never be sent and is not known at the other end."""
        return [loss for file in self._files.values() for loss in file.losses()]

    def told(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end knows of these numbers for good: losses within are done."""
        for file in self._files.values():
            file.told(boot_id, first_seq, last_seq)

    def untold(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end has forgotten: losses that touch these numbers come again.

        Raises:
            StoreError: the disk did not take it.
        """
        for file in self._files.values():
            file.untold(boot_id, first_seq, last_seq)

    def size_bytes(self) -> int:
        """Bytes of telemetry on disk, pages to be used again left out."""
        return self._file.size_bytes()

    def mark(self, kind: SpoolKind) -> SpoolMark:
        """State of a queue."""
        return self._files[kind].mark

    def schemas(self) -> Sequence[Schema]:
        """Every schema that frames of the present boot id may name."""
        return tuple(self._telemetry.needed())

    def stat(self) -> Sequence[QueueStat]:
        """What both queues hold."""
        return [stat_of(file.db, kind) for kind, file in self._files.items()]

    def heal(self) -> Sequence[SpoolKind]:
        """Makes damaged files anew out of what can be read of them; which they were.

        Raises:
            StoreError: there is no room for a new file; the old one is left as it is.
        """
        broken = [kind for kind, file in self._files.items() if not is_sound(file.path, file.db)]
        known = {kind: self._known(kind) for kind in broken}
        mark_closed(self._lock)
        for file in self._files.values():
            file.db.close()
        try:
            for kind in broken:
                heal(self._folder, kind, known=known[kind], at_ns=self._clock.event_ns())
        finally:
            self._open()
            mark_open(self._lock)
        return broken

    def _known(self, kind: SpoolKind) -> Known:
        """What memory knows of a file better than its damaged pages."""
        file = self._files[kind]
        if kind is SpoolKind.BILLING:
            return Known(mark=file.mark, durable=file.durable)
        return Known(
            mark=file.mark,
            durable=file.durable,
            schemas=tuple(self._telemetry.schemas),
            open_rows=tuple(self._telemetry.open_rows),
        )

    def close(self) -> None:
        """Closes the open frame and frees the files."""
        try:
            self.close_frame()
        finally:
            mark_closed(self._lock)
            for file in self._files.values():
                file.db.close()
            self._lock.close()
