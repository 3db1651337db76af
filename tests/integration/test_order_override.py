"""The local operator's word stands above every order, and has an end that no clock moves."""

from pathlib import Path

from integration.order_site import NS, line

from heatpool.setpoint import SetpointState
from heatpool_agent.core.override import asked


async def test_the_local_operator_stands_above_every_order_until_the_end(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        until_ns = running.clock.now_ns() + 3600 * NS
        order = await running.order(lease_s=60.0, until_ns=until_ns)
        await running.pass_s(3)
        assert running.site.now_w == 8_000.0
        word = asked(100.0, "filter is changed", event_ns=running.clock.event_ns())
        running.site.desk.file.write(word)
        await running.pass_s(2)
        assert running.site.now_w is None
        last = (await running.row(order)).steps[-1]
        assert last.state is SetpointState.OVERRIDDEN
        assert last.detail.startswith("local override until 20")
        # A wall clock that jumps moves nothing, and a fresh order does not lift it.
        running.clock.off -= 43_200 * NS
        fresh = await running.order(9_000.0, lease_s=300.0)
        await running.pass_s(50)
        assert running.site.now_w is None
        assert (await running.states(fresh))[-1] == "overridden"
        await running.pass_s(50)
        assert running.site.now_w == 9_000.0
        assert running.site.desk.file.read() is None


async def test_an_override_where_nothing_is_held_is_reported_too(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        order = await running.order(lease_s=30.0)
        await running.pass_s(40)
        running.restart_site()
        word = asked(20.0, "filter", event_ns=running.clock.event_ns())
        running.site.desk.file.write(word)
        await running.pass_s(2)
        assert (await running.states(order))[-1] == "overridden"
        await running.pass_s(20)
        assert (await running.states(order))[-1] == "expired"


async def test_a_restart_of_the_site_keeps_the_override(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        word = asked(600.0, "filter", event_ns=running.clock.event_ns())
        running.site.desk.file.write(word)
        await running.pass_s(2)
        running.restart_site()
        order = await running.order(lease_s=300.0)
        await running.pass_s(6)
        assert running.site.now_w is None
        assert (await running.states(order))[-1] == "overridden"


async def test_an_override_that_nobody_can_read_means_local_rejection(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=300.0)
        await running.pass_s(2)
        running.site.desk.file.path.write_text("{")
        await running.pass_s(2)
        assert running.site.now_w is None
        running.site.desk.file.path.unlink()
        await running.pass_s(2)
        assert running.site.now_w == 8_000.0
