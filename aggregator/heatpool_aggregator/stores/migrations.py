"""Steps from one schema of the store's files to the next; imported only when a file is behind.

sqlite-utils keeps the account of the steps in the file. A step is never changed, only followed.
"""

from pathlib import Path

from sqlite_utils import Database, Migrations

history = Migrations("heatpool.store")
accounts = Migrations("heatpool.ledger")


_HISTORY_1 = (
    """CREATE TABLE chunks (
        site_id TEXT NOT NULL, boot_id TEXT NOT NULL, seq INTEGER NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL,
        blob BLOB NOT NULL, UNIQUE (site_id, boot_id, seq))""",
    "CREATE INDEX chunks_by_time ON chunks (site_id, end_ns, start_ns)",
    """CREATE TABLE registers (
        site_id TEXT NOT NULL, boot_id TEXT NOT NULL, seq INTEGER NOT NULL,
        place INTEGER NOT NULL, received_ns INTEGER NOT NULL,
        metering_point_id TEXT NOT NULL, meter_id TEXT NOT NULL, event_ns INTEGER NOT NULL,
        raw INTEGER NOT NULL, exponent INTEGER NOT NULL, modulus INTEGER,
        reason INTEGER NOT NULL, meter_ns INTEGER, status_bits INTEGER NOT NULL,
        chain_sha256 BLOB NOT NULL, UNIQUE (site_id, boot_id, seq, place))""",
    "CREATE INDEX registers_by_time ON registers (site_id, metering_point_id, event_ns)",
    """CREATE TABLE points (
        site_id TEXT NOT NULL, metering_point_id TEXT NOT NULL,
        PRIMARY KEY (site_id, metering_point_id)) WITHOUT ROWID""",
    """CREATE TABLE events (
        key TEXT NOT NULL UNIQUE, site_id TEXT NOT NULL, name TEXT NOT NULL,
        event_ns INTEGER NOT NULL, detail TEXT NOT NULL)""",
    "CREATE INDEX events_by_name ON events (name, event_ns)",
    "CREATE TABLE flushed (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL)",
    "INSERT INTO flushed VALUES (1, 0)",
)
_ACCOUNTS_1 = (
    """CREATE TABLE entries (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, start_ns INTEGER NOT NULL,
        end_ns INTEGER NOT NULL, posted_ns INTEGER NOT NULL, sign INTEGER NOT NULL,
        line TEXT NOT NULL, reason TEXT NOT NULL)""",
    "CREATE INDEX entries_by_time ON entries (start_ns, end_ns)",
    """CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: reverse the entry'); END""",
    """CREATE TRIGGER entries_remain BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the ledger is append-only: reverse the entry'); END""",
)


@history()
def chunks_registers_events(db: Database) -> None:
    """Telemetry as blobs of one frame, register rows, events."""
    for statement in _HISTORY_1:
        db.conn.execute(statement)


@accounts()
def entries_that_stay(db: Database) -> None:
    """Ledger entries, with triggers that let nobody change one."""
    for statement in _ACCOUNTS_1:
        db.conn.execute(statement)


def migrate(path: Path, steps: Migrations, *, version: int) -> None:
    """Brings a file to this schema version."""
    database = Database(path)
    try:
        steps.apply(database)
        database.conn.execute(f"PRAGMA user_version={version:d}")
        database.conn.commit()
    finally:
        database.close()
