"""The energy ledger in the telemetry file: whole pages, gaps, and what may be forgotten of it."""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from heatpool.process.journal import facts
from heatpool_agent.core import ledger_rows
from heatpool_agent.core.ledger import GapRecord, Page
from heatpool_agent.spool.file import QueueFile, note

logger = logging.getLogger(__name__)

V = TypeVar("V")
# A counter that falls every second must not fill the disk; its sum is in its account.
GAPS_KEPT = 10_000
STEPS_KEPT = 1_000


def stored(db: sqlite3.Connection) -> Page:
    """The ledger as it was saved."""
    accounts = db.execute(ledger_rows.select("ledger", ledger_rows.ACCOUNT))
    steps = db.execute(ledger_rows.select("clock_steps", ledger_rows.STEP))
    estimators = db.execute(ledger_rows.select("estimators", ledger_rows.ESTIMATOR))
    clock = note(db, "clock")
    return Page(
        accounts=tuple(_sound(ledger_rows.account_of, accounts)),
        steps=tuple(_sound(ledger_rows.step_of, steps)),
        clock=ledger_rows.clock_of(clock) if clock else None,
        estimators=tuple(_sound(ledger_rows.estimator_of, estimators)),
    )


def _sound(read: Callable[[Any], V], rows: Iterable[Any]) -> Iterator[V]:
    """What can be read; a row that the disk spoiled must not keep the agent from starting."""
    for row in rows:
        try:
            yield read(row)
        except (TypeError, ValueError) as error:
            logger.error("spool.ledger_spoiled", extra=facts(row=row[:2], reason=str(error)))


def put(db: sqlite3.Connection, page: Page | None) -> None:
    """Writes a page within the caller's transaction."""
    if page is None:
        return
    for statement, rows in ledger_rows.puts(page):
        db.executemany(statement, rows)


def gaps(file: QueueFile, limit: int) -> Sequence[GapRecord]:
    """The newest gaps of all counters, oldest first."""
    rows = file.db.execute(
        f"{ledger_rows.select('ledger_gaps', ledger_rows.GAP)} DESC LIMIT ?", (limit,)
    )
    return [ledger_rows.gap_of(row) for row in rows][::-1]


def forget_gaps(file: QueueFile) -> None:
    """Drops the oldest gaps and clock steps: their sums and their ends are in the accounts."""
    for table, kept in (("ledger_gaps", GAPS_KEPT), ("clock_steps", STEPS_KEPT)):
        newest = f"SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT 1 OFFSET {kept}"
        if found := file.db.execute(newest).fetchone():
            with file.commit() as db:
                db.execute(f"DELETE FROM {table} WHERE rowid <= ?", found)
