"""The planner over a store: closes once, waits for the late, restates, survives a restart."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from heatpool.errors import StoreError
from heatpool.sample import MeterId, MeteringPointId, RegisterReason, RegisterRow, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Agreement, Config, Member, Settlement, VirtualSource
from heatpool_aggregator.core.settlement import LedgerEntry, StatementLine, standing_lines
from heatpool_aggregator.loops.planner import Planner
from heatpool_aggregator.ports import Ledger, Registers

S = 10**9
T0 = 1_790_000_100 * S  # a quarter of an hour begins here
QUARTER = 900


class HandClock:
    """A clock that tests turn by hand."""

    def __init__(self) -> None:
        self.at_ns = T0

    def now_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.at_ns - T0


class MemoryRegisters:
    def __init__(self) -> None:
        self.rows: dict[tuple[SiteId, MeteringPointId], list[RegisterRow]] = {}

    def take(self, site: str, *rows: RegisterRow) -> None:
        held = self.rows.setdefault((SiteId(site), MeteringPointId("meter")), [])
        held += rows
        held.sort(key=lambda row: row.event_ns)

    async def put(self, rows: Sequence[Any]) -> None:
        for stored in rows:
            self.take(stored.site_id, stored.row)

    async def series(
        self, site_id: SiteId, point_id: MeteringPointId, start_ns: int, end_ns: int
    ) -> Sequence[RegisterRow]:
        rows = self.rows.get((site_id, point_id), [])
        before = [row for row in rows if row.event_ns < start_ns][-1:]
        after = [row for row in rows if row.event_ns >= end_ns][:1]
        return [*before, *(row for row in rows if start_ns <= row.event_ns < end_ns), *after]

    async def points(self) -> Sequence[tuple[SiteId, MeteringPointId]]:
        return sorted(self.rows)


class MemoryLedger:
    def __init__(self) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self.is_failing = False

    async def post(self, entries: Sequence[LedgerEntry]) -> None:
        if self.is_failing:
            raise StoreError("store: disk is full")
        for entry in entries:
            self.entries.setdefault(entry.key, entry)

    async def read(self, start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        return [e for e in self.entries.values() if start_ns <= e.start_ns and e.end_ns <= end_ns]


class MemoryStore:
    def __init__(self, registers: Registers, ledger: Ledger) -> None:
        self.registers, self.ledger = registers, ledger
        self.chunks: Any = None
        self.events: Any = None

    async def flush(self) -> None:
        return

    async def close(self) -> None:
        return


class Bench:
    """A planner with its store, clock and board, and what tests ask of them."""

    def __init__(self, *, period_s: int = QUARTER, until: datetime | None = None) -> None:
        self.registers, self.ledger, self.clock = MemoryRegisters(), MemoryLedger(), HandClock()
        self.store = MemoryStore(self.registers, self.ledger)
        self.until = until
        self.restart(period_s)

    def restart(self, period_s: int = QUARTER) -> None:
        source = VirtualSource(
            id="vs-1",
            kind="greenhouse",
            agreement=Agreement(id="hpa-1", price_eur_mwh=Decimal("45.00")),
            member=(Member(site_id="site-1", until=self.until), Member(site_id="site-2")),
        )
        self.board = Board()
        config = Config(
            settlement=Settlement(period_s=period_s, grace_s=120), virtual_source=(source,)
        )
        self.planner = Planner(config, self.store, self.board, self.clock)

    def reads(self, site: str, *at_s: int, **changes: Any) -> None:
        """A meter that moves 1 Wh a second is read at these seconds."""
        self.registers.take(site, *(row(site, s, **changes) for s in at_s))

    async def at(self, at_s: int, *, steps: int = 1) -> None:
        self.clock.at_ns = T0 + at_s * S
        for _ in range(steps):
            await self.planner.step()

    def standing(self) -> tuple[StatementLine, ...]:
        return standing_lines(self.ledger.entries.values())

    def energies_wh(self, site: str) -> list[int]:
        entries = self.ledger.entries.values()
        starts = sorted({e.start_ns for e in entries})
        lines = [standing_lines(e for e in entries if e.start_ns == start) for start in starts]
        return [line.energy_wh for group in lines for line in group if line.site_id == site]


def row(site: str, at_s: int, *, raw: int | None = None, meter: str = "m") -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId(f"{meter}.{site}"),
        event_ns=T0 + at_s * S,
        raw=1000 + at_s if raw is None else raw,
        exponent=0,
        modulus=10**8,
        reason=RegisterReason.PERIODIC,
    )


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_nothing_is_closed_before_the_first_register(bench: Bench) -> None:
    await bench.at(10_000)
    assert (bench.board.statement, bench.board.balance) == (None, None)


async def test_a_period_closes_when_its_grace_is_over(bench: Bench) -> None:
    bench.reads("site-1", 0, 900)
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
        bench.reads("site-1", end_s)
        bench.reads("site-2", end_s + 7)
        await bench.at(end_s + 200)
    await bench.at(9120)
    assert bench.energies_wh("site-1") == [900] * 10
    assert sum(bench.energies_wh("site-2")) == 9000 - 7
    assert all(entry.sign == 1 for entry in bench.ledger.entries.values())
    balance = bench.board.balance
    assert balance is not None
    assert (balance.periods_count, balance.balance_error_wh) == (10, 0)


async def test_who_is_late_is_named_and_settled_later(bench: Bench) -> None:
    bench.reads("site-1", 0, 900, 1800)
    bench.reads("site-2", 0, 300)
    await bench.at(1020)
    first = bench.board.statement
    assert first is not None and not first.is_complete
    assert [(who, "no register" in why) for who, why in first.missing] == [("site-2", True)]
    bench.reads("site-2", 950, 1800)
    await bench.at(1100)
    second = bench.board.statement
    assert second is not None and second.is_complete
    assert bench.energies_wh("site-2") == [900]


async def test_a_gap_of_many_periods_is_bridged_without_loss(bench: Bench) -> None:
    for end_s in range(0, 90_001, 900):
        bench.reads("site-1", end_s)
        await bench.at(end_s + 120)
    bench.reads("site-2", 0, 90_000)
    await bench.at(90_900, steps=200)
    assert sum(bench.energies_wh("site-2")) == 90_000
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


async def test_late_readings_restate_by_reversing_entries(bench: Bench) -> None:
    bench.reads("site-1", 0, 3600)
    await bench.at(3720)
    assert bench.energies_wh("site-1") == [900] * 4
    bench.reads("site-1", 900, raw=1100)
    bench.reads("site-1", 2700, raw=4000)
    await bench.at(3730, steps=8)
    assert bench.energies_wh("site-1") == [100, 1450, 1450, 600]
    signs = [entry.sign for entry in bench.ledger.entries.values()]
    assert (signs.count(1), signs.count(-1)) == (8, 4)
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


async def test_order_of_arrival_changes_nothing_in_the_accounts() -> None:
    punctual, late = Bench(), Bench()
    times_s = [0, 333, 900, 1234, 2000, 2700, 3599, 3700]
    for at_s in times_s:
        punctual.reads("site-1", at_s, raw=at_s * 7)
        await punctual.at(at_s + 120)
    for at_s in [2700, 3700, 0, 1234, 3599, 333, 900, 2000]:
        late.reads("site-1", at_s, raw=at_s * 7)
        await late.at(3720, steps=20)
    await punctual.at(3820, steps=20)
    assert set(late.standing()) == set(punctual.standing())


async def test_registers_before_the_first_one_reach_back(bench: Bench) -> None:
    bench.reads("site-1", 2700, 3600)
    await bench.at(3720)
    bench.reads("site-1", 0, 900)
    await bench.at(3730, steps=8)
    assert bench.energies_wh("site-1") == [900] * 4
    assert bench.board.balance is not None
    assert bench.board.balance.periods_count == 4


async def test_a_restart_goes_on_where_it_stood(bench: Bench) -> None:
    bench.reads("site-1", *range(0, 9001, 900))
    await bench.at(1920)
    keys = list(bench.ledger.entries)
    bench.restart()
    await bench.at(1920, steps=5)
    assert list(bench.ledger.entries) == keys
    bench.restart()
    await bench.at(9120, steps=30)
    assert bench.energies_wh("site-1") == [900] * 10
    assert all(entry.sign == 1 for entry in bench.ledger.entries.values())
    assert bench.board.balance is not None
    assert (bench.board.balance.periods_count, bench.board.balance.balance_error_wh) == (10, 0)


@pytest.mark.parametrize("period_s", [60, 300, 3600])
async def test_a_change_of_the_grid_sells_nothing_twice(bench: Bench, period_s: int) -> None:
    bench.reads("site-1", *range(0, 14_401, 100))
    await bench.at(2000)
    bench.restart(period_s)
    await bench.at(14_800, steps=200)
    bench.restart(period_s)
    await bench.at(14_800, steps=200)
    spans = sorted({(e.start_ns, e.end_ns) for e in bench.ledger.entries.values()})
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert sum(bench.energies_wh("site-1")) == (spans[-1][1] - T0) // S
    assert all(entry.sign == 1 for entry in bench.ledger.entries.values())


async def test_an_exchange_shows_both_meters(bench: Bench) -> None:
    bench.reads("site-1", 0, 300)
    bench.reads("site-1", 400, raw=5, meter="n")
    bench.reads("site-1", 900, raw=505, meter="n")
    await bench.at(1020)
    assert [(line.meter_id, line.energy_wh) for line in bench.standing()] == [
        ("m.site-1", 300),
        ("n.site-1", 500),
    ]


async def test_a_reset_is_reported_and_never_guessed(bench: Bench) -> None:
    bench.reads("site-1", 0, 900, 1800)
    bench.reads("site-1", 2000, raw=3)
    bench.reads("site-1", 2700, raw=703)
    bench.reads("site-1", 3600, raw=1603)
    await bench.at(2820)
    third = bench.board.statement
    assert third is not None
    assert ["no roll-over" in why for _, why in third.missing] == [True]
    await bench.at(3720, steps=10)
    assert bench.energies_wh("site-1") == [900, 900, 900]
    assert bench.board.balance is not None
    assert bench.board.balance.balance_error_wh == 0


async def test_membership_ends_inside_a_period() -> None:
    bench = Bench(until=datetime.fromtimestamp(T0 // S + 1200, UTC))
    bench.reads("site-1", *range(0, 3601, 900))
    await bench.at(3720)
    assert bench.energies_wh("site-1") == [900, 300]


async def test_a_failing_store_loses_nothing(bench: Bench) -> None:
    bench.reads("site-1", 0, 900)
    bench.ledger.is_failing = True
    with pytest.raises(StoreError):
        await bench.at(1020)
    assert bench.board.statement is None
    bench.ledger.is_failing = False
    await bench.at(1021)
    assert bench.energies_wh("site-1") == [900]


async def test_wrong_accounts_show_in_the_balance(bench: Bench) -> None:
    bench.reads("site-1", 0, 900)
    await bench.at(1020)
    read = bench.ledger.read

    async def loses_entries(start_ns: int, end_ns: int) -> Sequence[LedgerEntry]:
        return [e for e in await read(start_ns, end_ns) if e.start_ns != T0 + 900 * S]

    bench.ledger.read = loses_entries  # type: ignore[method-assign]
    bench.reads("site-1", 1800)
    await bench.at(1920)
    balance = bench.board.balance
    assert balance is not None and balance.worst is not None
    assert (balance.balance_error_wh, balance.worst.start_ns) == (900, T0 + 900 * S)


async def test_it_runs_until_it_is_cancelled(bench: Bench) -> None:
    bench.reads("site-1", 0, 900)
    bench.clock.at_ns = T0 + 1020 * S
    task = asyncio.get_running_loop().create_task(bench.planner.run(), name="planner")
    async with asyncio.timeout(5):
        await bench.board.changed()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.board.statement is not None
