"""What every Store owes: idempotent puts, answers blind to order; then the files' own."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from sqlite_utils import Database

from heatpool.errors import ConfigError, StoreError
from heatpool.sample import (
    AgreementId,
    BootId,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    SiteId,
    VirtualSourceId,
)
from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.core.settlement import LedgerEntry, StatementLine
from heatpool_aggregator.ports import Chunk, Event, Store, StoredRegister
from heatpool_aggregator.stores import GROUP, migrations, open_store
from heatpool_aggregator.stores.sqlite import PART_COUNT, _fields

SITE, BOOT, POINT = SiteId("site-a"), BootId("boot-1"), MeteringPointId("meter")
NAMES = sorted(point.name for point in entry_points(group=GROUP))


@pytest.fixture(params=NAMES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"{request.param}:", tmp_path) as opened:
        yield opened


def chunk(seq: int, start_ns: int, end_ns: int) -> Chunk:
    return Chunk(
        site_id=SITE,
        boot_id=BOOT,
        seq=seq,
        start_ns=start_ns,
        end_ns=end_ns,
        received_ns=7,
        blob=b"rows %d" % seq,
    )


def register(event_ns: int, seq: int = 1, index: int = 0, **change: object) -> StoredRegister:
    row = RegisterRow(
        metering_point_id=POINT,
        meter_id=MeterId("KAM.1.2.4"),
        event_ns=event_ns,
        raw=2**62,
        exponent=3,
        modulus=None,
        reason=RegisterReason.PERIODIC,
        meter_ns=None,
        status_bits=3,
        chain_sha256=b"c" * 32,
    )
    return StoredRegister(
        site_id=SITE,
        boot_id=BOOT,
        seq=seq,
        index=index,
        received_ns=9,
        row=replace(row, **change),  # type: ignore[arg-type]
    )


def entry(key: str, start_ns: int, end_ns: int, sign: int = 1) -> LedgerEntry:
    line = StatementLine(
        virtual_source_id=VirtualSourceId("harbour"),
        site_id=SITE,
        metering_point_id=POINT,
        meter_id=MeterId("KAM.1.2.4"),
        register_open_wh=5,
        register_close_wh=9,
        energy_wh=4,
        price_eur_mwh="31.50",
        amount_eur="0.01",
        agreement_id=AgreementId("HPA-1"),
        flags=("wrapped",),
    )
    return LedgerEntry(
        key=key,
        start_ns=start_ns,
        end_ns=end_ns,
        posted_ns=99,
        sign=sign,
        line=line,
        reason="closed",
    )


async def test_chunks_that_overlap_a_span_are_found_by_start(store: Store) -> None:
    chunks = [chunk(3, 30, 41), chunk(1, 10, 21), chunk(2, 20, 31)]
    await store.chunks.put(chunks)
    assert await store.chunks.read(SITE, 20, 30) == [chunks[1], chunks[2]]
    assert await store.chunks.read(SITE, 21, 31) == [chunks[2], chunks[0]]
    assert await store.chunks.read(SiteId("other"), 0, 99) == []


async def test_chunks_of_more_than_a_statement_are_all_there_once(store: Store) -> None:
    chunks = [chunk(seq, seq, seq + 1) for seq in range(2 * PART_COUNT + 1)]
    await store.chunks.put(chunks[:-1])
    await store.chunks.put([*chunks, chunks[0]])
    assert await store.chunks.read(SITE, 0, 10**6) == chunks
    await store.chunks.put([])


async def test_a_chunk_that_is_there_is_left_alone(store: Store) -> None:
    await store.chunks.put([chunk(1, 10, 20)])
    await store.chunks.put([chunk(1, 10, 20)._replace(blob=b"other")])
    assert await store.chunks.read(SITE, 0, 99) == [chunk(1, 10, 20)]


async def test_a_register_comes_back_to_the_last_bit(store: Store) -> None:
    stored = register(10, meter_ns=8, modulus=10**8, raw=99_999_999)
    await store.registers.put([stored])
    assert await store.registers.series(SITE, POINT, 0, 99) == [stored.row]


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "times_ns"),
    [
        (20, 40, [10, 20, 30, 40]),
        (21, 39, [20, 30, 40]),
        (10, 11, [10, 20]),
        (0, 5, [10]),
        (41, 50, [40]),
        (40, 41, [30, 40]),
        (0, 99, [10, 20, 30, 40]),
    ],
)
async def test_a_series_reaches_to_its_nearest_neighbours(
    store: Store, start_ns: int, end_ns: int, times_ns: list[int]
) -> None:
    await store.registers.put([register(at, seq=at) for at in (30, 10, 40, 20)])
    rows = await store.registers.series(SITE, POINT, start_ns, end_ns)
    assert [row.event_ns for row in rows] == times_ns


async def test_both_rows_of_an_exchange_are_neighbours(store: Store) -> None:
    await store.registers.put(
        [
            register(10, index=0, reason=RegisterReason.METER_CLOSING),
            register(10, index=1, meter_id="new", reason=RegisterReason.METER_OPENING),
            register(30, seq=2),
        ]
    )
    rows = await store.registers.series(SITE, POINT, 20, 30)
    assert [(row.event_ns, row.reason.name) for row in rows] == [
        (10, "METER_CLOSING"),
        (10, "METER_OPENING"),
        (30, "PERIODIC"),
    ]


async def test_a_register_put_twice_is_there_once(store: Store) -> None:
    await store.registers.put([register(10)])
    await store.registers.put([register(10), register(20, index=1)])
    rows = await store.registers.series(SITE, POINT, 0, 99)
    assert [row.event_ns for row in rows] == [10, 20]


async def test_points_are_those_that_sent_a_register(store: Store) -> None:
    assert await store.registers.points() == []
    other = replace(register(10), site_id=SiteId("b"))
    await store.registers.put([other, register(10), register(20, index=1)])
    assert await store.registers.points() == [(SiteId("b"), POINT), (SITE, POINT)]


async def test_ledger_entries_come_back_in_posting_order(store: Store) -> None:
    entries = [entry("b", 10, 20), entry("a", 10, 20, sign=-1), entry("c", 20, 30)]
    await store.ledger.post(entries)
    assert await store.ledger.read(10, 20) == entries[:2]
    assert await store.ledger.read(0, 99) == entries
    assert await store.ledger.read(11, 99) == entries[2:]


async def test_an_entry_posted_twice_is_there_once(store: Store) -> None:
    await store.ledger.post([entry("a", 10, 20)])
    await store.ledger.post([replace(entry("a", 10, 20), reason="again"), entry("b", 10, 20)])
    assert [one.reason for one in await store.ledger.read(0, 99)] == ["closed", "closed"]


def event(key: str, event_ns: int, name: str = "gap", site: str = "site-a") -> Event:
    return Event(site_id=SiteId(site), name=name, event_ns=event_ns, detail="{}", key=key)


async def test_events_are_read_newest_first(store: Store) -> None:
    events = [event("a", 1), event("b", 3), event("c", 2), event("d", 9, site="site-b")]
    await store.events.put([*events, event("e", 5, name="refused"), events[0]])
    assert [one.key for one in await store.events.read("gap", None, 10)] == ["d", "b", "c", "a"]
    assert [one.key for one in await store.events.read("gap", SITE, 2)] == ["b", "c"]
    assert await store.events.read("refused", None, 10) == [event("e", 5, name="refused")]


async def test_closing_twice_is_no_matter(store: Store) -> None:
    await store.flush()
    await store.close()
    await store.close()


def test_an_unknown_scheme_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'csv' is unknown; known here: sqlite"):
        open_store("csv:", tmp_path)


# The files


async def test_a_store_keeps_everything_over_a_restart(tmp_path: Path) -> None:
    async with open_store("sqlite:", tmp_path) as store:
        await store.registers.put([register(10)])
        await store.ledger.post([entry("a", 10, 20)])
        await store.flush()
    async with open_store("sqlite:", tmp_path) as store:
        assert await store.registers.points() == [(SITE, POINT)]
        assert await store.ledger.read(0, 99) == [entry("a", 10, 20)]


@pytest.mark.parametrize("statement", ["UPDATE entries SET sign = -1", "DELETE FROM entries"])
async def test_the_ledger_refuses_to_be_changed(tmp_path: Path, statement: str) -> None:
    async with open_store("sqlite:", tmp_path) as store:
        await store.ledger.post([entry("a", 10, 20)])
    with (
        closing(sqlite3.connect(tmp_path / "ledger.db")) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("name", ["store.db", "ledger.db"])
async def test_a_newer_schema_is_refused(tmp_path: Path, name: str) -> None:
    async with open_store("sqlite:", tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StoreError, match=f"{name}: schema version is 99, known is [12]:"):
        async with open_store("sqlite:", tmp_path):
            pass


async def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database, whatever its name" * 100)
    with pytest.raises(StoreError, match="not a database"):
        async with open_store("sqlite:", tmp_path):
            pass


async def test_a_store_of_the_version_before_keeps_what_meters_said(tmp_path: Path) -> None:
    old = register(100, seq=1)
    await asyncio.to_thread(make_version_1, tmp_path / "store.db", old)
    corrected = replace(old, seq=2, row=CorrectedRow.of(replace(old.row, event_ns=50), 150))
    for _ in range(2):  # the second time nothing is to be migrated
        async with open_store("sqlite:", tmp_path) as store:
            await store.registers.put([old, corrected])
            found = await store.registers.series(SITE, POINT, 0, 1000)
            assert list(found) == [old.row, corrected.row]
    before = tmp_path / "store.before-2"
    assert before.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(before)) as db:
        assert db.execute("SELECT count(*) FROM registers").fetchone() == (1,)


def make_version_1(path: Path, row: StoredRegister) -> None:
    database = Database(path)
    migrations.history.apply(database, stop_before="registers_of_wrong_clocks")
    with database.conn as db:
        db.execute(f"INSERT INTO registers VALUES ({', '.join('?' * 15)})", _fields(row)[:-1])
        db.execute("INSERT INTO points VALUES (?, ?)", (SITE, POINT))
        db.execute("PRAGMA user_version = 1")
    database.close()
