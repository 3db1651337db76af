"""What every sensor driver owes to the port, whatever it speaks: each one on its own bench.

The kinds are those that entry points name; a kind without a bench fails here by its name.
"""

import asyncio
import errno
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ports.bench import FAULTS
from ports.sensor_rig import (
    BOOT_NS,
    EVENT_NS,
    NETWORK,
    PATIENCE_S,
    BrokenTape,
    Clock,
    Rig,
    values,
)
from turns import SOON_S, turned, turning

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone
from heatpool.units import SUFFIXES, UNITLESS
from heatpool_agent import sensors
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.ports import Roots, Sensor

# Marks for "no value" of 16, 32 and 64 bits, as devices show them: registers, meters, NVML.
MARKS = {
    sign * mark
    for bits in (15, 16, 31, 32, 63, 64)
    for sign in (1, -1)
    for mark in (2**bits - 1, 2**bits - 16, 2**bits)
}
HAS_CARD = Path("/proc/driver/nvidia").exists()
# What a system lets out of an exchange; and whose exchanges end with words of the driver's alone.
ENDS = (
    OSError(errno.ENODEV, "No such device"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError(),
)
OWN_WORDS = {"mqtt": "the link says why", "nvml": "the library says why"}
GARBAGE = {
    "a zero": b"\x00",
    "ones": b"\xff" * 600,
    "starts": b"\x68\x68\x68\x68",
    "every byte": bytes(range(256)),
    "a login": b"\r\nlogin: ",
}
SPOILS: dict[str, Callable[[bytes], bytes | None]] = {
    **{name: lambda _, told=told: told for name, told in GARBAGE.items()},  # type: ignore[misc]
    "half an answer": lambda answer: answer[: len(answer) // 2] or None,
    "an end": lambda _: None,
}


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
        rig.needs("slow")
    async with rig.open() as sensor:
        before = values(await rig.look(sensor, "probe", "read"))
        asked = rig.bench.exchanges
        if moment == "while slow":
            await rig.bench.slow()
            rig.clock.step(60.0)
        task = asyncio.create_task(sensor.read())
        await (asyncio.sleep(0) if moment == "at once" else rig.asked(asked))
        was_done = task.done()
        assert not (was_done and moment == "while slow")
        async with turning() as turns:
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_S)
        assert turns.passed_s < SOON_S
        assert task.cancelled() or was_done
        if moment == "while slow":
            await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")).items() >= before.items()


async def test_a_pulled_plug_is_told_with_a_cure_and_mends(rig: Rig) -> None:
    rig.needs("pull")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.back(sensor, "probe", "read"))
        await rig.bench.pull()
        await rig.fails(sensor, "read")
        assert isinstance(await rig.fails(sensor, "probe"), SensorGone | SensorBusy)
        await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")) == before


async def test_a_device_that_was_never_there_is_told_and_may_come(rig: Rig) -> None:
    rig.needs("pull")
    await rig.bench.pull()
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        assert isinstance(await rig.fails(sensor, "probe"), SensorGone)
        await rig.bench.heal()
        assert await rig.back(sensor, "probe", "read")


async def test_silence_is_told_after_the_timeout_and_ends_with_it(rig: Rig) -> None:
    rig.needs("slow")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.back(sensor, "probe", "read"))
        await rig.bench.slow()
        await rig.fails(sensor, "read")
        await rig.fails(sensor, "probe")
        await rig.bench.heal()
        assert values(await rig.back(sensor, "probe", "read")) == before


async def test_a_garbled_device_is_refused_and_the_next_answer_counts(rig: Rig) -> None:
    rig.needs("garble")
    async with rig.open(timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.back(sensor, "probe", "read"))
        await rig.bench.garble()
        await rig.fails(sensor, "read")
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
        before = values(await rig.back(sensor, "probe", "read"))
        good, relay.spoil = relay.spoil, spoil
        # What a device pushes by itself may be on its way, and counts.
        await turned(0.1)
        await rig.fails(sensor, "read")
        relay.spoil = good
        if rig.kind == "mqtt":
            await _in_step(rig, sensor, before)
        else:
            assert values(await rig.back(sensor, "probe", "read")) == before


async def _in_step(rig: Rig, sensor: Sensor, before: object) -> None:
    """What was pushed and cut short spoils what follows, until the connection is begun anew.

    That is after some more messages, or once the broker seems to leave pings unanswered.
    """
    async with asyncio.timeout(2 * PATIENCE_S):
        while True:
            with suppress(SensorError):
                if values(await rig.look(sensor, "probe", "read")) == before:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
async def test_however_an_exchange_fails_the_sensor_says_so(rig: Rig, error: Exception) -> None:
    if rig.kind in OWN_WORDS:
        pytest.skip(f"{rig.kind}: {OWN_WORDS[rig.kind]}")
    tape = BrokenTape(rig.bench.roots.tape)
    roots = replace(rig.bench.roots, tape=tape)
    async with rig.open(roots=roots, timeout_s=rig.timeout_s) as sensor:
        before = values(await rig.back(sensor, "probe", "read"))
        tape.error = error
        await rig.fails(sensor, "read")
        tape.error = None
        assert values(await rig.back(sensor, "probe", "read")) == before


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
