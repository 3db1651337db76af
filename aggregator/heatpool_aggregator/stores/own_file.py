"""Opening a file that several processes may make at once, and that only its owner may read."""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from heatpool.errors import StoreError
from heatpool_aggregator.stores.files import SqliteFile

OWNER_ONLY = 0o600


async def start(file: SqliteFile, migrate: Callable[[], None]) -> None:
    """Opens the file, readable by its owner alone; `migrate` runs in one process at a time.

    Raises:
        StoreError: it cannot be used.
    """

    def migrate_alone() -> None:
        with _alone(file.path):
            migrate()
            # Two processes that turn a file to WAL at once would trip over each other.
            with closing(sqlite3.connect(file.path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    try:
        await asyncio.to_thread(_touch, file.path)
    except OSError as error:
        raise StoreError(f"{file.path}: {error.strerror}: look at the folder's owner") from error
    await file.start(migrate_alone)


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # SQLite gives the files beside it, -wal and -shm, the mode of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
