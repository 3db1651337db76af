"""NVIDIA cards through the real bindings and the simulator's library, compiled here."""

import asyncio
import ctypes
import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import HeatpoolError, SensorBusy, SensorGone, WireError
from heatpool_agent.core import gpu_card
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.sensors import nvml
from heatpool_sim.devices.nvml import Card, Gpu, GpuModel, NvmlLibrary, blank

ADDRESS = "0000:3b:00.0"
# Idle as an exporter published it for an H100; its energy is ours.
H100 = Card(
    address=ADDRESS,
    name="H100",
    values={"energy": 5_000_123, "mean": 69_850, "now": 69_620, "usage": 69_900},
)
T4 = Card(address="0000:5e:00.0", name="T4", values={"now": 26_780})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> NvmlLibrary:
    try:
        return NvmlLibrary(tmp_path_factory.mktemp("nvml"))
    except HeatpoolError as error:
        pytest.skip(str(error))


@pytest.fixture
def driver(machine: Any, built: NvmlLibrary) -> NvmlLibrary:
    built.heal()
    (built.folder / "calls").write_text("", encoding="ascii")
    machine.nvml = str(built.path)
    return built


def card_of(values: Mapping[str, int]) -> Card:
    return Card(address=ADDRESS, name="some", values=values)


def plug(machine: Any, address: str, status: str) -> None:
    place = f"sys/bus/pci/devices/{address}"
    machine.write(place, {"vendor": "0x10de", "class": "0x030200"})
    machine.write(f"{place}/power", {"runtime_status": status})


async def test_the_energy_counter_comes_first_and_power_beside_it(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100])
    energy, power = await machine.sense(nvml, "nvml")
    assert (energy.channel, energy.node) == (f"nvml/{ADDRESS}", Node.GPU)
    assert (energy.quantity, energy.kind) == ("energy_j", ReadingKind.COUNTER)
    assert (energy.raw, energy.exponent, energy.value) == (5_000_123, -3, 5_000.123)
    assert (power.quantity, power.value, power.flags) == ("power_w", 69.85, ("field:185",))
    assert {energy.label, power.label} == {"H100"}


@pytest.mark.parametrize(
    ("values", "power_w", "flags"),
    [
        ({"mean": 69_850, "now": 69_620, "usage": 1}, 69.85, ("field:185",)),
        ({"now": 69_620, "usage": 1}, 69.62, ("field:186",)),
        ({"usage": 26_780}, 26.78, ("power_usage",)),
        # A card that never had a sensor.
        ({}, None, ()),
        ({"mean": 0, "now": 1, "usage": 1}, 0.0, ("field:185",)),
        # Beyond every 32-bit number that is a value.
        ({"mean": 4_294_967_295, "now": 2_147_483_647, "usage": 2_147_483_632}, None, ()),
    ],
)
async def test_power_names_the_field_that_answered(
    machine: Any,
    driver: NvmlLibrary,
    values: Mapping[str, int],
    power_w: float | None,
    flags: tuple[str, ...],
) -> None:
    driver.show([card_of(values)])
    readings = await machine.sense(nvml, "nvml")
    assert [(r.value, r.flags) for r in readings] == [(power_w, flags)] * (power_w is not None)


async def test_blanks_of_both_widths_are_no_values(machine: Any, driver: NvmlLibrary) -> None:
    driver.show([blank(blank(H100, "mean"), "energy", bits=64)])
    readings = await machine.sense(nvml, "nvml")
    assert [(r.quantity, r.value) for r in readings] == [("power_w", 69.62)]


async def test_where_only_the_module_is_measured_it_is_cpu_and_gpu(
    machine: Any, driver: NvmlLibrary
) -> None:
    model = GpuModel(name="GH200", idle_w=100.0, most_w=1000.0, is_module=True)
    gpu = Gpu(model, ADDRESS)
    gpu.step(300.0, 10.0)
    driver.show([gpu.card()])
    energy, power = await machine.sense(nvml, "nvml")
    assert (energy.raw, energy.node) == (3_000_000, Node.MODULE)
    assert (power.value, power.node, power.flags) == (300.0, Node.MODULE, ("field:185",))


