"""A file that gave numbers which it knows nothing of: cut short by a power cut, or an older copy.

What it holds it sent under the same numbers; only what it wrote since clashes with what others hold
for good. That gets numbers beyond, and the life of the queue goes on: nothing is sent twice.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from heatpool.sample import GapReason
from heatpool_agent.core import ranges
from heatpool_agent.core.ranges import Range
from heatpool_agent.ports import Seq, SpoolMark
from heatpool_agent.spool import frames
from heatpool_agent.spool.file import QueueFile, new_boot_id, put_mark, put_note
from heatpool_agent.spool.frames import COLUMNS

# Numbers that may still be on their way to the other end.
SPARE_COUNT = 1_000
SEQ_MOST = 2**61


def clashes(file: QueueFile, there: Sequence[Range]) -> list[int]:
    """Frames that were never handed out, under numbers that are durable elsewhere."""
    known = ranges.of_pairs([*file.offered, *file.durable])
    found: list[int] = []
    for first, last in there:
        rows = file.db.execute(
            "SELECT seq FROM frames WHERE seq BETWEEN ? AND ? ORDER BY seq",
            (max(first, file.mark.durable_seq + 1), min(last, SEQ_MOST)),
        )
        found += [seq for (seq,) in rows if not ranges.holds(known, seq)]
    return found


def go_beyond(file: QueueFile, there: Sequence[Range]) -> bool:
    """Gives no number again that is durable elsewhere; False: none was, and nothing changed.

    Raises:
        StoreError: the disk did not take it; nothing changed.
    """
    newest = max((last for _, last in there), default=0)
    clash = clashes(file, there)
    if newest < file.mark.next_seq and not clash:
        return False
    first = min(clash, default=int(file.mark.next_seq))
    moving = [seq for (seq,) in file.db.execute("SELECT seq FROM frames WHERE seq >= ?", (first,))]
    if newest > SEQ_MOST or any(ranges.holds(file.offered, seq) for seq in moving):
        begin_anew(file)
    else:
        _move(file, sorted(moving), newest)
    return True


def _move(file: QueueFile, moving: Sequence[int], newest: int) -> None:
    begin = max(newest + 1, file.mark.next_seq) + SPARE_COUNT
    mark = replace(file.mark, next_seq=Seq(begin + len(moving)))
    with file.commit() as db:
        for new, old in enumerate(moving, begin):
            _renumber(db, old, new)
        put_mark(db, mark)
        for numbers in _left_out(file, newest + 1, begin - 1):
            file.put_loss(db, file.loss(numbers, GapReason.UNUSED))
    file.mark = mark
    file.note_oldest()


def _left_out(file: QueueFile, first: int, last: int) -> list[Range]:
    """Numbers that are no loss of rows: what had one of them has another now, or none had it."""
    known = ((loss.first_seq, loss.last_seq) for loss in file.losses_between(first, last))
    return list(ranges.holes(ranges.of_pairs(known), first, last))


def begin_anew(file: QueueFile) -> None:
    """A new boot id; frames keep their order and are numbered from 1.

    Raises:
        StoreError: the disk did not take it; nothing changed.
    """
    numbers = [seq for (seq,) in file.db.execute("SELECT seq FROM frames ORDER BY seq")]
    mark = SpoolMark(
        kind=file.kind,
        boot_id=new_boot_id(),
        first_seq=Seq(1),
        next_seq=Seq(len(numbers) + 1),
        durable_seq=Seq(0),
    )
    with file.commit() as db:
        # Downwards and oldest first: no number meets another on the way.
        for new, old in enumerate(numbers, 1):
            _renumber(db, old, new)
        put_mark(db, mark)
        for name in ("offered", "durable", "acks"):
            put_note(db, name, "[]")
    file.mark, file.offered, file.durable = mark, (), ()


def _renumber(db: sqlite3.Connection, old: int, new: int) -> None:
    row = db.execute(f"SELECT {COLUMNS} FROM frames WHERE seq = ?", (old,)).fetchone()
    frame = frames.from_row(row)
    # What the disk spoiled keeps its wrong sum, and is found when it is read.
    is_sound = frame.codec is not None and frame.check_sum == frames.sum_of(frame)
    check_sum = frames.sum_of(replace(frame, seq=Seq(new))) if is_sound else frame.check_sum
    db.execute("UPDATE frames SET seq = ?, check_sum = ? WHERE seq = ?", (new, check_sum, old))
