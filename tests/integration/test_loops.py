"""Gateway and shard without a network: what they do when disks fail and sites are slow."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration import site_client as site
from integration.gateway_rig import NOW_NS, NS, HandClock, send

from heatpool.errors import LogDamaged, LogError, StoreError
from heatpool.process.settings import convert
from heatpool.sample import BootId, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.shard_state import PIECE_COUNT, ShardState
from heatpool_aggregator.logs.memory import MemoryLog
from heatpool_aggregator.loops import admitting as admitting_room
from heatpool_aggregator.loops import gateway as gateway_room
from heatpool_aggregator.loops import shard as shard_room
from heatpool_aggregator.loops.admitting import UNACKED_HOLD_COUNT
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.loops.sessions import Session
from heatpool_aggregator.loops.shard import Shard
from heatpool_aggregator.ports import Chunk, Frame, FrameKind, Position, Snapshot
from heatpool_aggregator.stores.sqlite import SqliteStore, open_store
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes

SITE = SiteId("site-a")
CONFIG = convert(
    {
        "virtual_source": [
            {
                "id": "harbour",
                "kind": "greenhouse",
                "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
                "member": [{"site_id": "site-a"}],
            }
        ]
    },
    Config,
)


class FaultyLog(MemoryLog):
    """A log that does not take the first few commits, as a full disk does not."""

    def __init__(self, faults_count: int) -> None:
        super().__init__()
        self.faults_count = faults_count
        self.commits: list[int] = []

    async def append(self, frames: Sequence[Frame]) -> Position:
        if self.faults_count:
            self.faults_count -= 1
            raise LogError("disk full")
        self.commits.append(len(frames))
        return await super().append(frames)


def made(log: MemoryLog, board: Board | None = None) -> Gateway:
    return Gateway(log=log, clock=HandClock(), board=board or Board(), refusals=deque())


async def greeted(gateway: Gateway) -> Session:
    session = gateway.open()
    data = site.hello().SerializeToString()
    assert await session.hello(hello_from_bytes(data), data)
    return session


def said(messages: Sequence[bytes]) -> list[str]:
    responses = [site.pb.TelemetryServiceStreamResponse.FromString(data) for data in messages]
    return [str(response.WhichOneof("message")) for response in responses]


async def test_all_that_is_staged_is_one_commit_and_one_ack() -> None:
    log = FaultyLog(0)
    gateway = made(log)
    session = await greeted(gateway)
    assert all([await send(session, seq) for seq in range(1, 21)])
    assert said(await site.outgoing(session)) == ["hello_reply"]
    await gateway.step()
    assert log.commits == [21]
    assert said(await site.outgoing(session)) == ["ack"]


async def test_nothing_is_acked_while_the_log_does_not_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_room, "RETRY_S", 0.0)
    log = FaultyLog(3)
    gateway = made(log)
    session = await greeted(gateway)
    await send(session, 1)
    await site.outgoing(session)
    committing = asyncio.create_task(gateway.step(), name="commit")
    speaking = asyncio.create_task(site.outgoing(session), name="speak")
    while log.faults_count:
        assert not speaking.done()
        await asyncio.sleep(0)
    await committing
    assert said(await speaking) == ["ack"]
    assert log.commits == [2]


async def test_a_stream_that_does_not_wait_for_acks_is_told_and_held() -> None:
    gateway = made(MemoryLog())
    session = await greeted(gateway)
    for seq in range(1, UNACKED_HOLD_COUNT):
        await send(session, seq)
    held = asyncio.create_task(send(session, UNACKED_HOLD_COUNT), name="held")
    await asyncio.sleep(0)
    assert not held.done()
    assert said(await site.outgoing(session)) == ["hello_reply", "slow"]
    await gateway.step()
    assert await held


async def test_a_stream_that_finds_no_room_in_time_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.01)
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 100)
    monkeypatch.setattr(admitting_room, "STAGED_LIMIT_BYTES", 100)
    session = await greeted(made(MemoryLog()))
    assert not await send(session, 1)


async def test_what_is_on_its_way_already_is_not_taken_twice() -> None:
    log = FaultyLog(0)
    gateway = made(log)
    one, other = await greeted(gateway), await greeted(gateway)
    await send(one, 1)
    await send(other, 1)
    await gateway.step()
    assert log.commits == [3]
    assert said(await site.outgoing(other)) == ["hello_reply", "ack"]


async def test_a_gateway_learns_what_is_durable_from_the_log() -> None:
    log = MemoryLog()
    session = await greeted(before := made(log))
    for seq in (1, 2, 5):
        await send(session, seq)
    await before.step()
    after = made(log)
    async with log.partition(0) as partition:
        await after.load(partition)
    assert after.durable.of((SITE, BootId("site-a-t"))).pairs() == [(1, 2), (5, 5)]


# Shard


@dataclass(slots=True)
class Witness:
    """A partition that tells in which order things were made durable."""

    frames: Sequence[tuple[Position, Frame]]
    acts: list[str] = field(default_factory=list)
    snapshot: Snapshot | None = None
    faults: list[LogError] = field(default_factory=list)

    async def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        if self.faults:
            raise self.faults.pop()
        return [(position, frame) for position, frame in self.frames if position > after]

    async def save(self, snapshot: Snapshot) -> None:
        self.acts.append("save")
        self.snapshot = snapshot


def frames(*messages: object) -> list[tuple[Position, Frame]]:
    kinds = {"hello": FrameKind.HELLO, "telemetry": FrameKind.TELEMETRY}
    found = []
    for place, message in enumerate(messages, start=1):
        data: bytes = message.SerializeToString()  # type: ignore[attr-defined]
        kind = kinds.get(str(message.WhichOneof("message")), FrameKind.BILLING)  # type: ignore[attr-defined]
        frame = Frame(
            site_id=SITE,
            boot_id=BootId({1: "site-a-t", 2: "site-a-b"}.get(int(kind), "")),
            kind=kind,
            seq=peek(data).seq,
            received_ns=NOW_NS,
            payload=data,
        )
        found.append((Position(place), frame))
    return found


@asynccontextmanager
async def shard_of(
    witness: Witness, directory: Path
) -> AsyncIterator[tuple[Shard, Board, SqliteStore]]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store("", directory))
        board = Board()
        shard = Shard(
            partition=witness,
            store=store,
            board=board,
            clock=HandClock(),
            config=CONFIG,
            refusals=deque(),
        )
        yield shard, board, store


FRAMES = frames(
    site.hello(),
    site.batch(1, NOW_NS, 700.0),
    site.registers(1, NOW_NS - 3 * NS, 5, 25, 26),
)


async def test_the_store_is_flushed_before_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = Witness(FRAMES)
    async with shard_of(witness, tmp_path) as (shard, _, store):
        flush = store.flush

        async def told() -> None:
            await flush()
            witness.acts.append("flush")

        monkeypatch.setattr(store, "flush", told)
        await shard.finish()
        await shard.finish()
    assert witness.acts == ["flush", "save"]


async def test_a_killed_shard_comes_to_the_same_state(tmp_path: Path) -> None:
    witness = Witness(FRAMES[:2])
    async with shard_of(witness, tmp_path) as (shard, _, _):
        await shard.finish()
    witness.frames = FRAMES
    async with shard_of(witness, tmp_path) as (shard, _, _):
        await shard.step()  # and is killed before it saves
    async with shard_of(witness, tmp_path) as (shard, board, store):
        await shard.finish()
        assert len(await store.chunks.read(SITE, 0, 2**62)) == 1
    assert (board.sites[0].energy_wh, board.sites[0].heat.heat_rate_w) == (21, 700.0)
    assert board.applied_position == 3


async def test_a_store_that_fails_is_asked_again_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_room, "RETRY_S", 0.0)
    monkeypatch.setattr(shard_room, "HISTORY_COUNT", 1)
    async with shard_of(Witness(FRAMES), tmp_path) as (shard, _, store):
        put, faults = store.chunks.put, [StoreError("disk full")] * 2

        async def faulty(chunks: Sequence[Chunk]) -> None:
            if faults:
                raise faults.pop()
            await put(chunks)

        monkeypatch.setattr(store.chunks, "put", faulty)
        await shard.finish()
        assert not faults
        assert len(await store.chunks.read(SITE, 0, 2**62)) == 1


async def test_a_log_that_cannot_be_read_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_room, "RETRY_S", 0.0)
    faults: list[LogError] = [LogError("disk I/O error")] * 2
    async with shard_of(Witness(FRAMES, faults=faults), tmp_path) as (shard, _, _):
        assert await shard.step() == 3
    assert not faults


async def test_a_log_that_is_damaged_ends_the_shard(tmp_path: Path) -> None:
    async with shard_of(Witness(FRAMES, faults=[LogDamaged("crc32")]), tmp_path) as (shard, _, _):
        with pytest.raises(LogDamaged):
            await shard.step()


async def test_a_backlog_leaves_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_room, "APPLY_S", 0.0)
    monkeypatch.setattr(shard_room, "APPLY_FRAMES", 1)
    async with shard_of(Witness(FRAMES), tmp_path) as (shard, _, _):
        seen: list[int] = []

        async def look() -> None:
            while True:
                seen.append(int(shard._position))
                await asyncio.sleep(0)

        looking = asyncio.create_task(look(), name="look")
        await shard.step()
        looking.cancel()
    assert {1, 2} <= set(seen)


async def test_a_snapshot_of_many_sites_leaves_others_their_turn(tmp_path: Path) -> None:
    witness = Witness(FRAMES)
    async with shard_of(witness, tmp_path) as (shard, _, _):
        await shard.step()
        sites = [SiteId(f"site-{number}") for number in range(5 * PIECE_COUNT)]
        shard.state.rows_count = dict.fromkeys(sites, 1)
        making = asyncio.create_task(shard._state_bytes(), name="making")
        count = 0
        while not making.done():
            count += 1
            await asyncio.sleep(0)
    assert count > 5
    assert ShardState.from_bytes(making.result()).rows_count == shard.state.rows_count


async def test_a_step_cancelled_within_a_commit_loses_no_frame_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_room, "APPLY_S", 0.0)
    monkeypatch.setattr(shard_room, "APPLY_FRAMES", 1)
    commit = [(Position(1), frame) for _, frame in FRAMES]
    async with shard_of(Witness(commit), tmp_path) as (shard, board, _):
        step = asyncio.create_task(shard.step(), name="step")
        while not shard._position:  # noqa: ASYNC110  # no event tells of a frame
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait([step])
        await shard.finish()
    assert (board.sites[0].energy_wh, board.sites[0].heat.heat_rate_w) == (21, 700.0)


async def test_a_cancelled_step_leaves_its_rows_for_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shard_of(Witness(FRAMES), tmp_path) as (shard, _, store):
        put, is_stuck = store.registers.put, asyncio.Event()

        async def stuck(rows: object) -> None:
            is_stuck.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(store.registers, "put", stuck)
        step = asyncio.create_task(shard.step(), name="step")
        await is_stuck.wait()
        step.cancel()
        await asyncio.wait([step])
        monkeypatch.setattr(store.registers, "put", put)
        await shard.finish()
        assert len(await store.registers.points()) == 1


async def test_a_silent_member_leaves_the_sum_and_says_so(tmp_path: Path) -> None:
    async with shard_of(Witness(FRAMES), tmp_path) as (shard, board, _):
        await shard.finish()
        assert board.sources[0].heat.heat_rate_w == 700.0
        shard._clock.at_ns += 181 * NS  # type: ignore[attr-defined]  # a HandClock
        shard.post()
    source = board.sources[0]
    assert (source.heat.heat_rate_w, source.coverage_frac, source.energy_wh) == (None, 0.0, 21)
    assert (board.sites[0].is_stale, board.sites[0].heat.heat_rate_w) == (True, 700.0)
