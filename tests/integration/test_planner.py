"""The planner over a store: closes once, waits for the late, restates, survives a restart."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from integration.planner_bench import T0, Bench, S

from heatpool.errors import StoreError
from heatpool_aggregator.core.settlement import standing_lines
from heatpool_aggregator.stores.sqlite import open_store


@pytest.fixture
async def benches(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Makes benches, each on a store of its own."""
    async with AsyncExitStack() as stack:

        async def bench(name: str = "first", **changes: Any) -> Bench:
            folder = tmp_path / name
            folder.mkdir()
            store = await stack.enter_async_context(open_store("", folder))
            return Bench(store, **changes)

        yield bench


@pytest.fixture
async def bench(benches: Any) -> Bench:
    return await benches()  # type: ignore[no-any-return]


async def test_nothing_is_closed_before_the_first_register(bench: Bench) -> None:
    await bench.at(10_000)
    assert (bench.board.statement, bench.board.balance) == (None, None)


async def test_a_period_closes_when_its_grace_is_over(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900)
    await bench.at(1019)
    assert bench.board.statement is None
    await bench.at(1020)
    closed = bench.board.statement
    assert closed is not None
    assert (closed.start_ns, closed.end_ns) == (T0, T0 + 900 * S)
    assert [(line.energy_wh, line.amount_eur) for line in closed.lines] == [(900, "0.04")]
    assert closed.is_complete


async def test_every_period_closes_once_and_sums_to_the_register(bench: Bench) -> None:
    for end_s in range(0, 9001, 450):
        await bench.reads("site-1", end_s)
        await bench.reads("site-2", end_s + 7)
        await bench.at(end_s + 200)
    await bench.at(9120)
    assert await bench.energies_wh("site-1") == [900] * 10
    assert sum(await bench.energies_wh("site-2")) == 9000 - 7
    assert all(entry.sign == 1 for entry in await bench.entries())
    balance = bench.board.balance
    assert balance is not None
    assert (balance.periods_count, balance.balance_error_wh) == (10, 0)


async def test_who_is_late_is_named_and_settled_later(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900, 1800)
    await bench.reads("site-2", 0, 300)
    await bench.at(1020)
    first = bench.board.statement
    assert first is not None and not first.is_complete
    assert [(who, "no register" in why) for who, why in first.missing] == [("site-2", True)]
    await bench.reads("site-2", 950, 1800)
    await bench.at(1100)
    second = bench.board.statement
    assert second is not None and second.is_complete
    assert await bench.energies_wh("site-2") == [900]


async def test_a_gap_of_many_periods_is_bridged_without_loss(bench: Bench) -> None:
    for end_s in range(0, 90_001, 900):
        await bench.reads("site-1", end_s)
        await bench.at(end_s + 120)
    await bench.reads("site-2", 0, 90_000)
    await bench.at(90_900, steps=200)
    assert sum(await bench.energies_wh("site-2")) == 90_000
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


async def test_late_readings_restate_by_reversing_entries(bench: Bench) -> None:
    await bench.reads("site-1", 0, 3600)
    await bench.at(3720)
    assert await bench.energies_wh("site-1") == [900] * 4
    await bench.reads("site-1", 900, raw=1100)
    await bench.reads("site-1", 2700, raw=4000)
    await bench.at(3730, steps=40)
    assert await bench.energies_wh("site-1") == [100, 1450, 1450, 600]
    signs = [entry.sign for entry in await bench.entries()]
    assert (signs.count(1), signs.count(-1)) == (8, 4)
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


async def test_order_of_arrival_changes_nothing_in_the_accounts(benches: Any) -> None:
    punctual, late = await benches("punctual"), await benches("late")
    times_s = [0, 333, 900, 1234, 2000, 2700, 3599, 3700]
    for at_s in times_s:
        await punctual.reads("site-1", at_s, raw=at_s * 7)
        await punctual.at(at_s + 120)
    for at_s in [2700, 3700, 0, 1234, 3599, 333, 900, 2000]:
        await late.reads("site-1", at_s, raw=at_s * 7)
        await late.at(3720, steps=100)
    await punctual.at(3820, steps=100)
    assert set(standing_lines(await late.entries())) == set(
        standing_lines(await punctual.entries())
    )


