"""Register roll-over and meter exchange through the whole chain, exact to the Wh."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import Rig, rig, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MODULUS_WH = 10**8


async def settled(running: Rig, past_ns: int) -> list[dict[str, Any]]:
    """All statements, oldest first, once one that ends after `past_ns` is complete."""

    def is_past(answer: dict[str, Any]) -> bool:
        return any(s["start_ns"] > past_ns and s["is_complete"] for s in answer["statements"])

    answer = await running.eventually("/v1/statements?limit=100", is_past)
    statements: list[dict[str, Any]] = answer["statements"][::-1]
    return statements


def lines_of(statements: list[dict[str, Any]], site_id: str) -> list[dict[str, Any]]:
    return [line for s in statements for line in s["lines"] if line["site_id"] == site_id]


async def newest_ns(running: Rig) -> int:
    (site, *_) = (await running.ask("/v1/sites"))["sites"]
    event_ns: int = site["event_ns"]
    return event_ns


async def test_a_register_that_rolls_over_is_billed_exactly(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=1) as running:
        await running.eventually("/v1/statements", lambda a: bool(a["statements"]))
        running.fleet.approach_rollover("e1", left_wh=150)
        # The jump itself is no roll-over and is not billed: begin to look behind it, and well
        # before the roll-over, which is 18 s away.
        await asyncio.sleep(4)
        began_ns = await newest_ns(running)
        await until(lambda: running.fleet.register_wh("e1") < MODULUS_WH // 2)
        statements = await settled(running, await newest_ns(running))
        balance = await running.ask("/v1/balance")
    later = [s for s in statements if s["start_ns"] > began_ns]
    lines = lines_of(later, "e1")
    wrapped = [line for line in lines if line["register_close_wh"] < line["register_open_wh"]]
    assert len(wrapped) == 1
    for line in lines:
        moved_wh = (line["register_close_wh"] - line["register_open_wh"]) % MODULUS_WH
        assert line["energy_wh"] == moved_wh
        assert 0 < moved_wh < 1_000
    assert balance["balance_error_wh"] == 0


async def test_a_meter_exchange_is_two_lines_and_no_energy_between(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=2) as running:
        await running.eventually("/v1/statements", lambda a: bool(a["statements"]))
        old = running.fleet.meter("e1")
        new = running.fleet.exchange_meter("e1", register_wh=5)
        statements = await settled(running, await newest_ns(running))
        balance = await running.ask("/v1/balance")
    by_meter: dict[str, list[dict[str, Any]]] = {}
    for line in lines_of(statements, "e1"):
        by_meter.setdefault(line["meter_id"], []).append(line)
    assert [f"{old.number:08d}" in meter for meter in by_meter] == [True, False]
    assert [f"{new.number:08d}" in meter for meter in by_meter] == [False, True]
    first, second = by_meter.values()
    assert second[0]["register_open_wh"] >= 5
    assert all(0 <= line["energy_wh"] < 1_000 for line in (*first, *second))
    both = [s for s in statements if {ln["meter_id"] for ln in s["lines"]} >= set(by_meter)]
    assert len(both) <= 1, "old and new meter share at most the period of the exchange"
    assert balance["balance_error_wh"] == 0
