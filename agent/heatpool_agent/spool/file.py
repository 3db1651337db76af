"""One file of the spool: its numbers and what is known of them, its frames, its losses."""

import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from heatpool.errors import StoreError, WireError
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.core import ranges
from heatpool_agent.core.ranges import Range
from heatpool_agent.ports import Seq, SpoolFrame, SpoolLoss, SpoolMark
from heatpool_agent.spool import frames
from heatpool_agent.spool.frames import COLUMNS, Stored
from heatpool_agent.spool_files import FILES, open_file, refusal

RANGES_KEPT = 64
TOLD_KEPT = 1_000
ACKS_KEPT = 200
# How finely it is remembered when what became durable: rows stay at least `keep_s` behind that.
ACK_STEP_NS = 3_600_000_000_000
_LOSS = "boot_id, first_seq, last_seq, reason, start_ns, end_ns, is_told"


@dataclass(frozen=True, slots=True)
class NewFrame:
    """What is to get the next number."""

    span: tuple[int, int]
    payload: bytes
    rows_count: int
    step_s: int = 0


class QueueFile:
    """A queue on disk. Nothing is ever changed under a number that was read."""

    def __init__(self, path: Path, kind: SpoolKind) -> None:
        self.path = path
        self.kind = kind
        self.db = open_file(path, kind)
        self.mark = self._first_mark()
        self.offered = self._ranges("offered")
        self.durable = self._ranges("durable")
        self._unsaved_offered = False

    def _first_mark(self) -> SpoolMark:
        boot_id, next_seq = self.note("boot_id"), self.note("next_seq")
        if not boot_id:
            boot_id, next_seq = new_boot_id(), "1"
            fresh = SpoolMark(
                kind=self.kind,
                boot_id=boot_id,
                first_seq=Seq(1),
                next_seq=Seq(1),
                durable_seq=Seq(0),
            )
            with self.commit() as db:
                put_mark(db, fresh)
        mark = SpoolMark(
            kind=self.kind,
            boot_id=BootId(boot_id),
            first_seq=Seq(1),
            next_seq=Seq(int(next_seq)),
            durable_seq=Seq(int(self.note("durable_seq") or 0)),
        )
        return replace(mark, first_seq=self._oldest(mark))

    def _oldest(self, mark: SpoolMark) -> Seq:
        oldest = self.db.execute("SELECT min(seq) FROM frames").fetchone()[0]
        return Seq(oldest or mark.next_seq)

    def note(self, name: str) -> str:
        """A word of table `meta`; empty where there is none."""
        return note(self.db, name)

    def _ranges(self, name: str) -> tuple[Range, ...]:
        return tuple((first, last) for first, last in json.loads(self.note(name) or "[]"))

    @contextmanager
    def commit(self) -> Iterator[sqlite3.Connection]:
        """One transaction.

        Raises:
            StoreError: the disk did not take it; nothing of it is there.
        """
        try:
            with self.db:
                self.db.execute("BEGIN")
                yield self.db
        except sqlite3.Error as error:
            raise refusal(FILES[self.kind], error) from error

    @contextmanager
    def giving(self, frame: NewFrame) -> Iterator[sqlite3.Connection]:
        """One transaction that gives a frame its number; it has none if this raises.

        Raises:
            StoreError: the disk did not take it.
        """
        seq = self.mark.next_seq
        given = frames.stored(
            seq, frame.span, frame.payload, rows_count=frame.rows_count, step_s=frame.step_s
        )
        mark = replace(self.mark, next_seq=Seq(seq + 1))
        with self.commit() as db:
            put_frame(db, given)
            put_mark(db, mark)
            yield db
        self.mark = mark

    def lose(self, start_ns: int, end_ns: int) -> None:
        """Gives a number to rows that never came to the disk, and says that they are dropped.

        Raises:
            StoreError: the disk did not take it.
        """
        seq = self.mark.next_seq
        mark = replace(self.mark, next_seq=Seq(seq + 1))
        with self.commit() as db:
            put_mark(db, mark)
            self.put_loss(db, self.loss((seq, seq), GapReason.DROPPED, start_ns, end_ns))
        self.mark = replace(mark, first_seq=self._oldest(mark))

    def read(self, after: Seq, limit: int, before: Seq | None) -> list[SpoolFrame]:
        """The next frames behind `after`; from now on they count as sent."""
        rows = self.db.execute(
            f"SELECT {COLUMNS} FROM frames WHERE seq > ? AND seq < ? ORDER BY seq LIMIT ?",
            (after, before if before is not None else self.mark.next_seq, limit),
        ).fetchall()
        if rows:
            self._offer(rows[0][0], rows[-1][0])
        return [self._checked(row) for row in rows]

    def _checked(self, row: tuple[object, ...]) -> SpoolFrame:
        try:
            found = frames.from_row(row)
            payload = found.payload
        except WireError:
            payload = b""
        seq = Seq(int(str(row[0])))
        if not payload:
            self.set_aside(seq)
        return SpoolFrame(kind=self.kind, boot_id=self.mark.boot_id, seq=seq, payload=payload)

    def set_aside(self, seq: Seq) -> None:
        """A frame that the disk spoiled becomes a loss, with what was rolled up into it."""
        inside = self._losses(
            "boot_id = ? AND first_seq = ? AND reason = ?",
            self.mark.boot_id,
            seq + 1,
            int(GapReason.ROLLED_UP),
        )
        last = inside[0].last_seq if inside else seq
        with self.commit() as db:
            db.execute("DELETE FROM frames WHERE seq = ?", (seq,))
            self.put_loss(db, self.loss((seq, last), GapReason.DAMAGED))
        self.note_oldest()

    def note_oldest(self) -> None:
        """Looks which frame is the oldest now."""
        self.mark = replace(self.mark, first_seq=self._oldest(self.mark))

    def _offer(self, first: int, last: int) -> None:
        if ranges.holds(self.offered, first, last) and not self._unsaved_offered:
            return
        known = ranges.above(ranges.added(self.offered, first, last), self.mark.durable_seq)
        self.offered = ranges.fewer(known, RANGES_KEPT)
        self._unsaved_offered = True
        try:
            with self.commit() as db:
                put_note(db, "offered", json.dumps(self.offered))
        except StoreError:
            return  # a disk that takes nothing rolls nothing up either; the next read saves it
        self._unsaved_offered = False

    def forget(self, durable_seq: Seq, after: Seq | None, *, at_ns: int, keep_ns: int) -> None:
        """Notes what is durable elsewhere; what was so for `keep_ns` goes.

        Raises:
            StoreError: the disk did not take it; the frames will be sent once more.
        """
        mark = self.mark
        first = 1 if after is None else after + 1
        if not mark.durable_seq < durable_seq < mark.next_seq or first > durable_seq:
            return
        known = ranges.added(self.durable, first, durable_seq)
        known = ranges.added(known, 0, max(mark.durable_seq, 0))
        reached = Seq(known[0][1])
        mark = replace(mark, durable_seq=reached)
        acks = self._acks(at_ns, reached)
        old = max((seq for acked_ns, seq in acks if acked_ns <= at_ns - keep_ns), default=0)
        beyond = ranges.above(known, reached)[-RANGES_KEPT:]
        with self.commit() as db:
            put_mark(db, mark)
            put_note(db, "durable", json.dumps(beyond))
            put_note(db, "acks", json.dumps(acks))
            db.execute("DELETE FROM frames WHERE seq <= ?", (old,))
        self.durable = beyond
        self.mark = replace(mark, first_seq=self._oldest(mark))

    def lower(self, there: Sequence[Range]) -> None:
        """Takes back what is not among these, which is all that is durable elsewhere.

        Its time begins anew once it is durable again.

        Raises:
            StoreError: the disk did not take it; nothing changed.
        """
        mark, known = self.mark, ranges.of_pairs(there)
        reached = mark.durable_seq
        for first, last in ranges.holes(known, mark.first_seq, mark.durable_seq):
            held = "SELECT min(seq) FROM frames WHERE seq BETWEEN ? AND ?"
            if (missing := self.db.execute(held, (first, last)).fetchone()[0]) is not None:
                reached = Seq(missing - 1)
                break
        before = ranges.of_pairs([(0, mark.durable_seq), *self.durable])
        beyond = ranges.above(ranges.both(before, known), reached)[-RANGES_KEPT:]
        if (reached, beyond) == (mark.durable_seq, self.durable):
            return
        acks = [(ns, min(seq, reached)) for ns, seq in json.loads(self.note("acks") or "[]")]
        mark = replace(mark, durable_seq=reached)
        with self.commit() as db:
            put_mark(db, mark)
            put_note(db, "durable", json.dumps(beyond))
            put_note(db, "acks", json.dumps(acks))
        self.mark, self.durable = mark, beyond

    def _acks(self, at_ns: int, reached: int) -> list[tuple[int, int]]:
        """When what was durable, about once an hour, oldest first."""
        known = [(acked_ns, seq) for acked_ns, seq in json.loads(self.note("acks") or "[]")]
        if known and 0 <= at_ns - known[-1][0] < ACK_STEP_NS and len(known) > 1:
            before = known[-2]
            # The newest stands for its whole hour: it says when the last of it was durable.
            if at_ns - before[0] < ACK_STEP_NS:
                known.pop()
        return [*known, (at_ns, reached)][-ACKS_KEPT:]

    def told(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """The other end knows of these numbers: losses within are done, and some are kept."""
        within = "boot_id = ? AND first_seq >= ? AND last_seq <= ? AND is_told = 0"
        which = (boot_id, first_seq, last_seq)
        if not self._losses(f"{within} LIMIT 1", *which):
            return
        with self.commit() as db:
            db.execute(f"UPDATE losses SET is_told = 1 WHERE {within}", which)
            db.execute(
                "DELETE FROM losses WHERE is_told = 1 AND rowid <= (SELECT rowid FROM losses"
                f" WHERE is_told = 1 ORDER BY rowid DESC LIMIT 1 OFFSET {TOLD_KEPT})"
            )

    def untold(self, boot_id: BootId, first_seq: Seq, last_seq: Seq) -> None:
        """The other end has forgotten these numbers: losses that touch them are not done."""
        touching = "boot_id = ? AND last_seq >= ? AND first_seq <= ? AND is_told = 1"
        which = (boot_id, first_seq, last_seq)
        if self._losses(f"{touching} LIMIT 1", *which):
            with self.commit() as db:
                db.execute(f"UPDATE losses SET is_told = 0 WHERE {touching}", which)

    def losses(self) -> list[SpoolLoss]:
        """What is not known at the other end, oldest life first."""
        return self._losses("is_told = 0 ORDER BY boot_id, first_seq")

    def losses_between(self, first: int, last: int) -> list[SpoolLoss]:
        """Losses of the present life that touch these numbers, told or not."""
        where = "boot_id = ? AND last_seq >= ? AND first_seq <= ?"
        return self._losses(where, self.mark.boot_id, first, last)

    def _losses(self, where: str, *values: object) -> list[SpoolLoss]:
        rows = self.db.execute(f"SELECT {_LOSS} FROM losses WHERE {where}", values)
        return [
            SpoolLoss(
                kind=self.kind,
                boot_id=BootId(boot_id),
                first_seq=Seq(first),
                last_seq=Seq(last),
                reason=GapReason(reason),
                start_ns=start_ns,
                end_ns=end_ns,
            )
            for boot_id, first, last, reason, start_ns, end_ns, _ in rows
        ]

    def loss(
        self,
        numbers: Range,
        reason: GapReason,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> SpoolLoss:
        """Numbers of the present life that will never be sent."""
        return SpoolLoss(
            kind=self.kind,
            boot_id=self.mark.boot_id,
            first_seq=Seq(numbers[0]),
            last_seq=Seq(numbers[1]),
            reason=reason,
            start_ns=start_ns,
            end_ns=end_ns,
        )

    def put_loss(self, db: sqlite3.Connection, loss: SpoolLoss) -> None:
        """Adds a loss; what it holds of others, and a neighbour of its kind, become part of it."""
        for one in self.losses_between(loss.first_seq - 1, loss.last_seq + 1):
            inside = loss.first_seq <= one.first_seq and one.last_seq <= loss.last_seq
            if inside or one.reason is loss.reason:
                loss = _joined(loss, one)
                db.execute(
                    "DELETE FROM losses WHERE boot_id = ? AND first_seq = ?",
                    (one.boot_id, one.first_seq),
                )
        put_loss(db, loss)

    def size_bytes(self) -> int:
        """Bytes in use, pages to be used again left out."""
        return int((self.pragma("page_count") - self.free_pages()) * self.pragma("page_size"))

    def free_pages(self) -> int:
        """Pages of the file that hold nothing and are to be used again."""
        return self.pragma("freelist_count")

    def pragma(self, name: str) -> int:
        """A figure of SQLite's."""
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])


