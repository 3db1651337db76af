"""A site that comes again while its old line stands half open: it is let in, and it stays."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from integration.bad_line import bad_line
from integration.door import calls
from integration.test_bad_line import is_all_durable
from integration.uplink_site import Site, becomes, pushing, site

from heatpool.sample import SiteId
from heatpool_agent.ports import Identity


@pytest.mark.parametrize("times", [1, 2])
async def test_a_site_whose_old_line_was_forgotten_on_the_way_comes_again_and_stays(
    rig: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    caplog.set_level(logging.INFO)
    await rig.identities.add_site(SiteId("s1"), "north")
    who = rig.caller("site/s1")
    identity = Identity(root_pem=rig.ca.pem, key_pem=who.key, chain_pem=who.chain)
    async with site(tmp_path / "site") as own, bad_line(int(rig.address.rpartition(":")[2])) as nat:
        for _ in range(times):
            async with pushing(own, nat, scheme="https", identity=identity):
                await gave(own, 5)
                # No power at the site, or a router that began anew: the other end hears no word.
                nat.forget()
                await own.rows(5, first=50)
            own.board.is_line_closing = False
        assert (await calls.refused(rig)).get("replaced", 0) == 2 * (times - 1)
        async with pushing(own, nat, scheme="https", identity=identity):
            await gave(own, 5)
            assert (await calls.refused(rig))["replaced"] == 2 * times
            await asyncio.sleep(0.5)
            await gave(own, 5)
            assert own.board.uplink.state == "connected"
    assert nat.connections == times + 1
    lost = [record for record in caplog.records if record.message == "uplink.lost"]
    assert not lost
    assert "rpc.site_contested" not in caplog.messages
    (gauge,) = await calls.figures(rig, "heatpool_contested_sites")
    assert gauge.value == 0

    async def are_all_there_once() -> bool:
        (durable,) = await calls.figures(rig, "heatpool_ingest_batches_durable_total")
        return bool(durable.value == 10 * (times + 1))

    await calls.eventually(are_all_there_once)


async def gave(own: Site, count: int) -> None:
    """Rows that were made and are durable there."""
    await own.rows(count)
    await becomes(lambda: is_all_durable(own))
