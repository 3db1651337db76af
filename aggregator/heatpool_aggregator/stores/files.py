"""A SQLite file with one thread of its own: opened, migrated, written to, flushed."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from heatpool.errors import StoreError
from heatpool_aggregator.closed_file import close_to_others

DISK_TIMEOUT_S = 30.0  # a disk that takes longer does not work
MEND = "stop the aggregator and restore a backup of it"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

T = TypeVar("T")


class SqliteFile:
    """One file, one connection, one thread; `synchronous` as SQLite names it.

    `mend` says what a person does when it is damaged.
    """

    def __init__(self, path: Path, *, version: int, synchronous: str, mend: str = MEND) -> None:
        self.path = path
        self._version = version
        self._synchronous = synchronous
        self._mend = mend
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=path.stem)
        self._connection: sqlite3.Connection | None = None

    async def start(self, migrate: Callable[[], None]) -> None:
        """Opens the file; calls `migrate` if its schema is behind, after a copy.

        Raises:
            StoreError: it cannot be opened, or is of a newer version.
        """
        self._connection = await self._call(lambda: self._opened(migrate))

    def _opened(self, migrate: Callable[[], None]) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        close_to_others(self.path)
        with closing(sqlite3.connect(self.path)) as probe:
            (version,) = probe.execute("PRAGMA user_version").fetchone()
            if version > self._version:
                raise StoreError(
                    f"{self.path}: schema version is {version}, known is {self._version}: start "
                    "the newer heatpool that wrote it, or restore the backup of before"
                )
            if 0 < version < self._version:
                _copy(probe, self.path.with_suffix(f".before-{self._version}"))
        if version < self._version:
            migrate()
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        return connection

    async def close(self) -> None:
        """Waits for the thread and frees the file; may be called twice."""
        if self._connection is not None:
            self._executor.submit(self._connection.close)
            self._connection = None
        await asyncio.to_thread(self._executor.shutdown)

    async def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        """Runs each statement for each of its rows, all in one transaction."""
        await self._call(lambda: self._write(statements))

    def _write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for sql, rows in statements:
                connection.executemany(sql, rows)

        self._transact(work)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` gives; all that it writes is there together, or none of it."""
        return await self._call(lambda: self._transact(work))

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result

    async def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a question."""
        return await self._call(lambda: self._open().execute(sql, values).fetchall())

    async def flush(self, statement: str) -> None:
        """One small write at FULL: its sync takes along all that was written before it."""
        await self._call(lambda: self._flush(statement))

    def _flush(self, statement: str) -> None:
        connection = self._open()
        connection.execute("PRAGMA synchronous=FULL")
        try:
            connection.execute(statement)
        finally:
            connection.execute(f"PRAGMA synchronous={self._synchronous}")

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path}: is closed")
        return self._connection

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(DISK_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except TimeoutError as error:
            raise StoreError(
                f"{self.path}: no answer within {DISK_TIMEOUT_S:g} s: look at the disk"
            ) from error
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path}: {error}: {self._fix(error)}") from error

    def _fix(self, error: Exception) -> str:
        # An error that the module itself makes up has no code.
        is_damage = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE
        return self._mend if is_damage else "look at the disk and its free room"


def _copy(source: sqlite3.Connection, path: Path) -> None:
    close_to_others(path)
    with closing(sqlite3.connect(path)) as target:
        source.backup(target)