def new_boot_id() -> BootId:
    """A life that nobody had before."""
    return BootId(os.urandom(8).hex())


def put_frame(db: sqlite3.Connection, frame: Stored) -> None:
    """Writes a frame under its number."""
    db.execute(f"INSERT INTO frames ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", frame.fields())


def note(db: sqlite3.Connection, name: str) -> str:
    """A word of table `meta`; empty where there is none."""
    found = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return str(found[0]) if found else ""


def put_note(db: sqlite3.Connection, name: str, value: str) -> None:
    """Writes a word of table `meta`."""
    db.execute("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", (name, value))


def put_mark(db: sqlite3.Connection, mark: SpoolMark) -> None:
    """Writes who the queue is and how far, with a check sum over it."""
    words = (mark.boot_id, str(mark.next_seq), str(mark.durable_seq))
    names = ("boot_id", "next_seq", "durable_seq")
    notes = [*zip(names, words, strict=True), ("sure", mark_sum(*words))]
    db.executemany("INSERT OR REPLACE INTO meta(name, value) VALUES (?, ?)", notes)


def mark_sum(boot_id: str, next_seq: str, durable_seq: str) -> str:
    """Check sum over what `meta` says of the numbers."""
    return str(zlib.crc32(f"{boot_id} {next_seq} {durable_seq}".encode()))


def put_loss(db: sqlite3.Connection, loss: SpoolLoss, *, is_told: int = 0) -> None:
    """Writes a loss as it is."""
    db.execute(
        f"INSERT OR REPLACE INTO losses ({_LOSS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            loss.boot_id,
            loss.first_seq,
            loss.last_seq,
            int(loss.reason),
            loss.start_ns,
            loss.end_ns,
            is_told,
        ),
    )


def _joined(loss: SpoolLoss, other: SpoolLoss) -> SpoolLoss:
    starts = [ns for ns in (loss.start_ns, other.start_ns) if ns is not None]
    ends = [ns for ns in (loss.end_ns, other.end_ns) if ns is not None]
    return replace(
        loss,
        first_seq=min(loss.first_seq, other.first_seq),
        last_seq=max(loss.last_seq, other.last_seq),
        start_ns=min(starts, default=None),
        end_ns=max(ends, default=None),
    )
