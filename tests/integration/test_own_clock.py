"""Our own clock leaps half a day and back, under sites with true clocks, over real lines."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from integration import site_client as site
from integration.test_ingest import config, eventually

from heatpool.sample import MeteringPointId, RegisterRow, SiteId
from heatpool_aggregator import app
from heatpool_aggregator.loops import returning
from heatpool_aggregator.stores import open_store

NS = 10**9
T0 = 1_790_000_100 * NS  # a quarter of an hour begins here
QUARTER_S = 900
NEAR_WH = 300  # what a slow machine moves readings by
LEAP_NS = 43_200 * NS
SITES = ("site-a", "site-b", "site-c")
MEMBERS = {
    "virtual_source": [
        {
            "id": "harbour",
            "kind": "swimming_pool",
            "agreement": {"id": "HPA-1", "price_eur_mwh": "30"},
            "member": [{"site_id": one} for one in SITES],
        }
    ],
    "settlement": {"period_s": QUARTER_S, "grace_s": 60.0, "return_s": 0.0},
}


@dataclass(slots=True)
class HandClock:
    """True time runs, and is turned on by hand; what the wall shows may be off."""

    turned_ns: int = field(default_factory=lambda: -time.monotonic_ns())
    leap_ns: int = 0

    def now_ns(self) -> int:
        return T0 + self.boot_ns() + self.leap_ns

    def boot_ns(self) -> int:
        return time.monotonic_ns() + self.turned_ns


@dataclass(slots=True)
class World:
    """Sites that send a row and a register each time, and the aggregator's addresses."""

    clock: HandClock
    addresses: Any
    lines: dict[str, site.Line] = field(default_factory=dict)
    seq: int = 0
    at_ns: int = 0

    async def passes(self, minutes: int) -> None:
        """So much time, and then one message of each kind from each site."""
        self.clock.turned_ns += minutes * 60 * NS
        self.at_ns = T0 + self.clock.boot_ns()
        self.seq += 1
        for name, line in self.lines.items():
            await line.send(site.registers(self.seq, self.at_ns, 1_000 * self.seq))
            await line.send(site.batch(self.seq, self.at_ns, 500.0 + self.seq))
            await line.acked(f"{name}-t", self.seq)
            await line.acked(f"{name}-b", self.seq)

    async def state(self, is_true: Callable[[Any], bool]) -> Any:
        return await eventually(self.addresses, "/v1/state", is_true)

    async def settled(self, periods_count: int) -> None:
        """Returns when the accounts are whole: a turn of the clock may end a period's grace before
        its registers are here, which follow."""

        def are_whole(found: Any) -> bool:
            whole = [one for one in found["statements"] if len(one["lines"]) == len(SITES)]
            return len(whole) == periods_count

        await eventually(self.addresses, "/v1/statements", are_whole)

    async def shown(self) -> None:
        """Returns when the newest row of each site is on the page."""
        want = 500.0 + self.seq
        await self.state(lambda it: [s["heat_rate_w"] for s in it["sites"]] == [want] * len(SITES))


async def test_nothing_moves_with_our_clock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Minutes pass at once here; that is no machine that slept.
    monkeypatch.setattr(returning, "STOPPED_NS", 86_400 * NS)
    clock = HandClock()
    settings = config(**MEMBERS)
    async with AsyncExitStack() as stack:
        serving = app.serving(settings, tmp_path, clock)
        world = World(clock, await stack.enter_async_context(serving))
        for name in SITES:
            line = site.line(world.addresses["grpc"])
            world.lines[name] = await stack.enter_async_context(line)
            await world.lines[name].send(site.hello(name))
        for _ in range(5):
            await world.passes(5)
        await world.shown()
        first = await world.state(lambda it: it["statement"] is not None)
        assert first["statement"]["start_ns"] == T0
        clock.leap_ns = LEAP_NS
        await world.state(lambda it: "was set" in it["clock_suspect"])
        for _ in range(5):
            await world.passes(1)
        told = await world.state(lambda it: "most sites agree" in it["clock_suspect"])
        assert "12.0 h ahead" in told["clock_suspect"] and "timedatectl" in told["clock_suspect"]
        held = await world.state(lambda it: all(s["is_clock_held"] for s in it["sites"]))
        await asyncio.sleep(1.5)  # the planner wakes each second
        assert held["statement"]["start_ns"] == T0
        assert (await world.state(lambda _: True))["statement"]["start_ns"] == T0
        clock.leap_ns = 0
        for _ in range(3):
            await world.passes(1)
        await world.shown()
        await world.state(lambda it: not it["clock_suspect"])
        for _ in range(3):
            await world.passes(5)
        await world.state(lambda it: it["statement"]["start_ns"] == T0 + 2 * QUARTER_S * NS)
        await world.settled(3)
    await _all_is_right(tmp_path, world)
    told_log = [one for one in caplog.records if one.msg == "aggregator.clock_suspect"]
    assert [one.levelno for one in told_log] == [logging.ERROR]


async def _all_is_right(directory: Path, world: World) -> None:
    async with open_store("sqlite:", directory) as store:
        for name in SITES:
            chunks = await store.chunks.read(SiteId(name), 0, 2**62)
            assert sorted(chunk.seq for chunk in chunks) == list(range(1, world.seq + 1))
            assert max(chunk.end_ns for chunk in chunks) == world.at_ns + 1
            point = SiteId(name), MeteringPointId("meter")
            rows = await store.registers.series(*point, 0, 2**62)
            assert [row.raw for row in rows] == [1_000 * n for n in range(1, world.seq + 1)]
            assert {type(row) for row in rows} == {RegisterRow}
            assert rows[-1].event_ns == world.at_ns
        entries = await store.ledger.read(0, 2**62)
    # Each period once for each site, none closed by a time that had not come, none restated.
    ends_ns = [T0 + count * QUARTER_S * NS for count in (1, 2, 3)]
    assert sorted((one.end_ns, one.line.site_id, one.sign) for one in entries) == [
        (end_ns, name, 1) for end_ns in ends_ns for name in SITES
    ]
    for name in SITES:
        energy_wh = sum(one.line.energy_wh for one in entries if one.line.site_id == name)
        assert abs(energy_wh - 14_400) < NEAR_WH