async def test_a_module_beside_a_measured_gpu_is_not_a_second_reading(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([card_of({"now": 50_000, "module_now": 90_000, "module_energy": 7})])
    assert [(r.node, r.value) for r in await machine.sense(nvml, "nvml")] == [(Node.GPU, 50.0)]


@pytest.mark.parametrize("most_w", [700, 350, 70])
async def test_the_highest_limit_bounds_what_is_plausible(
    machine: Any, driver: NvmlLibrary, most_w: int
) -> None:
    driver.show([card_of({"now": 10_000, "most": most_w * 1000})])
    readings = await machine.sense(nvml, "nvml")
    assert [(r.quantity, r.kind, r.value) for r in readings][1:] == [
        ("rated_w", ReadingKind.STATE, float(most_w))
    ]


async def test_energy_counts_exactly_what_the_card_used(machine: Any, driver: NvmlLibrary) -> None:
    gpu = Gpu(GpuModel(name="x", idle_w=1.0, most_w=700.0), ADDRESS, start_mj=600_000)
    for _ in range(1000):
        gpu.step(333.3, 0.1)
    driver.show([gpu.card()])
    [energy] = [r for r in await machine.sense(nvml, "nvml") if r.quantity == "energy_j"]
    assert energy.raw == 600_000 + 33_330_000


@given(st.binary(max_size=60))
def test_no_text_of_a_card_ends_in_another_error(answer: bytes) -> None:
    try:
        gpu_card.card(answer)
    except WireError:
        return


@pytest.mark.parametrize(
    "fields", ["[[83, 0, 1e999, 64]]", "[[1]]", "7", "[[83, 0, null, 64]]", '[["a", 0, 1, 64]]']
)
def test_odd_answers_are_refused_or_absent(fields: str) -> None:
    answer = f'{{"name": "x", "fields": {fields}, "usage": null}}'.encode()
    try:
        assert gpu_card.card(answer).energy_mj is None
    except WireError as error:
        assert "not the text" in error.reason


values_of = st.integers(0, 2**63 - 17)


@given(st.dictionaries(st.sampled_from(gpu_card.GPU_FIELDS), values_of), st.text(max_size=20))
def test_what_is_kept_of_a_card_reads_back(values: dict[gpu_card.Field, int], name: str) -> None:
    fields = {field: (number, 64) for field, number in values.items()}
    kept = gpu_card.encoded(name, fields, usage=None)
    json.loads(kept)
    card = gpu_card.card(kept)
    energies = [values.get((83, 0)), values.get((191, 0))]
    assert card.name == name
    assert card.energy_mj == next((e for e in energies if e is not None), None)


async def test_a_sleeping_card_gets_no_call_at_all(machine: Any, driver: NvmlLibrary) -> None:
    driver.show([H100])
    plug(machine, ADDRESS, "suspended")
    [reading] = await machine.sense(nvml, "nvml")
    assert (reading.quantity, reading.kind) == ("is_suspended", ReadingKind.STATE)
    assert reading.channel == f"nvml/{ADDRESS}"
    assert driver.calls() == []


async def test_only_the_waking_card_is_asked_and_none_is_attached_unasked(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100, T4])
    plug(machine, ADDRESS, "suspended")
    plug(machine, "0000:5e:00.0", "active")
    readings = await machine.sense(nvml, "nvml")
    assert [(r.quantity, r.value) for r in readings] == [("is_suspended", 1.0), ("power_w", 26.78)]
    assert driver.calls() == ["init", "handle", "name", "fields", "fields", "shutdown"]


async def test_the_library_is_shut_while_all_cards_sleep_and_comes_back(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100])
    plug(machine, ADDRESS, "active")
    async with nvml.open(nvml.Config(id="g", kind="nvml"), machine.roots(), machine) as sensor:
        assert len(await sensor.read()) == 2
        plug(machine, ADDRESS, "suspended")
        assert [r.quantity for r in await sensor.read()] == ["is_suspended"]
        assert driver.calls()[-1] == "shutdown"
        plug(machine, ADDRESS, "active")
        assert len(await sensor.read()) == 2


