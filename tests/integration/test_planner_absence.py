"""The aggregator was away for hours: accounts wait for what sites kept, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from integration.planner_bench import QUARTER, T0, Bench, S
from turns import working

from heatpool.sample import RegisterReason
from heatpool_aggregator.loops import planner
from heatpool_aggregator.stores.sqlite import open_store

DOWN_S = 3720  # four periods are closed by then
UP_S = DOWN_S + 6 * 3600
GRACE_S = 120
WAIT_S = 3600
CLOSED_S = UP_S // QUARTER * QUARTER  # end of the last period that ends before the start


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_store("", tmp_path) as store:
        yield Bench(store)


async def away(bench: Bench, *, silent_since_s: int = DOWN_S) -> None:
    """An hour of both sites, then nobody to hear them for six, then a start."""
    for at_s in range(0, DOWN_S, 60):
        await bench.reads("site-1", at_s)
        if at_s <= silent_since_s:
            await bench.reads("site-2", at_s)
    await bench.at(DOWN_S)
    bench.clock.at_ns = T0 + UP_S * S
    bench.restart()


async def drains(bench: Bench, site: str, start_s: int, end_s: int) -> None:
    await bench.reads(site, *range(start_s, end_s, 60))


def closed_end_s(bench: Bench) -> int:
    closed = bench.board.statement
    assert closed is not None
    return (closed.end_ns - T0) // S


def closings(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """End of each period that closed, s after T0, and how many were missing."""
    told = [r.__dict__ for r in caplog.records if r.message == "planner.period_closed"]
    facts = [next(v for v in one.values() if isinstance(v, dict)) for one in told]
    return [((one["start_ns"] - T0) // S + QUARTER, one["missing_count"]) for one in facts]


async def test_sites_that_drain_in_five_minutes_are_in_every_statement(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await away(bench)
    for minute in range(1, 6):
        await drains(bench, "site-1", 3720 + (minute - 1) * 4320, 3720 + minute * 4320)
        if minute > 3:  # found nobody for so long that its next try came late
            await drains(
                bench, "site-2", 3720 + (minute - 4) * 10_800, 3720 + (minute - 3) * 10_800
            )
        await bench.at(UP_S + minute * 60)
    await bench.at(UP_S + GRACE_S + 300)
    assert closed_end_s(bench) == CLOSED_S
    assert closings(caplog) == [(end_s, 0) for end_s in range(QUARTER, CLOSED_S + QUARTER, QUARTER)]
    assert {entry.reason for entry in await bench.entries()} == {"period closed"}
    for site in ("site-1", "site-2"):
        assert await bench.energies_wh(site) == [QUARTER] * (CLOSED_S // QUARTER)
    assert bench.board.balance is not None and bench.board.balance.balance_error_wh == 0


async def test_even_when_all_are_back_nothing_closes_before_the_grace_from_the_start(
    bench: Bench,
) -> None:
    await away(bench)
    for site in ("site-1", "site-2"):
        await drains(bench, site, 3720, UP_S)
    await bench.at(UP_S + GRACE_S - 1)
    assert closed_end_s(bench) == 3600
    await bench.at(UP_S + GRACE_S)
    assert closed_end_s(bench) == CLOSED_S


async def test_who_never_returns_is_named_when_the_wait_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await away(bench)
    await drains(bench, "site-1", 3720, UP_S + WAIT_S)
    await bench.at(UP_S + WAIT_S - 1, steps=3)
    assert closed_end_s(bench) == 3600
    await bench.at(UP_S + WAIT_S)
    assert closed_end_s(bench) == (UP_S + WAIT_S - GRACE_S) // QUARTER * QUARTER
    closed = bench.board.statement
    assert closed is not None
    assert [(site, "no register" in why) for site, why in closed.missing] == [("site-2", True)]
    assert set(await bench.energies_wh("site-1")) == {QUARTER}
    told = [r for r in caplog.records if r.message == "planner.not_returned"]
    assert len(told) == 1 and "site-2" in str(told[0].__dict__)


async def test_who_was_silent_before_holds_nobody_up(bench: Bench) -> None:
    await away(bench, silent_since_s=1800)
    await drains(bench, "site-1", 3720, UP_S)
    await bench.at(UP_S + GRACE_S)
    assert closed_end_s(bench) == CLOSED_S
    assert bench.board.statement is not None and not bench.board.statement.is_complete


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_meter_that_left_meanwhile_is_not_waited_for(
    bench: Bench, *, is_known: bool
) -> None:
    """Whether it was awaited before that was heard, or not."""
    await away(bench)
    if is_known:
        await bench.at(UP_S + 1)
    for site in ("site-1", "site-2"):
        await drains(bench, site, 3720, 9000)
    await drains(bench, "site-1", 9000, UP_S)
    await bench.reads("site-2", 9000, reason=RegisterReason.METER_CLOSING)
    await bench.at(UP_S + GRACE_S)
    assert closed_end_s(bench) == CLOSED_S
    assert sum(await bench.energies_wh("site-2")) == 9000


async def test_what_comes_after_the_start_waits_for_its_own_grace_alone(bench: Bench) -> None:
    await away(bench)
    for site in ("site-1", "site-2"):
        await drains(bench, site, 3720, UP_S)
    await drains(bench, "site-1", UP_S, UP_S + 2 * QUARTER)
    end_s = CLOSED_S + 2 * QUARTER
    await bench.at(end_s + GRACE_S - 1)
    assert closed_end_s(bench) < end_s
    await bench.at(UP_S + WAIT_S)
    assert closed_end_s(bench) >= end_s


async def test_who_is_late_with_what_came_after_the_start_has_not_failed_to_return(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await away(bench)
    for site in ("site-1", "site-2"):
        await drains(bench, site, 3720, UP_S + QUARTER)
    await drains(bench, "site-1", UP_S + QUARTER, UP_S + 2 * QUARTER)
    await bench.at(CLOSED_S + QUARTER + GRACE_S)
    await bench.at(CLOSED_S + 2 * QUARTER + GRACE_S)
    assert closed_end_s(bench) == CLOSED_S + 2 * QUARTER
    assert not [r for r in caplog.records if r.message == "planner.not_returned"]


async def test_who_is_no_member_any_more_is_waited_for_no_longer(tmp_path: Path) -> None:
    async with open_store("", tmp_path) as store:
        bench = Bench(store, until=datetime.fromtimestamp(T0 // S + 7200, UTC))
        await away(bench)
        await drains(bench, "site-1", 3720, 7260)
        await drains(bench, "site-2", 3720, UP_S)
        await bench.at(UP_S + GRACE_S)
        assert closed_end_s(bench) == CLOSED_S


async def test_a_process_that_was_stopped_for_hours_was_away_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "QUIET_S", 0.0)
    monkeypatch.setattr(planner, "WAKE_S", 0.01)
    for site in ("site-1", "site-2"):
        await drains(bench, site, 0, DOWN_S)
    bench.clock.at_ns = T0 + DOWN_S * S
    async with working(bench.planner.run(), name="planner"):
        await until_closed(bench, 3600)
        bench.clock.at_ns = T0 + UP_S * S  # in its sleep
        await drains(bench, "site-1", DOWN_S, UP_S)
        await wakes(bench)
        for passed_s in range(0, GRACE_S + 60, 20):
            bench.clock.at_ns = T0 + (UP_S + passed_s) * S
            await wakes(bench)
            assert closed_end_s(bench) == 3600
        await drains(bench, "site-2", DOWN_S, UP_S)
        await until_closed(bench, CLOSED_S)
    for site in ("site-1", "site-2"):
        assert await bench.energies_wh(site) == [QUARTER] * (CLOSED_S // QUARTER)
    assert {entry.reason for entry in await bench.entries()} == {"period closed"}


async def wakes(bench: Bench) -> None:
    """Some wake-ups pass."""
    seen = bench.planner._wakes
    async with asyncio.timeout(60):
        while bench.planner._wakes < seen + 3:  # noqa: ASYNC110  # a planner says nothing of it
            await asyncio.sleep(0.005)


async def until_closed(bench: Bench, end_s: int) -> None:
    async with asyncio.timeout(60):
        while bench.board.statement is None or closed_end_s(bench) < end_s:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.005)
