"""A spool whose disk refuses at the start: it is read as far as it can be, and opened later.

Until then it takes nothing, so that rows wait in memory, and it names no mark, so that no line is
opened under numbers that might be given again.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.sample import BootId, MeteringPointId, RegisterRow, Row, Schema, SpoolKind
from heatpool_agent.core.ledger import Page
from heatpool_agent.ports import QueueStat, Seq, Spool, SpoolFrame, SpoolLoss, SpoolMark
from heatpool_agent.spool import billing, ledger
from heatpool_agent.spool_files import FILES, kernel_boot_id, primary, read_only

_REFUSED_BY_DISK = frozenset(
    {
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
    }
)
_REFUSED_BY_SQLITE = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
    }
)


class DiskRefused(StoreError):
    """The disk takes nothing now; it may do so later."""


def may_pass(error: BaseException | None) -> bool:
    """Whether the disk refused: a mistake in the settings or another agent is no such thing."""
    return any(
        isinstance(one, DiskRefused)
        or (isinstance(one, OSError) and one.errno in _REFUSED_BY_DISK)
        or (isinstance(one, sqlite3.Error) and primary(one) in _REFUSED_BY_SQLITE)
        for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class LateSpool:
    """Stands for the spool until `use`; then it is that spool."""

    def __init__(self, folder: Path, open_it: Callable[[], Spool], *, why: str) -> None:
        self._folder = folder
        self._open_it = open_it
        self._why = why
        self._opened: Spool | None = None
        self._used: Spool | None = None
        self._rows_per_frame = 0
        self._read = self._readable()
        self.kernel_boot_id = kernel_boot_id()

    def _readable(self) -> Page:
        path = self._folder / FILES[SpoolKind.TELEMETRY]
        with suppress(OSError, sqlite3.Error):
            if path.exists():
                with closing(read_only(path)) as db:
                    return ledger.stored(db)
        return Page()

    @property
    def is_late(self) -> bool:
        """Whether nothing is written yet."""
        return self._used is None

    def attempt(self) -> Page:
        """Opens the spool, still unused; its ledger as it is on disk.

        Raises:
            StoreError: the disk refuses as before.
        """
        if self._opened is None:
            try:
                self._opened = self._open_it()
            except (StoreError, sqlite3.Error, OSError) as error:
                self._why = str(error)
                raise StoreError(self._why) from None  # whoever failed lets go of its lock
        return self._opened.saved_ledger

    def use(self) -> None:
        """From now on everything goes to disk."""
        if self._opened is not None and self._rows_per_frame:
            self._opened.rows_per_frame = self._rows_per_frame
        self._used = self._opened

    @property
    def rows_per_frame(self) -> int:
        """Rows after which a frame is closed; 0: as the spool has it once it is opened."""
        return self._rows_per_frame if self._used is None else self._used.rows_per_frame

    @rows_per_frame.setter
    def rows_per_frame(self, count: int) -> None:
        self._rows_per_frame = count
        if self._used is not None:
            self._used.rows_per_frame = count

    @property
    def _spool(self) -> Spool:
        if self._used is None:
            raise StoreError(self._why)
        return self._used

    @property
    def saved_ledger(self) -> Page:
        """The energy ledger, as far as it could be read."""
        return self._read if self._used is None else self._used.saved_ledger

    def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point; None before the first one.

        Raises:
            StoreError: it cannot be read: to begin anew would bill twice or not at all.
        """
        if self._used is not None:
            return self._used.last_register(point_id)
        path = self._folder / FILES[SpoolKind.BILLING]
        try:
            if not path.exists():
                return None
            with closing(read_only(path)) as db:
                return billing.newest(db, point_id)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{path}: {error}; look at the disk") from error

    def append(self, row: Row, page: Page | None = None) -> None:
        """Adds a row to the open frame."""
        self._spool.append(row, page)

    def save(self, page: Page) -> None:
        """Puts a page of the ledger on disk."""
        self._spool.save(page)

    def append_registers(self, rows: Sequence[RegisterRow]) -> None:
        """Adds one billing frame."""
        self._spool.append_registers(rows)

    def read(
        self, kind: SpoolKind, after: Seq, limit: int, *, before: Seq | None = None
    ) -> Sequence[SpoolFrame]:
        """The next closed frames of a queue."""
        return self._spool.read(kind, after, limit, before=before)

    def forget(self, kind: SpoolKind, durable_seq: Seq, *, after: Seq | None = None) -> None:
        """Notes what is durable elsewhere."""
        self._spool.forget(kind, durable_seq, after=after)

    def lower(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> None:
        """Takes back what is not durable elsewhere any more."""
        self._spool.lower(kind, there)

    def begin_anew(self, kind: SpoolKind) -> None:
        """A new boot id for a queue."""
        self._spool.begin_anew(kind)

    def go_beyond(self, kind: SpoolKind, there: Sequence[tuple[int, int]]) -> bool:
        """Gives no number again that is durable elsewhere."""
        return self._spool.go_beyond(kind, there)

    def mark(self, kind: SpoolKind) -> SpoolMark:
        """State of a queue."""
        return self._spool.mark(kind)

    def size_bytes(self) -> int:
        """Bytes of telemetry on disk."""
        return self._spool.size_bytes()

    def schemas(self) -> Sequence[Schema]:
        """Every schema that frames may name."""
        return self._spool.schemas()

    def losses(self) -> Sequence[SpoolLoss]:
        """What will never be sent and is not known at the other end."""
        return self._spool.losses()

    def told(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end knows of these numbers."""
        self._spool.told(boot_id, first_seq, last_seq)

    def untold(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """Notes that the other end has forgotten them."""
        self._spool.untold(boot_id, first_seq, last_seq)

    def lose(self, kind: SpoolKind, start_ns: int, end_ns: int) -> None:
        """Gives a number to rows that never came to the disk."""
        self._spool.lose(kind, start_ns, end_ns)

    def heal(self) -> Sequence[SpoolKind]:
        """Makes damaged files anew."""
        return self._spool.heal()

    def stat(self) -> Sequence[QueueStat]:
        """What both queues hold."""
        return self._spool.stat()

    def close_frame(self) -> None:
        """Gives the open rows their number."""
        self._spool.close_frame()

    def close(self) -> None:
        """Frees the files, if there are any."""
        if (spool := self._used or self._opened) is not None:
            spool.close()
