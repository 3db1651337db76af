"""The embedded Log: one blob per commit in `log.db`, durable when `append` returns.

WAL with `synchronous=FULL`: every commit is on the disk before anybody hears of it. One thread
writes, one reads, so that a shard that catches up does not hold up acknowledgements.
"""

import asyncio
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import IO, TypeVar
from zlib import crc32

import msgpack

from heatpool.errors import LogDamaged, LogError
from heatpool.sample import BootId, SiteId
from heatpool_aggregator.closed_file import close_to_others
from heatpool_aggregator.logs.tail import Tail
from heatpool_aggregator.ports import START, Frame, FrameKind, Position, Snapshot

SCHEMA_VERSION = 1
# Sites keep what is acknowledged for as long, so that either end can mend the other.
KEEP_NS = 24 * 3600 * 1_000_000_000
# A disk that takes longer does not work; nothing is acknowledged meanwhile.
DISK_TIMEOUT_S = 30.0

_SCHEMA = """
CREATE TABLE commits (
    position INTEGER PRIMARY KEY, received_ns INTEGER NOT NULL, n_frames INTEGER NOT NULL,
    crc32 INTEGER NOT NULL, frames BLOB NOT NULL
);
CREATE TABLE snapshot (
    partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, crc32 INTEGER NOT NULL,
    state BLOB NOT NULL
);
"""
_CUT = """
DELETE FROM commits WHERE position <= :applied AND position < (
    SELECT position FROM commits
    WHERE received_ns >= (SELECT received_ns FROM commits ORDER BY position DESC LIMIT 1) - :keep_ns
    ORDER BY position LIMIT 1
)
"""

T = TypeVar("T")
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SqliteLog:
    """Frames in a file; opened by `open_log`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="log-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="log-read")
        self._write_to: sqlite3.Connection | None = None
        self._read_from: sqlite3.Connection | None = None
        self._lock: IO[bytes] | None = None
        self._last = START
        self._tail = Tail()

    async def start(self) -> None:
        """Opens the file, makes it if it is not there, and keeps other processes out.

        Raises:
            LogError: it cannot be opened, is of a newer version, or another process has it.
        """
        self._lock = _locked(self._path.with_suffix(".lock"))
        self._write_to, self._last = await self._call(self._writer, lambda: _opened(self._path))
        self._read_from = await self._call(self._reader, lambda: _connected(self._path))

    async def close(self) -> None:
        """Waits for the threads and frees the file; may be called twice."""
        for connection, executor in (
            (self._write_to, self._writer),
            (self._read_from, self._reader),
        ):
            if connection is not None:
                executor.submit(connection.close)
            await asyncio.to_thread(executor.shutdown)
        self._write_to = self._read_from = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def append(self, frames: Sequence[Frame]) -> Position:
        """Position of the commit; returns when the frames are on the disk.

        Raises:
            LogError: the file did not take them; do not acknowledge.
        """
        position = await self._call(self._writer, lambda: self._append(frames))
        self._tail.add(position, frames)
        return position

    def _append(self, frames: Sequence[Frame]) -> Position:
        blob = _frames_to_bytes(frames)
        position = Position(self._last + 1)
        row = (position, frames[-1].received_ns, len(frames), crc32(blob), blob)
        _open(self._write_to).execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?)", row)
        self._last = position
        return position

    @asynccontextmanager
    async def partition(self, number: int) -> AsyncIterator["SqlitePartition"]:
        """The only partition, 0: one process holds the whole file.

        Raises:
            LogError: any other number, or a damaged snapshot.
        """
        if number != 0:
            raise LogError(f"{self._path}: partition {number} does not exist, there is only 0")
        snapshot = await self._call(self._reader, self._load)
        yield SqlitePartition(self, snapshot)

    def _load(self) -> Snapshot | None:
        row = (
            _open(self._read_from)
            .execute("SELECT position, crc32, state FROM snapshot WHERE partition = 0")
            .fetchone()
        )
        if row is None:
            return None
        position, crc, state = row
        self._check(state, crc, f"snapshot at position {position}")
        return Snapshot(position=Position(position), state=state)

    async def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        """Frames behind a position; whole commits, until there are `limit` of them."""
        if (found := self._tail.read(after, limit)) is not None:
            return found
        return await self._call(self._reader, lambda: self._read(after, limit))

    def _read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        found: list[tuple[Position, Frame]] = []
        with closing(
            _open(self._read_from).execute(
                "SELECT position, n_frames, crc32, frames FROM commits "
                "WHERE position > ? ORDER BY position",
                (after,),
            )
        ) as rows:
            for position, n_frames, crc, blob in rows:
                self._check(blob, crc, f"commit {position}")
                frames = _frames_from_bytes(blob)
                if len(frames) != n_frames:
                    raise self._damaged(f"commit {position}", f"{len(frames)} of {n_frames} frames")
                found += [(Position(position), frame) for frame in frames]
                if len(found) >= limit:
                    break
        return found

    async def save(self, snapshot: Snapshot) -> None:
        """Makes the snapshot durable, and cuts what is applied in it and older than a day."""
        await self._call(self._writer, lambda: self._save(snapshot))
        self._tail.drop(snapshot.position)

    def _save(self, snapshot: Snapshot) -> None:
        connection = _open(self._write_to)
        row = (0, snapshot.position, crc32(snapshot.state), snapshot.state)
        with _Transaction(connection):
            connection.execute("INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)", row)
            connection.execute(_CUT, {"applied": snapshot.position, "keep_ns": KEEP_NS})

    async def _call(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(executor, work)
        except TimeoutError as error:
            raise LogError(
                f"{self._path}: no answer within {DISK_TIMEOUT_S:g} s: look at the disk"
            ) from error
        except (sqlite3.Error, OSError) as error:
            # An error that the module itself makes up has no code.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
                raise self._damaged("the file", str(error)) from error
            raise LogError(f"{self._path}: {error}: look at the disk and its free room") from error

    def _check(self, blob: bytes, expected: int, what: str) -> None:
        if (seen := crc32(blob)) != expected:
            raise self._damaged(what, f"crc32 {seen:08x}, expected {expected:08x}")

    def _damaged(self, what: str, seen: str) -> LogDamaged:
        return LogDamaged(
            f"{self._path}: {what} is damaged ({seen}): restore a backup, or move the file aside; "
            "sites send again what they kept for 24 h"
        )


class SqlitePartition:
    """The whole file, as one share."""

    def __init__(self, log: SqliteLog, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self._log = log

    async def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        """Frames behind a position; whole commits, until there are `limit` of them."""
        return await self._log.read(after, limit)

    async def save(self, snapshot: Snapshot) -> None:
        """Makes state and position durable in one transaction, and cuts the log behind it."""
        await self._log.save(snapshot)
        self.snapshot = snapshot


@asynccontextmanager
async def open_log(target: str, directory: Path) -> AsyncIterator[SqliteLog]:
    """The log in the file `target`, or in `log.db` of the directory.

    Raises:
        LogError: the file cannot be used.
    """
    log = SqliteLog(Path(target) if target else directory / "log.db")
    try:
        await log.start()
        yield log
    finally:
        await log.close()


def _locked(path: Path) -> IO[bytes]:
    """A lock that a killed process gives back."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise LogError(f"{path}: cannot be opened: {error.strerror}: look at state.dir") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LogError(f"{path}: another aggregator runs on this state directory") from error
    return file


