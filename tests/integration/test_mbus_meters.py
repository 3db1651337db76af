"""What simulated meters say to the M-Bus driver, and what a recording keeps of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from integration.mbus_rig import HandClock, energy_wh, open_
from ports.benches.mbus import METER, STATE, Plant

from heatpool.errors import SensorBusy, SensorGone, WireError
from heatpool_agent.core.mbus import decode, heat_view
from heatpool_agent.ports import Roots
from heatpool_sim.devices.mbus_meter import MbusMeter

DAY_NS = 86_400 * 10**9


@pytest.fixture
def plant() -> Any:
    return Plant()


async def test_an_old_meter_of_two_counters_is_read(plant: Any) -> None:
    async with MbusMeter(is_fixed=True).serve(plant) as where, open_(where.url) as sensor:
        values = {r.quantity: r.value for r in await sensor.read()}
    assert values == {"energy_wh": 98_765_432, "volume_m3": pytest.approx(561.081)}


async def test_a_broken_temperature_sensor_is_no_reading(plant: Any) -> None:
    plant.faults = frozenset({"meter_sensor_broken"})
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        found = {r.quantity for r in await sensor.read()}
    assert found == {"energy_wh", "volume_m3", "delivered_heat_w", "volume_flow_m3_h"}


async def test_a_frozen_meter_says_so_in_its_status(plant: Any) -> None:
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        plant.faults = frozenset({"meter_frozen"})
        await sensor.read()
        plant.state = replace(STATE, register_wh=STATE.register_wh + 1000)
        energy, *_ = await sensor.read()
    assert energy.value == STATE.register_wh
    assert set(energy.flags) >= {"permanent_error", "temporary_error"}


async def test_a_meter_that_allows_no_more_readouts_is_left_alone_for_a_day(plant: Any) -> None:
    clock = HandClock()
    async with MbusMeter().serve(plant) as where, open_(where.url, clock=clock) as sensor:
        plant.faults = frozenset({"meter_too_many_readouts"})
        with pytest.raises(SensorBusy, match="too many readouts") as caught:
            await sensor.read()
        plant.faults = frozenset()
        clock.now_ns += DAY_NS // 2
        with pytest.raises(SensorBusy) as again:
            await sensor.read()
        clock.now_ns += DAY_NS // 2
        assert await energy_wh(sensor) == 98_765_432
    assert (caught.value.wait_s, again.value.wait_s) == (86_400, 43_200)


@pytest.mark.parametrize(
    ("expected", "is_marked"),
    [("HPS.12345678.1.4", False), ("12345678", False), ("HPS.12345679.1.4", True), ("", False)],
)
async def test_another_meter_than_expected_is_marked(
    plant: Any, expected: str, *, is_marked: bool
) -> None:
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, meter_id=expected) as sensor:
            readings = await sensor.read()
    assert {"other_meter" in r.flags for r in readings} == {is_marked}
    assert {r.meter_id for r in readings} == {"HPS.12345678.1.4"}


async def test_an_exchanged_meter_shows_its_own_number(plant: Any) -> None:
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        before, *_ = await sensor.read()
        plant.plate = replace(METER, number=23456789)
        after, *_ = await sensor.read()
    assert (before.meter_id, after.meter_id) == ("HPS.12345678.1.4", "HPS.23456789.1.4")


async def test_a_register_that_rolls_over_keeps_its_modulus(plant: Any) -> None:
    plant.state = replace(STATE, register_wh=10**8 - 1)
    async with MbusMeter().serve(plant) as where, open_(where.url) as sensor:
        before, *_ = await sensor.read()
        plant.state = replace(STATE, register_wh=3)
        after, *_ = await sensor.read()
    assert (before.raw, after.raw, after.modulus) == (10**8 - 1, 3, 10**8)


async def test_a_bus_that_others_keep_is_busy_and_not_broken(plant: Any) -> None:
    plant.faults = frozenset({"meter_offline"})
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url) as one, open_(where.url, id="two", timeout_s=0.1) as other:
            first = asyncio.create_task(one.read())
            await asyncio.sleep(0)
            with pytest.raises(SensorBusy, match="other meters kept the bus"):
                await other.read()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first


# --- tape


class _Tape:
    """Keeps what passes; then plays it."""

    def __init__(self) -> None:
        self.is_playing = False
        self.kept: dict[str, list[bytes | Exception]] = {}

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.is_playing:
            answer = self.kept[request].pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        try:
            found = await ask()
        except (OSError, TimeoutError, WireError) as error:
            self.kept.setdefault(request, []).append(error)
            raise
        self.kept.setdefault(request, []).append(hide(found) if hide else found)
        return found

    def look(self, request: str, see: Any, *, hide: Any = None) -> bytes:
        raise AssertionError("a bus is asked, not looked at")


@pytest.mark.parametrize("name", [{"address": 1}, {"secondary": "12345678"}], ids=str)
async def test_a_recording_plays_without_a_line_and_without_numbers(
    plant: Any, name: dict[str, Any]
) -> None:
    tape: Any = _Tape()
    roots = Roots(tape=tape)
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, roots=roots, meter_id="12345678", **name) as sensor:
            told = [await sensor.read() for _ in range(2)]
    assert "12345678" not in "".join(tape.kept)
    frames = [a for row in tape.kept.values() for a in row if len(a) > 1]
    assert len(frames) == 2
    assert all(bytes.fromhex("78563412") not in frame for frame in frames)
    assert len({heat_view(decode(frame)).meter_id for frame in frames}) == 1

    tape.is_playing = True
    async with open_("tcp://127.0.0.1:1", roots=roots, meter_id="12345678", **name) as sensor:
        played = [await sensor.read() for _ in range(2)]
    assert [[(r.quantity, r.value, r.flags) for r in row] for row in played] == [
        [(r.quantity, r.value, r.flags) for r in row] for row in told
    ]
    assert tape.kept.keys() and not any(tape.kept.values())


async def test_a_recording_plays_its_failures_too(plant: Any) -> None:
    tape: Any = _Tape()
    roots = Roots(tape=tape)
    faults = [frozenset[str](), frozenset({"meter_offline"}), frozenset({"checksum_wrong"})]
    faults += [frozenset({"busy"}), frozenset()]

    async def told(sensor: Any) -> list[str]:
        rows = []
        for fault in faults:
            plant.faults = fault
            try:
                rows.append(str([(r.quantity, r.value) for r in await sensor.read()]))
            except (SensorGone, SensorBusy) as error:
                rows.append(str(error).partition("address 1: ")[2])
        return rows

    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, roots=roots, timeout_s=1.0) as sensor:
            live = await told(sensor)
    tape.is_playing = True
    async with open_("tcp://127.0.0.1:1", roots=roots, timeout_s=1.0) as sensor:
        assert await told(sensor) == live
    assert "two meters answered at once" in live[2]
    assert not any(tape.kept.values())


async def test_silence_is_recorded_as_silence(plant: Any) -> None:
    tape: Any = _Tape()
    plant.faults = frozenset({"meter_offline"})
    async with MbusMeter().serve(plant) as where:
        async with open_(where.url, roots=Roots(tape=tape), timeout_s=0.05) as sensor:
            with pytest.raises(SensorGone):
                await sensor.read()
    tape.is_playing = True
    async with open_("tcp://127.0.0.1:1", roots=Roots(tape=tape)) as sensor:
        with pytest.raises(SensorGone, match="no whole answer"):
            await sensor.read()
