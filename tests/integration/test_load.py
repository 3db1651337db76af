"""The load generator against a real aggregator: every row of every honest agent durable once."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
from e2e.rig import free_port

from heatpool.process import settings
from heatpool.sample import SiteId
from heatpool_aggregator import app
from heatpool_aggregator.config import Config
from heatpool_aggregator.core.chunk import chunk_from_bytes
from heatpool_aggregator.stores import open_store
from heatpool_sim.load.asked import Asked, Burst, Doors, Faults, Storm
from heatpool_sim.load.fleet import Fleet
from heatpool_sim.load.settings import aggregator

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

ALWAYS_NS = 2**62
SHORT = Asked(
    agents=20,
    rows=4,
    period_s=0.25,
    register_period_s=0.5,
    seconds=1.2,
    ramp_s=0.2,
    drain_s=60.0,
    is_verified=True,
)


def config(asked: Asked, folder: Path) -> Config:
    path = folder / "aggregator.toml"
    path.write_text(aggregator(asked, state_dir=str(folder)))
    return settings.load(path, Config, environ={}, prefix="NOBODY")


def at(asked: Asked) -> Asked:
    doors = Doors(grpc=f"127.0.0.1:{free_port()}", http=f"127.0.0.1:{free_port()}")
    return replace(asked, doors=doors)


async def loaded(asked: Asked, folder: Path) -> tuple[Fleet, Mapping[str, Any]]:
    asked = at(asked)
    async with app.serving(config(asked, folder), folder):
        fleet = Fleet(asked)
        return fleet, await fleet.run(asyncio.Event())


async def all_in(fleet: Fleet) -> None:
    """Returns once every agent is in and some of what they sent is durable."""
    agents, counts = fleet.agents, fleet.tally.counts
    async with asyncio.timeout(60):
        while not (all(agent.is_in for agent in agents) and counts["acked"] >= len(agents)):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)


async def rows_of_honest(fleet: Fleet, folder: Path) -> int:
    """Rows in the store, each of its own time and frame."""
    found = 0
    async with open_store("sqlite:", folder) as store:
        for agent in fleet.agents:
            chunks = await store.chunks.read(SiteId(agent.site.site_id), 0, ALWAYS_NS)
            assert len({(chunk.boot_id, chunk.seq) for chunk in chunks}) == len(chunks)
            times = [ns for chunk in chunks for ns in chunk_from_bytes(chunk.blob).times_ns]
            assert len(set(times)) == len(times)
            found += len(times)
    return found


def all_is_there(found: Mapping[str, Any]) -> None:
    sent, durable = found["sent"], found["durable"]
    assert (found["lost"], found["left"], found["agents"]["never_connected"]) == (0, 0, 0)
    assert (durable["rows"], durable["registers"]) == (sent["rows"], sent["registers"])
    assert durable["garbage"] == sent["garbage"]
    assert sent["rows"] > 0
    assert found["witness"]["is_right"], found["witness"]
    assert found["witness"]["counts"] is not None


async def test_every_row_is_durable_once_whatever_the_line_does(tmp_path: Path) -> None:
    faults = Faults(
        duplicates_frac=0.2,
        reorder_frac=0.3,
        kill_every_s=0.6,
        storms=(Storm(agents=15, at_s=0.8),),
    )
    fleet, found = await loaded(replace(SHORT, faults=faults), tmp_path)
    all_is_there(found)
    assert await rows_of_honest(fleet, tmp_path) == found["sent"]["rows"]
    assert found["sent"]["repeats"] > 0
    assert found["reconnects"] >= 15
    assert found["storms"][0]["back"] == 15
    assert found["witness"]["energy_wh"] > 0


async def test_a_second_run_of_the_same_seed_sends_rows_of_its_own(tmp_path: Path) -> None:
    asked = at(replace(SHORT, agents=2, seconds=0.8))
    async with app.serving(config(asked, tmp_path), tmp_path):
        for _ in range(2):
            found = await Fleet(asked).run(asyncio.Event())
            all_is_there(found)
            assert found["durable"]["rows"] == found["sent"]["rows"] > 0


async def test_garbage_is_refused_and_counted_and_harms_nobody(tmp_path: Path) -> None:
    faults = Faults(garbage_frac=0.2, bad_clock_frac=0.25)
    fleet, found = await loaded(replace(SHORT, seconds=2.4, faults=faults), tmp_path)
    all_is_there(found)
    off = [agent for agent in fleet.agents if agent.site.offset_ns]
    assert (found["agents"]["liars"], len(off)) == (4, 5)
    # Rows of clocks that are far off are held until it is known how far, and taken in corrected.
    assert await rows_of_honest(fleet, tmp_path) == found["sent"]["rows"]
    due = sum(found["garbage"]["refusals_due"].values())
    assert found["sent"]["garbage"] == due > 0
    assert found["witness"]["counts"]["refused"] == due
    assert set(found["garbage"]["frames"]) == {
        "absurd", "broken", "too_few_cells", "too_large", "wrong_schema", "zip_bomb",
    }  # fmt: skip
    assert sum(found["garbage"]["enders"].values()) > 0


async def test_history_is_drained_and_what_was_dropped_is_a_gap(tmp_path: Path) -> None:
    asked = replace(
        SHORT,
        agents=10,
        register_period_s=60.0,
        backlog_s=36_000.0,
        backlog_rows=60,
        spool_batches=40,
    )
    fleet, found = await loaded(asked, tmp_path)
    # 60 frames of ten minutes each; room is for 40.
    all_is_there(found)
    assert found["dropped"] >= 10 * 20
    assert found["sent"]["gaps"] >= 10
    assert found["backlog"]["drained"] == 10
    assert found["backlog"]["times_real"] > 48
    assert found["latency_ms"]["backlog"]["count"] > 0
    assert found["bytes_per_value"] < 1.4
    assert await rows_of_honest(fleet, tmp_path) == found["sent"]["rows"]


async def test_nothing_that_was_acked_is_denied_after_a_restart(tmp_path: Path) -> None:
    asked = replace(at(SHORT), seconds=2.5, is_verified=False)
    stop, tree = asyncio.Event(), config(asked, tmp_path)
    fleet = Fleet(asked)
    async with asyncio.TaskGroup() as tasks:
        async with app.serving(tree, tmp_path):
            run = tasks.create_task(fleet.run(stop), name="load")
            await all_in(fleet)
        async with app.serving(tree, tmp_path):
            found = await run
    assert (found["lost"], found["left"], found["checked"]) == (0, 0, 20)
    assert found["reconnects"] >= 20
    assert await rows_of_honest(fleet, tmp_path) == found["sent"]["rows"]


async def test_an_aggregator_that_forgets_is_found_out(tmp_path: Path) -> None:
    asked = replace(at(SHORT), agents=5, seconds=2.0, is_verified=False)
    tree = config(asked, tmp_path)
    fleet = Fleet(asked)
    async with asyncio.TaskGroup() as tasks:
        async with app.serving(tree, tmp_path / "first"):
            run = tasks.create_task(fleet.run(asyncio.Event()), name="load")
            await all_in(fleet)
        async with app.serving(tree, tmp_path / "second"):
            found = await run
    assert found["lost"] > 0
    # What was denied is sent again, as the agent does.
    assert found["left"] == 0
    assert found["sent"]["repeats"] >= found["lost"]


async def test_a_burst_and_a_noisy_agent_leave_all_others_whole(tmp_path: Path) -> None:
    faults = Faults(noisy_factor=20.0, bursts=(Burst(factor=5.0, at_s=0.3, length_s=0.8),))
    fleet, found = await loaded(replace(SHORT, faults=faults), tmp_path)
    all_is_there(found)
    assert await rows_of_honest(fleet, tmp_path) == found["sent"]["rows"]
    noisy = fleet.agents[10].site.telemetry.next_seq
    assert noisy > 3 * fleet.agents[0].site.telemetry.next_seq


async def test_streams_may_share_a_connection(tmp_path: Path) -> None:
    asked = at(replace(SHORT, seconds=0.8))
    shared = replace(asked, doors=replace(asked.doors, streams_per_connection=10))
    async with app.serving(config(asked, tmp_path), tmp_path):
        all_is_there(await Fleet(shared).run(asyncio.Event()))


async def test_a_stranger_is_refused_for_good_and_does_not_come_again(tmp_path: Path) -> None:
    asked = at(replace(SHORT, agents=2, seconds=0.8, is_verified=False))
    async with app.serving(config(asked, tmp_path), tmp_path):
        found = await Fleet(replace(asked, site_prefix="stranger")).run(asyncio.Event())
    assert found["agents"]["refused_for_good"] == {"PERMISSION_DENIED": 2}
    assert (found["agents"]["never_connected"], found["ends"]) == (2, {"PERMISSION_DENIED": 2})
