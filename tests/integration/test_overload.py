"""One that sends too much harms none: windows, the stage, quotas of tenants, storms of hellos."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from integration import site_client as site

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.core.admission import BOOTS_LIMIT, RANGES_LIMIT
from heatpool_aggregator.core.quotas import Quota
from heatpool_aggregator.logs.memory import MemoryLog
from heatpool_aggregator.loops import admitting as admitting_room
from heatpool_aggregator.loops import gateway as gateway_room
from heatpool_aggregator.loops.admitting import UNACKED_HOLD_COUNT
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.loops.sessions import Session
from heatpool_aggregator.ports import START, Frame, Position
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes

NS = 10**9
NOW_NS = 1_700_000_000 * NS
TENANTS = {"site-a": "noisy", "site-b": "quiet", "site-c": "noisy"}


@dataclass(slots=True)
class HandClock:
    """A clock that stands until it is moved."""

    at_ns: int = NOW_NS

    def now_ns(self) -> int:
        return self.at_ns

    def boot_ns(self) -> int:
        return self.at_ns


async def owner_of(site_id: SiteId) -> str:
    return TENANTS.get(site_id, "")


class SlowLog(MemoryLog):
    """A log that others have their turn beside; how many frames each commit had."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []

    async def append(self, frames: Sequence[Frame]) -> Position:
        self.commits.append(len(frames))
        await asyncio.sleep(0)
        return await super().append(frames)


def made(
    quota: Quota | None = None, clock: HandClock | None = None, log: MemoryLog | None = None
) -> Gateway:
    return Gateway(
        log=log or MemoryLog(),
        clock=clock or HandClock(),
        board=Board(),
        refusals=deque(),
        quotas={"noisy": quota} if quota else None,
        owner_of=owner_of,
    )


async def hello(gateway: Gateway, site_id: str = "site-a", boundary_seq: int = 0) -> Session | None:
    session = gateway.open()
    message = site.hello(site_id)
    message.hello.sites[0].spools[0].boundary_seq = boundary_seq
    data = message.SerializeToString()
    return session if await session.hello(hello_from_bytes(data), data) else None


async def greeted(gateway: Gateway, site_id: str = "site-a", boundary_seq: int = 0) -> Session:
    session = await hello(gateway, site_id, boundary_seq)
    assert session is not None
    await site.outgoing(session)
    return session


async def send(session: Session, seq: int) -> bool:
    data = site.batch(seq, NOW_NS + seq).SerializeToString()
    return await session.put(peek(data), data)


async def heard(session: Session) -> list[Any]:
    async with asyncio.timeout(5):
        found = await site.outgoing(session)
    return [site.pb.TelemetryServiceStreamResponse.FromString(data) for data in found]


# Lanes


async def test_lanes_are_acked_each_from_its_own_start() -> None:
    gateway = made()
    session = await greeted(gateway, boundary_seq=50)
    for seq in (1, 2, 50, 51, 52):
        assert await send(session, seq)
    await gateway.step()
    (response,) = await heard(session)
    marks = {spool.lane: spool.durable_seq for spool in response.ack.spools}
    assert marks == {site.pb.LANE_BACKLOG: 2, site.pb.LANE_LIVE: 52}


async def test_a_backlog_ends_at_the_boundary() -> None:
    gateway = made()
    session = await greeted(gateway, boundary_seq=3)
    for seq in (1, 2, 3, 4):
        await send(session, seq)
    await gateway.step()
    (response,) = await heard(session)
    marks = {spool.lane: spool.durable_seq for spool in response.ack.spools}
    assert marks == {site.pb.LANE_BACKLOG: 2, site.pb.LANE_LIVE: 4}


