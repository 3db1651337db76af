"""The tables of the spool's two files, as `spool_schema` and a healed file get them."""

import sqlite3
from collections.abc import Mapping

from heatpool.sample import SpoolKind
from heatpool_agent.core import ledger_rows

Tables = Mapping[str, tuple[Mapping[str, type], str | tuple[str, ...]]]

_TELEMETRY: Tables = {
    "open_rows": ({"event_ns": int, "cells": bytes}, "event_ns"),
    # check_sum: since version 4.
    "schemas": ({"schema_id": int, "channels": bytes, "check_sum": int}, "schema_id"),
    # Since version 2.
    "ledger": (ledger_rows.ACCOUNT, ("sensor", "channel")),
    "ledger_gaps": (ledger_rows.GAP, ("sensor", "channel", "number")),
    "clock_steps": (ledger_rows.STEP, ("boot_id", "boot_ns")),
    # Since version 3.
    "estimators": (ledger_rows.ESTIMATOR, ("loop_id", "part")),
}
_BOTH: Tables = {
    "meta": ({"name": str, "value": str}, "name"),
    # What follows the payload: since version 4.
    "frames": (
        {
            "seq": int,
            "start_ns": int,
            "end_ns": int,
            "payload": bytes,
            "codec": int,
            "rows_count": int,
            "step_s": int,
            "check_sum": int,
        },
        "seq",
    ),
    # Since version 4 in both files, with the life that the numbers belong to.
    "losses": (
        {
            "boot_id": str,
            "first_seq": int,
            "last_seq": int,
            "reason": int,
            "start_ns": int,
            "end_ns": int,
            "is_told": int,
        },
        ("boot_id", "first_seq"),
    ),
}
SQL = {int: "INTEGER", str: "TEXT", bytes: "BLOB", float: "FLOAT"}


def tables_of(kind: SpoolKind) -> Tables:
    """Every table of a file with its columns and primary key."""
    return {**_BOTH, **(_TELEMETRY if kind is SpoolKind.TELEMETRY else {})}


def make(db: sqlite3.Connection, kind: SpoolKind) -> None:
    """Makes the tables where there are none, within the caller's transaction."""
    for table, (columns, pk) in tables_of(kind).items():
        keys = (pk,) if isinstance(pk, str) else pk
        fields = [f"{name} {SQL[of]}" for name, of in columns.items()]
        fields.append(f"PRIMARY KEY ({', '.join(keys)})")
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(fields)})")
