"""Steps from one schema of the store's files to the next; imported only when a file is behind.

sqlite-utils keeps the account of the steps in the file. A step is never changed, only followed.
"""

from pathlib import Path

from sqlite_utils import Database, Migrations

history = Migrations("heatpool.store")
accounts = Migrations("heatpool.ledger")
identity = Migrations("heatpool.identity")
audit = Migrations("heatpool.audit")


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
_IDENTITY_1 = (
    # known_only: after a revocation or a second join, only certificates recorded here count.
    """CREATE TABLE sites (
        site_id TEXT PRIMARY KEY, owner TEXT NOT NULL, enrolled_ns INTEGER NOT NULL,
        revoked_ns INTEGER, revoked_reason TEXT NOT NULL DEFAULT '',
        known_only INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    """CREATE TABLE users (
        name TEXT PRIMARY KEY, role TEXT NOT NULL, tenant TEXT NOT NULL,
        added_ns INTEGER NOT NULL, revoked_ns INTEGER, revoked_reason TEXT NOT NULL DEFAULT '',
        known_only INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID""",
    """CREATE TABLE certificates (
        number INTEGER PRIMARY KEY, serial TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        key_sha256 BLOB NOT NULL, token_id TEXT, issued_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL, chain_pem TEXT NOT NULL)""",
    "CREATE INDEX certificates_by_name ON certificates (name, number)",
    "CREATE UNIQUE INDEX certificates_of_a_token ON certificates (token_id, key_sha256)",
    "CREATE TABLE denied (serial TEXT PRIMARY KEY, denied_ns INTEGER NOT NULL,"
    " reason TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE join_tokens (
        token_id TEXT PRIMARY KEY, token_sha256 BLOB NOT NULL, site_id TEXT NOT NULL,
        owner TEXT NOT NULL, uses_count INTEGER NOT NULL,
        uses_left INTEGER NOT NULL CHECK (uses_left >= 0), created_ns INTEGER NOT NULL,
        expires_ns INTEGER NOT NULL, is_approval_needed INTEGER NOT NULL,
        revoked_ns INTEGER) WITHOUT ROWID""",
    """CREATE TABLE requests (
        token_id TEXT NOT NULL, key_sha256 BLOB NOT NULL, site_id TEXT NOT NULL,
        peer TEXT NOT NULL, asked_ns INTEGER NOT NULL, approved_ns INTEGER,
        PRIMARY KEY (token_id, key_sha256)) WITHOUT ROWID""",
    """CREATE TABLE api_tokens (
        token_id TEXT PRIMARY KEY, token_sha256 BLOB NOT NULL UNIQUE, name TEXT NOT NULL,
        role TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
        revoked_ns INTEGER) WITHOUT ROWID""",
    "CREATE TABLE version (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL)",
    "INSERT INTO version VALUES (1, 0)",
)
_AUDIT_1 = (
    """CREATE TABLE entries (
        number INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, who TEXT NOT NULL,
        action TEXT NOT NULL, subject TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,
        chain_sha256 BLOB NOT NULL)""",
    """CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    """CREATE TRIGGER entries_remain BEFORE DELETE ON entries
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    # INSERT OR REPLACE deletes without the trigger above.
    """CREATE TRIGGER entries_are_new BEFORE INSERT ON entries
        WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM entries)
        BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
)


@history()
def chunks_registers_events(db: Database) -> None:
    """Telemetry as blobs of one frame, register rows, events."""
    for statement in _HISTORY_1:
        db.conn.execute(statement)


@history()
def registers_of_wrong_clocks(db: Database) -> None:
    """What was added to a row's time, ns: the site's own is `event_ns - offset_ns`."""
    db.conn.execute("ALTER TABLE registers ADD COLUMN offset_ns INTEGER NOT NULL DEFAULT 0")


@accounts()
def entries_that_stay(db: Database) -> None:
    """Ledger entries, with triggers that let nobody change one."""
    for statement in _ACCOUNTS_1:
        db.conn.execute(statement)


@identity()
def who_may_speak(db: Database) -> None:
    """Sites, people, their certificates and tokens."""
    for statement in _IDENTITY_1:
        db.conn.execute(statement)


@audit()
def deeds_that_stay(db: Database) -> None:
    """The audit log, with triggers that let nobody change it."""
    for statement in _AUDIT_1:
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