async def test_a_live_frame_is_in_the_next_commit_however_much_history_is_staged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_room, "BEHIND_BYTES", 1)
    log = SlowLog()
    gateway = made(log=log)
    session = await greeted(gateway, boundary_seq=50)
    await gateway.step()
    for seq in (*range(1, 11), 50, 51):
        assert await send(session, seq)
    running = asyncio.create_task(gateway.run(), name="gateway")
    marks: list[dict[int, int]] = []
    while session.pending_count:
        (response,) = await heard(session)
        marks.append({spool.lane: spool.durable_seq for spool in response.ack.spools})
    running.cancel()
    await asyncio.wait([running])
    assert log.commits == [1, 3] + [1] * 9
    assert marks[0] == {site.pb.LANE_BACKLOG: 1, site.pb.LANE_LIVE: 51}
    assert marks[-1] == {site.pb.LANE_BACKLOG: 10, site.pb.LANE_LIVE: 51}
    assert gateway.admitting.staged_bytes == 0


async def test_a_gap_does_not_overtake_the_history_that_it_was_sent_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_room, "BEHIND_BYTES", 1)
    log = SlowLog()
    gateway = made(log=log)
    session = await greeted(gateway, boundary_seq=50)
    assert await send(session, 1)
    message = site.pb.TelemetryServiceStreamRequest()
    message.gap.boot_id, message.gap.reason = "site-a-t", site.pb.GAP_REASON_DROPPED
    message.gap.first_seq, message.gap.last_seq = 2, 9
    data = message.SerializeToString()
    assert await session.put(peek(data), data)
    assert await send(session, 50)
    await gateway.step()
    kinds = []
    async with log.partition(0) as partition:
        for _, frame in await partition.read(START, 100):
            kinds.append((frame.kind.name, frame.seq))
    assert kinds[1:] == [("TELEMETRY", 50), ("TELEMETRY", 1), ("GAP", 0)]


async def test_hello_hears_all_ranges_where_lanes_are_known() -> None:
    gateway = made()
    session = await greeted(gateway)
    for seq in (1, 2, 5, 6, 9):
        await send(session, seq)
    await gateway.step()
    replies = []
    for boundary_seq in (0, 7):
        again = await hello(gateway, boundary_seq=boundary_seq)
        assert again is not None
        (response,) = await heard(again)
        durable = response.hello_reply.durable
        replies.append([(known.first_seq, known.last_seq) for known in durable])
    assert replies == [[(1, 2)], [(1, 2), (5, 6), (9, 9)]]


async def test_a_number_too_many_is_not_taken_and_the_oldest_hole_is_asked_for() -> None:
    gateway = made()
    session = await greeted(gateway, boundary_seq=10_000)
    for seq in range(2, 2 * RANGES_LIMIT + 2, 2):
        await send(session, seq)
        await gateway.step()
    assert len(gateway.durable.of((SiteId("site-a"), BootId("site-a-t")))) == RANGES_LIMIT
    for _ in range(2):
        await send(session, 5_000)
        await gateway.step()
        resends = [one.resend for one in await heard(session) if one.HasField("resend")]
        assert [(one.first_seq, one.last_seq) for one in resends] == [(1, 1)]
    assert not gateway.durable.of((SiteId("site-a"), BootId("site-a-t"))).holds(5_000)


async def test_gaps_tear_no_spool_apart() -> None:
    gateway = made()
    session = await greeted(gateway, boundary_seq=10_000)
    for seq in range(2, 2 * RANGES_LIMIT + 200, 2):
        gap = site.pb.Gap(
            boot_id="site-a-t", first_seq=seq, last_seq=seq, reason=site.pb.GAP_REASON_DROPPED
        )
        data = site.pb.TelemetryServiceStreamRequest(gap=gap).SerializeToString()
        assert await session.put(peek(data), data)
        await gateway.step()
    ranges = gateway.durable.of((SiteId("site-a"), BootId("site-a-t")))
    assert len(ranges) == RANGES_LIMIT
    (response,) = await heard(session)
    assert (response.resend.first_seq, response.resend.last_seq) == (1, 1)


