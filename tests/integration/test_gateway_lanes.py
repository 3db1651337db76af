"""Two lanes at the gateway: what is acked where, holes that are asked for, what comes first."""

import pytest
from integration import site_client as site
from integration.gateway_rig import SlowLog, greeted, heard, hello, made, send
from turns import working

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.core.admission import BOOTS_LIMIT, RANGES_LIMIT
from heatpool_aggregator.loops import admitting as admitting_room
from heatpool_aggregator.loops import gateway as gateway_room
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.ports import START
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes


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


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> tuple[Gateway, SlowLog]:
    """A gateway that takes one frame of history into a commit, and its log."""
    monkeypatch.setattr(gateway_room, "BEHIND_BYTES", 1)
    log = SlowLog()
    return made(log=log), log


async def test_a_live_frame_is_in_the_next_commit_however_much_history_is_staged(
    narrow: tuple[Gateway, SlowLog],
) -> None:
    gateway, log = narrow
    session = await greeted(gateway, boundary_seq=50)
    await gateway.step()
    for seq in (*range(1, 11), 50, 51):
        assert await send(session, seq)
    marks: list[dict[int, int]] = []
    async with working(gateway.run(), name="gateway"):
        while session.pending_count:
            (response,) = await heard(session)
            marks.append({spool.lane: spool.durable_seq for spool in response.ack.spools})
    assert log.commits == [1, 3] + [1] * 9
    assert marks[0] == {site.pb.LANE_BACKLOG: 1, site.pb.LANE_LIVE: 51}
    assert marks[-1] == {site.pb.LANE_BACKLOG: 10, site.pb.LANE_LIVE: 51}
    assert gateway.admitting.staged_bytes == 0


async def test_a_gap_does_not_overtake_the_history_that_it_was_sent_behind(
    narrow: tuple[Gateway, SlowLog],
) -> None:
    gateway, log = narrow
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
