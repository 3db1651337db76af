"""What waits in memory while the disk refuses: nothing newer lost, nothing stuck at the head."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from heatpool.sample import (
    Channel,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    SiteId,
    SpoolKind,
)
from heatpool_agent.board import Board
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops import spooling as loop
from heatpool_agent.loops.sense import Sense
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.loops.supervise import Driven
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate

HEAT = Channel("rack", "heat_rate_w", -1)


class Silent:
    """A sensor that nobody asks."""

    async def probe(self) -> tuple[str, ...]:
        return ()

    async def read(self) -> tuple[Reading, ...]:
        return ()

    async def close(self) -> None:
        return


METER = Driven(id="meter", kind="mbus", sensor=Silent(), period_s=60, timeout_s=5, is_billing=True)


def count(raw: int) -> Reading:
    return Reading(
        sensor="meter",
        channel="heat",
        quantity="energy_wh",
        kind=ReadingKind.COUNTER,
        value=float(raw),
        event_ns=10**18 + raw,
        boot_ns=10**18 + raw,
        node=Node.HEAT_METER,
        raw=raw,
        meter_id="HPL.1.1.4",
    )


class StillClock:
    def event_ns(self) -> int:
        return 10**18

    def boot_ns(self) -> int:
        return 10**18


def opened(folder: Path) -> SqliteSpool:
    return SqliteSpool(folder, clock=StillClock(), rows_per_frame=1, max_bytes=10**9, keep_s=86_400)


@asynccontextmanager
async def spooling_in(folder: Path) -> AsyncIterator[tuple[Spooling, SqliteSpool, Board]]:
    await asyncio.to_thread(migrate, folder)
    spool = await asyncio.to_thread(opened, folder)
    board = Board(site_id=SiteId("s1"))
    spooling = Spooling(spool, board)
    try:
        yield spooling, spool, board
    finally:
        await spooling.close()


def row(second: int) -> Row:
    return Row(event_ns=second, cells={HEAT: float(second)})


def register(raw: int) -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId("ABC.1.2.4"),
        event_ns=1,
        raw=raw,
        exponent=0,
        modulus=None,
        reason=RegisterReason.PERIODIC,
    )


async def refuse(spooling: Spooling, spool: SqliteSpool) -> None:
    db = spool._db[SpoolKind.TELEMETRY]
    await spooling.call(db.execute, "ALTER TABLE open_rows RENAME TO away")


async def accept(spooling: Spooling, spool: SqliteSpool) -> None:
    db = spool._db[SpoolKind.TELEMETRY]
    await spooling.call(db.execute, "ALTER TABLE away RENAME TO open_rows")


async def test_a_count_that_cannot_be_packed_stops_nothing_behind_it(tmp_path: Path) -> None:
    async with spooling_in(tmp_path) as (spooling, spool, board):
        await spooling.append_registers((register(2**70),))
        await spooling.append_registers(())
        await spooling.append_registers((register(5),))
        await spooling.append(row(1))
        assert [spool.mark(kind).next_seq for kind in SpoolKind] == [2, 2]
        assert board.spool_error == ""


async def test_while_the_disk_refuses_the_oldest_goes_and_the_newest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ROWS_KEPT", 3)
    async with spooling_in(tmp_path) as (spooling, spool, _board):
        await refuse(spooling, spool)
        for second in range(1, 6):
            await spooling.append(row(second))
        await accept(spooling, spool)
        await spooling.append(row(6))
        frames = await spooling.call(
            spool._db[SpoolKind.TELEMETRY].execute, "SELECT start_ns FROM frames ORDER BY seq"
        )
        assert await spooling.call(frames.fetchall) == [(4,), (5,), (6,)]


async def test_a_billing_file_that_refuses_holds_up_no_telemetry(tmp_path: Path) -> None:
    async with spooling_in(tmp_path) as (spooling, spool, board):
        db = spool._db[SpoolKind.BILLING]
        await spooling.call(db.execute, "ALTER TABLE frames RENAME TO away")
        await spooling.append_registers((register(1),))
        await spooling.append(row(1))
        assert "billing.db" in board.spool_error
        assert spool.mark(SpoolKind.TELEMETRY).next_seq == 2
        await spooling.call(db.execute, "ALTER TABLE away RENAME TO frames")
        await spooling.append(row(2))
        assert board.spool_error == ""
        assert spool.mark(SpoolKind.BILLING).next_seq == 2


async def test_an_ack_does_not_hide_that_rows_wait_for_the_disk(tmp_path: Path) -> None:
    async with spooling_in(tmp_path) as (spooling, spool, board):
        await spooling.append(row(1))
        await refuse(spooling, spool)
        await spooling.append(row(2))
        boot_id = spool.mark(SpoolKind.TELEMETRY).boot_id
        await spooling.durable(boot_id, Seq(1), Seq(1))
        assert spool.mark(SpoolKind.TELEMETRY).durable_seq == 1
        assert "no such table" in board.spool_error
        await accept(spooling, spool)


async def test_closing_writes_what_still_waits(tmp_path: Path) -> None:
    async with spooling_in(tmp_path) as (spooling, spool, _board):
        await refuse(spooling, spool)
        await spooling.append(row(1))
        await accept(spooling, spool)
    again = await asyncio.to_thread(opened, tmp_path)
    assert again.mark(SpoolKind.TELEMETRY).next_seq == 2
    await asyncio.to_thread(again.close)


async def test_a_register_that_cannot_be_looked_up_costs_that_pass_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with spooling_in(tmp_path) as (spooling, _spool, board):
        sense = Sense(
            [], board, StillClock(), spooling=spooling, period_s=1.0, report_period_s=10.0
        )
        await asyncio.to_thread(renamed, tmp_path, "meta", "gone")
        await sense.take(METER, [count(5)])
        assert "meter.unwritten" in caplog.text
        await asyncio.to_thread(renamed, tmp_path, "gone", "meta")
        await sense.take(METER, [count(6)])
        last = await spooling.last_register(MeteringPointId("meter"))
        assert last is not None and last.raw == 6


def renamed(folder: Path, table: str, name: str) -> None:
    with closing(sqlite3.connect(folder / "billing.db")) as db, db:
        db.execute(f"ALTER TABLE {table} RENAME TO {name}")


async def test_losses_are_done_once_the_other_end_knows_their_numbers(tmp_path: Path) -> None:
    async with spooling_in(tmp_path) as (spooling, spool, _board):
        for second in range(1, 9):
            await spooling.append(row(second))
        await spooling.call(spool.lose, SpoolKind.TELEMETRY, 10, 20)
        await spooling.append(row(30))
        boot_id = spool.mark(SpoolKind.TELEMETRY).boot_id
        await spooling.durable(boot_id, Seq(10), Seq(10))
        await spooling.durable(boot_id, Seq(1), Seq(8))
        assert len(await spooling.call(spool.losses)) == 1
        assert spool.mark(SpoolKind.TELEMETRY).durable_seq == 8
        await spooling.durable(boot_id, Seq(9), Seq(9))
        assert await spooling.call(spool.losses) == []
        assert spool.mark(SpoolKind.TELEMETRY).durable_seq == 10


@pytest.mark.parametrize("has_reserve", [True, False])
async def test_a_folder_that_does_not_answer_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_reserve: bool
) -> None:
    def gone(_: object) -> os.statvfs_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with spooling_in(tmp_path) as (spooling, spool, board):
        if not has_reserve:
            await asyncio.to_thread((tmp_path / "reserve").unlink)
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", gone)
            await spooling.append(row(1))
            await spooling.append_registers((register(5),))
            await spooling.close_frame()
            assert bool(board.spool_error) is not has_reserve
        await spooling.append(row(2))
        assert board.spool_error == ""
        frames = await spooling.call(spool.read, SpoolKind.TELEMETRY, Seq(0), 10)
        assert [frame.seq for frame in frames] == [1, 2]
        assert spool.mark(SpoolKind.BILLING).next_seq == 2
