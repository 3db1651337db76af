"""A damaged file made anew out of what can be read of it; whatever is lost is told.

The new file is whole before the old one is moved aside: a kill at any moment either leaves the
old one in its place, to be healed again, or finds the new one whole and goes on.
"""

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.sample import Row, Schema, SpoolKind
from heatpool_agent.core.ranges import Range
from heatpool_agent.ports import SpoolMark
from heatpool_agent.spool import salvage, swap, tables, twin
from heatpool_agent.spool.salvage import Wreck
from heatpool_agent.spool.sound import is_sound
from heatpool_agent.spool_files import (
    FILES,
    SCHEMA_VERSION,
    connect,
    exclusive,
    mark_closed,
    refusal,
    schema_version,
    without_wal,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What memory knows of a file better than its pages."""

    mark: SpoolMark
    durable: tuple[Range, ...] = ()
    schemas: tuple[Schema, ...] = ()
    open_rows: tuple[Row, ...] = ()


def heal_folder(folder: Path, *, at_ns: int) -> Sequence[SpoolKind]:
    """Heals what SQLite cannot trust of a spool that nobody has open; which files it was.

    Raises:
        StoreError: a file cannot be looked at, or is of a newer version; it is left alone.
    """
    with closing(exclusive(folder)) as lock:
        behind = without_wal(lock, folder)
        if not behind:
            mark_closed(lock)  # to look at a file removes what lies beside it
        broken = [kind for kind in FILES if _is_broken(folder / FILES[kind]) or kind in behind]
        for kind in broken:
            heal(folder, kind, known=None, at_ns=at_ns, is_behind=kind in behind)
        mark_closed(lock)
    return broken


def _is_broken(path: Path) -> bool:
    if swap.is_whole(swap.new_of(path)):
        swap.swap(path)
    swap.unlink(swap.new_of(path))
    return path.exists() and not is_sound(path)


def heal(
    folder: Path, kind: SpoolKind, *, known: Known | None, at_ns: int, is_behind: bool = False
) -> None:
    """Replaces a damaged file by one with all that can be read of it; the old one stays aside.

    One that is behind gave numbers that it knows nothing of: its life ends here.

    Raises:
        StoreError: there is no room for the new file; the old one stays in its place.
    """
    from heatpool_agent.spool.healing import Healing  # noqa: PLC0415  # for the few that are damaged

    path = folder / FILES[kind]
    if _version(path) > SCHEMA_VERSION:
        raise StoreError(f"{path} was written by a newer heatpool; upgrade this one")
    beside = twin.mark_of(_twin_text(folder, kind), kind)
    new = swap.new_of(path)
    swap.unlink(new)
    try:
        with closing(connect(path)) as old:
            with closing(connect(new)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN")
                tables.make(db, kind)
                healing = Healing(Wreck(old, kind), db, known=known, beside=beside, at_ns=at_ns)
                healing.run(is_behind=is_behind)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.execute("COMMIT")
    except sqlite3.Error as error:
        swap.unlink(new)
        raise refusal(new.name, error) from error
    aside = swap.swap(path)
    logger.error("spool.damaged", extra=facts(kept_as=aside, now="a new file goes on"))


def _version(path: Path) -> int:
    try:
        return schema_version(path)
    except salvage.UNREADABLE:
        return 0


def _twin_text(folder: Path, kind: SpoolKind) -> str:
    other = next(one for one in FILES if one is not kind)
    try:
        with closing(connect(folder / FILES[other])) as db:
            found = db.execute("SELECT value FROM meta WHERE name = ?", (twin.TWIN,)).fetchone()
            return str(found[0]) if found else ""
    except salvage.UNREADABLE:
        return ""
