"""Tables of the spool, made and brought up to date by sqlite-utils.

Run as a program of its own, `python -m heatpool_agent.spool_schema FOLDER`, so that the library
leaves the daemon's memory again.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from sqlite_utils import Database

from heatpool.sample import SpoolKind
from heatpool_agent.core import ledger_rows
from heatpool_agent.spool_files import FILES, SCHEMA_VERSION

_Tables = Mapping[str, tuple[Mapping[str, type], str | tuple[str, ...]]]

_TELEMETRY: _Tables = {
    "open_rows": ({"event_ns": int, "cells": bytes}, "event_ns"),
    "schemas": ({"schema_id": int, "channels": bytes}, "schema_id"),
    "losses": (
        {"first_seq": int, "last_seq": int, "reason": int, "start_ns": int, "end_ns": int},
        "first_seq",
    ),
    # Since version 2.
    "ledger": (ledger_rows.ACCOUNT, ("sensor", "channel")),
    "ledger_gaps": (ledger_rows.GAP, ("sensor", "channel", "number")),
    "clock_steps": (ledger_rows.STEP, ("boot_id", "boot_ns")),
    # Since version 3.
    "estimators": (ledger_rows.ESTIMATOR, ("loop_id", "part")),
}
_BOTH: _Tables = {
    "meta": ({"name": str, "value": str}, "name"),
    "frames": ({"seq": int, "start_ns": int, "end_ns": int, "payload": bytes}, "seq"),
}


def migrate(folder: Path) -> None:
    """Makes the tables of both files and stamps them with `SCHEMA_VERSION`."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, name in FILES.items():
        tables = {**_BOTH, **(_TELEMETRY if kind is SpoolKind.TELEMETRY else {})}
        database = Database(folder / name)
        for table, (columns, pk) in tables.items():
            database.table(table).create(dict(columns), pk=pk, if_not_exists=True)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.conn.commit()
        database.close()


if __name__ == "__main__":
    migrate(Path(sys.argv[1]))