async def test_another_makers_card_and_a_cards_sound_are_not_ours(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100])
    plug(machine, ADDRESS, "suspended")
    machine.write("sys/bus/pci/devices/0000:3b:00.1", {"vendor": "0x10de", "class": "0x040300"})
    machine.write("sys/bus/pci/devices/0000:00:02.0", {"vendor": "0x8086", "class": "0x030000"})
    assert [r.channel for r in await machine.sense(nvml, "nvml")] == [f"nvml/{ADDRESS}"]


async def test_a_lost_card_takes_no_other_with_it(machine: Any, driver: NvmlLibrary) -> None:
    lost = Card(address="0000:01:00.0", name="lost", values={}, is_lost=True)
    driver.show([lost, H100])
    readings = await machine.sense(nvml, "nvml")
    assert {r.channel for r in readings} == {f"nvml/{ADDRESS}"}


async def test_a_removed_card_gives_no_reading(machine: Any, driver: NvmlLibrary) -> None:
    driver.show([H100])
    plug(machine, ADDRESS, "active")
    plug(machine, "0000:99:00.0", "active")
    readings = await machine.sense(nvml, "nvml")
    assert {r.channel for r in readings} == {f"nvml/{ADDRESS}"}


async def test_a_refusing_driver_is_told_with_its_cure(machine: Any, driver: NvmlLibrary) -> None:
    driver.fault("refuse")
    with pytest.raises(SensorGone, match="Driver Not Loaded") as caught:
        await machine.sense(nvml, "nvml")
    assert "driver" in caught.value.fix


async def test_cards_without_a_library_are_told_with_their_cure(machine: Any) -> None:
    plug(machine, ADDRESS, "active")
    machine.nvml = str(machine.folder / "libnvidia-ml.so.1")
    with pytest.raises(SensorGone, match="does not load") as caught:
        await machine.sense(nvml, "nvml")
    assert "[roots].nvml" in caught.value.fix


async def test_a_named_library_that_is_missing_is_told(machine: Any) -> None:
    machine.nvml = str(machine.folder / "nothing.so")
    with pytest.raises(SensorGone, match="does not load"):
        await machine.sense(nvml, "nvml")


async def test_cards_that_are_all_lost_are_told_and_come_back(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100])
    plug(machine, ADDRESS, "active")
    async with nvml.open(nvml.Config(id="g", kind="nvml"), machine.roots(), machine) as sensor:
        assert await sensor.read()
        driver.show([])
        with pytest.raises(SensorGone, match=f"no card answers any more: {ADDRESS}"):
            await sensor.read()
        driver.show([H100])
        assert len(await sensor.read()) == 2


async def test_a_hanging_call_is_left_alone_and_no_second_one_started(
    machine: Any, driver: NvmlLibrary
) -> None:
    driver.show([H100])
    async with nvml.open(nvml.Config(id="g", kind="nvml"), machine.roots(), machine) as sensor:
        driver.fault("hang")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sensor.read()
        with pytest.raises(SensorBusy):
            await sensor.read()
        driver.heal()
        assert len(await read_soon(sensor)) == 2
    assert driver.calls().count("init") == 1


async def read_soon(sensor: Any) -> Any:
    """What a sensor reads once its last call has ended."""
    async with asyncio.timeout(60):
        while True:
            with suppress(SensorBusy):
                return await sensor.read()


def has_driver() -> bool:
    try:
        return bool(ctypes.CDLL(nvml.LIBRARY))
    except OSError:
        return False


@pytest.mark.skipif(has_driver(), reason="this machine has an NVIDIA driver")
def test_the_bindings_are_not_imported_where_no_library_loads(tmp_path: Path) -> None:
    script = (
        "import sys, asyncio; from pathlib import Path\n"
        "from heatpool_agent.sensors import nvml; from heatpool_agent.ports import Roots\n"
        f"roots = Roots(sys=Path({str(tmp_path)!r}), proc=Path({str(tmp_path)!r}), nvml='auto')\n"
        "async def main():\n"
        "    async with nvml.open(nvml.Config(id='g', kind='nvml'), roots, None) as sensor:\n"
        "        return await sensor.probe()\n"
        "assert tuple(asyncio.run(main())) == ()\n"
        "assert 'pynvml' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
