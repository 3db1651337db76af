"""What the door to the audit log owes: one chain for all processes, and no way back."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.core.audit import AuditEntry, first_break
from heatpool_aggregator.ports import Audit
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities


@pytest.fixture
async def audit(tmp_path: Path) -> AsyncIterator[Audit]:
    async with open_audit(tmp_path) as opened:
        yield opened


async def deed(audit: Audit, number: int) -> AuditEntry:
    return await audit.append(
        who="person/anna", action="site.revoke", subject=f"site/e{number}", at_ns=number
    )


async def test_entries_come_back_newest_first_and_in_pages(audit: Audit) -> None:
    written = [await deed(audit, number) for number in range(1, 6)]
    assert list(await audit.read(2)) == [written[4], written[3]]
    assert list(await audit.read(9, before_number=4)) == written[2::-1]
    assert await audit.read(9, before_number=1) == []


async def test_two_processes_write_one_chain(audit: Audit, tmp_path: Path) -> None:
    async with open_audit(tmp_path) as beside:
        await asyncio.gather(*(deed((audit, beside)[n % 2], n) for n in range(20)))
    entries = list(await audit.read(99))[::-1]
    assert [entry.number for entry in entries] == list(range(1, 21))
    assert first_break(entries) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET reason = 'nicer' WHERE number = 1",
        "DELETE FROM entries WHERE number = 2",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries VALUES (1, 0, 'x', 'x', 'x', '', '{}', x'00')",
        "INSERT INTO entries VALUES (9, 0, 'x', 'x', 'x', '', '{}', x'00')",
    ],
)
async def test_the_file_itself_refuses_changes(
    audit: Audit, tmp_path: Path, statement: str
) -> None:
    await deed(audit, 1)
    await deed(audit, 2)

    def tamper() -> None:
        with closing(sqlite3.connect(tmp_path / "audit.db")) as file:
            file.execute(statement)

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await asyncio.to_thread(tamper)
    assert first_break(list(await audit.read(9))[::-1]) is None


async def test_who_takes_the_triggers_away_is_seen_by_the_chain(
    audit: Audit, tmp_path: Path
) -> None:
    for number in range(1, 4):
        await deed(audit, number)

    def tamper() -> None:
        with closing(sqlite3.connect(tmp_path / "audit.db")) as file, file:
            file.execute("DROP TRIGGER entries_stay")
            file.execute("UPDATE entries SET who = 'person/bob' WHERE number = 2")

    await asyncio.to_thread(tamper)
    assert first_break(list(await audit.read(9))[::-1]) == 2


async def test_who_may_and_what_was_done_wait_for_the_disk(tmp_path: Path) -> None:
    async with (
        open_audit(tmp_path) as audit,
        open_identities(tmp_path, trust_domain="heatpool", clock=SystemClock()) as identities,
    ):
        assert await audit.file.rows("PRAGMA synchronous") == [(2,)]
        assert await identities.file.rows("PRAGMA synchronous") == [(2,)]
