"""The energy ledger through the loops: saved with the rows, shown again after a restart."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration.estimator_site import Clock, Deaf, S

from heatpool.sample import Channel, Row, SiteId, SpoolKind
from heatpool_agent.board import Board
from heatpool_agent.commands.once import look
from heatpool_agent.config import Config, load
from heatpool_agent.core.ledger import Ledger, Page
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate

KEY = ("cpu", "powercap/intel-rapl:0")
HEAT = Channel("rack", "heat_rate_w", -1)


CPU = Driven(id="cpu", kind="rapl", sensor=Deaf(), period_s=1.0, timeout_s=1.0, is_billing=False)


@dataclass
class Site:
    """Sense over a spool on disk, stepped by hand."""

    spooling: Spooling
    board: Board
    clock: Clock
    report_period_s: float = 10.0
    boot: str = "a"
    sense: Sense = field(init=False)

    def __post_init__(self) -> None:
        self.sense = Sense(
            [],
            self.board,
            self.clock,
            spooling=self.spooling,
            period_s=1.0,
            report_period_s=self.report_period_s,
        )

    async def read(self, energy_j: int, *, span_s: int = 1) -> None:
        self.clock.second += span_s
        reading = Reading(
            sensor=KEY[0],
            channel=KEY[1],
            quantity="energy_j",
            kind=ReadingKind.COUNTER,
            value=float(energy_j),
            event_ns=self.clock.event_ns(),
            boot_ns=self.clock.boot_ns(),
            node=Node.PACKAGE,
            raw=energy_j * 10**6,
            exponent=-6,
            modulus=262_143_328_850,
            generation=self.boot,
        )
        await self.sense.take(CPU, [reading])
        self.sense.tick(self.clock.event_ns(), self.clock.boot_ns())
        await self.sense._write(self.spooling, self.clock.event_ns())


def opened(folder: Path, kind: type[SqliteSpool] = SqliteSpool) -> SqliteSpool:
    clock = Clock()
    return kind(folder, clock=clock, rows_per_frame=6, max_bytes=10**9, keep_s=86_400)


@asynccontextmanager
async def site_in(
    folder: Path, clock: Clock | None = None, *, report_period_s: float = 10.0
) -> AsyncIterator[Site]:
    await asyncio.to_thread(migrate, folder)
    spool = await asyncio.to_thread(opened, folder)
    board = Board(site_id=SiteId("s1"))
    spooling = Spooling(spool, board)
    try:
        yield Site(spooling, board, clock or Clock(), report_period_s)
    finally:
        await spooling.close()


async def saved_j(folder: Path) -> float:
    spool = await asyncio.to_thread(opened, folder)
    page = spool.saved_ledger
    await asyncio.to_thread(spool.close)
    return page.accounts[0].total.total_j + page.accounts[0].total.total_uj / 1e6


async def test_energy_goes_on_where_the_agent_before_left_it(tmp_path: Path) -> None:
    clock = Clock()
    async with site_in(tmp_path, clock) as site:
        for second in range(12):
            await site.read(second * 50)
    async with site_in(tmp_path, clock) as site:
        assert site.board.energies_j == {}
        await site.read(1_550, span_s=20)
        assert site.board.energies_j == {KEY: 1_550.0}
        assert site.board.electric is None


@pytest.mark.parametrize("report_period_s", [10.0, 60.0])
async def test_what_is_saved_is_at_most_10_s_old(tmp_path: Path, report_period_s: float) -> None:
    clock = Clock()
    async with site_in(tmp_path, clock, report_period_s=report_period_s) as site:
        spool = site.spooling._spool
        assert isinstance(spool, SqliteSpool)
        ages_s = []
        for second in range(45):
            await site.read(second * 50)
            boot_ns = await site.spooling.call(
                lambda: (
                    spool._db[SpoolKind.TELEMETRY]
                    .execute("SELECT boot_ns FROM ledger")
                    .fetchone()[0]
                )
            )
            ages_s.append(clock.second - boot_ns / S)
    assert max(ages_s) <= 10
    # And no commit at each tick.
    assert ages_s.count(0) <= 6


async def test_the_end_of_the_loop_saves_the_last_reading(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        await site.read(0)
        await site.read(70)
        run = asyncio.get_running_loop().create_task(site.sense.run(), name="sense")
        await asyncio.sleep(0)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
    assert await saved_j(tmp_path) == 70.0


async def test_a_gap_is_saved_at_the_next_tick(tmp_path: Path) -> None:
    clock = Clock()
    async with site_in(tmp_path, clock) as site:
        await site.read(100)
        await site.read(200)
        site.boot = "b"
        await site.read(50)
        spool = site.spooling._spool
        assert isinstance(spool, SqliteSpool)
        (gap,) = await site.spooling.call(spool.gaps, 10)
        assert gap.number == 1


async def test_a_disk_that_refuses_gets_the_ledger_later(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        spool = site.spooling._spool
        assert isinstance(spool, SqliteSpool)
        db = spool._db[SpoolKind.TELEMETRY]
        await site.read(0)
        await site.spooling.call(db.execute, "ALTER TABLE ledger RENAME TO away")
        for second in range(1, 13):
            await site.read(second * 50)
        assert "no such table" in site.board.spool_error
        await site.spooling.call(db.execute, "ALTER TABLE away RENAME TO ledger")
        await site.spooling.close_frame()
    assert await saved_j(tmp_path) >= 450.0


async def test_pages_that_wait_for_the_disk_keep_every_gap(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        spool = site.spooling._spool
        assert isinstance(spool, SqliteSpool)
        db = spool._db[SpoolKind.TELEMETRY]
        await site.read(100)
        await site.spooling.call(db.execute, "ALTER TABLE ledger RENAME TO away")
        for boot in "bcd":
            site.boot = boot
            await site.read(50)
        await site.spooling.call(db.execute, "ALTER TABLE away RENAME TO ledger")
        await site.read(60, span_s=10)
        gaps = await site.spooling.call(spool.gaps, 10)
    assert [gap.number for gap in gaps] == [1, 2, 3]


async def test_a_row_is_one_commit_with_its_page(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        spool = site.spooling._spool
        assert isinstance(spool, SqliteSpool)
        db = spool._db[SpoolKind.TELEMETRY]
        await site.read(0)
        await site.read(30)
        await site.spooling.call(db.execute, "ALTER TABLE ledger RENAME TO away")
        row = Row(event_ns=S, cells={HEAT: 1.0})
        await site.spooling.append(row, site.sense._ledger.page())
        rows = await site.spooling.call(db.execute, "SELECT count(*) FROM open_rows")
        assert await site.spooling.call(rows.fetchone) == (0,)
        await site.spooling.call(db.execute, "ALTER TABLE away RENAME TO ledger")


class Slow(SqliteSpool):
    """A disk so slow that something happens while it saves."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def save(self, page: Page) -> None:
        super().save(page)
        self.meanwhile()


