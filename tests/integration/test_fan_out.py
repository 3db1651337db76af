"""Fan-out of setpoints without a network: leases, records, streams that go."""

import asyncio
from dataclasses import replace
from pathlib import Path

from integration.gateway_rig import NS, HandClock
from integration.test_loops import SITE

from heatpool.setpoint import SetpointReport, SetpointState
from heatpool_aggregator.core.arbitration import Standing
from heatpool_aggregator.loops.control import Control
from heatpool_aggregator.loops.order_book import OrderBook
from heatpool_aggregator.ports import Frame, FrameKind
from heatpool_aggregator.stores.sqlite import SqliteStore
from heatpool_aggregator.wire.control import report_to_bytes, request_from_bytes


def book(folder: Path) -> OrderBook:
    """A book that no order is written into."""
    return OrderBook(SqliteStore(folder))


async def test_a_heartbeat_goes_down_three_times_a_lease(tmp_path: Path) -> None:
    clock, recorded = HandClock(), list[Frame]()

    async def record(frame: Frame) -> bool:
        recorded.append(frame)
        return True

    wish = Standing(site_id=SITE, heat_rate_w=2000.0, lease_s=60.0, reason="winter")
    control = Control(standing=[wish], clock=clock, record=record, book=book(tmp_path))
    session = await control.open((SITE,))
    assert len(await session.outgoing()) == 1
    # The first two come soon: the site waits for them.
    for _ in range(2):
        clock.at_ns += 2 * NS
        await control.step()
        assert session.waiting == (wish.wish.plan_id,)
        await session.outgoing()
    heartbeats = 0
    for _ in range(60):
        clock.at_ns += NS
        await control.step()
        heartbeats += len(session.waiting)
        if session.waiting:
            await session.outgoing()
    assert heartbeats == 3
    assert len(recorded) == 1
    sent = request_from_bytes(recorded[0].payload)
    assert isinstance(sent, SetpointReport)
    expired = replace(sent, state=SetpointState.EXPIRED, event_ns=clock.at_ns)
    await control.report(expired, report_to_bytes(expired))
    clock.at_ns += 20 * NS
    await control.step()
    assert len(await session.outgoing()) == 2
    assert [frame.kind for frame in recorded] == [FrameKind.SETPOINT_REPORT] * 3


async def test_a_stream_that_goes_while_it_opens_leaves_no_session(tmp_path: Path) -> None:
    async def stuck(frame: Frame) -> bool:
        await asyncio.Event().wait()
        return False

    wish = Standing(site_id=SITE, heat_rate_w=2000.0, lease_s=60.0, reason="winter")
    control = Control(standing=[wish], clock=HandClock(), record=stuck, book=book(tmp_path))
    opening = asyncio.create_task(control.open((SITE,)), name="open")
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert not control._sessions


def test_a_long_reason_of_a_site_is_cut() -> None:
    report = SetpointReport(
        site_id=SITE, setpoint_seq=1, state=SetpointState.APPLIED, event_ns=1, detail="x" * 10_000
    )
    found = request_from_bytes(report_to_bytes(report))
    assert isinstance(found, SetpointReport)
    assert len(found.detail) == 500
