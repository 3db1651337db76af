"""The simulator's machine, read by the agent's own local sensors: /sys, /proc and GPUs."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool.errors import HeatpoolError, SensorGone
from heatpool_agent.core import totals
from heatpool_agent.core.levels import levels, node_powers
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import host, hwmon, nvml, rapl
from heatpool_sim.devices.counting import EnergyCount
from heatpool_sim.devices.nvml import Card, Gpu, GpuModel, NvmlLibrary
from heatpool_sim.devices.sysfs_tree import (
    SHORT_RANGE_UJ,
    Chip,
    MachineModel,
    SysfsTree,
    amd_card,
    core_sensor,
    rail_monitor,
)

GPU = "0000:3b:00.0"


class Clock:
    def __init__(self) -> None:
        self.ns = 10**9

    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000 + self.ns

    def boot_ns(self) -> int:
        return self.ns


class FileEvent:
    """A perf event of the simulated kernel."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> bytes:
        return self._path.read_bytes()

    def close(self) -> None:
        pass


def roots_of(tree: SysfsTree) -> Roots:
    return Roots(sys=tree.sys, proc=tree.proc)


async def sense(tree: SysfsTree, module: Any, **more: Any) -> list[Reading]:
    kind = module.__name__.rpartition(".")[2]
    config = module.Config(id=kind, kind=kind)
    async with module.open(config, roots_of(tree), Clock(), **more) as sensor:
        await sensor.probe()
        return list(await sensor.read())


@given(st.lists(st.tuples(st.floats(0.0, 1000.0), st.floats(0.0, 10.0)), max_size=30))
def test_a_count_of_energy_loses_nothing(steps: list[tuple[float, float]]) -> None:
    count = EnergyCount()
    for power_w, dt_s in steps:
        count.add(power_w, dt_s)
    told_uj = sum(power_w * dt_s for power_w, dt_s in steps) * 1e6
    assert count.uj == pytest.approx(told_uj, abs=1.0, rel=1e-12)


@pytest.mark.parametrize("range_uj", [SHORT_RANGE_UJ, 262_143_328_850])
async def test_energy_over_many_wraps_is_the_machines_own(tmp_path: Path, range_uj: int) -> None:
    model = MachineModel(package_count=2, range_uj=range_uj, has_mmio_twin=True)
    tree, clock = SysfsTree(tmp_path, model), Clock()
    tree.fault("wrap_near")
    tree.heal()
    states: dict[str, totals.Total] = {}
    async with rapl.open(rapl.Config(id="c", kind="rapl"), roots_of(tree), clock) as sensor:
        begun_uj = tree.energy_uj("package-0")
        for turn in range(200):
            for reading in await sensor.read():
                if totals.is_energy(reading):
                    before = states.get(reading.channel)
                    states[reading.channel], _ = totals.advance(before, reading)
            if turn < 199:
                tree.step(240.0 - turn % 7 * 20.0, 30.0)
                clock.ns += 30 * 10**9
    spent_j = (tree.energy_uj("package-0") - begun_uj) / 1e6
    assert spent_j > 10 * SHORT_RANGE_UJ / 1e6
    for channel in ("powercap/intel-rapl:0", "powercap/intel-rapl:1", "powercap/intel-rapl-mmio:0"):
        assert totals.energy_j(states[channel]) == pytest.approx(spent_j, abs=1e-6)


async def test_zones_nest_and_twins_are_marked(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path, MachineModel(has_psys=True, has_mmio_twin=True))
    tree.step(100.0, 10.0)
    counted = [r for r in await sense(tree, rapl) if totals.is_energy(r)]
    assert [(r.channel, r.node, r.flags, r.value) for r in counted] == [
        ("powercap/intel-rapl:0", Node.PACKAGE, (), 1000.0),
        ("powercap/intel-rapl:0/intel-rapl:0:0", Node.CORE, (), 700.0),
        ("powercap/intel-rapl:0/intel-rapl:0:1", Node.DRAM, (), 150.0),
        ("powercap/intel-rapl:1", Node.PSYS, (), pytest.approx(1495.0)),
        ("powercap/intel-rapl-mmio:0", Node.PACKAGE, ("twin",), 1000.0),
    ]


async def test_events_count_what_zones_count(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path, MachineModel(package_count=2, has_perf=True))
    tree.step(123.456789, 7.3)
    found = {
        r.channel: r.raw
        for r in await sense(
            tree, rapl, opener=lambda _, config, cpu: FileEvent(tree.perf_file(config, cpu))
        )
        if totals.is_energy(r)
    }
    assert found["perf/energy-pkg/cpu8"] == found["powercap/intel-rapl:1"]
    assert found["perf/energy-ram/cpu0"] == found["powercap/intel-rapl:0/intel-rapl:0:1"]


