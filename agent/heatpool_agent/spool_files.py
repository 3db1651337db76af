"""The spool's two files as files: where they lie, whether they are sound, who may use them."""

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TextIO

from heatpool.errors import StoreError
from heatpool.sample import SpoolKind

SCHEMA_VERSION = 3
FILES = {SpoolKind.TELEMETRY: "telemetry.db", SpoolKind.BILLING: "billing.db"}


def kernel_boot_id() -> str:
    """The life of this machine's kernel; empty where it cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def schema_version(path: Path) -> int:
    """Version of the tables in a file; 0 where there is none yet."""
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


def set_aside_damaged(folder: Path) -> Sequence[Path]:
    """Renames files that SQLite cannot trust, so that a new queue begins; the new names.

    The old file is kept for rescue; its unsent rows are not in the new queue.
    """
    aside = []
    for path in (folder / name for name in FILES.values()):
        if path.exists() and not _is_sound(path):
            target = path.with_suffix(f".damaged-{os.urandom(4).hex()}")
            path.rename(target)
            # The write-ahead file holds the newest commits: it goes along for rescue.
            for tail in ("-wal", "-shm"):
                beside = path.with_name(path.name + tail)
                if beside.exists():
                    beside.rename(target.with_name(target.name + tail))
            aside.append(target)
    return aside


def _is_sound(path: Path) -> bool:
    """Whether SQLite finds no damage. A disk that is full or read-only is no damage.

    Raises:
        StoreError: the file cannot be looked at; it is left alone.
    """
    try:
        with closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as error:
        if _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return False
        raise refusal(path.name, error) from error


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary code; extended ones carry it in their low byte."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def refusal(name: str, error: sqlite3.Error) -> StoreError:
    """What the disk refused, and what mends it."""
    fixes = {
        sqlite3.SQLITE_FULL: "free room on the disk",
        sqlite3.SQLITE_READONLY: "let this user write to the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "let this user open the file and its folder",
    }
    return StoreError(f"spool {name}: {error}; {fixes.get(_primary(error), 'look at the disk')}")


def open_file(path: Path, kind: SpoolKind) -> sqlite3.Connection:
    """A connection that commits as its queue must: billing waits for the disk.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        synchronous = "FULL" if kind is SpoolKind.BILLING else "NORMAL"
        db.execute(f"PRAGMA synchronous = {synchronous}")
        # Rows are written and read once: the usual 2 MB of pages a file would be held for good.
        db.execute("PRAGMA cache_size = -256")
        return db
    except sqlite3.Error as error:
        raise refusal(str(path), error) from error


def exclusive(folder: Path) -> TextIO:
    """The lock of the folder, which a killed process gives back.

    Raises:
        StoreError: another agent holds it, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")
    except OSError as error:
        raise StoreError(f"spool {folder}: {error.strerror}; set site.state_dir") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StoreError(
            f"{folder} is in use by another agent; stop it, or give this one its own state_dir"
        ) from error
    return lock
