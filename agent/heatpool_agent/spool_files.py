"""The spool's two files as files: where they lie, whether they are sound, who may use them."""

import fcntl
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

from heatpool.errors import StoreError
from heatpool.sample import SpoolKind

SCHEMA_VERSION = 4
FILES = {SpoolKind.TELEMETRY: "telemetry.db", SpoolKind.BILLING: "billing.db"}
# What SQLite keeps beside a file.
TAILS = ("-wal", "-shm")
_OPEN = "open\n"
WAL_PAGES = {SpoolKind.TELEMETRY: 500, SpoolKind.BILLING: 100}


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
    with closing(sqlite3.connect(path)) as db:
        found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def primary(error: BaseException | None) -> int:
    """SQLite's primary code; extended ones carry it in their low byte. 0: none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file itself is broken."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(error: BaseException) -> bool:
    """Whether there was no room; beyond a limit of the user's SQLite calls it a failed write."""
    return _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def _code(error: BaseException) -> int:
    return primary(error) or primary(error.__cause__)


def refusal(name: str, error: sqlite3.Error) -> StoreError:
    """What the disk refused, and what mends it."""
    fixes = {
        sqlite3.SQLITE_FULL: "free room on the disk",
        sqlite3.SQLITE_READONLY: "let this user write to the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "let this user open the file and its folder",
    }
    return StoreError(f"spool {name}: {error}; {fixes.get(primary(error), 'look at the disk')}")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that takes text as it finds it: a flipped bit is no reason to read nothing."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.text_factory = _text
    return db


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def open_file(path: Path, kind: SpoolKind) -> sqlite3.Connection:
    """A connection that commits as its queue must: billing waits for the disk.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        db = connect(path)
        db.execute("PRAGMA journal_mode = WAL")
        synchronous = "FULL" if kind is SpoolKind.BILLING else "NORMAL"
        db.execute(f"PRAGMA synchronous = {synchronous}")
        # Small write-ahead files: on a full disk they live in what the reserve gave back.
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES[kind]}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_PAGES[kind] * 4096}")
        # Rows are written and read once: the usual 2 MB of pages a file would be held for good.
        db.execute("PRAGMA cache_size = -256")
        return db
    except sqlite3.Error as error:
        raise refusal(str(path), error) from error


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, beside whoever writes."""
    # Without both of its files beside it SQLite would make them anew; `immutable` makes none.
    beside = [path.with_name(path.name + tail) for tail in TAILS]
    way = "mode=ro" if all(one.exists() for one in beside) else "mode=ro&immutable=1"
    db = sqlite3.connect(f"file:{path}?{way}", uri=True, timeout=1.0)
    db.text_factory = _text
    return db


def exclusive(folder: Path) -> TextIO:
    """The lock of the folder, which a killed process gives back.

    Raises:
        StoreError: another agent holds it, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+")
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


def mark_open(lock: TextIO) -> None:
    """Notes that the files are in use: from now on each has its write-ahead file beside it."""
    _note(lock, _OPEN)


def mark_closed(lock: TextIO) -> None:
    """Notes that the files are about to be closed: SQLite removes what lies beside them."""
    _note(lock, "")


def without_wal(lock: TextIO, folder: Path) -> Sequence[SpoolKind]:
    """Files whose user was killed and whose write-ahead file is gone, with the newest in it."""
    lock.seek(0)
    if lock.read() != _OPEN:
        return []
    paths = {kind: folder / name for kind, name in FILES.items()}
    wal = TAILS[0]
    return [
        kind
        for kind, path in paths.items()
        if path.exists() and not path.with_name(path.name + wal).exists()
    ]


def _note(lock: TextIO, word: str) -> None:
    # A full disk only means that this is not noticed.
    with suppress(OSError):
        lock.truncate(0)
        lock.write(word)
        lock.flush()