async def test_a_page_that_comes_while_one_is_saved_is_saved_too(tmp_path: Path) -> None:
    await asyncio.to_thread(migrate, tmp_path)
    spool = await asyncio.to_thread(opened, tmp_path, Slow)
    assert isinstance(spool, Slow)
    site = Site(Spooling(spool, Board(site_id=SiteId("s1"))), Board(site_id=SiteId("s1")), Clock())
    await site.read(0)
    await site.read(10)
    early = site.sense._ledger.page()
    site.clock.second += 1
    await site.read(40)
    late = site.sense._ledger.page()
    pages = [late]
    spool.meanwhile = lambda: site.spooling.keep_page(pages.pop()) if pages else None
    await site.spooling.save(early)
    await site.spooling.close()
    assert await saved_j(tmp_path) == 40.0


async def test_a_row_that_no_disk_takes_does_not_take_the_ledger_with_it(tmp_path: Path) -> None:
    async with site_in(tmp_path) as site:
        ledger = Ledger()
        await site.read(0)
        await site.read(30)
        page = site.sense._ledger.page()
        assert page.accounts and ledger.page().accounts == ()
        await site.spooling.append(Row(event_ns=2**70, cells={HEAT: 1.0}), page)
    assert await saved_j(tmp_path) == 30.0


async def test_once_leaves_the_ledger_alone(tmp_path: Path) -> None:
    state, sys_root = tmp_path / "state", tmp_path / "sys"
    zone = sys_root / "class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "99999")):
        (zone / name).write_text(f"{text}\n")
    path = tmp_path / "agent.toml"
    path.write_text(f'[site]\nstate_dir = "{state}"\n[roots]\nsys = "{sys_root}"\n')
    config: Config = await asyncio.to_thread(load, path, os.environ)
    document = await look(config, os.environ, span_s=0.01)
    assert any(reading["channel"] == KEY[1] for reading in document["readings"])
    assert not state.exists()
