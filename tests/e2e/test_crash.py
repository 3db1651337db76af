"""kill -9 of any program at any moment: no acked batch lost, none counted twice."""

import asyncio
from pathlib import Path

import pytest
from e2e.rig import Rig, rig
from e2e.storm import Storm, account, calm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# More of them by hand: bench/crash.py.
KILLS = 200


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


async def test_nothing_acked_is_lost_and_nothing_counts_twice(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=4) as running:
        await running.eventually("/v1/statements", lambda a: bool(a["statements"]))
        storm = Storm(running, kills=KILLS, seed=20)
        await storm.rage()
        energies_wh = await calm(running)
    assert storm.count == KILLS
    assert min(storm.counts[name] for name in storm.counts) >= KILLS / 20, storm.counts
    for site_id in ("e1", "e2", "e3", "e4"):
        found = account(tmp_path, site_id)
        assert found.mistakes() == []
        assert energies_wh[site_id] == found.moved_wh, "the live sum ran apart from the registers"


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
