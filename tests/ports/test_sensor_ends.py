"""What every sensor driver owes when it is closed, and when a recording is played to it."""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ports.bench import FAULTS
from ports.sensor_rig import PATIENCE_S, Held, Rig, held
from turns import SOON_S, turning

from heatpool.errors import SensorError
from heatpool_agent import sensors
from heatpool_agent.core.reading import Reading

# Half of what an orderly stop of the agent may take (agent.md 15): a BMC is logged out of.
CLOSE_S = 5.0
# Of the event loop, for what the other end of a connection still has to do.
LEFT_TURNS = 500


async def test_closing_twice_is_closing(rig: Rig) -> None:
    async with rig.open() as sensor:
        await rig.look(sensor)
        await sensor.close()
        await sensor.close()


@pytest.mark.parametrize("moment", ["first read", "later read", "while slow"])
async def test_closing_during_a_read_ends_it_in_time(rig: Rig, moment: str) -> None:
    if moment == "while slow":
        rig.needs("slow")
    before = held()
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        if moment != "first read":
            await rig.back(sensor)
        if moment == "while slow":
            await rig.bench.slow()
            rig.clock.step(60.0)
        asked = rig.bench.exchanges
        task = asyncio.create_task(sensor.read())
        await rig.asked(asked)
        async with turning() as turns:
            await sensor.close()
        assert turns.passed_s < CLOSE_S
        async with turning() as turns:
            await asyncio.wait([task], timeout=PATIENCE_S)
        assert task.done()
        assert turns.passed_s < rig.timeout_s + SOON_S
        # What it says is either whole or the reason why not: nobody asked it to be cancelled.
        assert not task.cancelled()
        assert isinstance(task.exception(), SensorError | None)
        if moment == "while slow":
            await rig.bench.heal()
    if moment != "while slow":
        await _nothing_left(before)


async def _nothing_left(before: Held, tasks: set[asyncio.Task[Any]] | None = None) -> None:
    """What is still held now ends in a bounded time, such as a server's end of a connection."""
    more, running = "", set[asyncio.Task[Any]]()
    for _ in range(LEFT_TURNS):
        more = held().beyond(before)
        running = asyncio.all_tasks() - tasks if tasks is not None else set()
        if not more and not running:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"left behind: {more} {running}")


@pytest.mark.parametrize("end", ["read", "cancel", "pull", "slow", "garble"])
async def test_closed_it_leaves_nothing_behind(rig: Rig, end: str) -> None:
    if end in FAULTS:
        rig.needs(end)
    async with rig.open() as sensor:
        # What is loaded once stays: modules, libraries, entries of caches.
        await rig.look(sensor, "probe", "read")
    before, tasks = held(), asyncio.all_tasks()
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        await rig.back(sensor, "probe", "read")
        if end in FAULTS:
            await getattr(rig.bench, end)()
        if end == "cancel":
            asked, task = rig.bench.exchanges, asyncio.create_task(sensor.read())
            await rig.asked(asked)
            task.cancel()
            await asyncio.wait([task])
        elif end != "read":
            await rig.fails(sensor, "read")
    if end == "slow" and rig.kind in sensors.local_kinds():
        # A library that hangs keeps its thread until it answers.
        await rig.bench.heal()
    await _nothing_left(before, tasks)


async def test_a_recording_plays_the_same_and_asks_no_device(rig: Rig, tmp_path: Path) -> None:
    kept, told = [], []
    async with rig.recorded(tmp_path) as (sensor, redaction):
        for one in ("probe", "read", "read", "pull", "read", "heal", "probe", "read"):
            rig.clock.step(60.0)
            if one in FAULTS | {"heal"}:
                await getattr(rig.bench, one)()
            else:
                kept.append(redaction.text(await _fate(getattr(sensor, one)())))
    asked = rig.bench.exchanges
    async with rig.played(tmp_path) as (player, passes):
        for kept_pass in passes:
            told.append(await _fate(getattr(player, kept_pass.do)(kept_pass)))
    assert any("Sensor" in fate for fate in kept)
    assert told == [fate.replace(f"{tmp_path}/bench", f"{tmp_path}/nothing") for fate in kept]
    assert rig.bench.exchanges == asked


async def _fate(look: Awaitable[Sequence[Any]]) -> str:
    """What a pass gave: channels, figures with their times, or the words of its error."""
    try:
        found = await look
    except SensorError as error:
        return f"{type(error).__name__}: {error}"
    return "\n".join(
        f"{r.channel} {r.quantity} {r.kind} {r.value!r} {r.raw} {r.event_ns} {r.boot_ns}"
        if isinstance(r, Reading)
        else r
        for r in found
    )
