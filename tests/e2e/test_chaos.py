"""Full and refusing disks, programs that stand still: nothing is lost, all goes on by itself.

Clocks that are off are in `test_chaos_clocks`, files that are spoiled in `test_chaos_files`.
HEATPOOL_CHAOS_LONG=1 lets each state last longer, and tries more of them.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e import chaos
from e2e.chaos import Weather
from e2e.rig import PATIENCE_S, Program, Rig, rig
from e2e.storm import account, calm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

IS_LONG = bool(os.environ.get("HEATPOOL_CHAOS_LONG"))
LAST_S = 30.0 if IS_LONG else 2.5
STILL_S = 45.0 if IS_LONG else 5.0
AGGREGATOR_MB, AGENT_MB = 12, 32


async def ready(running: Rig, name: str = "aggregator") -> tuple[int, str]:
    """Status and text of a program's own readiness."""
    program = running.aggregator if name == "aggregator" else running.agents[name]
    address = json.loads(program.ready_file.read_text())["http"]
    async with running.http.get(f"http://{address}/readyz") as answer:
        return answer.status, await answer.text()


async def eventually(is_true: Callable[[], Awaitable[bool]], claim: str) -> None:
    """Waits for a claim to hold."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await is_true():  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(claim) from None


async def becomes(running: Rig, name: str, status: int, word: str = "") -> str:
    """Waits until the readiness is so; its text."""
    seen: list[tuple[int, str]] = []

    async def is_so() -> bool:
        seen[:] = [await ready(running, name)]
        return seen[0][0] == status and word in seen[0][1]

    await eventually(is_so, f"{name} is never {status} {word}")
    return seen[0][1]


async def spool_of(running: Rig, site_id: str) -> dict[str, Any]:
    spool: dict[str, Any] = (await running.agent_status(site_id))["spool"]
    return spool


async def durable_count(running: Rig) -> int:
    count: int = (await running.ask("/v1/status"))["ingest"]["batches_durable"]
    return count


async def lives(program: Program) -> None:
    assert program.child is not None and program.child.poll() is None, program.log_tail()
    assert "Traceback" not in program.log_tail()


async def nothing_is_lost(running: Rig) -> None:
    """Stops all, and compares both ends number by number."""
    energies_wh = await calm(running)
    for site_id, energy_wh in energies_wh.items():
        found = await asyncio.to_thread(account, running.folder, site_id)
        assert found.mistakes() == []
        assert energy_wh == found.moved_wh


async def holds_back(running: Rig, word: str) -> None:
    """The aggregator's disk takes nothing: it says so, acks nothing, and still answers."""
    told = await becomes(running, "aggregator", 503, "log.db")
    assert word in told
    before = await durable_count(running)
    await asyncio.sleep(LAST_S)
    assert await durable_count(running) == before, "acknowledged what is on no disk"
    for path in ("/v1/sites", "/v1/statements?limit=5", "/v1/sources", "/healthz"):
        await running.ask(path)
    # Sites keep what is not acknowledged.
    assert (await spool_of(running, "e1"))["telemetry"]["unacked"] > 0
    await lives(running.aggregator)


async def goes_on(running: Rig) -> None:
    """The aggregator's disk takes what comes again: nobody has to do anything."""
    await becomes(running, "aggregator", 200)
    before = await durable_count(running)
    await eventually(lambda: _has_more(running, before), "nothing is durable any more")
    assert running.aggregator.log_tail().count("ingest.log_back") >= 1


async def _has_more(running: Rig, before: int) -> bool:
    return await durable_count(running) > before


async def test_a_full_disk_at_either_end_stops_no_billing_and_loses_nothing(
    tmp_path: Path,
) -> None:
    aggregator, agent = tmp_path / "aggregator", tmp_path / "e1"
    with (
        chaos.small_disk(aggregator, AGGREGATOR_MB),
        chaos.small_disk(agent, AGENT_MB),
    ):
        async with rig(tmp_path) as running:
            await running.begun()
            await asyncio.to_thread(chaos.fill, aggregator / "others")
            await holds_back(running, "full")
            (aggregator / "others").unlink()
            await goes_on(running)

            await asyncio.to_thread(chaos.fill, agent / "others")
            await becomes(running, "e1", 503, "disk is full")
            await eventually(lambda: _is_gone(agent / "reserve"), "the reserve is for billing")
            before = await spool_of(running, "e1")
            await eventually(
                lambda: _bills_beyond(running, before["billing"]["next_seq"] + LAST_S),
                "a full disk held up billing",
            )
            telemetry = (await spool_of(running, "e1"))["telemetry"]
            assert telemetry["next_seq"] == before["telemetry"]["next_seq"]
            await lives(running.agents["e1"])
            (agent / "others").unlink()
            await becomes(running, "e1", 200)
            await nothing_is_lost(running)
            assert (agent / "reserve").exists(), "nothing is kept for the next time"


async def _is_gone(path: Path) -> bool:
    return not await asyncio.to_thread(path.exists)


async def _bills_beyond(running: Rig, seq: float) -> bool:
    billing = (await spool_of(running, "e1"))["billing"]
    return bool(billing["next_seq"] > seq and billing["unacked"] <= 1)


@asynccontextmanager
async def standing_still(program: Program) -> AsyncIterator[None]:
    """Stopped by a signal that nobody can refuse, for `STILL_S` at least."""
    assert program.child is not None
    program.child.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(STILL_S))
            yield
    finally:
        program.child.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    "refusal", [chaos.READ_ONLY, *([chaos.BROKEN, chaos.FULL] if IS_LONG else [])]
)
async def test_a_disk_that_refuses_and_a_program_that_stands_still_are_waited_for(
    tmp_path: Path, refusal: int
) -> None:
    weather = Weather(tmp_path, await asyncio.to_thread(chaos.compiled, tmp_path))
    async with rig(tmp_path, environ=weather.environ) as running:
        await running.begun()
        weather.be("aggregator", refusal=refusal)
        async with standing_still(running.agents["e2"]):
            await holds_back(running, "disk")
        weather.be("aggregator")
        await goes_on(running)

        weather.be("e1", refusal=refusal)
        async with standing_still(running.aggregator):
            await becomes(running, "e1", 503, "takes no rows")
        await lives(running.agents["e1"])
        weather.be("e1")
        await becomes(running, "e1", 200)
        await nothing_is_lost(running)


async def test_a_preloaded_clock_and_disk_are_what_a_program_sees(tmp_path: Path) -> None:
    """The tool itself: without it the tests here would claim what they never tried."""
    weather = Weather(tmp_path, await asyncio.to_thread(chaos.compiled, tmp_path))
    environ = {**os.environ, **weather.environ("e1")}
    (tmp_path / "e1").mkdir()
    weather.be("e1", clock_s=86_400.0, refusal=chaos.READ_ONLY)
    told = "import time; print(time.time()); open('e1/x', 'w')"
    child = await asyncio.create_subprocess_exec(
        "python3", "-c", told.replace("e1/x", str(tmp_path / "e1" / "x")),
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await child.communicate()
    assert float(out) > (tmp_path / "e1").stat().st_mtime + 80_000
    assert b"Read-only file system" in error
