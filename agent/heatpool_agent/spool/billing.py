"""Meter registers: one frame at a time, chained by hashes, never rolled up, never dropped."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import msgpack

from heatpool.codec import register_to_list, registers_from_bytes, registers_to_bytes
from heatpool.sample import MeteringPointId, RegisterRow
from heatpool_agent.ports import SpoolMark
from heatpool_agent.spool import twin
from heatpool_agent.spool.file import NewFrame, QueueFile, note, put_note

CHAIN = "chain"
LAST = "last/"


def append(file: QueueFile, rows: Sequence[RegisterRow], beside: SpoolMark) -> None:
    """Adds one frame, synced to the disk when this returns.

    Raises:
        StoreError: the disk did not take it; the rows are not in the spool.
    """
    rows = list(chained(rows, bytes.fromhex(file.note(CHAIN))))
    frame = NewFrame(
        span=(rows[0].event_ns, rows[-1].event_ns),
        payload=registers_to_bytes(rows),
        rows_count=len(rows),
    )
    with file.giving(frame) as db:
        put_notes(db, rows)
        twin.put(db, beside)


def put_notes(db: sqlite3.Connection, rows: Iterable[RegisterRow]) -> None:
    """Writes what the next row builds upon: the newest row of each point, the newest hash."""
    for row in rows:
        put_note(db, f"{LAST}{row.metering_point_id}", registers_to_bytes([row]).hex())
        put_note(db, CHAIN, row.chain_sha256.hex())


def last_register(file: QueueFile, point_id: MeteringPointId) -> RegisterRow | None:
    """The newest row of a metering point; None before the first one."""
    return newest(file.db, point_id)


def newest(db: sqlite3.Connection, point_id: MeteringPointId) -> RegisterRow | None:
    """The same, of a file that need not be writable."""
    found = bytes.fromhex(note(db, f"{LAST}{point_id}"))
    return registers_from_bytes(found)[0] if found else None


def chained(rows: Sequence[RegisterRow], before: bytes) -> Iterator[RegisterRow]:
    """Each row with SHA-256 over the hash before it and its own fields."""
    import hashlib  # noqa: PLC0415  # 0.3 MB that a site without a billing meter can do without

    for row in rows:
        fields = msgpack.packb(register_to_list(replace(row, chain_sha256=b"")))
        before = hashlib.sha256(before + fields).digest()
        yield replace(row, chain_sha256=before)
