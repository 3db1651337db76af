"""What every sensor driver owes to the port, whatever it speaks: each one on its own bench.

The kinds are those that entry points name; a kind without a bench fails here by its name.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from importlib import import_module, util
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.bench import FAULTS
from ports.sensor_rig import BOOT_NS, CANCEL_S, EVENT_NS, TRIES, Clock, Rig, held, values

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone
from heatpool.units import SUFFIXES, UNITLESS
from heatpool_agent import sensors
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Roots, Sensor

KINDS = sorted({point.name for point in entry_points(group=sensors.GROUP)} | {*sensors.OWN})
NETWORK = sorted({*KINDS} - {*sensors.local_kinds()})
# Marks for "no value" of 16, 32 and 64 bits, as devices show them: registers, meters, NVML.
MARKS = {
    sign * mark
    for bits in (15, 16, 31, 32, 63, 64)
    for sign in (1, -1)
    for mark in (2**bits - 1, 2**bits - 16, 2**bits)
}
# Half of what an orderly stop of the agent may take (agent.md 15): a BMC is logged out of.
CLOSE_S = 5.0
HAS_CARD = Path("/proc/driver/nvidia").exists()
GARBAGE = {
    "a zero": b"\x00",
    "ones": b"\xff" * 600,
    "starts": b"\x68\x68\x68\x68",
    "every byte": bytes(range(256)),
    "a login": b"\r\nlogin: ",
    "a page": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
}
SPOILS: dict[str, Callable[[bytes], bytes | None]] = {
    **{name: lambda _, told=told: told for name, told in GARBAGE.items()},  # type: ignore[misc]
    "half an answer": lambda answer: answer[: len(answer) // 2] or None,
    "an end": lambda _: None,
}


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    kind = request.param
    if util.find_spec(f"ports.benches.{kind}") is None:
        pytest.fail(f"sensor kind {kind!r} has no bench: write tests/ports/benches/{kind}.py")
    (tmp_path / "bench").mkdir()
    async with import_module(f"ports.benches.{kind}").opened(tmp_path / "bench") as bench:
        yield Rig(kind, bench, sensors.driver(kind))


def _needs(rig: Rig, fault: str) -> None:
    if fault not in rig.bench.faults:
        pytest.skip(f"{rig.kind}, {fault}: {rig.bench.lacks[fault]}")


async def _fails(rig: Rig, sensor: Sensor, what: str) -> SensorError:
    """How a pass ends that must end in time, with its reason and, if the device is gone, a cure."""
    # What was heard before the fault is old news by now.
    rig.clock.step(60.0)
    begun_s = time.monotonic()
    with pytest.raises(SensorError) as caught:
        await rig.look(sensor, what)
    assert time.monotonic() - begun_s < rig.timeout_s + CANCEL_S
    assert str(caught.value)
    if isinstance(caught.value, SensorGone):
        assert caught.value.fix, f"no cure: {caught.value}"
    return caught.value


async def test_opening_touches_no_device(rig: Rig) -> None:
    async with rig.open():
        pass
    assert rig.bench.exchanges == 0


async def test_a_bench_tells_its_faults_and_why_it_lacks_others(rig: Rig) -> None:
    assert rig.bench.faults | rig.bench.lacks.keys() == FAULTS
    assert not rig.bench.faults & rig.bench.lacks.keys()
    assert all(rig.bench.lacks.values())
    assert rig.kind not in NETWORK or rig.bench.faults >= {"pull", "slow"}


@pytest.mark.parametrize("kind", sensors.local_kinds())
async def test_a_machine_without_any_of_it_has_no_channels(kind: str, tmp_path: Path) -> None:
    if kind == "nvml" and HAS_CARD:
        pytest.skip("a real card is here, and its library is not told by roots")
    (tmp_path / "stat").write_text("cpu  1 0 0 1 0 0 0 0 0 0\n", encoding="ascii")
    module: Any = sensors.driver(kind)
    config = msgspec.convert({"id": "s", "kind": kind}, module.Config)
    roots = Roots(sys=tmp_path / "sys", proc=tmp_path, dev=tmp_path / "dev")
    async with module.open(config, roots, Clock()) as sensor:
        found = tuple(await sensor.probe())
    # A machine always has a load, and says nothing more here.
    assert found == (("host/cpu",) if kind == "host" else ())


async def test_readings_have_a_unit_a_place_and_our_time(rig: Rig) -> None:
    async with rig.open(loop="rack") as sensor:
        await rig.look(sensor, "probe", "read")
        rig.clock.step(0.01)
        readings = await rig.look(sensor)
    assert readings
    for r in readings:
        has_unit = r.quantity.endswith(SUFFIXES) or r.quantity in UNITLESS
        assert has_unit or r.kind is ReadingKind.STATE, r.quantity
        assert isinstance(r.kind, ReadingKind)
        assert isinstance(r.node, Node)
        assert r.channel
        assert r.event_ns - r.boot_ns == EVENT_NS - BOOT_NS
        assert r.boot_ns in rig.clock.instants_ns
    assert {(r.sensor, r.loop) for r in readings} == {("s", "rack")}
    assert len({(r.channel, r.quantity) for r in readings}) == len(readings)
    assert {r.quantity for r in readings} >= rig.bench.quantities


async def test_values_are_numbers_and_never_marks(rig: Rig) -> None:
    async with rig.open() as sensor:
        readings = await rig.look(sensor)
    assert any(r.kind is not ReadingKind.STATE for r in readings)
    for r in readings:
        assert math.isfinite(r.value)
        assert r.u is None or r.u > 0
        marked = [scale for scale in (1, 10, 100, 1000) if round(r.value * scale, 6) in MARKS]
        assert not marked, f"{r.quantity} is {r.value}"
        assert r.raw not in MARKS


async def test_an_energy_counter_carries_the_count_that_its_value_is(rig: Rig) -> None:
    async with rig.open() as sensor:
        readings = await rig.look(sensor)
    for r in readings:
        is_energy = r.kind is ReadingKind.COUNTER and r.quantity.endswith(("_j", "_wh"))
        assert r.raw is not None or not is_energy
        if r.raw is not None:
            assert r.value == pytest.approx(r.raw * 10**r.exponent, rel=1e-12)
            assert r.modulus is None or 0 <= r.raw < r.modulus


async def test_probing_can_be_repeated_and_changes_nothing(rig: Rig) -> None:
    async with rig.open() as sensor:
        await rig.look(sensor, "probe", "read")
        before = values(await rig.look(sensor, "probe", "read"))
        first, second = await sensor.probe(), await sensor.probe()
        readings = await rig.look(sensor)
    assert list(first) == list(second)
    assert {*first} >= {r.channel for r in readings}
    assert values(readings).items() <= before.items()


@pytest.mark.parametrize("moment", ["at once", "soon", "while slow"])
async def test_a_cancelled_read_ends_at_once_and_harms_no_later_one(rig: Rig, moment: str) -> None:
    if moment == "while slow":
        _needs(rig, "slow")
    async with rig.open() as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        asked = rig.bench.exchanges
        if moment == "while slow":
            await rig.bench.slow()
            rig.clock.step(60.0)
        task = asyncio.create_task(sensor.read())
        await (asyncio.sleep(0) if moment == "at once" else rig.asked(asked))
        begun_s, was_done = time.monotonic(), task.done()
        assert not (was_done and moment == "while slow")
        task.cancel()
        await asyncio.wait([task], timeout=10.0)
        assert time.monotonic() - begun_s < CANCEL_S
        assert task.cancelled() or was_done
        if moment == "while slow":
            await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")).items() >= before.items()


async def test_a_pulled_plug_is_told_with_a_cure_and_mends(rig: Rig) -> None:
    _needs(rig, "pull")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        await rig.bench.pull()
        await _fails(rig, sensor, "read")
        assert isinstance(await _fails(rig, sensor, "probe"), SensorGone | SensorBusy)
        await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")) == before


async def test_a_device_that_was_never_there_is_told_and_may_come(rig: Rig) -> None:
    _needs(rig, "pull")
    await rig.bench.pull()
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        assert isinstance(await _fails(rig, sensor, "probe"), SensorGone)
        await rig.bench.heal()
        assert await rig.back(sensor, "probe", "read")


async def test_silence_is_told_after_the_timeout_and_ends_with_it(rig: Rig) -> None:
    _needs(rig, "slow")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        await rig.bench.slow()
        await _fails(rig, sensor, "read")
        await _fails(rig, sensor, "probe")
        await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")) == before


async def test_a_garbled_device_is_refused_and_the_next_answer_counts(rig: Rig) -> None:
    _needs(rig, "garble")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        await rig.bench.garble()
        await _fails(rig, sensor, "read")
        with suppress(SensorError):
            # What is found in spite of it has to be what a healthy device says.
            assert values(await rig.look(sensor, "probe", "read")).items() <= before.items()
        await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")) == before


@pytest.mark.parametrize("rig", NETWORK, indirect=True)
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=[*SPOILS])
async def test_bytes_that_are_no_answer_give_no_reading(
    rig: Rig, spoil: Callable[[bytes], bytes | None]
) -> None:
    if not str(rig.bench.settings.get("url", "")).startswith(("tcp:", "http:", "mqtt:")):
        pytest.skip(f"{rig.kind} does not speak over TCP here")
    async with rig.relayed() as (relay, url), rig.open(url=url, timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        good, relay.spoil = relay.spoil, spoil
        # What a device pushes by itself may be on its way, and counts.
        await asyncio.sleep(0.05)
        await _fails(rig, sensor, "read")
        relay.spoil = good
        if rig.kind == "mqtt":
            await _in_step(rig, sensor, before)
        assert values(await rig.back(sensor, "probe", "read")) == before


async def _in_step(rig: Rig, sensor: Sensor, before: object) -> None:
    """What was pushed and cut short spoils what follows, until the connection is begun anew."""
    for _ in range(TRIES):
        with suppress(SensorError):
            if values(await rig.look(sensor, "probe", "read")) == before:
                return
        await asyncio.sleep(0.02)


async def test_two_copies_at_once_read_the_same(rig: Rig) -> None:
    async def thrice(sensor: Sensor) -> list[dict[tuple[str, str], float]]:
        await rig.back(sensor, "probe")
        return [values(await rig.back(sensor)) for _ in range(3)]

    async with rig.open() as alone:
        told = values(await rig.look(alone, "probe", "read"))
        async with rig.open(id="other") as other:
            rows = await asyncio.gather(thrice(alone), thrice(other))
        assert [row for copy in rows for row in copy] == [told] * 6
        # The copy that left takes nothing along.
        assert values(await rig.back(alone)) == told


async def test_closing_twice_is_closing(rig: Rig) -> None:
    async with rig.open() as sensor:
        await rig.look(sensor)
        await sensor.close()
        await sensor.close()


@pytest.mark.parametrize("moment", ["first read", "later read", "while slow"])
async def test_closing_during_a_read_ends_it_in_time(rig: Rig, moment: str) -> None:
    if moment == "while slow":
        _needs(rig, "slow")
    before = held()
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        if moment != "first read":
            await rig.look(sensor)
        if moment == "while slow":
            await rig.bench.slow()
            rig.clock.step(60.0)
        asked = rig.bench.exchanges
        task = asyncio.create_task(sensor.read())
        await rig.asked(asked)
        async with asyncio.timeout(CLOSE_S):
            await sensor.close()
        await asyncio.wait([task], timeout=rig.timeout_s + CANCEL_S)
        assert task.done()
        # What it says is either whole or the reason why not: nobody asked it to be cancelled.
        assert not task.cancelled()
        assert isinstance(task.exception(), SensorError | None)
        if moment == "while slow":
            await rig.bench.heal()
    if moment != "while slow":
        await _nothing_left(before)


async def _nothing_left(before: Any, tasks: set[asyncio.Task[Any]] | None = None) -> None:
    """What is still held now ends in a bounded time, such as a server's end of a connection."""
    begun_s = time.monotonic()
    while True:
        more = held().beyond(before)
        running = asyncio.all_tasks() - tasks if tasks is not None else set()
        if not more and not running:
            return
        assert time.monotonic() - begun_s < 2.0, f"left behind: {more} {running}"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["read", "cancel", "pull", "slow", "garble"])
async def test_closed_it_leaves_nothing_behind(rig: Rig, end: str) -> None:
    if end in FAULTS:
        _needs(rig, end)
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
            await _fails(rig, sensor, "read")
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


async def test_an_unknown_key_is_refused_by_its_name(rig: Rig) -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        rig.config(rig.bench.settings, colour="red")


async def test_a_missing_key_is_named_or_not_needed(rig: Rig) -> None:
    own = {*rig.bench.settings} - {*SensorSettings.__struct_fields__}
    refused = [key for key in sorted(own) if await _is_refused_without(rig, key)]
    assert refused or rig.kind not in NETWORK


async def _is_refused_without(rig: Rig, key: str) -> bool:
    settings = {name: value for name, value in rig.bench.settings.items() if name != key}
    try:
        async with rig.module.open(rig.config(settings), rig.bench.roots, rig.clock):
            return False
    except (msgspec.ValidationError, ConfigError) as error:
        assert key in str(error)
        return True
