"""A site whose clock is half a day ahead, over a real line: held, then there at the right times."""

import time
from pathlib import Path

from integration import site_client as site
from integration.test_ingest import config, eventually, site_a

from heatpool.sample import MeteringPointId, SiteId
from heatpool_aggregator import app
from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.stores import open_store

T, B = "site-a-t", "site-a-b"
NS = 10**9
AHEAD_NS = 43_200 * NS
NEAR_NS = 60 * NS  # what a slow machine may take for this test


async def test_what_was_held_is_used_at_its_true_time_even_after_a_restart(tmp_path: Path) -> None:
    began_ns = time.time_ns()
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello(), site.registers(1, time.time_ns() + AHEAD_NS, 5_000))
        await line.send(site.batch(1, time.time_ns() + AHEAD_NS, 700.0))
        await line.acked(T, 1)
        await line.acked(B, 1)
        answer = await eventually(addresses, "/v1/sites", lambda it: site_a(it)["is_clock_held"])
        held = site_a(answer)
        assert (held["event_ns"], held["energy_wh"]) == (None, None)
        assert abs(held["clock_offset_s"] + 43_200) < 60
    async with app.serving(config(), tmp_path) as addresses, site.line(addresses["grpc"]) as line:
        await line.send(site.hello())
        for seq in (2, 3, 4):
            await line.send(site.batch(seq, time.time_ns() + AHEAD_NS, 700.0 + seq))
        await line.acked(T, 4)
        answer = await eventually(
            addresses, "/v1/sites", lambda it: site_a(it)["heat_rate_w"] == 704.0
        )
        shown = site_a(answer)
        assert abs(shown["event_ns"] - time.time_ns()) < NEAR_NS
        assert not shown["is_clock_held"] and not shown["is_stale"]
    async with open_store("sqlite:", tmp_path) as store:
        chunks = await store.chunks.read(SiteId("site-a"), began_ns - NS, time.time_ns() + NS)
        assert [chunk.seq for chunk in chunks] == [1, 2, 3, 4]
        point = SiteId("site-a"), MeteringPointId("meter")
        (row,) = await store.registers.series(*point, 0, 2**62)
        assert isinstance(row, CorrectedRow)
        assert began_ns - NS <= row.event_ns <= time.time_ns()
        assert abs(row.offset_ns + AHEAD_NS) < NEAR_NS
        assert await store.events.read("refused", None, 10) == []
