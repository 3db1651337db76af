"""The spool: numbers for good, nothing lost by a kill, nothing doubled."""

import random
import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from ports.spool_rig import SECOND_NS, StillClock, register, row, spool_in

from heatpool.codec import columns_from_bytes, event_times_ns, registers_from_bytes, unpack
from heatpool.errors import StoreError
from heatpool.sample import Channel, Row, SpoolKind
from heatpool_agent.ports import Seq
from heatpool_agent.spool import heal_folder
from heatpool_agent.spool_files import FILES, schema_version
from heatpool_agent.spool_schema import migrate


def test_a_frame_closes_when_it_is_full(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=3) as spool:
        spool.append(row(1, heat=10.0))
        spool.append(row(2, heat=20.0))
        assert spool.read(SpoolKind.TELEMETRY, Seq(0), 10) == []
        spool.append(row(3, heat=30.0))
        (frame,) = spool.read(SpoolKind.TELEMETRY, Seq(0), 10)
        assert unpack(columns_from_bytes(frame.payload), spool.schemas()[0].channels) == [
            [10.0, 20.0, 30.0]
        ]


def test_open_rows_survive_a_restart(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=9) as spool:
        spool.append(row(1, heat=10.0))
        spool._telemetry.open_rows = []  # what a kill would leave behind: nothing in memory
    with spool_in(tmp_path, rows_per_frame=9) as spool:
        spool.append(row(2, heat=20.0))
        spool.close_frame()
        (frame,) = spool.read(SpoolKind.TELEMETRY, Seq(0), 10)
    assert event_times_ns(columns_from_bytes(frame.payload)) == [SECOND_NS, 2 * SECOND_NS]


def test_a_new_channel_makes_a_new_schema_and_ends_the_frame(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=5) as spool:
        spool.append(row(1, heat=10.0))
        spool.append(row(2, heat=11.0))
        spool.close_frame()
        spool.append(row(3, heat=12.0, hot=45.5))
        spool.append(row(4, hot=45.6))
        spool.close_frame()
        frames = spool.read(SpoolKind.TELEMETRY, Seq(0), 10)
        schemas = {schema.schema_id: schema for schema in spool.schemas()}
        columns = columns_from_bytes(frames[-1].payload)
    assert [len(schema.channels) for schema in schemas.values()] == [1, 2]
    assert unpack(columns, schemas[columns.schema_id].channels) == [[12.0, None], [45.5, 45.6]]


