"""The agent's queue on disk: frames under gap-free numbers, in two SQLite files.

`telemetry.db` may lose its last commits in a power cut (NORMAL); `billing.db` may not (FULL), and
damage to one cannot touch the other. A kill loses nothing of either. Nothing is ever changed under
a number once given. The tables are made by `spool_schema`.
"""

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgpack

from heatpool.codec import (
    columns_to_bytes,
    pack,
    register_to_list,
    registers_from_bytes,
    registers_to_bytes,
)
from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import (
    BootId,
    Channel,
    GapReason,
    MeteringPointId,
    RegisterRow,
    Row,
    Schema,
    SpoolKind,
)
from heatpool_agent.core import ledger_rows
from heatpool_agent.core.ledger import GapRecord, Page
from heatpool_agent.ports import Clock, Seq, SpoolFrame, SpoolLoss, SpoolMark
from heatpool_agent.spool_files import FILES, exclusive, kernel_boot_id, open_file, refusal

logger = logging.getLogger(__name__)

BILLING_KEEP_S = 2 * 366 * 86_400  # claims are limited to two years (physics.md 17)
# Deleting below the bound in steps keeps the cost of a full spool per row small.
DROP_FRAMES = 100
# A counter that falls every second must not fill the disk; its sum is in its account.
GAPS_KEPT = 10_000
STEPS_KEPT = 1_000
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
        self._clock = clock
        self._rows_per_frame = rows_per_frame
        self._max_bytes = max_bytes
        self._keep_s = keep_s
        self._lock = exclusive(folder)
        self._db = {kind: open_file(folder / name, kind) for kind, name in FILES.items()}
        self._marks = {kind: self._first_mark(kind) for kind in FILES}
        self._schemas = self._stored_schemas()
        self._open_rows = self._stored_rows()
        self.saved_ledger = self._stored_ledger()
        self.kernel_boot_id = kernel_boot_id()

    def _first_mark(self, kind: SpoolKind) -> SpoolMark:
        meta = dict(self._db[kind].execute("SELECT name, value FROM meta"))
        if "boot_id" not in meta:
            meta = {"boot_id": os.urandom(8).hex(), "next_seq": "1", "durable_seq": "0"}
            with self._commit(kind) as db:
                db.executemany("INSERT INTO meta(name, value) VALUES (?, ?)", meta.items())
        oldest = self._db[kind].execute("SELECT min(seq) FROM frames").fetchone()[0]
        return SpoolMark(
            kind=kind,
            boot_id=BootId(meta["boot_id"]),
            first_seq=Seq(oldest or int(meta["next_seq"])),
            next_seq=Seq(int(meta["next_seq"])),
            durable_seq=Seq(int(meta["durable_seq"])),
        )

    def _stored_schemas(self) -> list[Schema]:
        rows = self._db[SpoolKind.TELEMETRY].execute(
            "SELECT schema_id, channels FROM schemas ORDER BY schema_id"
        )
        boot_id = self._marks[SpoolKind.TELEMETRY].boot_id
        return [
            Schema(
                schema_id=schema_id,
                boot_id=boot_id,
                channels=tuple(Channel(*fields) for fields in msgpack.unpackb(channels)),
            )
            for schema_id, channels in rows
        ]

    def _stored_rows(self) -> list[Row]:
        rows = self._db[SpoolKind.TELEMETRY].execute(
            "SELECT event_ns, cells FROM open_rows ORDER BY event_ns"
        )
        return [_row(event_ns, cells) for event_ns, cells in rows]

    def _stored_ledger(self) -> Page:
        self._tidy(self._forget_gaps)
        db = self._db[SpoolKind.TELEMETRY]
        accounts = db.execute(ledger_rows.select("ledger", ledger_rows.ACCOUNT))
        steps = db.execute(ledger_rows.select("clock_steps", ledger_rows.STEP))
        estimators = db.execute(ledger_rows.select("estimators", ledger_rows.ESTIMATOR))
        clock = db.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone()
        return Page(
            accounts=tuple(map(ledger_rows.account_of, accounts)),
            steps=tuple(map(ledger_rows.step_of, steps)),
            clock=ledger_rows.clock_of(clock[0]) if clock else None,
            estimators=tuple(map(ledger_rows.estimator_of, estimators)),
        )

    def gaps(self, limit: int) -> Sequence[GapRecord]:
        """The newest gaps of all counters, oldest first."""
        rows = self._db[SpoolKind.TELEMETRY].execute(
            f"{ledger_rows.select('ledger_gaps', ledger_rows.GAP)} DESC LIMIT ?", (limit,)
        )
        return [ledger_rows.gap_of(row) for row in rows][::-1]

    def save(self, page: Page) -> None:
        """Puts a page of the ledger on disk, whole.

        Raises:
            StoreError: the disk did not take it; nothing of it is there.
        """
        with self._commit(SpoolKind.TELEMETRY) as db:
            _put(db, page)

    def append(self, row: Row, page: Page | None = None) -> None:
        """Adds a row to the open frame, which closes when it is full or its channels change.

        A page of the ledger goes with it: both are there, or neither.

        Raises:
            StoreError: the disk did not take it; the row is not in the spool.
        """
        if self._open_rows and not row.cells.keys() <= self._open_channels():
            self.close_frame()
        cells = msgpack.packb(
            [[c.loop_id, c.quantity, c.exponent, v] for c, v in row.cells.items()]
        )
        with self._commit(SpoolKind.TELEMETRY) as db:
            db.execute("INSERT OR REPLACE INTO open_rows VALUES (?, ?)", (row.event_ns, cells))
            if page is not None:
                _put(db, page)
        self._open_rows = [*(r for r in self._open_rows if r.event_ns != row.event_ns), row]
        if len(self._open_rows) >= self._rows_per_frame:
            self.close_frame()

    def _open_channels(self) -> set[Channel]:
        known = self._schemas[-1].channels if self._schemas else ()
        return {*known, *(channel for row in self._open_rows for channel in row.cells)}

    def close_frame(self) -> None:
        """Gives the open rows their number, so that they can be sent.

        Raises:
            StoreError: the disk did not take it; the rows stay open.
        """
        if not self._open_rows:
            return
        schema = self._schema_for(self._open_rows)
        columns = pack(self._open_rows, schema.channels, schema_id=schema.schema_id)
        span = (self._open_rows[0].event_ns, self._open_rows[-1].event_ns)
        with self._commit(SpoolKind.TELEMETRY) as db:
            self._number(db, SpoolKind.TELEMETRY, span, columns_to_bytes(columns))
            db.execute("DELETE FROM open_rows")
        self._open_rows = []
        self._note_given(SpoolKind.TELEMETRY)
        self._tidy(self._forget_gaps, self._make_room)

    def _tidy(self, *acts: Callable[[], None]) -> None:
        """Makes room; what the disk refuses is tried again after the next frame."""
        try:
            for act in acts:
                act()
        except (StoreError, sqlite3.Error) as error:
            # The frame is on disk: an error now would have it written twice.
            logger.warning("spool.no_room_made", extra=facts(reason=str(error)))

    def _forget_gaps(self) -> None:
        """Drops the oldest gaps and clock steps: their sums and their ends are in the accounts."""
        for table, kept in (("ledger_gaps", GAPS_KEPT), ("clock_steps", STEPS_KEPT)):
            newest = f"SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT 1 OFFSET {kept}"
            if found := self._db[SpoolKind.TELEMETRY].execute(newest).fetchone():
                with self._commit(SpoolKind.TELEMETRY) as db:
                    db.execute(f"DELETE FROM {table} WHERE rowid <= ?", found)

    def _schema_for(self, rows: Sequence[Row]) -> Schema:
        """The newest schema if it holds every channel, else a new one that adds them."""
        known = self._schemas[-1].channels if self._schemas else ()
        new = sorted({channel for row in rows for channel in row.cells} - set(known))
        if known and not new:
            return self._schemas[-1]
        schema = Schema(
            schema_id=len(self._schemas) + 1,
            boot_id=self._marks[SpoolKind.TELEMETRY].boot_id,
            channels=(*known, *new),
        )
        channels = msgpack.packb([[c.loop_id, c.quantity, c.exponent] for c in schema.channels])
        with self._commit(SpoolKind.TELEMETRY) as db:
            db.execute("INSERT INTO schemas VALUES (?, ?)", (schema.schema_id, channels))
        self._schemas.append(schema)
        return schema

    def append_registers(self, rows: Sequence[RegisterRow]) -> None:
        """Adds one billing frame, hash-chained to the one before, synced when this returns.

        Raises:
            StoreError: the disk did not take it; the rows are not in the spool.
        """
        chained = list(_chained(rows, self._note("chain")))
        span = (rows[0].event_ns, rows[-1].event_ns)
        with self._commit(SpoolKind.BILLING) as db:
            self._number(db, SpoolKind.BILLING, span, registers_to_bytes(chained))
            notes = {f"last/{row.metering_point_id}": registers_to_bytes([row]) for row in chained}
            notes["chain"] = chained[-1].chain_sha256
            db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                [(name, note.hex()) for name, note in notes.items()],
            )
        self._note_given(SpoolKind.BILLING)

    def last_register(self, point_id: MeteringPointId) -> RegisterRow | None:
        """The newest row of a metering point; None before the first one."""
        found = self._note(f"last/{point_id}")
        return registers_from_bytes(found)[0] if found else None

    def _note(self, name: str) -> bytes:
        db = self._db[SpoolKind.BILLING]
        found = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return bytes.fromhex(found[0]) if found else b""

    def _number(
        self, db: sqlite3.Connection, kind: SpoolKind, span: tuple[int, int], payload: bytes
    ) -> None:
        seq = self._marks[kind].next_seq
        db.execute("INSERT INTO frames VALUES (?, ?, ?, ?)", (seq, *span, payload))
        db.execute("UPDATE meta SET value = ? WHERE name = 'next_seq'", (str(seq + 1),))

    def _note_given(self, kind: SpoolKind) -> None:
        mark = self._marks[kind]
        self._marks[kind] = replace(mark, next_seq=Seq(mark.next_seq + 1))

    def read(self, kind: SpoolKind, after: Seq, limit: int) -> Sequence[SpoolFrame]:
        """The next closed frames of a queue, oldest first."""
        rows = self._db[kind].execute(
            "SELECT seq, payload FROM frames WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        )
        boot_id = self._marks[kind].boot_id
        return [
            SpoolFrame(kind=kind, boot_id=boot_id, seq=Seq(seq), payload=payload)
            for seq, payload in rows
        ]

    def forget(self, kind: SpoolKind, durable_seq: Seq) -> None:
        """Notes what is durable elsewhere; frames go `keep_s` after their event time.

        Raises:
            StoreError: the disk did not take it; the frames will be sent once more.
        """
        mark = self._marks[kind]
        if not mark.durable_seq < durable_seq < mark.next_seq:
            return
        keep_s = BILLING_KEEP_S if kind is SpoolKind.BILLING else self._keep_s
        oldest_ns = self._clock.event_ns() - int(keep_s * _NS)
        with self._commit(kind) as db:
            db.execute("UPDATE meta SET value = ? WHERE name = 'durable_seq'", (str(durable_seq),))
            db.execute("DELETE FROM frames WHERE seq <= ? AND end_ns < ?", (durable_seq, oldest_ns))
        self._marks[kind] = replace(mark, durable_seq=durable_seq, first_seq=self._oldest(kind))

    def begin_anew(self, kind: SpoolKind) -> None:
        """A new boot id for a queue; its frames keep their order and are numbered from 1.

        Losses name numbers of the boot id before, and go with it.
        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        boot_id = BootId(os.urandom(8).hex())
        found = self._db[kind].execute("SELECT seq FROM frames ORDER BY seq").fetchall()
        meta = {"boot_id": boot_id, "next_seq": str(len(found) + 1), "durable_seq": "0"}
        with self._commit(kind) as db:
            # Downwards and oldest first: no number meets another on the way.
            renumbered = [(new, old) for new, (old,) in enumerate(found, 1)]
            db.executemany("UPDATE frames SET seq = ? WHERE seq = ?", renumbered)
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
            if kind is SpoolKind.TELEMETRY:
                db.execute("DELETE FROM losses")
        self._marks[kind] = self._first_mark(kind)
        if kind is SpoolKind.TELEMETRY:
            self._schemas = [replace(schema, boot_id=boot_id) for schema in self._schemas]

    def _oldest(self, kind: SpoolKind) -> Seq:
        oldest = self._db[kind].execute("SELECT min(seq) FROM frames").fetchone()[0]
        return Seq(oldest or self._marks[kind].next_seq)

    def _make_room(self) -> None:
        """Drops the oldest telemetry above the bound; what was not durable becomes a loss."""
        kind = SpoolKind.TELEMETRY
        if self.size_bytes() <= self._max_bytes:
            return
        rows = self._db[kind].execute(
            "SELECT seq, start_ns, end_ns FROM frames ORDER BY seq LIMIT ?", (DROP_FRAMES,)
        )
        oldest = rows.fetchall()
        if not oldest:
            return
        lost = [row for row in oldest if row[0] > self._marks[kind].durable_seq]
        with self._commit(kind) as db:
            db.execute("DELETE FROM frames WHERE seq <= ?", (oldest[-1][0],))
            if lost:
                db.execute(
                    "INSERT INTO losses VALUES (?, ?, ?, ?, ?)",
                    (lost[0][0], lost[-1][0], int(GapReason.DROPPED), lost[0][1], lost[-1][2]),
                )
        self._marks[kind] = replace(self._marks[kind], first_seq=self._oldest(kind))

    def losses(self) -> Sequence[SpoolLoss]:
        """Telemetry that will never be sent and was not reported yet."""
        rows = self._db[SpoolKind.TELEMETRY].execute("SELECT * FROM losses ORDER BY first_seq")
        boot_id = self._marks[SpoolKind.TELEMETRY].boot_id
        return [
            SpoolLoss(
                kind=SpoolKind.TELEMETRY,
                boot_id=boot_id,
                first_seq=Seq(first),
                last_seq=Seq(last),
                reason=GapReason(reason),
                start_ns=start_ns,
                end_ns=end_ns,
            )
            for first, last, reason, start_ns, end_ns in rows
        ]

    def size_bytes(self) -> int:
        """Bytes of telemetry on disk, pages to be used again left out."""
        db = self._db[SpoolKind.TELEMETRY]
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def mark(self, kind: SpoolKind) -> SpoolMark:
        """State of a queue."""
        return self._marks[kind]

    def schemas(self) -> Sequence[Schema]:
        """Every schema that frames of the present boot id may name."""
        return tuple(self._schemas)

    def close(self) -> None:
        """Closes the open frame and frees the files."""
        try:
            self.close_frame()
        finally:
            for db in self._db.values():
                db.close()
            self._lock.close()

    @contextmanager
    def _commit(self, kind: SpoolKind) -> Iterator[sqlite3.Connection]:
        db = self._db[kind]
        try:
            with db:
                db.execute("BEGIN")
                yield db
        except sqlite3.Error as error:
            raise refusal(FILES[kind], error) from error


def _put(db: sqlite3.Connection, page: Page) -> None:
    for statement, rows in ledger_rows.puts(page):
        db.executemany(statement, rows)


def _row(event_ns: int, cells: bytes) -> Row:
    return Row(event_ns=event_ns, cells={Channel(*f[:3]): f[3] for f in msgpack.unpackb(cells)})


def _chained(rows: Sequence[RegisterRow], before: bytes) -> Iterator[RegisterRow]:
    """Each row with SHA-256 over the hash before it and its own fields."""
    for row in rows:
        fields = msgpack.packb(register_to_list(replace(row, chain_sha256=b"")))
        before = hashlib.sha256(before + fields).digest()
        yield replace(row, chain_sha256=before)