async def test_registers_before_the_first_one_reach_back(bench: Bench) -> None:
    await bench.reads("site-1", 2700, 3600)
    await bench.at(3720)
    await bench.reads("site-1", 0, 900)
    await bench.at(3730, steps=40)
    assert await bench.energies_wh("site-1") == [900] * 4
    assert bench.board.balance is not None
    assert bench.board.balance.periods_count == 4


async def test_a_restart_goes_on_where_it_stood(bench: Bench) -> None:
    await bench.reads("site-1", *range(0, 9001, 900))
    await bench.at(1920)
    keys = [entry.key for entry in await bench.entries()]
    bench.restart()
    await bench.at(1920, steps=5)
    assert [entry.key for entry in await bench.entries()] == keys
    assert bench.board.statement is not None
    assert bench.board.statement.end_ns == T0 + 1800 * S
    bench.restart()
    await bench.at(9120, steps=150)
    assert await bench.energies_wh("site-1") == [900] * 10
    assert all(entry.sign == 1 for entry in await bench.entries())
    assert bench.board.balance is not None
    assert (bench.board.balance.periods_count, bench.board.balance.balance_error_wh) == (10, 0)


@pytest.mark.parametrize("period_s", [60, 300, 3600])
async def test_a_change_of_the_grid_sells_nothing_twice(bench: Bench, period_s: int) -> None:
    await bench.reads("site-1", *range(0, 14_401, 100))
    await bench.at(2000)
    bench.restart(period_s)
    await bench.at(14_800, steps=200)
    bench.restart(period_s)
    await bench.at(14_800, steps=200)
    spans = sorted({(e.start_ns, e.end_ns) for e in await bench.entries()})
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert sum(await bench.energies_wh("site-1")) == (spans[-1][1] - T0) // S
    assert all(entry.sign == 1 for entry in await bench.entries())


async def test_an_exchange_shows_both_meters(bench: Bench) -> None:
    await bench.reads("site-1", 0, 300)
    await bench.reads("site-1", 400, raw=5, meter="n")
    await bench.reads("site-1", 900, raw=505, meter="n")
    await bench.at(1020)
    assert [(line.meter_id, line.energy_wh) for line in standing_lines(await bench.entries())] == [
        ("m.site-1", 300),
        ("n.site-1", 500),
    ]


async def test_a_reset_is_reported_and_never_guessed(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900, 1800)
    await bench.reads("site-1", 2000, raw=3)
    await bench.reads("site-1", 2700, raw=703)
    await bench.reads("site-1", 3600, raw=1603)
    await bench.at(2820)
    third = bench.board.statement
    assert third is not None
    assert ["no roll-over" in why for _, why in third.missing] == [True]
    await bench.at(3720, steps=50)
    assert await bench.energies_wh("site-1") == [900, 900, 900]
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


