"""Orders over a restart of the aggregator: which are given again, and how the others end."""

from pathlib import Path

import pytest
from integration.order_site import NS, SITE, line

from heatpool.setpoint import Setpoint
from heatpool_agent import wire
from heatpool_aggregator.core.arbitration import Standing

STANDING = Standing(site_id=SITE, heat_rate_w=2_000.0, lease_s=30.0, reason="winter")


async def test_after_a_restart_only_an_order_with_an_end_ahead_is_given_again(
    tmp_path: Path,
) -> None:
    async with line(tmp_path) as running:
        once = await running.order(lease_s=600.0)
        await running.pass_s(2)
        await running.restart_aggregator()
        await running.connect()
        sent_count = len(running.carried)
        await running.pass_s(3)
        assert not any(isinstance(wire.wish(d), Setpoint) for d in running.carried[sent_count:])
        assert running.site.now_w == 8_000.0, "the lease that the site holds goes on"
        assert (await running.states(once))[0] == "sent"
        until_ns = running.clock.now_ns() + 3600 * NS
        lasting = await running.order(5_000.0, lease_s=60.0, until_ns=until_ns)
        await running.pass_s(2)
        await running.restart_aggregator()
        await running.connect()
        await running.pass_s(200)
        assert running.site.now_w == 5_000.0
        await running.control.end(SITE, why="enough")
        await running.restart_aggregator()
        await running.connect()
        await running.pass_s(70)
        assert not running.site.now_w, "an order that was ended came back"
        assert (await running.states(lasting)).count("sent") == 2


@pytest.mark.parametrize("standing", [(), (STANDING,)])
async def test_an_order_that_nobody_ended_is_over_soon_after_a_restart(
    tmp_path: Path, standing: tuple[Standing, ...]
) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=30.0)
        running.hang_up()
        assert await running.states(order) == ["sent"]
        running.clock.boot += 3600 * NS
        await running.restart_aggregator(standing=standing)
        if standing:
            await running.connect()
        await running.pass_s(12)
        assert (await running.states(order))[-1] == "expired"
        await running.restart_aggregator(standing=standing)
        await running.pass_s(12)
        assert (await running.states(order)).count("expired") == 1


async def test_an_order_whose_lease_goes_on_over_a_restart_ends_with_it(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=60.0)
        await running.pass_s(5)
        running.hang_up()
        await running.restart_aggregator()
        await running.pass_s(60)
        assert "expired" not in await running.states(order)
        await running.pass_s(10)
        assert (await running.states(order))[-1] == "expired"


async def test_what_follows_the_order_of_a_former_life_is_told_of_it(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=60.0)
        await running.pass_s(5)
        running.hang_up()
        await running.restart_aggregator(standing=(STANDING,))
        await running.connect()
        assert (await running.states(order))[-1] == "superseded"


async def test_numbers_rise_over_a_restart_and_a_clock_that_was_set_back(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order()
        await running.pass_s(2)
        running.clock.off -= 86_400 * 3 * NS
        await running.restart_aggregator()
        await running.connect()
        fresh = await running.order(5_000.0)
        await running.pass_s(6)
        assert running.site.now_w == 5_000.0
        assert "refused" not in await running.states(fresh)