async def test_one_package_seen_through_three_doors_counts_once(tmp_path: Path) -> None:
    old_driver = Chip(
        name="amd_energy",
        fixed={"energy1_label": "Esocket0"},
        counts={"energy1_input": "package-0"},
    )
    model = MachineModel(has_perf=True, has_mmio_twin=True, chips=(old_driver,))
    tree, clock = SysfsTree(tmp_path, model), Clock()
    roots = roots_of(tree)
    totals_of: dict[tuple[str, str], totals.Total] = {}
    steps: dict[tuple[str, str], totals.Step] = {}
    readings: list[Reading] = []
    async with (
        rapl.open(
            rapl.Config(id="r", kind="rapl"),
            roots,
            clock,
            opener=lambda _, config, cpu: FileEvent(tree.perf_file(config, cpu)),
        ) as cpu,
        hwmon.open(hwmon.Config(id="h", kind="hwmon"), roots, clock) as chips,
    ):
        for _ in range(2):
            readings = [*await cpu.read(), *await chips.read()]
            for reading in filter(totals.is_energy, readings):
                key = (reading.sensor, reading.channel)
                totals_of[key], steps[key] = totals.advance(totals_of.get(key), reading)
            tree.step(123.0, 10.0)
            clock.ns += 10 * 10**9
    packages = [r for r in readings if r.node is Node.PACKAGE and totals.is_energy(r)]
    assert len(packages) == 4
    [chosen] = levels(node_powers(readings, steps))[Node.PACKAGE]
    assert chosen.channel == "perf/energy-pkg/cpu0"
    assert chosen.power_w == pytest.approx(123.0)


@pytest.mark.parametrize("module", [rapl, hwmon, host], ids=lambda module: module.__name__)
@pytest.mark.parametrize("fault", ["masked", "garbled"])
async def test_a_fault_is_gone_while_it_lasts(tmp_path: Path, module: Any, fault: str) -> None:
    tree = SysfsTree(tmp_path, MachineModel(chips=(amd_card(),)))
    kind = module.__name__.rpartition(".")[2]
    config = module.Config(id=kind, kind=kind)
    async with module.open(config, roots_of(tree), Clock()) as sensor:
        before = await sensor.read()
        tree.fault(fault)
        for _ in range(2):
            with pytest.raises(SensorGone) as caught:
                await sensor.read()
            assert caught.value.fix
        tree.heal()
        after = await sensor.read()
        tree.step(100.0, 1.0)
        assert len(await sensor.read()) >= len(after) == len(before)


async def test_frozen_and_reset_counters_show_as_such(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path, MachineModel())
    tree.step(100.0, 10.0)
    tree.fault("frozen")
    tree.step(100.0, 10.0)
    assert (await sense(tree, rapl))[0].value == 1000.0
    tree.heal()
    tree.fault("reset")
    tree.heal()
    tree.step(100.0, 1.0)
    assert (await sense(tree, rapl))[0].value == 100.0


async def test_zones_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path, MachineModel())
    tree.fault("unreadable")
    mode = (tree.sys / "class/powercap/intel-rapl:0/energy_uj").stat().st_mode
    tree.step(1.0, 1.0)
    assert mode & 0o444 == 0
    tree.heal()
    assert (await sense(tree, rapl))[0].value == 1.0


async def test_rails_and_cards_show_what_flows(tmp_path: Path) -> None:
    chips = (amd_card(), amd_card(has_mean=False), rail_monitor("fans"))
    tree = SysfsTree(tmp_path, MachineModel(chips=chips))
    tree.step(100.0, 1.0, gpu_w=118.0, more={"fans": 30.0})
    readings = await sense(tree, hwmon)
    assert [(r.node, r.value) for r in readings] == [
        (Node.GPU, 118.0),
        (Node.GPU, 118.0),
        (Node.CHIP, 30.0),
    ]


async def test_load_clock_heat_and_throttling_of_a_host(tmp_path: Path) -> None:
    model = MachineModel(package_count=2, idle_w=50.0, chips=(core_sensor(61.5),))
    tree = SysfsTree(tmp_path, model)
    async with host.open(host.Config(id="h", kind="host"), roots_of(tree), Clock()) as sensor:
        await sensor.read()
        tree.step(150.0, 10.0)
        found = {r.quantity: r for r in await sensor.read()}
    assert found["busy_frac"].value == pytest.approx(0.5)
    assert found["logical_cpu_count"].value == 16
    assert found["cpu_c"].value == 61.5
    assert found["frequency_frac"].value == pytest.approx(0.4)
    assert "cpu_s" not in found
    tree.step(250.0, 4.0)
    throttled = {r.quantity: r for r in await sense(tree, host)}["throttled_s"]
    # Both packages were held back.
    assert (throttled.value, throttled.raw) == (8.0, 8_000_000)


async def test_gpus_of_one_machine_sleep_and_wake(tmp_path: Path, library: NvmlLibrary) -> None:
    tree = SysfsTree(tmp_path, MachineModel(gpu_addresses=(GPU,)))
    gpu = Gpu(GpuModel(name="H100", idle_w=69.85, most_w=700.0), GPU)
    gpu.step(400.0, 10.0)
    library.show([gpu.card()])
    roots = Roots(sys=tree.sys, proc=tree.proc, nvml=str(library.path))
    async with nvml.open(nvml.Config(id="g", kind="nvml"), roots, Clock()) as sensor:
        tree.fault("asleep")
        assert await sensor.probe() == (f"nvml/{GPU}",)
        assert [r.quantity for r in await sensor.read()] == ["is_suspended"]
        assert library.calls() == []
        tree.heal()
        found = {r.quantity: r.value for r in await sensor.read()}
    assert found == {"energy_j": 4000.0, "power_w": 400.0, "rated_w": 700.0}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[NvmlLibrary]:
    try:
        library = NvmlLibrary(tmp_path / "nvml")
    except HeatpoolError as error:
        pytest.skip(str(error))
    yield library
    library.heal()