async def test_hellos_that_nobody_reads_the_answers_to_end_the_stream() -> None:
    gateway = made()
    session = await greeted(gateway)
    data = site.hello().SerializeToString()
    taken = []
    for _ in range(40):
        taken.append(await session.hello(hello_from_bytes(data), data))
        await gateway.step()
    assert taken == [True] * 16 + [False] * 24


async def test_boot_ids_of_a_site_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting_room, "SITE_HELLOS_BURST", 1_000.0)
    gateway = made()
    for number in range(2 * BOOTS_LIMIT):
        session = gateway.open()
        message = site.hello()
        message.hello.sites[0].spools[0].boot_id = f"boot-{number}"
        data = message.SerializeToString()
        assert await session.hello(hello_from_bytes(data), data)
        await send(session, 1)
        await gateway.step()
        session.close()
    assert len(gateway.durable.to_list()) == BOOTS_LIMIT
    assert not gateway._arrivals


# Overload


async def test_a_noisy_tenant_is_slowed_then_held_then_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "ROOM_S", 3.0)
    waits_s: list[float] = []

    async def hasty(seconds: float) -> None:
        waits_s.append(seconds)

    monkeypatch.setattr(admitting_room, "sleep", hasty)
    gateway = made(Quota(batches_s=1.0))
    noisy, quiet = await greeted(gateway), await greeted(gateway, "site-b")
    # Its hello was the first of ten.
    taken = [await send(noisy, seq) for seq in range(1, 15)]
    assert (taken, waits_s) == ([True] * 13 + [False], [1.0, 2.0, 3.0])
    assert all([await send(quiet, seq) for seq in range(1, 20)])
    await gateway.step()
    messages = await heard(noisy)
    slows = [one.slow.limits for one in messages if one.HasField("slow")]
    assert [slow.HasField("message_period_s") for slow in slows] == [False, True]
    later_s = [one.ack.retry_after_s for one in messages if one.ack.HasField("retry_after_s")]
    assert later_s == [4.0]
    assert noisy.retry_after_s == 4.0


async def test_nothing_is_asked_of_a_stream_before_the_answer_to_its_hello(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hasty(_: float) -> None: ...

    monkeypatch.setattr(admitting_room, "sleep", hasty)
    gateway = made(Quota(batches_s=1.0))
    noisy = await greeted(gateway)
    assert all([await send(noisy, seq) for seq in range(1, 12)])
    again = await hello(gateway, "site-c")
    assert again is not None
    (answer,) = await heard(again)
    assert answer.hello_reply.limits.HasField("backlog_bytes_s")


async def test_a_hello_beyond_the_quota_is_answered_with_when_to_come_back() -> None:
    gateway = made(Quota(batches_s=0.04))
    await greeted(gateway)
    refused = gateway.open()
    data = site.hello("site-c").SerializeToString()
    assert not await refused.hello(hello_from_bytes(data), data)
    assert (await heard(refused))[0].hello_reply.retry_after_s == pytest.approx(15.0)


async def test_a_slowed_stream_is_let_go_on_once_it_has_been_calm() -> None:
    clock = HandClock()
    gateway = made(Quota(batches_s=1.0), clock)
    session = await greeted(gateway)
    gateway.admitting._slow(session, admitting_room.CROWDED)
    (slow,) = await heard(session)
    assert slow.slow.limits.HasField("backlog_bytes_s")
    clock.at_ns += 11 * NS
    await gateway.step()
    (steady,) = await heard(session)
    assert steady.HasField("slow")
    assert not steady.slow.limits.HasField("backlog_bytes_s")


async def test_a_tenant_with_all_its_streams_is_told_to_come_back() -> None:
    gateway = made(Quota(streams=1))
    first = await greeted(gateway)
    refused = gateway.open()
    data = site.hello("site-c").SerializeToString()
    assert not await refused.hello(hello_from_bytes(data), data)
    (response,) = await heard(refused)
    assert response.hello_reply.retry_after_s == pytest.approx(refused.retry_after_s)
    assert 10 <= refused.retry_after_s <= 20
    refused.close()
    assert await hello(gateway, "site-b")
    first.close()
    assert await hello(gateway, "site-c")


async def test_a_storm_of_one_tenant_gets_no_more_streams_than_it_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 0.0)
    gateway = made(Quota(streams=2))
    found = await asyncio.gather(*(hello(gateway) for _ in range(10)))
    assert len([session for session in found if session is not None]) == 2