def test_numbers_are_gap_free_over_restarts_and_keep_their_boot_id(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.append(row(1, heat=1.0))
        first = spool.mark(SpoolKind.TELEMETRY)
    with spool_in(tmp_path) as spool:
        spool.append(row(2, heat=2.0))
        frames = spool.read(SpoolKind.TELEMETRY, Seq(0), 10)
        assert spool.mark(SpoolKind.TELEMETRY).boot_id == first.boot_id
    assert [frame.seq for frame in frames] == [1, 2]


def test_what_is_durable_elsewhere_stays_a_day_longer(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        for second in range(6):
            # Old rows too: what counts is when they became durable.
            spool.append(row(second, heat=1.0))
        for hours, durable_seq, held in ((0, 2, 6), (3, 3, 6), (23, 4, 6), (24, 5, 4), (28, 6, 3)):
            clock.now_ns = StillClock().now_ns + hours * 3_600 * SECOND_NS
            spool.forget(SpoolKind.TELEMETRY, Seq(durable_seq))
            assert len(spool.read(SpoolKind.TELEMETRY, Seq(0), 10)) == held
        assert spool.mark(SpoolKind.TELEMETRY).durable_seq == 6


@pytest.mark.parametrize("durable_seq", [0, 3, 99])
def test_an_ack_for_what_was_never_sent_changes_nothing(tmp_path: Path, durable_seq: int) -> None:
    with spool_in(tmp_path) as spool:
        spool.append(row(1, heat=1.0))
        spool.append(row(2, heat=1.0))
        spool.forget(SpoolKind.TELEMETRY, Seq(durable_seq))
        assert spool.mark(SpoolKind.TELEMETRY).durable_seq == 0


def test_registers_are_chained_by_their_hashes(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.append_registers([register(1, 100), register(2, 101)])
    with spool_in(tmp_path) as spool:
        spool.append_registers([register(3, 102)])
        frames = spool.read(SpoolKind.BILLING, Seq(0), 10)
    rows = [row for frame in frames for row in registers_from_bytes(frame.payload)]
    hashes = {row.chain_sha256 for row in rows}
    assert [row.raw for row in rows] == [100, 101, 102]
    assert len(hashes) == 3 and all(len(digest) == 32 for digest in hashes)


def test_the_chain_of_a_changed_register_differs(tmp_path: Path) -> None:
    chains = []
    for folder, raw in ((tmp_path / "a", 100), (tmp_path / "b", 101)):
        with spool_in(folder) as spool:
            spool.append_registers([register(1, raw), register(2, 200)])
            (frame,) = spool.read(SpoolKind.BILLING, Seq(0), 1)
            chains.append(registers_from_bytes(frame.payload)[-1].chain_sha256)
    assert chains[0] != chains[1]


def test_two_agents_cannot_share_a_spool(tmp_path: Path) -> None:
    with spool_in(tmp_path), pytest.raises(StoreError, match="another agent"), spool_in(tmp_path):
        pass


@pytest.mark.parametrize("rubbish", [b"", b"this is no database" * 400])
def test_a_damaged_file_is_set_aside_and_a_new_boot_id_begins(
    tmp_path: Path, rubbish: bytes
) -> None:
    with spool_in(tmp_path) as spool:
        spool.append(row(1, heat=1.0))
        before = spool.mark(SpoolKind.TELEMETRY).boot_id
        billing = spool.mark(SpoolKind.BILLING).boot_id
    path = tmp_path / FILES[SpoolKind.TELEMETRY]
    path.write_bytes(rubbish or path.read_bytes()[:5_000])
    assert len(heal_folder(tmp_path, at_ns=5)) == 1
    migrate(tmp_path)
    with spool_in(tmp_path) as spool:
        assert spool.mark(SpoolKind.TELEMETRY).boot_id != before
        assert spool.mark(SpoolKind.BILLING).boot_id == billing


def test_a_file_that_cannot_be_looked_at_is_left_alone_and_told(tmp_path: Path) -> None:
    path = tmp_path / FILES[SpoolKind.BILLING]
    path.mkdir()
    with pytest.raises(StoreError, match="let this user open"):
        heal_folder(tmp_path, at_ns=5)
    assert {found.name for found in tmp_path.iterdir()} == {path.name, "lock"}


def test_a_full_disk_is_an_error_and_leaves_the_spool_usable(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        db = spool._db[SpoolKind.TELEMETRY]
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        big = {Channel("rack", f"c{i}_w", -1): float(i) for i in range(900)}
        with pytest.raises(StoreError, match="free room"):
            spool.append(Row(event_ns=1, cells=big))
        db.execute("PRAGMA max_page_count = 1000000")
        spool.append(row(2, heat=2.0))
        assert [frame.seq for frame in spool.read(SpoolKind.TELEMETRY, Seq(0), 10)] == [1]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ports.spool_rig import register, row, spool_in
with spool_in(Path(sys.argv[2]), rows_per_frame=2) as spool:
    second = spool.mark(2).next_seq
    while True:
        spool.append(row(second, heat=float(second)))
        spool.append_registers([register(second, second)])
        print(second, flush=True)
        second += 1
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_loses_no_row_that_append_returned_for(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "spool"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(Path(__file__).parents[1]), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [int(child.stdout.readline()) for _ in range(random.Random(seed).randint(1, 120))][-1]
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    with spool_in(folder) as spool:
        spool.close_frame()
        telemetry = spool.read(SpoolKind.TELEMETRY, Seq(0), 10_000)
        billing = spool.read(SpoolKind.BILLING, Seq(0), 10_000)
    seconds = [
        event_ns // SECOND_NS
        for frame in telemetry
        for event_ns in event_times_ns(columns_from_bytes(frame.payload))
    ]
    raws = [row.raw for frame in billing for row in registers_from_bytes(frame.payload)]
    assert seconds[:told] == list(range(1, told + 1))
    assert raws[:told] == list(range(1, told + 1))
    assert all(after == before + 1 for before, after in pairwise(seconds))
    assert all(after == before + 1 for before, after in pairwise(raws))


def test_a_newer_file_is_seen(tmp_path: Path) -> None:
    migrate(tmp_path)
    path = tmp_path / FILES[SpoolKind.BILLING]
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    assert schema_version(path) == 99


def test_a_frame_on_disk_stays_written_once_when_no_room_can_be_made(tmp_path: Path) -> None:
    with spool_in(tmp_path, max_bytes=70_000) as spool:
        db = spool._db[SpoolKind.TELEMETRY]
        db.execute("CREATE TRIGGER t BEFORE DELETE ON frames BEGIN SELECT RAISE(ABORT, 'no'); END")
        for second in range(1, 800):
            spool.append(row(second, heat=float(second)))
        assert spool.size_bytes() > 70_000
        assert len(spool.read(SpoolKind.TELEMETRY, Seq(0), 1_000)) == 799
        db.execute("DROP TRIGGER t")
        spool.append(row(800, heat=1.0))
        assert spool.mark(SpoolKind.TELEMETRY).first_seq > 1