def exported(path: Path, name: str) -> int | None:
    """A gauge of an exporter's page, W -> mW."""
    found = re.search(rf"^nvidia_smi_{name}_watts{{.*}} (\S+)$", path.read_text(), re.MULTILINE)
    return round(float(found[1]) * 1000) if found else None


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "power_w", "source", "most_w"),
    [
        ("h100-80gb-hbm3__590.48.01__idle", 69.85, "field:185", 700.0),
        ("h100-80gb-hbm3__590.48.01__load", 631.95, "field:185", 700.0),
        # Turing has no mean of a second.
        ("geforce-rtx-2080-super__610.57.04__idle", 39.17, "field:186", 350.0),
        ("geforce-rtx-2080-super__595.71.05__load", None, "field:186", 350.0),
    ],
)
async def test_published_powers_of_cards_through_the_library(
    realdata: Path,
    tmp_path: Path,
    library: NvmlLibrary,
    name: str,
    power_w: float | None,
    source: str,
    most_w: float,
) -> None:
    page = realdata / f"01_gpu/nvidia_gpu_exporter/linux-x86_64__nvidia-{name}.metrics"
    columns = {"mean": "power_draw_average", "now": "power_draw_instant", "usage": "power_draw",
               "most": "power_max_limit"}  # fmt: skip
    told = {column: exported(page, gauge) for column, gauge in columns.items()}
    values = {column: value for column, value in told.items() if value is not None}
    library.show([Card(address=GPU, name=name, values=values)])
    tree = SysfsTree(tmp_path, MachineModel(gpu_addresses=(GPU,)))
    roots = Roots(sys=tree.sys, proc=tree.proc, nvml=str(library.path))
    async with nvml.open(nvml.Config(id="g", kind="nvml"), roots, Clock()) as sensor:
        power, rated = await sensor.read()
    assert power.flags == (source,)
    assert power.value == pytest.approx(power_w or values["now"] / 1000)
    assert (rated.quantity, rated.value) == ("rated_w", most_w)


@pytest.mark.realdata
@pytest.mark.parametrize(("profile", "most_w"), [("h100", 700.0), ("l40s", 350.0), ("t4", 70.0)])
async def test_published_profiles_of_cards_through_the_library(
    realdata: Path, tmp_path: Path, library: NvmlLibrary, profile: str, most_w: float
) -> None:
    text = (realdata / f"01_gpu/nvml_mock_profiles/{profile}.yaml").read_text()
    [limit] = set(re.findall(r"max_limit_mw: (\d+)", text))
    [energy] = set(re.findall(r"total_energy_consumption_mj: (\d+)", text))
    values = {"energy": int(energy), "most": int(limit)}
    library.show([Card(address=GPU, name=profile, values=values)])
    tree = SysfsTree(tmp_path, MachineModel(gpu_addresses=(GPU,)))
    roots = Roots(sys=tree.sys, proc=tree.proc, nvml=str(library.path))
    async with nvml.open(nvml.Config(id="g", kind="nvml"), roots, Clock()) as sensor:
        counted, rated = await sensor.read()
    assert (counted.raw, rated.value) == (int(energy), most_w)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "most_w"), [("mi100_rocm602", 290.0), ("rx6700xt_rocm612", 211.0)]
)
async def test_published_powers_of_amd_cards_through_hwmon(
    realdata: Path, tmp_path: Path, name: str, most_w: float
) -> None:
    told = json.loads((realdata / f"01_gpu/amd_rocm_smi/{name}.json").read_text())
    cards = [card for key, card in told.items() if key.startswith("card")]
    powers_w = [float(card["Average Graphics Package Power (W)"]) for card in cards]
    limits_w = {float(card["Max Graphics Package Power (W)"]) for card in cards}
    assert limits_w == {most_w}
    tree = SysfsTree(tmp_path, MachineModel(chips=(amd_card(),)))
    for power_w in powers_w:
        tree.step(50.0, 1.0, gpu_w=power_w)
        assert [(r.node, r.value) for r in await sense(tree, hwmon)] == [(Node.GPU, power_w)]
    assert all(0 < power_w < most_w / 4 for power_w in powers_w)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**63 - 17), st.integers(0, 2**31 - 17))
def test_a_gpu_never_tells_more_than_its_limit(start_mj: int, milliwatt: int) -> None:
    gpu = Gpu(GpuModel(name="x", idle_w=10.0, most_w=300.0), GPU, start_mj=start_mj)
    gpu.step(milliwatt / 1000, 0.5)
    told = gpu.card().values
    assert 10_000 <= told["mean"] <= told["most"] == 300_000
    assert told["energy"] >= start_mj + 5_000
