"""kill -9 of any program at any moment: no acked batch lost, none counted twice."""

import asyncio
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import Rig, rig

from heatpool.codec import registers_from_bytes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def spool_registers(folder: Path, site_id: str) -> tuple[list[tuple[Any, ...]], int]:
    """Billing rows of a stopped agent's spool as (seq, index, raw), and how far it was acked."""
    db = sqlite3.connect(f"file:{folder / site_id / 'billing.db'}?mode=ro", uri=True)
    rows = [
        (seq, index, row.raw)
        for seq, payload in db.execute("SELECT seq, payload FROM frames ORDER BY seq")
        for index, row in enumerate(registers_from_bytes(payload))
    ]
    durable = db.execute("SELECT value FROM meta WHERE name = 'durable_seq'").fetchone()[0]
    db.close()
    return rows, int(durable)


def stored_registers(folder: Path, site_id: str) -> list[tuple[Any, ...]]:
    """Billing rows in the store of a stopped aggregator as (seq, index, raw)."""
    db = sqlite3.connect(f"file:{folder / 'aggregator' / 'store.db'}?mode=ro", uri=True)
    rows = db.execute(
        "SELECT seq, place, raw FROM registers WHERE site_id = ? ORDER BY seq, place",
        (site_id,),
    ).fetchall()
    db.close()
    return rows


def stored_chunks(folder: Path, site_id: str) -> list[int]:
    """Telemetry sequence numbers in the store of a stopped aggregator."""
    db = sqlite3.connect(f"file:{folder / 'aggregator' / 'store.db'}?mode=ro", uri=True)
    rows = db.execute("SELECT seq FROM chunks WHERE site_id = ? ORDER BY seq", (site_id,))
    found = [seq for (seq,) in rows]
    db.close()
    return found


def telemetry_durable(folder: Path, site_id: str) -> int:
    """How far the telemetry of a stopped agent was acked."""
    db = sqlite3.connect(f"file:{folder / site_id / 'telemetry.db'}?mode=ro", uri=True)
    found = db.execute("SELECT value FROM meta WHERE name = 'durable_seq'").fetchone()[0]
    db.close()
    return int(found)


async def crashes(running: Rig, chance: random.Random) -> None:
    """Six kills: the aggregator and the agents in turn, each at a random moment."""
    for program in (
        running.aggregator,
        running.agents["e1"],
        running.aggregator,
        running.agents["e2"],
        running.agents["e1"],
        running.aggregator,
    ):
        await asyncio.sleep(chance.uniform(0.2, 2.5))
        await running.restart(program)


async def stopped_in_order(running: Rig) -> None:
    """Agents first, so that their last words get through."""
    await agents_stopped(running)
    await aggregator_stopped(running)


async def agents_stopped(running: Rig) -> None:
    """Asked to stop, and stopped well."""
    codes = await asyncio.gather(*(agent.stop() for agent in running.agents.values()))
    assert codes == [0, 0], [agent.log_tail() for agent in running.agents.values()]


async def aggregator_stopped(running: Rig) -> None:
    """Asked to stop, and stopped well."""
    assert await running.aggregator.stop() == 0, running.aggregator.log_tail()


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_acked_is_lost_and_nothing_counts_twice(tmp_path: Path, seed: int) -> None:
    async with rig(tmp_path, seed=seed) as running:
        await running.eventually("/v1/statements", lambda a: bool(a["statements"]))
        await crashes(running, random.Random(seed))
        await running.eventually("/v1/sources", is_fresh)
        await asyncio.sleep(2)
        await agents_stopped(running)
        # Nothing moves any more: what is left to do is to show it.
        await asyncio.sleep(3)
        energies = {
            site["site_id"]: site["energy_wh"] for site in (await running.ask("/v1/sites"))["sites"]
        }
        await aggregator_stopped(running)
    for site_id in ("e1", "e2"):
        sent, durable = spool_registers(tmp_path, site_id)
        stored = stored_registers(tmp_path, site_id)
        assert [row for row in sent if row[0] <= durable] == stored[: len(sent)]
        assert not [key for key, count in Counter(row[:2] for row in stored).items() if count > 1]
        seqs = stored_chunks(tmp_path, site_id)
        assert seqs == list(range(1, telemetry_durable(tmp_path, site_id) + 1))
        moved_wh = (stored[-1][2] - stored[0][2]) % 10**8
        assert 0 <= moved_wh - energies[site_id] <= 60, "the live sum ran apart from the registers"


def is_fresh(answer: dict[str, Any]) -> bool:
    """All members of the one virtual source speak again."""
    (source,) = answer["virtual_sources"]
    return bool(source["fresh_count"] == source["members_count"] == 2)


def has_four(answer: dict[str, Any]) -> bool:
    """Periods were closed before the kill and after it."""
    return len(answer["statements"]) >= 4


async def test_the_accounts_go_on_where_they_stood(tmp_path: Path) -> None:
    async with rig(tmp_path, seed=5) as running:
        await running.eventually("/v1/statements", lambda a: bool(a["statements"]))
        await running.restart(running.aggregator)
        await running.eventually("/v1/statements?limit=100", lambda a: len(a["statements"]) >= 4)
        answer = await running.ask("/v1/statements?limit=100")
        balance = await running.ask("/v1/balance")
        await stopped_in_order(running)
    statements = answer["statements"][::-1]
    starts = [statement["start_ns"] for statement in statements]
    assert starts == sorted(set(starts)), "a period was settled twice"
    lines = [line for statement in statements for line in statement["lines"]]
    for site_id in ("e1", "e2"):
        own = [line for line in lines if line["site_id"] == site_id]
        opens = [line["register_open_wh"] for line in own[1:]]
        closes = [line["register_close_wh"] for line in own[:-1]]
        assert opens == closes, "a period does not begin where the one before ended"
    assert balance["balance_error_wh"] == 0