@pytest.mark.parametrize("kind", ["reset", "until"])
async def test_periods_that_never_fit_do_not_call_each_other(benches: Any, kind: str) -> None:
    until = datetime.fromtimestamp(T0 // S + 1800, UTC) if kind == "until" else None
    bench = await benches(until=until)
    for at_s in range(0, 9001, 900):
        is_reset = kind == "reset" and at_s > 1800
        await bench.reads("site-1", at_s, raw=at_s if is_reset else 50_000 + at_s)
    await bench.at(9120)
    await bench.at(9121, steps=20)
    assert not bench.planner._again


async def test_what_waits_does_not_starve_the_turn_of_others(bench: Bench) -> None:
    await bench.reads("site-1", 0, 600)
    await bench.reads("site-2", 0, 900, 1800, 3600)
    await bench.at(3720)
    await bench.reads("site-2", 2700, raw=3600)
    for at_s in range(3721, 3790):
        bench.planner._credit_rows = -2999  # one period a wake-up
        bench.planner._again.setdefault(T0)  # and something that is called for ever
        await bench.at(at_s)
    assert await bench.energies_wh("site-2") == [900, 900, 800, 1000]


async def test_a_clock_that_stood_in_1970_opens_no_million_periods(bench: Bench) -> None:
    await bench.reads("site-1", 100 - T0 // S, raw=999)
    await bench.at(100)
    assert bench.board.statement is None
    await bench.reads("site-1", *range(0, 3601, 900))
    await bench.at(3720)
    assert await bench.energies_wh("site-1") == [900] * 4
    balance = bench.board.balance
    assert balance is not None
    assert (balance.periods_count, balance.balance_error_wh) == (4, 0)


async def test_an_absence_beyond_the_horizon_goes_on_from_the_ledger(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900)
    await bench.at(1020)
    bench.restart()
    away_s = 3100 * 900
    await bench.reads("site-1", away_s)
    await bench.at(away_s + 120, steps=2)
    assert sum(await bench.energies_wh("site-1")) == away_s


@pytest.mark.parametrize(
    "edited",
    [{"price_eur_mwh": "99"}, {"source_id": "vs-2"}, {"sites": ["site-2"]}],
    ids=["price", "source", "member"],
)
async def test_edited_settings_leave_closed_periods_alone(bench: Bench, edited: Any) -> None:
    await bench.reads("site-1", *range(0, 2701, 900))
    await bench.reads("site-2", *range(0, 2701, 900))
    await bench.at(1920)
    keys = [entry.key for entry in await bench.entries()]
    bench.restart(**edited)
    await bench.at(1920, steps=20)
    assert [entry.key for entry in await bench.entries()] == keys
    balance = bench.board.balance
    assert balance is not None
    assert (balance.periods_count, balance.balance_error_wh) == (2, 0)


async def test_late_registers_are_worth_what_was_agreed_then(bench: Bench) -> None:
    await bench.reads("site-1", 0, 1800, 2700)
    await bench.at(1920)
    bench.restart(price_eur_mwh="90")
    await bench.reads("site-1", 900, raw=1100)
    await bench.at(2820, steps=20)
    lines = {(line.energy_wh, line.price_eur_mwh) for line in standing_lines(await bench.entries())}
    assert lines == {(100, "45.00"), (1700, "45.00"), (900, "90")}


async def test_membership_ends_inside_a_period(benches: Any) -> None:
    bench = await benches(until=datetime.fromtimestamp(T0 // S + 1200, UTC))
    await bench.reads("site-1", *range(0, 3601, 900))
    await bench.at(3720)
    assert await bench.energies_wh("site-1") == [900, 300]


async def test_a_failing_store_loses_nothing(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900)
    bench.ledger.is_full = True
    with pytest.raises(StoreError):
        await bench.at(1020)
    assert bench.board.statement is None
    bench.ledger.is_full = False
    await bench.at(1021)
    assert await bench.energies_wh("site-1") == [900]


async def test_wrong_accounts_show_in_the_balance(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900)
    await bench.at(1020)
    bench.ledger.lost_start_ns = T0 + 900 * S
    await bench.reads("site-1", 1800)
    await bench.at(1920)
    balance = bench.board.balance
    assert balance is not None and balance.worst is not None
    assert (balance.balance_error_wh, balance.worst.start_ns) == (900, T0 + 900 * S)


async def test_it_runs_until_it_is_cancelled(bench: Bench) -> None:
    await bench.reads("site-1", 0, 900)
    bench.clock.at_ns = T0 + 1020 * S
    task = asyncio.get_running_loop().create_task(bench.planner.run(), name="planner")
    async with asyncio.timeout(60):
        await bench.board.changed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.board.statement is not None
