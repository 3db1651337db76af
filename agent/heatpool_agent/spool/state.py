"""What the files hold, read without changing a byte: also beside a running agent."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.core import ranges
from heatpool_agent.ports import QueueStat, Seq, SpoolMark
from heatpool_agent.spool_files import FILES, SCHEMA_VERSION, read_only, refusal


def look(folder: Path, kind: SpoolKind) -> QueueStat | None:
    """One queue of a spool that may be in use; None: there is no file.

    Raises:
        StoreError: it cannot be read.
    """
    path = folder / FILES[kind]
    if not path.exists():
        return None
    try:
        with closing(read_only(path)) as db:
            db.execute("BEGIN")
            _check_version(db, path.name)
            return stat_of(db, kind)
    except sqlite3.Error as error:
        raise refusal(path.name, error) from error


def _check_version(db: sqlite3.Connection, name: str) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found < SCHEMA_VERSION:
        fix = "the first start of this agent brings it up to date, nothing in it is lost"
    elif found > SCHEMA_VERSION:
        fix = "a newer agent wrote it, and reads it"
    else:
        return
    raise StoreError(
        f"spool {name}: has version {found}, this program reads {SCHEMA_VERSION}: {fix}"
    )


def stat_of(db: sqlite3.Connection, kind: SpoolKind) -> QueueStat:
    """What an open file holds."""
    notes = dict(db.execute("SELECT name, value FROM meta"))
    mark = SpoolMark(
        kind=kind,
        boot_id=BootId(notes.get("boot_id", "")),
        first_seq=Seq(0),
        next_seq=Seq(int(notes.get("next_seq", 1))),
        durable_seq=Seq(int(notes.get("durable_seq", 0))),
    )
    sql = "SELECT seq, start_ns, coalesce(rows_count, 1), coalesce(step_s, 0), length(payload)"
    held = list(db.execute(f"{sql} FROM frames ORDER BY seq"))
    return _counted(db, mark, held, notes.get("durable", "[]"))


def _counted(
    db: sqlite3.Connection, mark: SpoolMark, held: list[tuple[int, ...]], durable: str
) -> QueueStat:
    beyond = [(int(first), int(last)) for first, last in json.loads(durable)]
    backlog = [
        frame
        for frame in held
        if frame[0] > mark.durable_seq and not ranges.holds(beyond, frame[0])
    ]
    rows_by_step_s: Counter[int] = Counter()
    for _, _, rows_count, step_s, _ in held:
        rows_by_step_s[step_s] += rows_count
    lost: Counter[GapReason] = Counter()
    for reason, count in db.execute(
        "SELECT reason, sum(last_seq - first_seq + 1) FROM losses GROUP BY reason"
    ):
        lost[GapReason(reason)] += count
    return QueueStat(
        mark=replace(mark, first_seq=Seq(held[0][0] if held else mark.next_seq)),
        frames_count=len(held),
        backlog_frames_count=len(backlog),
        backlog_rows_count=sum(frame[2] for frame in backlog),
        backlog_bytes=sum(frame[4] for frame in backlog),
        backlog_start_ns=min((frame[1] for frame in backlog), default=None),
        size_bytes=_size_bytes(db),
        lost_frames_count=dict(lost),
        untold_count=db.execute("SELECT count(*) FROM losses WHERE is_told = 0").fetchone()[0],
        rows_by_step_s=dict(rows_by_step_s),
    )


def _size_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        int(db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size
