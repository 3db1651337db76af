"""Numbers that cannot be, repeats at the worst moment, holes: what the gateway lets in."""

import asyncio
from collections.abc import Sequence

import pytest
from integration import site_client as site
from integration.gateway_rig import NOW_NS, HandClock, SlowLog, greeted, heard, made, send

from heatpool.sample import BootId, SiteId
from heatpool_aggregator.core.admission import SEQ_LIMIT, Fingerprints
from heatpool_aggregator.loops import gateway as gateway_room
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.loops.sessions import Session
from heatpool_aggregator.ports import Frame, Position
from heatpool_aggregator.wire.peek import peek

HOUR_NS = 3_600 * 10**9
KEY = (SiteId("site-a"), BootId("site-a-t"))


async def tell_gap(session: Session, first: int, last: int) -> None:
    gap = site.pb.Gap(
        boot_id=KEY[1], first_seq=first, last_seq=last, reason=site.pb.GAP_REASON_DROPPED
    )
    data = site.pb.TelemetryServiceStreamRequest(gap=gap).SerializeToString()
    assert await session.put(peek(data), data)


async def committed(gateway: Gateway, log: SlowLog) -> int:
    """Frames that the next commits have."""
    before = len(log.commits)
    await gateway.step()
    return sum(log.commits[before:])


async def test_a_number_beyond_all_spools_is_not_taken() -> None:
    log = SlowLog()
    gateway = made(log=log)
    session = await greeted(gateway, boundary_seq=1)
    await gateway.step()
    await send(session, SEQ_LIMIT)
    await tell_gap(session, 1, SEQ_LIMIT)
    assert await committed(gateway, log) == 0
    assert not gateway.durable.of(KEY).pairs()
    await send(session, SEQ_LIMIT - 1)
    assert await committed(gateway, log) == 1


async def test_what_is_on_its_way_when_its_stream_goes_is_no_news_on_the_next() -> None:
    log = SlowLog()
    gateway = made(log=log)
    first = await greeted(gateway)
    await gateway.step()
    await send(first, 1)
    first.close()
    second = await greeted(gateway)
    await send(second, 1)
    assert await committed(gateway, log) == 2, "the second hello, and one batch"


async def test_another_content_is_in_the_log_though_the_shard_is_behind() -> None:
    log = SlowLog()
    gateway = made(log=log)
    session = await greeted(gateway)
    for seq in (1, 2):
        await send(session, seq)
    await gateway.step()
    known = gateway.fingerprints[KEY] = Fingerprints()
    known.remember(1, 1)
    other = site.batch(2, NOW_NS + 2, 5_000.0).SerializeToString()
    assert await session.put(peek(other), other)
    assert await committed(gateway, log) == 1


class LateLog(SlowLog):
    """A log whose first commit takes as long as frames are gathered; one more comes meanwhile."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self.clock = clock
        self.session: Session | None = None

    async def append(self, frames: Sequence[Frame]) -> Position:
        if self.session is not None:
            await send(self.session, 2)
            self.session = None
            self.clock.at_ns += HOUR_NS
        return await super().append(frames)


async def test_a_frame_that_came_during_a_commit_has_waited_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gateway_room, "FLUSH_S", HOUR_NS / 1e9)
    clock = HandClock()
    log = LateLog(clock)
    gateway = made(log=log, clock=clock)
    session = log.session = await greeted(gateway)
    await send(session, 1)
    clock.at_ns += HOUR_NS
    running = asyncio.create_task(gateway.run(), name="gateway")
    while session.pending_count:
        await heard(session)
    running.cancel()
    await asyncio.wait([running])
    assert log.commits == [2, 1]


async def test_a_hole_is_asked_for_once() -> None:
    gateway = made()
    session = await greeted(gateway, boundary_seq=1)
    found = []
    for seq in (1, 3, 4, 5):
        await send(session, seq)
        await gateway.step()
        found += [one.resend for one in await heard(session) if one.HasField("resend")]
    assert [(one.first_seq, one.last_seq) for one in found] == [(2, 2)]
