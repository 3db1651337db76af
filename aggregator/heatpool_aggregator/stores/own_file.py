"""Opening a file that several processes may make at once."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from heatpool_aggregator.closed_file import OWNER_ONLY
from heatpool_aggregator.stores.files import SqliteFile


async def start(file: SqliteFile, migrate: Callable[[], None]) -> None:
    """Opens the file; `migrate` runs in one process at a time.

    Raises:
        StoreError: it cannot be used.
    """

    def migrate_alone() -> None:
        with _alone(file.path):
            migrate()
            # Two processes that turn a file to WAL at once would trip over each other.
            with closing(sqlite3.connect(file.path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    await file.start(migrate_alone)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, OWNER_ONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
