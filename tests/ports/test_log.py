"""What every Log owes: acked means readable, order, whole commits, snapshots; then the file."""

import asyncio
import random
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from heatpool.errors import ConfigError, LogError
from heatpool.sample import BootId, SiteId
from heatpool_aggregator.logs import GROUP, open_log
from heatpool_aggregator.logs.sqlite import KEEP_NS
from heatpool_aggregator.ports import START, Frame, FrameKind, Log, Position, Snapshot

WRITER = Path(__file__).with_name("writer.py")
NAMES = sorted(point.name for point in entry_points(group=GROUP))


def frame(seq: int, *, received_ns: int = 1) -> Frame:
    return Frame(
        site_id=SiteId("site-a"),
        boot_id=BootId("boot-1"),
        kind=FrameKind.TELEMETRY,
        seq=seq,
        received_ns=received_ns,
        payload=b"frame %d" % seq,
    )


@pytest.fixture(params=NAMES)
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    async with open_log(f"{request.param}:", tmp_path) as opened:
        yield opened


async def read(log: Log, after: Position = START, limit: int = 1000) -> list[tuple[int, int]]:
    async with log.partition(0) as partition:
        found = await partition.read(after, limit)
    return [(int(position), one.seq) for position, one in found]


async def test_appended_frames_are_read_as_they_were(log: Log) -> None:
    frames = [frame(1), frame(2)]
    position = await log.append(frames)
    async with log.partition(0) as partition:
        assert await partition.read(START, 10) == [(position, one) for one in frames]


async def test_frames_come_in_the_order_of_their_commits(log: Log) -> None:
    positions = [await log.append([frame(seq), frame(seq + 1)]) for seq in (5, 1, 3)]
    assert positions == sorted(set(positions))
    assert [seq for _, seq in await read(log)] == [5, 6, 1, 2, 3, 4]


async def test_reading_goes_on_behind_a_position(log: Log) -> None:
    first = await log.append([frame(1)])
    second = await log.append([frame(2)])
    assert await read(log, first) == [(second, 2)]
    assert await read(log, second) == []


async def test_a_limit_never_cuts_a_commit(log: Log) -> None:
    await log.append([frame(1), frame(2), frame(3)])
    await log.append([frame(4)])
    assert [seq for _, seq in await read(log, START, 2)] == [1, 2, 3]


async def test_concurrent_appends_each_get_a_position(log: Log) -> None:
    positions = await asyncio.gather(*(log.append([frame(seq)]) for seq in range(20)))
    assert sorted(positions) == sorted(set(positions))
    assert sorted(seq for _, seq in await read(log)) == list(range(20))


async def test_a_snapshot_is_there_for_the_next_reader(log: Log) -> None:
    position = await log.append([frame(1)])
    async with log.partition(0) as partition:
        assert partition.snapshot is None
        await partition.save(Snapshot(position=position, state=b"state"))
    async with log.partition(0) as partition:
        assert partition.snapshot == Snapshot(position=position, state=b"state")
    later = await log.append([frame(2)])
    assert await read(log, position) == [(later, 2)]


async def test_another_partition_does_not_exist(log: Log) -> None:
    with pytest.raises(LogError, match="partition 1"):
        async with log.partition(1):
            pass


def test_an_unknown_scheme_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'kafka' is unknown; known here: memory, sqlite"):
        open_log("kafka:", tmp_path)


# The file


async def test_a_log_goes_on_where_it_stood(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path) as log:
        first = await log.append([frame(1)])
    async with open_log("sqlite:", tmp_path) as log:
        second = await log.append([frame(2)])
        assert await read(log) == [(first, 1), (second, 2)]


async def test_what_is_applied_and_a_day_old_is_cut(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path) as log:
        positions = [
            await log.append([frame(seq, received_ns=at_ns)])
            for seq, at_ns in enumerate((1, 2, KEEP_NS + 2, KEEP_NS + 2))
        ]
        async with log.partition(0) as partition:
            await partition.save(Snapshot(position=positions[2], state=b""))
        assert [seq for _, seq in await read(log)] == [1, 2, 3]


async def test_what_is_not_applied_is_never_cut(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path) as log:
        first = await log.append([frame(0, received_ns=1)])
        await log.append([frame(1, received_ns=2)])
        await log.append([frame(2, received_ns=9 * KEEP_NS)])
        async with log.partition(0) as partition:
            await partition.save(Snapshot(position=first, state=b""))
        assert [seq for _, seq in await read(log)] == [1, 2]


async def test_a_position_is_never_given_twice(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path) as log:
        last = await log.append([frame(1)])
        async with log.partition(0) as partition:
            await partition.save(Snapshot(position=last, state=b""))
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute("DELETE FROM commits")
    async with open_log("sqlite:", tmp_path) as log:
        assert await log.append([frame(2)]) > last


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE commits SET frames = zeroblob(length(frames)) WHERE position = 2", "commit 2"),
        ("UPDATE commits SET frames = substr(frames, 1, 9) WHERE position = 2", "commit 2"),
        ("UPDATE snapshot SET state = x'00'", "snapshot at position 1"),
    ],
)
async def test_a_damaged_blob_is_named_and_not_used(tmp_path: Path, damage: str, told: str) -> None:
    async with open_log("sqlite:", tmp_path) as log:
        first = await log.append([frame(1)])
        await log.append([frame(2)])
        async with log.partition(0) as partition:
            await partition.save(Snapshot(position=first, state=b"state"))
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection, connection:
        connection.execute(damage)
    async with open_log("sqlite:", tmp_path) as log:
        with pytest.raises(LogError, match=f"{told} is damaged"):
            await read(log)


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(LogError, match="schema version is 99, known is 1"):
        async with open_log("sqlite:", tmp_path):
            pass


async def test_two_processes_never_share_a_log(tmp_path: Path) -> None:
    async with open_log("sqlite:", tmp_path):
        with pytest.raises(LogError, match="another aggregator"):
            async with open_log("sqlite:", tmp_path):
                pass


async def test_a_file_that_is_no_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"not a database, whatever its name" * 100)
    with pytest.raises(LogError, match="not a database"):
        async with open_log("sqlite:", tmp_path):
            pass


@pytest.mark.parametrize("seed", range(4))
async def test_what_was_acked_is_readable_after_a_kill(tmp_path: Path, seed: int) -> None:
    writer = await asyncio.create_subprocess_exec(
        sys.executable, str(WRITER), str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert writer.stdout is not None
    commits_count = random.Random(seed).randrange(1, 200)
    told = [await writer.stdout.readline() for _ in range(commits_count)]
    writer.kill()
    told += (await writer.stdout.read()).splitlines()
    await writer.wait()
    acked = [int(line) for line in told if line.strip()]
    async with open_log("sqlite:", tmp_path) as log:
        found = await read(log, START, 10**6)
    assert acked[-1] >= commits_count
    assert {position for position, _ in found} >= set(acked)
    assert [seq for _, seq in found] == list(range(len(found)))
