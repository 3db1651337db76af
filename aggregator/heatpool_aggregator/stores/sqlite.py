"""The embedded Store: `store.db` for history, `ledger.db` for money; neither can hurt the other.

History is written at NORMAL: what a power cut takes comes back from the log, because the shard
calls `flush` before it saves what it has applied. Accounts are written at FULL.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from heatpool.sample import (
    BootId,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    SiteId,
)
from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.core.settlement import LedgerEntry, StatementLine
from heatpool_aggregator.ports import (
    Chunk,
    Chunks,
    Event,
    Events,
    Ledger,
    Registers,
    StoredRegister,
)
from heatpool_aggregator.stores.files import SqliteFile

HISTORY_VERSION = 2
ACCOUNTS_VERSION = 1
PART_COUNT = 100  # chunks in a statement

_ROW = (
    "metering_point_id, meter_id, event_ns, raw, exponent, modulus, reason, meter_ns, status_bits,"
    " chain_sha256, offset_ns"
)
_AT = "site_id = :site AND metering_point_id = :point AND event_ns"
_SERIES = f"""
SELECT {_ROW} FROM registers WHERE {_AT} >= coalesce(
    (SELECT max(event_ns) FROM registers WHERE {_AT} < :start), :start)
AND event_ns <= coalesce(
    (SELECT min(event_ns) FROM registers WHERE {_AT} >= :end), :end)
ORDER BY event_ns, boot_id, seq, place
"""
# A new file is filled from the log, and by the sites: `app` takes care of that.
_MEND_HISTORY = (
    "stop the aggregator and restore a backup of it, or move it aside with its -wal and -shm;"
    " log.db and the sites fill a new one: with registers of two years, telemetry of a day"
)
_DECODER = msgspec.json.Decoder(StatementLine)


class SqliteChunks:
    """History of telemetry, a blob per frame."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, chunks: Sequence[Chunk]) -> None:
        """Stores; a chunk that is there already is left alone."""
        # Each statement lets go of the interpreter and asks the loop for it back: acks wait for it.
        parts = [chunks[n : n + PART_COUNT] for n in range(0, len(chunks), PART_COUNT)]
        await self._file.write([(_put_chunks(len(part)), [[*chain(*part)]]) for part in parts])

    async def read(self, site_id: SiteId, start_ns: int, end_ns: int) -> Sequence[Chunk]:
        """Chunks that overlap [start, end), by start."""
        rows = await self._file.rows(
            "SELECT site_id, boot_id, seq, start_ns, end_ns, received_ns, blob FROM chunks "
            "WHERE site_id = ? AND end_ns > ? AND start_ns < ? ORDER BY start_ns, boot_id, seq",
            (site_id, start_ns, end_ns),
        )
        return [_chunk(row) for row in rows]


