"""A real aggregator that is killed, or whose disk is full: nothing acked is lost or doubled."""

import asyncio
import json
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
from integration import site_client as site

from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.stores import open_store

T = "site-a-t"
KILLS_COUNT = 4
ROWS = 3
STEP_NS = 10**10
FIRST_NS = time.time_ns() - 3_600 * 10**9
SETTINGS = """
[listen]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
[state]
dir = "{folder}"
[[virtual_source]]
id = "harbour"
kind = "greenhouse"
[virtual_source.agreement]
id = "HPA-1"
price_eur_mwh = "30"
[[virtual_source.member]]
site_id = "site-a"
"""
# Snapshots every moment, or no kill would meet one.
PROGRAM = """
import sys
from heatpool_aggregator import __main__
from heatpool_aggregator.loops import shard
shard.SAVE_S, shard.READ_S = 0.05, 0.01
sys.argv = ["heatpool-aggregator", *sys.argv[1:]]
__main__.main()
"""


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """An aggregator with its addresses; leaving kills what is left of it."""
    config, ready = folder / "config.toml", folder / "ready.json"
    config.write_text(SETTINGS.format(folder=folder / "state"))
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-c", PROGRAM, "run", "--config", str(config)]
    command += ["--ready-file", str(ready)]
    child = await asyncio.to_thread(
        subprocess.Popen, command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while not ready.exists():  # another process makes it
                assert child.poll() is None
                await asyncio.sleep(0.05)
        yield child, json.loads(ready.read_text())
    finally:
        child.kill()
        await asyncio.to_thread(child.wait)


def batch(seq: int) -> bytes:
    """Three rows that are the same whenever they are made."""
    message = site.batch(
        seq,
        FIRST_NS + seq * STEP_NS,
        n_rows=ROWS,
        step_ns=STEP_NS,
        cells=[seq, 0, 0] * len(site.CHANNELS),
        sent_ns=time.time_ns(),
        schema_id=2,
    )
    data: bytes = message.SerializeToString()
    return data


def hello() -> object:
    """The schema has no quality, which would have to be a class."""
    said = site.hello()
    schema = said.hello.sites[0].schemas[0]
    schema.schema_id = 2
    for channel in schema.channels:
        channel.quantity = f"bench_{channel.quantity}"
    return said


async def send_until_killed(address: str, child: subprocess.Popen[bytes], acked: int) -> int:
    """Sends what is not durable, and some more; the highest number that was acked."""
    async with site.line(address) as line:
        await line.send(hello())
        durable = (await line.next()).hello_reply.durable
        known = max((one.last_seq for one in durable if one.boot_id == T), default=0)
        assert known >= acked
        seq = max(1, known - 5)  # Some of it again, as after a lost ack.
        kill_at = time.monotonic() + random.uniform(0.05, 0.8)
        with suppress(EOFError):
            while time.monotonic() < kill_at:
                for _ in range(8):
                    await line.send(batch(seq))
                    seq += 1
                await line.acked(T, seq - 4)
            child.send_signal(signal.SIGKILL)
            while True:
                await line.next()
        return max(acked, line.durable(T))


async def test_a_sum_over_kills_is_exact(tmp_path: Path) -> None:
    acked = 0
    for _ in range(KILLS_COUNT):
        async with running(tmp_path) as (child, addresses):
            acked = await send_until_killed(addresses["grpc"], child, acked)
    async with running(tmp_path) as (child, addresses), site.line(addresses["grpc"]) as line:
        await line.send(hello(), *(batch(seq) for seq in range(1, acked + 21)))
        await line.acked(T, acked + 20)
        child.send_signal(signal.SIGTERM)
        await asyncio.to_thread(child.wait)
    async with open_log("sqlite:", tmp_path / "state") as log, log.partition(0) as partition:
        assert partition.snapshot is not None
        state = ShardState.from_bytes(partition.snapshot.state)
    async with open_store("sqlite:", tmp_path / "state") as store:
        chunks = await store.chunks.read("site-a", 0, 2**62)  # type: ignore[arg-type]
    numbers = [chunk.seq for chunk in chunks if chunk.boot_id == T]
    # Whatever was sent beyond the last ack may be there as well, but nothing twice.
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= acked + 20
    assert state.rows_count == {"site-a": ROWS * len(numbers)}


async def test_a_full_disk_stops_acks_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as (child, addresses), site.line(addresses["grpc"]) as line:
        await line.send(hello(), batch(1))
        await line.acked(T, 1)
        # Every file of the aggregator is as long as it may get.
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
        await line.send(batch(2), batch(3))
        # A call whose read is cancelled would be cancelled with it.
        acking = asyncio.create_task(line.acked(T, 3), name="acked")
        await asyncio.wait([acking], timeout=2.5)
        assert line.durable(T) == 1
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{addresses['http']}/v1/sites") as answer,
        ):
            assert answer.status == 200
        assert child.poll() is None
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, unlimited)
        await acking
