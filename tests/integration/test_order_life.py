"""The life of an order from the operator to the meter and back, on clocks that the test owns."""

from dataclasses import replace
from pathlib import Path

import pytest
from integration.order_site import NS, SITE, line

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool_agent import wire
from heatpool_aggregator.core.arbitration import Standing
from heatpool_aggregator.wire.control import report_to_bytes, request_from_bytes, setpoint_to_bytes

STANDING = Standing(site_id=SITE, heat_rate_w=2_000.0, lease_s=30.0, reason="winter")


async def test_an_order_is_sent_received_applied_seen_and_expires(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order()
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
        running.site.meter_w = 7_900.0
        await running.pass_s(2)
        assert await running.states(order) == ["sent", "received", "applied", "effect_seen"]
        await running.pass_s(60)
        assert running.site.now_w is None
        row = await running.row(order)
        assert [step.state.name for step in row.steps][-1] == "EXPIRED"
        assert all(step.received_ns >= step.event_ns > 0 for step in row.steps)
        assert row.applied_heat_rate_w == 8_000.0


async def test_what_the_meter_showed_before_is_no_effect_of_the_order(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        running.site.meter_w = 8_100.0
        order = await running.order()
        await running.pass_s(20)
        last = (await running.row(order)).steps[-1]
        assert (last.state, last.detail) == (
            SetpointState.APPLIED,
            "applied 8000 W; the meter shows it already",
        )


async def test_an_effect_that_does_not_come_in_the_loop_s_time_is_told(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=600.0)
        await running.pass_s(205)
        running.site.meter_w = 8_000.0
        await running.pass_s(5)
        last = (await running.row(order)).steps[-1]
        assert (last.state, last.detail) == (
            SetpointState.APPLIED,
            "the meter does not show it within 200 s",
        )


async def test_a_wish_that_the_device_cannot_follow_is_told_as_not_used(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(hot_c=60.0)
        await running.pass_s(2)
        assert "hot_c not used" in (await running.row(order)).steps[-1].detail


async def test_a_number_that_finds_no_place_on_disk_is_no_order(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        (running.folder / "last_order.rack.json").mkdir()
        order = await running.order()
        await running.pass_s(2)
        last = (await running.row(order)).steps[-1]
        assert (last.state, running.site.now_w) == (SetpointState.REFUSED, None)
        assert "cannot be kept" in last.detail


async def test_a_site_that_starts_keeps_to_itself_first(tmp_path: Path) -> None:
    async with line(tmp_path, standing=[STANDING], hold_s=40.0) as running:
        assert running.site.now_w is None
        await running.pass_s(30)
        assert running.site.now_w is None
        await running.pass_s(8)
        assert running.site.now_w == 2_000.0


async def test_an_order_without_an_end_is_never_renewed(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=60.0)
        await running.pass_s(58)
        assert running.site.now_w == 8_000.0
        await running.pass_s(4)
        assert running.site.now_w is None
        assert "renewed" not in await running.states(order)


async def test_an_order_is_renewed_until_its_end_and_not_a_second_longer(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        began_ns = running.clock.now_ns()
        order = await running.order(lease_s=30.0, until_ns=began_ns + 200 * NS)
        await running.pass_s(160)
        assert running.site.now_w == 8_000.0
        assert (await running.states(order)).count("renewed") == 1
        await running.pass_s(41)
        assert running.site.now_w is None
        assert (await running.states(order))[-1] == "expired"


async def test_a_silent_aggregator_means_local_cooling_within_the_lease(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=30.0, until_ns=running.clock.now_ns() + 3600 * NS)
        await running.pass_s(100)
        assert running.site.now_w == 8_000.0
        running.hang_up()
        await running.pass_s(31)
        assert running.site.now_w is None


async def test_a_silent_site_is_told_as_expired_by_the_aggregator(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=30.0)
        await running.pass_s(2)
        running.hang_up()
        await running.pass_s(35)
        assert (await running.states(order))[-1] != "expired"
        await running.pass_s(10)
        last = (await running.row(order)).steps[-1]
        assert last.state is SetpointState.EXPIRED
        assert "silent" in last.detail


async def test_what_was_recorded_is_refused_now_and_in_the_next_life(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=30.0)
        await running.pass_s(40)
        recorded = list(running.carried)
        assert running.site.now_w is None
        for _ in range(2):
            for data in recorded:
                running.hear(data)
            await running.pass_s(3)
            assert running.site.now_w is None
            last = (await running.row(order)).steps[-1]
            assert last.state is SetpointState.REFUSED
            assert "not newer" in last.detail
            running.restart_site()


async def test_a_repetition_of_what_is_held_starts_no_lease_and_undoes_nothing(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=60.0)
        await running.pass_s(30)
        for data in list(running.carried):
            running.hear(data)
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
        assert (await running.states(order))[-1] == "applied"
        await running.pass_s(30)
        assert running.site.now_w is None


SPOILT = Setpoint(
    setpoint_id="x",
    setpoint_seq=2**62,
    plan_id="p",
    site_id=SITE,
    heat_rate_w=8_000.0,
    valid_from_ns=0,
    lease_s=60.0,
    reason="x",
)


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (replace(SPOILT, site_id=SiteId("other")), "the order is for 'other'"),
        (replace(SPOILT, loop_id="cellar"), "has no actuator here"),
        (replace(SPOILT, lease_s=901.0), "lease_s 901"),
        (replace(SPOILT, lease_s=0.0), "lease_s 0"),
        (replace(SPOILT, heat_rate_w=float("nan")), "no number"),
        (replace(SPOILT, hot_c=float("inf")), "hot_c"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_reason(
    tmp_path: Path, spoilt: Setpoint, why: str
) -> None:
    async with line(tmp_path) as running:
        running.hear(setpoint_to_bytes(spoilt))
        await running.pass_s(2)
        assert running.site.now_w is None
        reports = [wire_report(frame.payload) for frame in running.frames]
        refused = [one for one in reports if one.state is SetpointState.REFUSED]
        assert len(refused) == 1
        assert why in refused[0].detail
        assert refused[0].site_id == SITE


def wire_report(data: bytes) -> SetpointReport:
    found = request_from_bytes(data)
    assert isinstance(found, SetpointReport)
    return found


async def test_an_order_stands_above_the_settings_and_gives_way_when_it_ends(
    tmp_path: Path,
) -> None:
    async with line(tmp_path, standing=[STANDING]) as running:
        assert running.site.now_w == 2_000.0
        order = await running.order(lease_s=60.0)
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
        await running.control.end(SITE, why="ended by person/anna: warm")
        await running.pass_s(2)
        assert running.site.now_w == 2_000.0
        assert (await running.states(order))[-1] == "superseded"


async def test_the_settings_come_back_after_an_order_that_ran_out(tmp_path: Path) -> None:
    async with line(tmp_path, standing=[STANDING]) as running:
        await running.order(lease_s=60.0)
        await running.pass_s(70)
        assert running.site.now_w == 2_000.0


async def test_the_settings_come_back_also_where_the_site_never_said_that_it_ran_out(
    tmp_path: Path,
) -> None:
    async with line(tmp_path, standing=[STANDING]) as running:
        await running.order(lease_s=60.0)
        assert running.session is not None
        said = []
        for _ in range(61):
            running.clock.boot += NS
            await running.control.step()
            if running.session.is_waiting:
                said += [wire.wish(data) for data in await running.session.outgoing()]
        wished_w = [one.heat_rate_w for one in said if isinstance(one, Setpoint)]
        assert wished_w == [8_000.0, 2_000.0]


async def test_an_order_that_is_ended_brings_the_site_to_nothing_at_once(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=600.0)
        await running.pass_s(2)
        ended = await running.control.end(SITE, why="warm")
        assert ended is not None
        await running.pass_s(2)
        assert running.site.now_w == 0.0
        again = await running.order(5_000.0)
        await running.pass_s(2)
        assert running.site.now_w == 5_000.0
        assert await running.states(again) == ["sent", "received", "applied"]
        assert await running.control.end(SITE, why="again") is not None
        assert await running.control.end(SITE, why="again") is None


async def test_a_newer_order_takes_the_place_of_the_older(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        first = await running.order()
        await running.pass_s(2)
        await running.order(5_000.0)
        await running.pass_s(2)
        assert running.site.now_w == 5_000.0
        assert (await running.states(first))[-1] == "superseded"


async def test_a_dry_run_goes_the_whole_way_and_does_nothing(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        held = await running.order()
        await running.pass_s(2)
        frames_count = len(running.frames)
        tried = await running.order(5_000.0, dry_run=True)
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
        assert await running.states(tried) == ["sent", "received"]
        assert (await running.states(held))[-1] == "applied"
        assert len(running.frames) == frames_count, "what was only tried is the site's newest now"


async def test_an_order_waits_for_a_site_that_is_away_no_longer_than_its_lease(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        running.hang_up()
        order = await running.order(lease_s=60.0)
        await running.pass_s(20)
        assert await running.states(order) == ["planned"]
        await running.connect()
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
        await running.pass_s(40)
        assert running.site.now_w is None, "the lease was counted anew"
        running.hang_up()
        late = await running.order(lease_s=60.0)
        await running.pass_s(61)
        await running.connect()
        await running.pass_s(2)
        assert (running.site.now_w, await running.states(late)) == (None, ["planned", "expired"])
        assert (await running.row(late)).steps[
            -1
        ].detail == "the site did not come within the lease"


async def test_of_two_orders_at_once_the_later_number_is_told_the_site(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        early = running.ordered(5_000.0)
        late = running.ordered(6_000.0)
        await running.control.order(late)
        await running.control.order(early)
        await running.pass_s(2)
        assert running.site.now_w == 5_000.0
        assert "refused" not in await running.states(early)


@pytest.mark.parametrize(
    "report",
    [
        SetpointReport(
            site_id=SITE, setpoint_seq=2**62 + 1, state=SetpointState.APPLIED, event_ns=1
        ),
        SetpointReport(
            site_id=SITE,
            setpoint_seq=1,
            state=SetpointState.APPLIED,
            event_ns=1,
            applied_heat_rate_w=float("nan"),
        ),
    ],
)
def test_a_report_of_what_cannot_be_is_no_message(report: SetpointReport) -> None:
    with pytest.raises(WireError):
        request_from_bytes(report_to_bytes(report))


@pytest.mark.parametrize("state", [SetpointState.PLANNED, SetpointState.SENT])
async def test_a_site_does_not_say_what_is_said_to_it(tmp_path: Path, state: SetpointState) -> None:
    async with line(tmp_path) as running:
        report = SetpointReport(site_id=SITE, setpoint_seq=1, state=state, event_ns=1)
        with pytest.raises(WireError, match=state.name):
            await running.control.report(report, report_to_bytes(report))


async def test_every_site_hears_heartbeats_soon_and_apart_and_then_seldom(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.pass_s(90)
        beats = [wire.wish(data) for data in running.carried]
        assert all(isinstance(one, Heartbeat) for one in beats)
        assert 4 <= len(beats) <= 6
