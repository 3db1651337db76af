"""Tables of the spool, made and brought up to date by sqlite-utils.

Run as a program of its own, `python -m heatpool_agent.spool_schema FOLDER`, so that the library
leaves the daemon's memory again.
"""

import sys
from pathlib import Path

from sqlite_utils import Database

from heatpool.sample import SpoolKind
from heatpool_agent.spool import tables
from heatpool_agent.spool_files import FILES, SCHEMA_VERSION


def migrate(folder: Path) -> None:
    """Makes the tables of both files and stamps them with `SCHEMA_VERSION`."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, name in FILES.items():
        database = Database(folder / name)
        # All or nothing: a kill leaves a file of the old version.
        with database.conn:
            database.conn.execute("BEGIN IMMEDIATE")
            _bring_up(database, kind)
        database.close()


def _bring_up(database: Database, kind: SpoolKind) -> None:
    db = database.conn
    _set_losses_aside(database)
    tables.make(db, kind)
    for table, (columns, _) in tables.tables_of(kind).items():
        there = database.table(table).columns_dict
        for column in columns.keys() - there.keys():
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {tables.SQL[columns[column]]}")
    if database.table("losses_3").exists():
        db.execute(
            "INSERT INTO losses (boot_id, first_seq, last_seq, reason, start_ns, end_ns, is_told)"
            " SELECT (SELECT value FROM meta WHERE name = 'boot_id'), first_seq, last_seq, reason,"
            " start_ns, end_ns, 0 FROM losses_3"
        )
        db.execute("DROP TABLE losses_3")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _set_losses_aside(database: Database) -> None:
    """Until version 3 a loss was of the present life, and had its first number alone as key."""
    table = database.table("losses")
    if table.exists() and "boot_id" not in table.columns_dict:
        database.conn.execute("ALTER TABLE losses RENAME TO losses_3")


if __name__ == "__main__":
    migrate(Path(sys.argv[1]))