def _connected(path: Path) -> sqlite3.Connection:
    # Made in one thread of ours and closed in the same one; the check would only see the names.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _opened(path: Path) -> tuple[sqlite3.Connection, Position]:
    close_to_others(path)
    connection = _connected(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        connection.close()
        raise LogError(
            f"{path}: schema version is {version}, known is {SCHEMA_VERSION}: start the newer "
            "heatpool that wrote it, or restore the backup of before"
        )
    if version < SCHEMA_VERSION:
        connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
    (last,) = connection.execute(
        "SELECT max(coalesce((SELECT max(position) FROM commits), 0),"
        " coalesce((SELECT max(position) FROM snapshot), 0))"
    ).fetchone()
    return connection, Position(last)


def _open(connection: sqlite3.Connection | None) -> sqlite3.Connection:
    if connection is None:
        raise LogError("the log is closed")
    return connection


class _Transaction:
    """BEGIN on entry, COMMIT on exit, ROLLBACK on the way out with an error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:  # a full disk has rolled it back already
            self._connection.execute("ROLLBACK")


def _frames_to_bytes(frames: Sequence[Frame]) -> bytes:
    # A frame is a tuple of its fields, and its kind a number.
    blob: bytes = msgpack.packb(list(frames))
    return blob


def _frames_from_bytes(blob: bytes) -> list[Frame]:
    return [
        Frame(
            site_id=SiteId(site_id),
            boot_id=BootId(boot_id),
            kind=FrameKind(kind),
            seq=seq,
            received_ns=received_ns,
            payload=payload,
        )
        for site_id, boot_id, kind, seq, received_ns, payload in msgpack.unpackb(blob)
    ]