async def test_a_spool_whose_stream_went_before_its_commit_is_not_kept() -> None:
    gateway = made()
    session = await greeted(gateway)
    assert await send(session, 1)
    session.close()
    await gateway.step()
    assert not gateway._arrivals
    assert gateway.durable.of((SiteId("site-a"), BootId("site-a-t"))).pairs() == [(1, 1)]


async def test_who_has_nothing_on_its_way_gets_in_where_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 400)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.01)
    gateway = made()
    noisy, quiet = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    taken = [await send(noisy, seq) for seq in range(1, 12)]
    assert not all(taken)
    assert await send(quiet, 1)


async def test_what_is_staged_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 1_000)
    monkeypatch.setattr(admitting_room, "STAGED_LIMIT_BYTES", 2_000)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    gateway = made()
    sessions = [await greeted(gateway, name) for name in ("site-a", "site-b", "site-c")]
    for seq in range(1, UNACKED_HOLD_COUNT):
        for session in sessions:
            await send(session, seq)
    assert gateway.admitting.staged_bytes < 2_000 + 200
    await gateway.step()
    assert gateway.admitting.staged_bytes == 0
    assert await send(sessions[0], 99)


async def test_a_storm_of_hellos_comes_in_by_turns_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits_s: list[float] = []

    async def hasty(seconds: float) -> None:
        waits_s.append(seconds)

    monkeypatch.setattr(admitting_room, "sleep", hasty)
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 10.0)
    monkeypatch.setattr(admitting_room, "HELLOS_S", 10.0)
    gateway = made()
    found = [await hello(gateway, f"site-{number}") for number in range(140)]
    admitted = sum(session is not None for session in found)
    assert 110 <= admitted < 140
    assert max(waits_s) <= admitting_room.ROOM_S


# Histories


async def told(session: Session) -> list[float | None]:
    """Limits to its backlog that a stream hears of, B/s."""
    limits = [one.slow.limits for one in map(parsed, session.messages()) if one.HasField("slow")]
    return [one.backlog_bytes_s if one.HasField("backlog_bytes_s") else None for one in limits]


def parsed(data: bytes) -> Any:
    return site.pb.TelemetryServiceStreamResponse.FromString(data)


async def turns(gateway: Gateway, clock: HandClock, *, waits_s: float, rate: float) -> None:
    """A look at what came, as if live frames had waited so long."""
    await gateway.step()
    clock.at_ns += 5 * NS
    gateway.admitting.pressure.waited(waits_s)
    gateway.admitting.pressure.came(round(5 * rate))
    await gateway.step()


async def test_histories_are_slowed_alike_while_live_frames_wait_and_then_released() -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    behind = [await greeted(gateway, name, boundary_seq=3) for name in ("site-a", "site-b")]
    live = await greeted(gateway, "site-c")
    await turns(gateway, clock, waits_s=0.1, rate=1e5)
    assert [await told(one) for one in (*behind, live)] == [[], [], []]
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=1e5)
    assert [(await told(one))[-1:] for one in (*behind, live)] == [[5e5], [5e5], []]
    for seq in (1, 2):
        assert await send(behind[0], seq)
    await gateway.step()
    await turns(gateway, clock, waits_s=0.1, rate=1e6)
    # One has none left; what it leaves over is the other's.
    assert [await told(one) for one in (*behind, live)] == [[None], [None], []]


async def test_a_history_that_comes_into_a_crowd_hears_its_share_with_the_answer() -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    await greeted(gateway, boundary_seq=3)
    await greeted(gateway, "site-c", boundary_seq=3)
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=2e5)
    session = await hello(gateway, "site-b", boundary_seq=3)
    assert session is not None
    (answer,) = await heard(session)
    assert answer.hello_reply.limits.backlog_bytes_s == pytest.approx(6e5)