class SqliteRegisters:
    """The legal facts."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, rows: Sequence[StoredRegister]) -> None:
        """Stores; a row that is there already is left alone."""
        points = {(stored.site_id, stored.row.metering_point_id) for stored in rows}
        marks = ", ".join("?" * 16)
        await self._file.write(
            [
                (f"INSERT OR IGNORE INTO registers VALUES ({marks})", [_fields(r) for r in rows]),
                ("INSERT OR IGNORE INTO points VALUES (?, ?)", sorted(points)),
            ]
        )

    async def series(
        self, site_id: SiteId, point_id: MeteringPointId, start_ns: int, end_ns: int
    ) -> Sequence[RegisterRow]:
        """Rows in [start, end) by event time, and the nearest ones before and at or after them."""
        values: Any = {"site": site_id, "point": point_id, "start": start_ns, "end": end_ns}
        return [_register(row) for row in await self._file.rows(_SERIES, values)]

    async def points(self) -> Sequence[tuple[SiteId, MeteringPointId]]:
        """Every metering point that ever sent a register."""
        rows = await self._file.rows(
            "SELECT site_id, metering_point_id FROM points ORDER BY site_id, metering_point_id"
        )
        return [(SiteId(site), MeteringPointId(point)) for site, point in rows]


class SqliteLedger:
    """Append-only accounts; the file itself refuses changes."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def post(self, entries: Sequence[LedgerEntry]) -> None:
        """Appends; an entry whose key is there already is left alone."""
        sql = (
            "INSERT OR IGNORE INTO entries (key, start_ns, end_ns, posted_ns, sign, line, reason) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        await self._file.write([(sql, [_entry_fields(entry) for entry in entries])])

    async def read(self, start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        """Entries of periods that lie in [start, end), in posting order."""
        rows = await self._file.rows(
            "SELECT key, start_ns, end_ns, posted_ns, sign, line, reason FROM entries "
            "WHERE start_ns >= ? AND end_ns <= ? ORDER BY number",
            (start_ns, end_ns),
        )
        return [_entry(row) for row in rows]


class SqliteEvents:
    """What happened, for people."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, events: Sequence[Event]) -> None:
        """Stores; an event whose key is there already is left alone."""
        rows = [(e.key, e.site_id, e.name, e.event_ns, e.detail) for e in events]
        await self._file.write([("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", rows)])

    async def read(self, name: str, site_id: SiteId | None, limit: int) -> Sequence[Event]:
        """Newest first."""
        rows = await self._file.rows(
            "SELECT key, site_id, name, event_ns, detail FROM events "
            "WHERE name = :name AND (:site IS NULL OR site_id = :site) "
            "ORDER BY event_ns DESC, key DESC LIMIT :limit",
            {"name": name, "site": site_id, "limit": limit},  # type: ignore[arg-type]
        )
        return [
            Event(key=key, site_id=SiteId(site), name=what, event_ns=event_ns, detail=detail)
            for key, site, what, event_ns, detail in rows
        ]


class SqliteStore:
    """Both files."""

    def __init__(self, directory: Path) -> None:
        self._history = SqliteFile(
            directory / "store.db",
            version=HISTORY_VERSION,
            synchronous="NORMAL",
            mend=_MEND_HISTORY,
        )
        self._accounts = SqliteFile(
            directory / "ledger.db", version=ACCOUNTS_VERSION, synchronous="FULL"
        )
        self.chunks: Chunks = SqliteChunks(self._history)
        self.registers: Registers = SqliteRegisters(self._history)
        self.ledger: Ledger = SqliteLedger(self._accounts)
        self.events: Events = SqliteEvents(self._history)

    async def start(self) -> None:
        """Opens both files, and migrates one that is behind.

        Raises:
            StoreError: a file cannot be used.
        """
        await self._history.start(lambda: _migrate_history(self._history.path))
        await self._accounts.start(lambda: _migrate_accounts(self._accounts.path))

    async def flush(self) -> None:
        """Returns when everything put so far would survive a power cut."""
        await self._history.flush("UPDATE flushed SET count = count + 1")

    async def is_new(self) -> bool:
        """Whether nothing was ever flushed: no snapshot can be of this store."""
        return await self._history.rows("SELECT count FROM flushed") == [(0,)]

    async def close(self) -> None:
        """Frees the files; may be called twice."""
        await self._history.close()
        await self._accounts.close()


@asynccontextmanager
async def open_store(target: str, directory: Path) -> AsyncIterator[SqliteStore]:
    """The store in the directory `target`, or in the given one.

    Raises:
        StoreError: a file cannot be used.
    """
    store = SqliteStore(Path(target) if target else directory)
    try:
        await store.start()
        yield store
    finally:
        await store.close()


def _put_chunks(n_rows: int) -> str:
    rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * n_rows)
    return f"INSERT OR IGNORE INTO chunks VALUES {rows}"


def _migrate_history(path: Path) -> None:
    # sqlite-utils costs 0.1 s and megabytes, which a store that is up to date need not pay.
    from heatpool_aggregator.stores import migrations  # noqa: PLC0415

    migrations.migrate(path, migrations.history, version=HISTORY_VERSION)


def _migrate_accounts(path: Path) -> None:
    from heatpool_aggregator.stores import migrations  # noqa: PLC0415  # as above

    migrations.migrate(path, migrations.accounts, version=ACCOUNTS_VERSION)


def _chunk(row: tuple[Any, ...]) -> Chunk:
    site_id, boot_id, seq, start_ns, end_ns, received_ns, blob = row
    return Chunk(
        site_id=SiteId(site_id),
        boot_id=BootId(boot_id),
        seq=seq,
        start_ns=start_ns,
        end_ns=end_ns,
        received_ns=received_ns,
        blob=blob,
    )


def _fields(stored: StoredRegister) -> tuple[Any, ...]:
    row = stored.row
    return (
        stored.site_id,
        stored.boot_id,
        stored.seq,
        stored.index,
        stored.received_ns,
        row.metering_point_id,
        row.meter_id,
        row.event_ns,
        row.raw,
        row.exponent,
        row.modulus,
        int(row.reason),
        row.meter_ns,
        row.status_bits,
        row.chain_sha256,
        row.offset_ns if isinstance(row, CorrectedRow) else 0,
    )


def _register(fields: tuple[Any, ...]) -> RegisterRow:
    point, meter, event_ns, raw, exponent, modulus, reason, meter_ns, status, chain, off_ns = fields
    row = RegisterRow(
        metering_point_id=MeteringPointId(point),
        meter_id=MeterId(meter),
        event_ns=event_ns - off_ns,
        raw=raw,
        exponent=exponent,
        modulus=modulus,
        reason=RegisterReason(reason),
        meter_ns=meter_ns,
        status_bits=status,
        chain_sha256=chain,
    )
    return CorrectedRow.of(row, off_ns) if off_ns else row


def _entry_fields(entry: LedgerEntry) -> tuple[Any, ...]:
    line = msgspec.json.encode(entry.line).decode()
    ends = (entry.start_ns, entry.end_ns, entry.posted_ns)
    return (entry.key, *ends, entry.sign, line, entry.reason)


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    key, start_ns, end_ns, posted_ns, sign, line, reason = row
    return LedgerEntry(
        key=key,
        start_ns=start_ns,
        end_ns=end_ns,
        posted_ns=posted_ns,
        sign=sign,
        line=_DECODER.decode(line),
        reason=reason,
    )
