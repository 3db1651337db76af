"""After an order nothing is asked: people read that, and no heat rate that nobody named."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from integration.order_site import SITE, Line, line

from heatpool.process.settings import convert
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointState
from heatpool_aggregator.board import SetpointView, SiteView
from heatpool_aggregator.client.tables import sites_json, sites_table
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.arbitration import Standing
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.applying import Applying
from heatpool_aggregator.loops.effects import Effects
from heatpool_aggregator.loops.views import Views
from heatpool_aggregator.wire.query import sites_from_bytes, sites_to_bytes

STANDING = Standing(site_id=SITE, heat_rate_w=2_000.0, lease_s=30.0, reason="winter")
SOURCE = {
    "id": "harbour",
    "kind": "greenhouse",
    "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
    "member": [{"site_id": SITE}],
}


async def seen(running: Line, asked_w: Mapping[SiteId, float]) -> SiteView:
    """The site as a client sees it, after a shard took in all that was recorded."""
    state, effects = ShardState(), Effects()
    applying = Applying(state, asked_w=asked_w)
    for frame in running.frames:
        applying.apply(frame, effects)
    await running.store.events.put(effects.events)
    # A snapshot lies between, as after a restart.
    kept = ShardState.from_bytes(state.to_bytes())
    views, _ = Views(convert({"virtual_source": [SOURCE]}, Config), asked_w).at(kept, 0)
    (found,) = sites_from_bytes(sites_to_bytes(views))
    return found


async def test_an_order_that_was_ended_leaves_nothing_asked(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=600.0)
        await running.pass_s(2)
        await running.control.end(SITE, why="ended by person/anna: warm")
        await running.pass_s(2)
        assert running.site.now_w == 0.0
        view = await seen(running, {})
        assert sites_table([view]).endswith("-  stale, nothing asked")
        (told,) = sites_json([view])["sites"]
        assert told["setpoint"]["heat_rate_w"] is None
        newest, *_ = await running.book.listed([SITE], 10)
    assert (newest.asked_by, newest.reason) == ("nobody", "nothing is asked any more")
    assert newest.applied_heat_rate_w == 0.0


async def test_an_order_of_nothing_is_somebody_s_order(tmp_path: Path) -> None:
    async with line(tmp_path) as running:
        await running.order(0.0)
        await running.pass_s(2)
        view = await seen(running, {})
        newest, *_ = await running.book.listed([SITE], 10)
    assert sites_table([view]).endswith("0.000  stale, applied")
    assert newest.asked_by == "person/anna"


async def test_after_an_order_the_settings_ask_again(tmp_path: Path) -> None:
    async with line(tmp_path, standing=[STANDING]) as running:
        await running.order(lease_s=600.0)
        await running.pass_s(2)
        await running.control.end(SITE, why="ended by person/anna: warm")
        await running.pass_s(2)
        view = await seen(running, {SITE: STANDING.heat_rate_w})
        newest, *_ = await running.book.listed([SITE], 10)
    assert view.setpoint is not None
    assert (view.setpoint.heat_rate_w, view.setpoint.asks_nothing) == (2_000.0, False)
    assert newest.asked_by == "settings"


@pytest.mark.parametrize(
    ("state", "applied_w", "expected"),
    [
        (SetpointState.RECEIVED, None, True),
        (SetpointState.EXPIRED, None, True),
        (SetpointState.REFUSED, None, False),
        (SetpointState.APPLIED, 8_000.0, False),
    ],
)
def test_what_a_site_still_does_is_not_called_nothing(
    *, state: SetpointState, applied_w: float | None, expected: bool
) -> None:
    view = SetpointView(
        setpoint_seq=1, heat_rate_w=None, applied_heat_rate_w=applied_w, state=state, detail=""
    )
    assert view.asks_nothing is expected
