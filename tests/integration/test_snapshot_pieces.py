"""A snapshot is made in pieces while frames pour in: each is whole, wherever a kill meets it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from integration import site_client as site
from integration.gateway_rig import NOW_NS, NS
from integration.test_loops import Witness, shard_of
from unit.aggregator.far_clock import Taken
from unit.aggregator.test_own_clock import HALF_DAY_NS, Fleet

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.core import shard_state as state_room
from heatpool_aggregator.core.own_clock import Mistake
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops import shard as shard_room
from heatpool_aggregator.ports import Frame, FrameKind, Position, Snapshot

SITES = [f"site-{number}" for number in range(7)]
ROUNDS = 12


@dataclass
class Pouring(Witness):
    """Keeps every snapshot."""

    snapshots: list[Snapshot] = field(default_factory=list)

    async def save(self, snapshot: Snapshot) -> None:
        await super().save(snapshot)
        self.snapshots.append(snapshot)


def poured() -> list[tuple[Position, Frame]]:
    """A hello of each site, and then rows and registers of all in turn."""
    found: list[tuple[Position, Frame]] = []

    def add(name: str, boot: str, kind: FrameKind, seq: int, message: object) -> None:
        data: bytes = message.SerializeToString()  # type: ignore[attr-defined]
        frame = Frame(SiteId(name), BootId(boot), kind, seq, NOW_NS + seq * NS, data)
        found.append((Position(len(found) + 1), frame))

    for name in SITES:
        add(name, "", FrameKind.HELLO, 0, site.hello(name))
    for seq in range(1, ROUNDS):
        at_ns = NOW_NS + seq * NS
        for name in SITES:
            said = site.batch(seq, at_ns, 100.0 * seq)
            add(name, f"{name}-t", FrameKind.TELEMETRY, seq, said)
            read = site.registers(seq, at_ns, 1_000 * seq)
            add(name, f"{name}-b", FrameKind.BILLING, seq, read)
    return found


async def ended(
    folder: Path, snapshot: Snapshot | None, frames: list[tuple[Position, Frame]]
) -> bytes:
    """The state after all of the log, from this snapshot on."""
    await asyncio.to_thread(folder.mkdir)
    witness = Witness(frames)
    witness.snapshot = snapshot
    async with shard_of(witness, folder) as (shard, _, _):
        await shard.finish()
        return shard.state.to_bytes()


async def test_frames_that_come_between_the_pieces_are_behind_the_snapshot_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_room, "PIECE_COUNT", 1)
    monkeypatch.setattr(shard_room, "SAVE_S", 0.0)
    monkeypatch.setattr(shard_room, "READ_S", 0.0)
    frames = poured()
    witness, left, pieces = Pouring(frames[:1]), frames[1:], ShardState.pieces

    def poured_on(state: ShardState) -> Iterator[bytes]:
        for piece in pieces(state):
            witness.frames, left[:1] = [*witness.frames, *left[:1]], []
            yield piece

    monkeypatch.setattr(ShardState, "pieces", poured_on)
    (tmp_path / "own").mkdir()
    async with shard_of(witness, tmp_path / "own") as (shard, _, _):
        running = asyncio.create_task(shard.run(), name="shard")
        while shard._position < len(frames):  # noqa: ASYNC110  # no event tells of a frame
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
    monkeypatch.setattr(ShardState, "pieces", pieces)
    want = await ended(tmp_path / "straight", None, frames)
    found = {snapshot.position: snapshot for snapshot in witness.snapshots}
    assert len(found) >= 3
    for position in sorted(found)[:: -(-len(found) // 6)]:
        assert await ended(tmp_path / f"{position}", found[position], frames) == want


def test_a_clock_that_comes_right_between_the_pieces_is_corrected_for_once() -> None:
    fleet = Fleet.of(3, Taken())
    fleet.run(16)
    fleet.error_ns = HALF_DAY_NS
    fleet.run(3)
    state = fleet.taken.state
    pieces = state.pieces()
    first = next(pieces)
    mistakes = {state.own_clock.epoch: Mistake(HALF_DAY_NS, is_sure=True)}
    state.came_right(mistakes)  # by the planner, which looks at the clock as well
    found = ShardState.from_bytes(first + b"".join(pieces))
    assert found.own_clock.is_suspect
    found.came_right(mistakes)
    held = {site_id: course.held for site_id, course in found.courses.items()}
    assert held == {site_id: course.held for site_id, course in state.courses.items()}
    arrivals_ns = [one.received_ns for frames in held.values() for one in frames]
    assert arrivals_ns and max(arrivals_ns) < fleet.sites[0].at_ns + 3_600 * NS
