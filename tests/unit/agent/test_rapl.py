"""CPU energy counters: zones, nesting, twins, refusals; published trees of other tools."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from unit.agent.lone_pass import electric_power

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.core import totals
from heatpool_agent.core.attribution import NodePower
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.sensors import rapl

RANGE_UJ = 262_143_328_850


def counters(readings: list[Reading]) -> dict[str, Reading]:
    return {r.channel: r for r in readings if r.kind is ReadingKind.COUNTER}


def counted_j(readings: list[Reading]) -> float:
    """Energy that a cover by components counts: fed as power, without PSU and remainder."""
    components = {Node.PACKAGE, Node.DRAM}
    found = counters(readings).values()
    return sum(r.value for r in found if r.node in components and rapl.TWIN not in r.flags)


async def test_a_counter_keeps_its_raw_count_range_and_kernel_life(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 240_422_366_267)
    [reading] = await machine.sense(rapl, "rapl")
    assert (reading.raw, reading.exponent, reading.modulus) == (240_422_366_267, -6, RANGE_UJ)
    assert reading.value == pytest.approx(240_422.366267, abs=1e-9)
    assert (reading.quantity, reading.kind) == ("energy_j", ReadingKind.COUNTER)
    assert (reading.generation, reading.boot_ns) == ("11111111-2222", 1_000_000_000)


@pytest.mark.parametrize(
    ("label", "node"),
    [
        ("package-0", Node.PACKAGE),
        ("package-10-die-1", Node.PACKAGE),
        ("core", Node.CORE),
        ("uncore", Node.UNCORE),
        ("dram", Node.DRAM),
        ("psys", Node.PSYS),
        ("something-new", Node.UNCORE),
    ],
)
async def test_a_zone_is_placed_in_the_tree_by_its_name(
    machine: Any, label: str, node: Node
) -> None:
    machine.zone("intel-rapl:0", label, 1)
    [reading] = await machine.sense(rapl, "rapl")
    assert reading.node is node


async def test_a_channel_begins_with_the_channel_of_its_parent(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 1)
    machine.zone("intel-rapl:0:2", "dram", 1)
    machine.zone("intel-rapl:a", "package-10", 1)
    assert list(counters(await machine.sense(rapl, "rapl"))) == [
        "powercap/intel-rapl:0",
        "powercap/intel-rapl:0/intel-rapl:0:2",
        "powercap/intel-rapl:a",
    ]


async def test_only_the_second_door_to_a_package_is_its_twin(machine: Any) -> None:
    machine.zone("intel-rapl-mmio:0", "package-0", 5)
    machine.zone("intel-rapl:0", "package-0", 5)
    machine.zone("intel-rapl:1", "package-1", 5)
    found = counters(await machine.sense(rapl, "rapl"))
    assert {channel: r.flags for channel, r in found.items()} == {
        "powercap/intel-rapl:0": (),
        "powercap/intel-rapl:1": (),
        "powercap/intel-rapl-mmio:0": ("twin",),
    }


async def test_two_zones_of_one_name_behind_one_door_are_two(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 5)
    machine.zone("intel-rapl:1", "package-0", 5)
    found = counters(await machine.sense(rapl, "rapl"))
    assert [r.flags for r in found.values()] == [(), ()]


async def test_a_zone_that_is_not_enabled_for_capping_still_counts(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 77, enabled=0)
    [reading] = await machine.sense(rapl, "rapl")
    assert reading.raw == 77


@pytest.mark.parametrize("told", [0, "", 9, 1_000_000])
async def test_no_range_means_no_wrap_arithmetic(machine: Any, told: object) -> None:
    machine.zone("intel-rapl:0", "package-0", 77, max_energy_range_uj=told)
    [reading] = await machine.sense(rapl, "rapl")
    assert reading.modulus is None


async def test_rated_power_comes_from_the_maximum_not_from_the_limit(machine: Any) -> None:
    limits = {
        "constraint_0_max_power_uw": 95_000_000,
        "constraint_0_power_limit_uw": 4_090_000_000,
    }
    machine.zone("intel-rapl:0", "package-0", 1, **limits)
    machine.zone("intel-rapl:1", "package-1", 1, **(limits | {"constraint_0_max_power_uw": 0}))
    readings = await machine.sense(rapl, "rapl")
    rated = [(r.channel, r.value) for r in readings if r.quantity == "rated_w"]
    assert rated == [("powercap/intel-rapl:0", 95.0)]


async def test_a_refusal_is_told_with_its_cure(machine: Any, without_rights: Any) -> None:
    machine.zone("intel-rapl:1", "package-1", 1)
    (machine.zone("intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0)
    with without_rights(), pytest.raises(SensorGone) as caught:
        await machine.sense(rapl, "rapl")
    assert "permission denied" in caught.value.reason
    assert "chgrp heatpool" in caught.value.fix
    assert "/etc/tmpfiles.d/" in caught.value.fix


async def test_unreadable_then_readable_needs_only_another_probe(
    machine: Any, without_rights: Any
) -> None:
    energy = machine.zone("intel-rapl:0", "package-0", 9) / "energy_uj"
    energy.chmod(0)
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        with without_rights(), pytest.raises(SensorGone):
            await sensor.probe()
        energy.chmod(0o444)
        assert list(await sensor.probe()) == ["powercap/intel-rapl:0"]
        assert [r.raw for r in await sensor.read()] == [9]


async def test_masked_zones_are_not_called_absent(machine: Any) -> None:
    tree = machine.zone("intel-rapl", "", 0).parent
    (tree / "intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    with pytest.raises(SensorGone, match="masked"):
        await machine.sense(rapl, "rapl")


async def test_a_machine_without_these_counters_answers_with_nothing(machine: Any) -> None:
    assert await machine.sense(rapl, "rapl") == []


async def test_a_zone_that_fails_to_read_gives_no_reading_and_stops_no_other(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 1)
    broken = machine.zone("intel-rapl:1", "package-1", 1) / "energy_uj"
    broken.unlink()
    # Reading address 0 of oneself is an I/O error of the real kernel.
    broken.symlink_to("/proc/self/mem")
    found = counters(await machine.sense(rapl, "rapl"))
    assert list(found) == ["powercap/intel-rapl:0"]


async def test_half_a_number_gives_no_reading(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", "12x")
    machine.zone("intel-rapl:1", "package-1", 5)
    assert list(counters(await machine.sense(rapl, "rapl"))) == ["powercap/intel-rapl:1"]


async def test_zones_that_all_fall_silent_are_gone_until_they_count_again(machine: Any) -> None:
    energy = machine.zone("intel-rapl:0", "package-0", 5) / "energy_uj"
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        await sensor.probe()
        energy.write_text("\n", encoding="ascii")
        with pytest.raises(SensorGone, match="no zone shows") as caught:
            await sensor.read()
        assert caught.value.fix
        energy.write_text("7\n", encoding="ascii")
        assert [r.raw for r in await sensor.read()] == [7]


@pytest.mark.parametrize(
    ("range_uj", "rated_w", "longest_s"),
    [
        (262_143_328_850, 205, 30.0),
        # 65.5 kJ at a kilowatt: a wrap takes 65.5 s.
        (65_500_000_000, 1_000, 16.375),
        # No rating: as if it were the largest package of today.
        (10_000_000_000, 0, 5.0),
        (0, 0, 30.0),
        # Files that cannot be true do not have it read without a pause.
        (9, 0, 30.0),
        (65_500_000_000, 4_000_000, 1.0),
    ],
)
async def test_the_sensor_says_how_often_it_must_be_read(
    machine: Any, range_uj: int, rated_w: int, longest_s: float
) -> None:
    machine.zone("intel-rapl:0", "package-0", 1, max_energy_range_uj=range_uj,
                 constraint_0_max_power_uw=rated_w * 10**6)  # fmt: skip
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        await sensor.probe()
        assert sensor.longest_period_s == pytest.approx(longest_s)


async def test_descriptors_stay_open_over_a_pass(machine: Any) -> None:
    folder = machine.zone("intel-rapl:0", "package-0", 1)
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        await sensor.probe()
        (folder / "energy_uj").write_text("2\n", encoding="ascii")
        (folder / "energy_uj").rename(folder / "moved")
        assert [r.raw for r in await sensor.read()] == [2]


async def test_reading_without_probing_and_closing_twice_work(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 1)
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        assert len(await sensor.read()) == 1
        await sensor.close()
        await sensor.close()


async def test_a_cancelled_pass_leaves_the_sensor_usable(machine: Any) -> None:
    machine.zone("intel-rapl:0", "package-0", 1)
    config = rapl.Config(id="cpu", kind="rapl")
    async with rapl.open(config, machine.roots(), machine) as sensor:
        await sensor.probe()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await sensor.read()
        assert len(await read_soon(sensor)) == 1


async def read_soon(sensor: Any) -> Any:
    """What a sensor reads once its last call has ended, whose thread may begin late."""
    async with asyncio.timeout(60):
        while True:
            with suppress(SensorBusy):
                return await sensor.read()


@pytest.mark.realdata
async def test_node_exporter_tree_counts_the_package_alone(
    machine: Any, realdata: Any, unpack_ttar: Any
) -> None:
    archive = realdata / "01_sysfs/node_exporter/sys.ttar"
    unpack_ttar(archive, machine.folder, under="sys/class/powercap")
    readings = await machine.sense(rapl, "rapl")
    found = counters(readings)
    assert [(r.raw, r.modulus) for r in found.values()] == [
        (240_422_366_267, RANGE_UJ),
        (118_821_284_256, RANGE_UJ),
    ]
    assert counted_j(readings) == pytest.approx(240_422.366267, abs=1e-9)
    assert [r.value for r in readings if r.quantity == "rated_w"] == [95.0]


@pytest.mark.realdata
async def test_node_exporter_tree_read_again_lower_is_one_range_more(
    machine: Any, realdata: Any, unpack_ttar: Any
) -> None:
    archive = realdata / "01_sysfs/node_exporter/sys.ttar"
    unpack_ttar(archive, machine.folder, under="sys/class/powercap")
    [first, _] = counters(await machine.sense(rapl, "rapl")).values()
    machine.pass_s(600.0)
    machine.write("sys/class/powercap/intel-rapl:0", {"energy_uj": 1_000_000})
    [second, _] = counters(await machine.sense(rapl, "rapl")).values()
    state, _ = totals.advance(None, first)
    _, step = totals.advance(state, second, span=totals.PowerSpan(low_w=0.0, high_w=95.0))
    assert step.delta_j == pytest.approx((1_000_000 - 240_422_366_267 + RANGE_UJ) / 1e6)


@pytest.mark.realdata
async def test_kepler_tree_counts_twins_once_and_equal_packages_twice(
    machine: Any, realdata: Any
) -> None:
    (machine.folder / "sys").symlink_to(realdata / "01_sysfs/kepler/sys")
    readings = await machine.sense(rapl, "rapl")
    found = counters(readings)
    assert len(found) == 4
    assert found["powercap/intel-rapl:0/intel-rapl:0:0"].raw == 118_821_284_256
    assert counted_j(readings) == pytest.approx(2 * 240_422.366267)
    powers = [NodePower(node=r.node, channel=r.channel, power_w=100.0, flags=r.flags)
              for r in found.values()]  # fmt: skip
    one = electric_power(powers[:1])
    both = electric_power(powers)
    assert one is not None and both is not None
    assert both.value == pytest.approx(2 * one.value)
