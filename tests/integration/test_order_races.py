"""Orders that meet each other, and clocks that stand: what the site hears still goes forward."""

from pathlib import Path

from integration.order_site import NS, SITE, line

from heatpool.setpoint import Heartbeat, SetpointReport, SetpointState
from heatpool_agent import wire
from heatpool_aggregator.loops.order_trail import STEPS_MOST, Life
from heatpool_aggregator.wire.control import report_to_bytes

S = SetpointState


async def test_an_order_whose_number_was_overtaken_gets_one_that_the_site_takes(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        early, late = running.ordered(5_000.0), running.ordered(6_000.0)
        await running.control.order(late)
        await running.pass_s(4)
        assert running.site.now_w == 6_000.0
        await running.control.order(early)
        await running.pass_s(2)
        assert running.site.now_w == 5_000.0


async def test_heartbeats_rise_while_the_clock_goes_back(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        for _ in range(120):
            running.clock.off -= 3 * NS
            await running.pass_s()
        wishes = [wire.wish(data) for data in running.carried]
        beats = [wish.server_ns for wish in wishes if isinstance(wish, Heartbeat)]
        assert len(beats) > 3 and beats == sorted(set(beats))


async def test_a_lease_that_the_site_says_is_over_is_renewed_by_no_heartbeat(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        order = await running.order(until_ns=running.clock.now_ns() + 3_600 * NS)
        await running.pass_s(4)
        gone = SetpointReport(
            site_id=SITE,
            setpoint_seq=order.number,
            state=S.SUPERSEDED,
            event_ns=running.clock.now_ns(),
        )
        await running.control.report(gone, report_to_bytes(gone))
        del running.carried[:]
        await running.pass_s(45)
        beats = [wish for wish in map(wire.wish, running.carried) if isinstance(wish, Heartbeat)]
        assert beats and not any(beat.plan_id for beat in beats)


def test_a_site_that_changes_its_mind_without_end_is_news_no_more() -> None:
    life = Life()
    told = [life.is_news("site/e1", state) for state in (S.APPLIED, S.OVERRIDDEN) * STEPS_MOST]
    assert (sum(told), told[-1]) == (STEPS_MOST, False)
