"""Whether a file is what was written: its pages by SQLite, what stands in them by our own sums."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from heatpool.codec import registers_from_bytes
from heatpool.sample import SpoolKind
from heatpool_agent.spool import billing, salvage
from heatpool_agent.spool.salvage import Wreck
from heatpool_agent.spool_files import connect, is_damage, refusal


def is_sound(path: Path, db: sqlite3.Connection | None = None) -> bool:
    """Whether SQLite finds no damage. A disk that is full or read-only is no damage.

    Raises:
        StoreError: the file cannot be looked at; it is left alone.
    """
    try:
        if db is not None:
            return _checks(db)
        with closing(connect(path)) as own:
            return _checks(own)
    except UnicodeDecodeError:
        return False
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            return False
        raise refusal(path.name, error) from error


def _checks(db: sqlite3.Connection) -> bool:
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        return False
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if "meta" not in there:
        return True  # no tables yet
    notes = dict(db.execute("SELECT name, value FROM meta"))
    if "sure" not in notes:
        return True  # of version 3, or quite new
    kind = SpoolKind.TELEMETRY if "schemas" in there else SpoolKind.BILLING
    wreck = Wreck(db, kind)
    if salvage.sure_mark(notes, kind) is None or not all(
        makes_sense(name, value) for name, value in notes.items()
    ):
        return False
    if kind is SpoolKind.TELEMETRY:
        return len(salvage.schema_rows(wreck)) == len(wreck.rows("schemas", "schema_id"))
    return _is_chained(wreck, notes)


def makes_sense(name: str, value: str) -> bool:
    """Whether a word of `meta` can be what was written."""
    if name in ("durable", "offered", "acks"):
        return salvage.can_read(lambda: [(int(one), int(two)) for one, two in json.loads(value)])
    if name == billing.CHAIN:
        return salvage.can_read(bytes.fromhex, value)
    if name.startswith(billing.LAST):
        return salvage.can_read(lambda: registers_from_bytes(bytes.fromhex(value))[0])
    return True


def _is_chained(wreck: Wreck, notes: dict[str, str]) -> bool:
    """Whether the hash that the next row builds upon is that of the newest row."""
    last = int(notes["next_seq"]) - 1
    for frame in wreck.frames(last, last, {}):
        newest = registers_from_bytes(frame.payload)[-1]
        return notes.get(billing.CHAIN) == newest.chain_sha256.hex()
    return True
