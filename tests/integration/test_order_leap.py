"""The aggregator's wall clock leaps half a day while orders run: no site notices."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.order_site import NS, SITE, line

from heatpool_aggregator.core.arbitration import Standing

HALF_DAY_NS = 43_200 * NS
STANDING = Standing(site_id=SITE, heat_rate_w=2_000.0, lease_s=30.0, reason="winter")
LEAPS = [{40: way, back: 0} for way in (HALF_DAY_NS, -HALF_DAY_NS) for back in (90, 250)]
Leaps = Mapping[int, int]


async def lived(folder: Path, leaps: Leaps, **terms: Any) -> tuple[list[object], list[str]]:
    """What the device was told each second, W, and the states of the order."""
    await asyncio.to_thread(folder.mkdir)
    async with line(folder, standing=[STANDING]) as running:
        if "end_s" in terms:
            terms["until_ns"] = running.clock.now_ns() + int(str(terms.pop("end_s"))) * NS
        order = await running.order(**terms)
        told: list[object] = []
        for second in range(300):
            running.clock.leap = leaps.get(second, running.clock.leap)
            await running.pass_s()
            told.append(running.site.now_w)
        # They are listed by our clock, which leapt.
        return told, sorted(await running.states(order))


@pytest.mark.parametrize("leaps", LEAPS)
@pytest.mark.parametrize("terms", [{"lease_s": 60.0}, {"lease_s": 30.0, "end_s": 200}])
async def test_no_lease_is_prolonged_or_ended_by_our_wall_clock(
    tmp_path: Path, leaps: Leaps, terms: Mapping[str, object]
) -> None:
    still, states = await lived(tmp_path / "still", {}, **terms)
    assert {8_000.0, 2_000.0} <= set(still)
    assert await lived(tmp_path / "leaping", leaps, **terms) == (still, states)


@pytest.mark.parametrize("leap", [HALF_DAY_NS, -HALF_DAY_NS])
@pytest.mark.parametrize("back_s", [1, 40])
async def test_an_order_just_after_a_leap_is_obeyed_within_its_lease(
    tmp_path: Path, leap: int, back_s: int
) -> None:
    async with line(tmp_path) as running:
        await running.order(lease_s=60.0)
        await running.pass_s(25)
        for heat_rate_w in (5_000.0, 6_000.0):
            running.clock.leap = leap - running.clock.leap
            await running.order(heat_rate_w, lease_s=60.0)
            await running.pass_s(21)
            assert running.site.now_w == heat_rate_w
            await running.pass_s(back_s)
        await running.pass_s(60)
        assert running.site.now_w is None
