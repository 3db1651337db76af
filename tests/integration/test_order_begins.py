"""What a site says of an order that it has and does not follow yet, or never will."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from integration.order_site import LOOP, NS, Line, line

from heatpool.setpoint import Setpoint, SetpointReport, SetpointState
from heatpool_agent.actuators.dry_run import DryRunActuator
from heatpool_agent.core.safety import Limits
from heatpool_agent.loops.obey import Habits, Obey
from heatpool_aggregator.wire.control import setpoint_to_bytes


def newer(running: Line, **change: object) -> Setpoint:
    """The next order after the one that the site holds."""
    held = running.site.obey._held
    assert held is not None
    wish = replace(held.setpoint, setpoint_seq=held.setpoint.setpoint_seq + 1, heat_rate_w=4_000.0)
    return replace(wish, **change)  # type: ignore[arg-type]


def said(running: Line) -> Iterator[SetpointReport]:
    while not running.site.board.reports.empty():
        yield running.site.board.reports.get_nowait()


async def reports_on(running: Line, wish: Setpoint, seconds: int) -> list[tuple[object, ...]]:
    """State and applied heat rate of each report on this order, W."""
    running.hear(setpoint_to_bytes(wish))
    found: list[tuple[object, ...]] = []
    for _ in range(seconds):
        running.clock.boot += NS
        await running.site.step()
        found += [
            (one.state, one.applied_heat_rate_w)
            for one in said(running)
            if one.setpoint_seq == wish.setpoint_seq
        ]
    return found


@pytest.mark.parametrize("ahead_ns", [NS + NS // 1000, 3 * NS])
async def test_before_its_time_an_order_says_nothing_of_what_the_device_does(
    tmp_path: Path, ahead_ns: int
) -> None:
    async with line(tmp_path) as running:
        await running.order()
        await running.pass_s(2)
        wish = newer(running, valid_from_ns=running.clock.now_ns() + ahead_ns)
        found = await reports_on(running, wish, 6)
        assert running.site.now_w == 4_000.0
        assert found == [(SetpointState.RECEIVED, None), (SetpointState.APPLIED, 4_000.0)]


async def test_before_its_time_an_order_is_received_where_no_other_is_followed(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=30.0)
        await running.pass_s(40)
        assert running.site.now_w is None
        wish = newer(running, valid_from_ns=running.clock.now_ns() + 4 * NS)
        found = await reports_on(running, wish, 7)
        assert found == [(SetpointState.RECEIVED, None), (SetpointState.APPLIED, 4_000.0)]


async def test_a_dry_run_is_not_told_to_have_applied_what_another_did(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order()
        await running.pass_s(2)
        found = await reports_on(running, newer(running, dry_run=True), 3)
        assert running.site.now_w == 8_000.0
        assert found == [(SetpointState.RECEIVED, None)]


async def test_what_is_not_armed_is_not_told_to_have_applied_anything(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        site = running.site
        dry = DryRunActuator("valve")
        limits, habits = Limits(rejection_capacity_w=50_000.0), Habits(hold_s=0.0)
        site.obey = Obey(LOOP, dry, limits, site.board, site.clock, habits=habits)
        await running.order()
        await running.pass_s(55)
        (row,) = await running.book.listed([site.board.site_id], 5)
        (told,) = [step for step in row.steps if step.state is SetpointState.APPLIED]
        assert row.applied_heat_rate_w is None
        assert told.detail.startswith("would apply 8000 W: the actuator is not armed")
