"""An agent behind a bad line: everything arrives, in order on each lane, in the log once."""

import asyncio
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from integration.bad_line import BadLine, bad_line
from integration.uplink_site import HEAT, Server, Site, becomes, listening, pushing, site

from heatpool.process.settings import convert
from heatpool.sample import Row, SpoolKind
from heatpool.v1 import telemetry_pb2
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.ports import START, FrameKind

NS = 1_000_000_000
ROWS_PER_FRAME = 6
OLD_FRAMES, OLD_REGISTERS = 60, 20


def config() -> Config:
    source = {
        "id": "harbour",
        "kind": "swimming_pool",
        "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
        "member": [{"site_id": "s1"}],
    }
    tree: dict[str, Any] = {
        "listen": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0"},
        "virtual_source": [source],
    }
    return convert(tree, Config)


async def rows(own: Site, start_ns: int, count: int) -> list[int]:
    """Rows 10 s apart, and their times."""
    times = [start_ns + number * 10 * NS for number in range(count)]
    for at_ns in times:
        await own.spooling.append(Row(event_ns=at_ns, cells={HEAT: at_ns / NS % 1000}))
    return times


async def ill_treated(line: BadLine) -> None:
    """What a month does to a line, in seconds."""
    for number in range(2):
        await asyncio.sleep(0.6)
        line.bytes_s = 60_000.0 if number % 2 else 120_000.0
        await becomes(lambda: line.connections > number)  # noqa: B023  # it waits here
        line.cut()
        await asyncio.sleep(0.4)
        line.fall_silent()
        await asyncio.sleep(0.3)
        line.speak()


def batches(frames: list[Any]) -> list[Any]:
    return [
        telemetry_pb2.TelemetryServiceStreamRequest.FromString(frame.payload).telemetry
        for frame in frames
    ]


async def test_every_row_behind_a_bad_line_is_in_the_log_once(tmp_path: Path) -> None:
    now_ns = time.time_ns() // (10 * NS) * 10 * NS
    first_ns = now_ns - OLD_FRAMES * ROWS_PER_FRAME * 10 * NS
    async with site(tmp_path / "site", rows_per_frame=ROWS_PER_FRAME) as own:
        sent = await rows(own, first_ns, OLD_FRAMES * ROWS_PER_FRAME)
        for raw in range(1, OLD_REGISTERS + 1):
            await own.register(1_700_000_000 * NS + raw)
        async with app.serving(config(), tmp_path / "aggregator") as addresses:
            port = int(addresses["grpc"].rpartition(":")[2])
            async with bad_line(port, delay_s=0.02, bytes_s=60_000.0) as line:
                async with pushing(own, line), asyncio.TaskGroup() as tasks:
                    tasks.create_task(ill_treated(line), name="ill-treated")
                    for number in range(8):
                        start_ns = now_ns + number * ROWS_PER_FRAME * 10 * NS
                        sent += await rows(own, start_ns, ROWS_PER_FRAME)
                        await own.register(1_700_000_100 * NS + number)
                        await asyncio.sleep(0.3)
                    await becomes(lambda: is_all_durable(own))
        found = await in_log(tmp_path / "aggregator")
    assert line.connections >= 3, "two cuts"
    telemetry = [frame for frame in found if frame.kind is FrameKind.TELEMETRY]
    billing = [frame for frame in found if frame.kind is FrameKind.BILLING]
    assert [frame.seq for frame in billing] == list(range(1, OLD_REGISTERS + 9))
    assert max(Counter(frame.seq for frame in telemetry).values()) == 1
    times = [
        batch.start_ns + row * batch.step_ns
        for batch in batches(telemetry)
        for row in range(batch.n_rows)
    ]
    assert sorted(times) == sorted(sent)
    old = [frame.seq for frame in telemetry if frame.seq < OLD_FRAMES]
    assert old == sorted(old), "the backlog goes oldest first"


def is_taken(server: Server, seq: int) -> bool:
    return seq in server.numbers("telemetry")


def is_all_durable(own: Site) -> bool:
    marks = [own.spool.mark(kind) for kind in SpoolKind]
    return all(mark.durable_seq == mark.next_seq - 1 for mark in marks)


async def in_log(folder: Path) -> list[Any]:
    async with open_log("sqlite:", folder) as log, log.partition(0) as partition:
        return [frame for _, frame in await partition.read(START, 10_000)]


async def test_live_rows_pass_a_backlog_that_takes_its_share_of_a_slow_line(
    tmp_path: Path,
) -> None:
    bytes_s, beats = 12_000.0, 12
    async with listening(Server(window=16)) as server, site(tmp_path) as own:
        await own.rows(3_000)
        async with bad_line(server.port, delay_s=0.03, bytes_s=bytes_s) as line:
            async with pushing(own, line):
                await becomes(lambda: len(server.frames) > 40)
                loop = asyncio.get_running_loop()
                start_s, start_bytes, behind = loop.time(), line.up_bytes, []
                for number in range(beats):
                    await own.rows(1, first=4_000 + number)
                    before = len(server.frames)
                    seq = own.spool.mark(SpoolKind.TELEMETRY).next_seq - 1
                    await becomes(partial(is_taken, server, seq))
                    behind.append(server.frames.index(("telemetry", seq)) - before)
                    await asyncio.sleep(0.2)
                share = (line.up_bytes - start_bytes) / (loop.time() - start_s) / bytes_s
                view = own.board.uplink
    assert max(behind) <= 16, "a live row waits behind a burst or two, not behind the backlog"
    # Headers, live rows and window updates are on top of the backlog's quarter.
    assert share < 0.5
    assert view.backlog is not None and view.backlog.frames_count > 100
    assert 0 < view.backlog.done_frac < 1
    assert view.backlog.frames_s is not None and view.backlog.left_s is not None
