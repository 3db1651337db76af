"""The audit log in `audit.db`: each entry chained to its predecessor, the file refuses changes."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from heatpool_aggregator.core.audit import AuditEntry, Deed, chained
from heatpool_aggregator.stores import own_file
from heatpool_aggregator.stores.files import SqliteFile

VERSION = 1
FILE_NAME = "audit.db"
_COLUMNS = "number, at_ns, who, action, subject, reason, detail, chain_sha256"
_BEHIND_ALL = 2**63 - 1
_NEWEST = f"SELECT {_COLUMNS} FROM entries ORDER BY number DESC LIMIT 1"


class SqliteAudit:
    """Entries of all processes that hold the file open, in one chain."""

    def __init__(self, directory: Path) -> None:
        self.file = SqliteFile(directory / FILE_NAME, version=VERSION, synchronous="FULL")

    async def append(
        self,
        *,
        who: str,
        action: str,
        subject: str,
        reason: str = "",
        detail: str = "{}",
        at_ns: int,
    ) -> AuditEntry:
        """The entry as it stands in the chain; durable on return."""
        deed = Deed(
            at_ns=at_ns, who=who, action=action, subject=subject, reason=reason, detail=detail
        )
        return await self.file.transact(lambda connection: _append(connection, deed))

    async def append_all(self, deeds: Sequence[Deed]) -> None:
        """Many deeds in one transaction, oldest first."""

        def work(connection: sqlite3.Connection) -> None:
            for deed in deeds:
                _append(connection, deed)

        await self.file.transact(work)

    async def read(self, limit: int, before_number: int = 0) -> Sequence[AuditEntry]:
        """Newest first, only those with a lower number than `before_number`; 0: from the newest."""
        sql = f"SELECT {_COLUMNS} FROM entries WHERE number < ? ORDER BY number DESC LIMIT ?"
        rows = await self.file.rows(sql, (before_number or _BEHIND_ALL, limit))
        return [_entry(row) for row in rows]


@asynccontextmanager
async def open_audit(directory: Path) -> AsyncIterator[SqliteAudit]:
    """The audit log in this folder.

    Raises:
        StoreError: the file cannot be used.
    """
    audit = SqliteAudit(directory)
    try:
        await own_file.start(audit.file, lambda: _migrate(audit.file.path))
        yield audit
    finally:
        await audit.file.close()


def _migrate(path: Path) -> None:
    # sqlite-utils costs 0.1 s, which a file that is up to date need not pay.
    from heatpool_aggregator.stores import migrations  # noqa: PLC0415

    migrations.migrate(path, migrations.audit, version=VERSION)


def _append(connection: sqlite3.Connection, deed: Deed) -> AuditEntry:
    newest = connection.execute(_NEWEST).fetchone()
    entry = chained(None if newest is None else _entry(newest), deed)
    connection.execute(
        f"INSERT INTO entries ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            entry.number,
            entry.at_ns,
            entry.who,
            entry.action,
            entry.subject,
            entry.reason,
            entry.detail,
            entry.chain_sha256,
        ),
    )
    return entry


def _entry(row: tuple[int, int, str, str, str, str, str, bytes]) -> AuditEntry:
    number, at_ns, who, action, subject, reason, detail, chain = row
    return AuditEntry(
        number=number,
        at_ns=at_ns,
        who=who,
        action=action,
        subject=subject,
        reason=reason,
        detail=detail,
        chain_sha256=chain,
    )