async def test_a_tenant_s_own_limit_and_its_share_are_both_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HandClock()
    gateway = made(clock=clock)
    session = await greeted(gateway, boundary_seq=3)
    await greeted(gateway, "site-b", boundary_seq=3)
    for _ in range(4):
        await turns(gateway, clock, waits_s=2.0, rate=1e6)
    gateway.admitting._slow(session, admitting_room.CROWDED)
    clock.at_ns += 11 * NS
    await gateway.step()
    assert (await told(session))[-2:] == [1_000.0, 6e5]


# Who is refused


async def test_a_tenant_that_fills_the_stage_is_refused_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(200):
        monkeypatch.setitem(TENANTS, f"noisy-{number}", "noisy")
    gateway = made(Quota(streams=1_000))
    crowd = [await greeted(gateway, f"noisy-{number}") for number in range(200)]
    quiet = await greeted(gateway, "site-b")
    await gateway.step()
    monkeypatch.setattr(admitting_room, "STAGED_SOFT_BYTES", 2_000)
    monkeypatch.setattr(admitting_room, "STAGED_LIMIT_BYTES", 4_000)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    taken = [await send(one, 1) for one in crowd]
    assert not all(taken)
    assert [await send(quiet, seq) for seq in (1, 2)] == [True, True]
    assert not any([await send(one, 2) for one in crowd])
    await gateway.step()
    assert await send(crowd[0], 2)
    assert gateway.admitting.staged_bytes == crowd[0].account.staged_bytes


async def test_one_stream_holds_no_more_of_the_stage_than_one_large_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "STREAM_HOLD_BYTES", 300)
    monkeypatch.setattr(admitting_room, "ROOM_S", 0.0)
    gateway = made()
    noisy, other = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    taken = [await send(noisy, seq) for seq in range(1, 10)]
    assert 0 < sum(taken) < 9
    assert await send(other, 1)


async def test_a_site_that_says_hello_without_end_is_refused_and_no_other() -> None:
    gateway = made(clock=HandClock())
    again = site.hello("site-a").SerializeToString()
    found = []
    for _ in range(100):
        session = gateway.open()
        found.append(await session.hello(hello_from_bytes(again), again))
        session.close()
        await gateway.step()
    assert (found[0], found[-1], 10 <= session.retry_after_s <= 20) == (True, False, True)
    assert await hello(gateway, "site-b")


async def test_a_tenant_whose_sites_all_come_at_once_leaves_turns_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admitting_room, "HELLOS_BURST", 0.0)
    monkeypatch.setattr(admitting_room, "HELLOS_S", 2.0)
    turn = asyncio.Event()

    async def until_told(_: float) -> None:
        await turn.wait()

    monkeypatch.setattr(admitting_room, "sleep", until_told)
    for number in range(30):
        monkeypatch.setitem(TENANTS, f"noisy-{number}", "noisy")
    gateway = made(Quota(streams=1_000), HandClock())
    names = [*(f"noisy-{number}" for number in range(30)), "site-b"]
    coming = [asyncio.create_task(hello(gateway, name), name=name) for name in names]
    for _ in range(5):
        await asyncio.sleep(0)
    turn.set()
    found = [session is not None for session in await asyncio.gather(*coming)]
    assert sum(found[:-1]) < 20, "not all turns that there are"
    assert found[-1]


async def test_a_stream_that_is_held_lets_others_pass() -> None:
    gateway = made()
    held, other = await greeted(gateway), await greeted(gateway, "site-b")
    await gateway.step()
    for seq in range(1, UNACKED_HOLD_COUNT + 1):
        assert await send(held, seq)
    waiting = asyncio.create_task(send(held, 99), name="held")
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await send(other, 1)
    await gateway.step()
    assert await waiting
