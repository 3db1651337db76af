"""Power from board chips: tiers, pairs by rule, what is off, where a channel's name comes from."""

import tomllib
from importlib.resources import files
from typing import Any

import pytest

from heatpool.errors import SensorGone
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.sensors import hwmon

CHIP = "sys/class/hwmon/hwmon0"
SAME_INDEX = ("volts_amperes", "same_index")


def values(readings: list[Reading]) -> list[float]:
    return [round(r.value, 6) for r in readings]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # The best tier alone: energy, then power, then volts times amperes.
        ({"energy1_input": 7_000_000, "power1_input": 2_000_000}, [7.0]),
        ({"power1_average": 3_000_000, "power1_input": 2_000_000}, [3.0]),
        ({"power1_input": 2_000_000, "in1_input": 12_000, "curr1_input": 1_000}, [2.0]),
        ({"in1_input": 12_000, "curr1_input": 5_000}, [60.0]),
        # A mean pairs with a mean only.
        ({"in1_average": 10_000, "in1_input": 12_000, "curr1_input": 5_000}, [60.0]),
        ({"in1_average": 10_000, "curr1_average": 3_000, "in1_input": 9, "curr1_input": 9}, [30.0]),
        ({"in1_average": 10_000, "curr1_input": 3_000}, []),
        # Switched off, half there, or nothing at all.
        ({"power1_input": 2_000_000, "power1_enable": 0, "power2_input": 1_000_000}, [1.0]),
        ({"energy1_input": 5, "energy1_enable": 0, "power1_input": 4_000_000}, [4.0]),
        ({"in1_input": 12_000, "in1_enable": 0, "curr1_input": 5_000}, []),
        ({"in1_input": 12_000}, []),
        ({"temp1_input": 45_000}, []),
        ({"power1_input": "nonsense", "power2_input": 4_000_000}, [4.0]),
    ],
)
async def test_one_tier_answers_per_chip(
    machine: Any, told: dict[str, object], expected: list[float]
) -> None:
    machine.write(CHIP, {"name": "some_chip"} | told)
    assert values(await machine.sense(hwmon, "hwmon")) == expected


@pytest.mark.parametrize(
    ("name", "told", "expected"),
    [
        ("ina226", {"in0_input": 1, "in1_input": 12_000, "curr1_input": 5_000}, [60.0]),
        ("ina226", {"in0_input": 5_000, "curr1_input": 2_000}, []),
        (
            "ina3221",
            {"in1_input": 1_000, "curr1_input": 1_000, "in4_input": 9, "curr4_input": 9},
            [1.0],
        ),
        ("max20730", {"in1_input": 48_000, "in2_input": 12_000, "curr1_input": 10_000}, [120.0]),
    ],
)
async def test_a_known_chip_pairs_by_rule_and_is_not_doubted(
    machine: Any, name: str, told: dict[str, object], expected: list[float]
) -> None:
    machine.write(CHIP, {"name": name} | told)
    readings = await machine.sense(hwmon, "hwmon")
    assert values(readings) == expected
    assert {r.flags for r in readings} <= {("volts_amperes",)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # What goes in contains what comes out.
        (("vin", "vout1", "iin", "iout1"), [12.0]),
        (("vin", "vout1", "iout2", "iout1"), [3.0]),
        (("vout2", "vout1", "iout1", "iout2"), [24.0, 1.5]),
    ],
)
async def test_labels_of_regulators_pair_volts_with_their_amperes(
    machine: Any, labels: tuple[str, ...], expected: list[float]
) -> None:
    values_of = {"in1_input": 12_000, "in2_input": 1_500, "curr1_input": 1_000,
                 "curr2_input": 2_000}  # fmt: skip
    stems = ("in1", "in2", "curr1", "curr2")
    told = {f"{stem}_label": label for stem, label in zip(stems, labels, strict=True)}
    machine.write(CHIP, {"name": "some_pmbus"} | values_of | told)
    readings = await machine.sense(hwmon, "hwmon")
    assert values(readings) == expected
    assert {r.flags for r in readings} == {("volts_amperes",)}


async def test_chips_that_fall_silent_are_gone_until_they_speak_again(machine: Any) -> None:
    chip = machine.write(CHIP, {"name": "x", "power1_input": 3_000_000})
    config = hwmon.Config(id="b", kind="hwmon")
    async with hwmon.open(config, machine.roots(), machine) as sensor:
        await sensor.probe()
        (chip / "power1_input").write_text("garbage\n", encoding="ascii")
        with pytest.raises(SensorGone, match="no chip shows") as caught:
            await sensor.read()
        assert caught.value.fix
        (chip / "power1_input").write_text("3000000\n", encoding="ascii")
        assert values(list(await sensor.read())) == [3.0]


async def test_masked_chips_are_not_called_absent(machine: Any) -> None:
    machine.write("sys/class/hwmon", {})
    (machine.folder / CHIP).symlink_to("../../devices/virtual/hwmon/hwmon0")
    with pytest.raises(SensorGone, match="lead nowhere") as caught:
        await machine.sense(hwmon, "hwmon")
    assert "bind-mount" in caught.value.fix


@pytest.mark.parametrize("status", ["suspended", "suspending", "resuming"])
async def test_a_sleeping_gpu_is_not_asked_for_its_power(machine: Any, status: str) -> None:
    device = machine.write("sys/devices/pci0000:00/0000:03:00.0", {"vendor": "0x1002"})
    chip = machine.write(CHIP, {"name": "amdgpu", "power1_average": 6_000_000})
    (chip / "device").symlink_to(device)
    machine.write("sys/devices/pci0000:00/0000:03:00.0/power", {"runtime_status": status})
    config = hwmon.Config(id="b", kind="hwmon")
    async with hwmon.open(config, machine.roots(), machine) as sensor:
        assert [(r.quantity, r.value) for r in await sensor.read()] == [("is_suspended", 1.0)]
        machine.write("sys/devices/pci0000:00/0000:03:00.0/power", {"runtime_status": "active"})
        assert [(r.quantity, r.value) for r in await sensor.read()] == [("power_w", 6.0)]


async def test_an_unknown_chip_pairs_by_number_and_says_so(machine: Any) -> None:
    machine.write(CHIP, {"name": "odd", "in1_input": 12_000, "curr1_input": 5_000})
    [reading] = await machine.sense(hwmon, "hwmon")
    assert (reading.flags, reading.node) == (SAME_INDEX, Node.CHIP)


@pytest.mark.parametrize(
    ("name", "label", "node"),
    [
        ("k10temp", "Package", Node.PACKAGE),
        ("k10temp", "Core", Node.CORE),
        ("amdgpu", "PPT", Node.GPU),
        ("xe", "card", Node.GPU),
        ("xe", "pkg", Node.UNCORE),
        ("amd_energy", "Esocket0", Node.PACKAGE),
        ("amd_energy", "Ecore007", Node.CORE),
        ("power_meter", "", Node.PSU_IN),
        ("power_meter", "Grace Power Socket 0", Node.PACKAGE),
        ("power_meter", "CPU Power Socket 0", Node.CORE),
        ("pfe1100", "pin", Node.PSU_IN),
        ("pfe1100", "pout1", Node.PSU_OUT),
        ("xdpe12284", "pin", Node.CHIP),
        ("xdpe12284", "pout1", Node.UNCORE),
        ("ina3221", "VDD_CPU", Node.PACKAGE),
        ("ina3221", "VDD_SOC", Node.CHIP),
    ],
)
async def test_rules_place_a_channel_in_the_tree(
    machine: Any, name: str, label: str, node: Node
) -> None:
    machine.write(CHIP, {"name": name, "power1_input": 1_000_000, "power1_label": label})
    [reading] = await machine.sense(hwmon, "hwmon")
    assert reading.node is node


async def test_firmware_may_say_what_an_acpi_meter_measures(machine: Any) -> None:
    machine.write(CHIP, {"name": "power_meter", "power1_average": 1_000_000})
    machine.write(f"{CHIP}/device", {"power1_oem_info": "Module Power Socket 0"})
    [reading] = await machine.sense(hwmon, "hwmon")
    assert reading.node is Node.UNCORE


async def test_graphics_inside_a_cpu_measures_the_whole_socket(machine: Any) -> None:
    apu = {"name": "amdgpu", "power1_input": 9_000_000, "in1_input": 900, "in1_label": "vddnb"}
    machine.write(CHIP, apu)
    [reading] = await machine.sense(hwmon, "hwmon")
    assert reading.node is Node.PACKAGE


async def test_a_channel_is_named_by_its_device_not_by_its_number(machine: Any) -> None:
    device = machine.write("sys/devices/pci0000:00/0000:00:18.3", {"vendor": "0x1022"})
    for number in (3, 7):
        chip = machine.write(f"sys/class/hwmon/hwmon{number}", {"name": "k10temp"})
        (chip / "device").symlink_to(device)
    machine.write("sys/class/hwmon/hwmon7", {"power1_input": 1_000_000})
    [before] = await machine.sense(hwmon, "hwmon")
    machine.write("sys/class/hwmon/hwmon3", {"power1_input": 1_000_000})
    (machine.folder / "sys/class/hwmon/hwmon7/power1_input").unlink()
    [after] = await machine.sense(hwmon, "hwmon")
    assert before.channel == "hwmon/devices/pci0000:00/0000:00:18.3/k10temp~2/power1"
    assert after.channel == "hwmon/devices/pci0000:00/0000:00:18.3/k10temp/power1"


async def test_chips_of_one_name_and_channels_of_one_label_stay_apart(machine: Any) -> None:
    two = {"power1_input": 5_000_000, "power1_label": "a", "power2_input": 3_000_000}
    machine.write("sys/class/hwmon/hwmon0", {"name": "x", "power2_label": "a"} | two)
    machine.write("sys/class/hwmon/hwmon1", {"name": "x", "power2_label": "a"} | two)
    readings = await machine.sense(hwmon, "hwmon")
    assert values(readings) == [5.0, 3.0, 5.0, 3.0]
    assert len({r.channel for r in readings}) == 4


async def test_an_energy_counter_keeps_its_raw_count(machine: Any) -> None:
    machine.write(CHIP, {"name": "amd_energy", "energy1_input": 500_000_001})
    [reading] = await machine.sense(hwmon, "hwmon")
    assert (reading.raw, reading.exponent, reading.modulus) == (500_000_001, -6, None)
    assert (reading.quantity, reading.kind) == ("energy_j", ReadingKind.COUNTER)
    assert reading.generation == "11111111-2222"


async def test_no_chips_is_an_empty_answer(machine: Any) -> None:
    assert await machine.sense(hwmon, "hwmon") == []


async def test_a_tree_that_may_not_be_read_is_not_called_empty(
    machine: Any, without_rights: Any
) -> None:
    machine.write(CHIP, {"name": "x", "power1_input": 1}).parent.chmod(0)
    with without_rights(), pytest.raises(SensorGone, match="Permission denied"):
        await machine.sense(hwmon, "hwmon")


async def test_a_refused_counter_falls_to_the_next_tier_and_is_told(
    machine: Any, without_rights: Any, caplog: pytest.LogCaptureFixture
) -> None:
    chip = machine.write(CHIP, {"name": "x", "energy1_input": 1, "power1_input": 3_000_000})
    (chip / "energy1_input").chmod(0)
    with without_rights():
        assert values(await machine.sense(hwmon, "hwmon")) == [3.0]
    assert [record.getMessage() for record in caplog.records] == ["sensor.channels.denied"]


async def test_where_nothing_but_refusals_remains_the_cure_is_told(
    machine: Any, without_rights: Any
) -> None:
    chip = machine.write(CHIP, {"name": "amd_energy", "energy1_input": 1})
    (chip / "energy1_input").chmod(0)
    with without_rights(), pytest.raises(SensorGone) as caught:
        await machine.sense(hwmon, "hwmon")
    assert "chgrp heatpool" in caught.value.fix


def test_every_rule_names_a_node_of_the_tree() -> None:
    text = files("heatpool_agent").joinpath("data/hwmon_chips.toml").read_text(encoding="utf-8")
    rules = tomllib.loads(text)
    nodes = {node.value for node in Node}
    chips = rules["chip"].values()
    named = [rules["label"].values(), *(chip.get("labels", {}).values() for chip in chips)]
    assert nodes.issuperset(node for table in named for node in table)
    assert nodes.issuperset(chip["node"] for chip in chips if "node" in chip)
    assert {key for chip in chips for key in chip} <= {"node", "labels", "pairs", "socket_label"}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("chip", "counted", "seen"),
    [
        ("hwmon0", [45.0], [45.0, 15.0]),
        ("hwmon1", [118.0], [118.0]),
        ("hwmon2", [30.0], [30.0]),
        ("hwmon_ina226", [60.0], [60.0]),
        ("hwmon_ina3221", [12.0, 2.5, 0.66], [12.0, 2.5, 0.66]),
        ("hwmon_disabled_channel", [12.0, 10.0], [12.0, 10.0]),
        ("hwmon_disabled_power", [45.0, 15.0], [45.0, 15.0]),
        ("hwmon_max20730", [120.0], [120.0]),
        ("hwmon_voltage_current", [60.0], [60.0]),
        ("hwmon_voltage_current_multi", [60.0, 33.0], [60.0, 33.0]),
        ("hwmon_voltage_current_average", [57.82], [57.82]),
        ("hwmon_voltage_current_partial_average", [60.0], [60.0]),
        ("hwmon_voltage_current_no_labels", [], []),
        ("hwmon_same_index", [60.0, 10.0], [60.0, 10.0]),
        ("hwmon_energy", [500.0], [500.0]),
        ("hwmon_energy_disabled", [500.0, 200.0], [500.0, 200.0]),
        ("hwmon_energy_multi", [500.0, 200.0, 100.0], [500.0, 200.0, 100.0]),
        ("hwmon_energy_no_label", [300.0], [300.0]),
        ("hwmon_aggregate", [50.0, 30.0], [50.0, 30.0]),
        ("hwmon_device_path", [25.0], [25.0]),
        ("hwmon_dir_fallback", [35.0], [35.0]),
    ],
)
async def test_kepler_chip(
    machine: Any, realdata: Any, chip: str, counted: list[float], seen: list[float]
) -> None:
    tree = machine.write("sys/class/hwmon", {})
    (tree / "hwmon0").symlink_to(realdata / "01_sysfs/kepler/sys/class/hwmon" / chip)
    readings = await machine.sense(hwmon, "hwmon")
    inner = (Node.CORE, Node.UNCORE)
    assert values(readings) == seen
    assert values([r for r in readings if r.node not in inner]) == counted
    unknown = [r for r in readings if SAME_INDEX == r.flags]
    assert bool(unknown) == (chip == "hwmon_same_index")


@pytest.mark.realdata
async def test_node_exporter_tree_measures_no_power_by_its_chips(
    machine: Any, realdata: Any, unpack_ttar: Any
) -> None:
    archive = realdata / "01_sysfs/node_exporter/sys.ttar"
    for place in ("sys/class/hwmon", "sys/devices"):
        unpack_ttar(archive, machine.folder, under=place)
    found = {r.channel: (r.quantity, r.value) for r in await machine.sense(hwmon, "hwmon")}
    assert found == {}


@pytest.mark.realdata
async def test_whole_kepler_tree_gives_each_channel_once(machine: Any, realdata: Any) -> None:
    (machine.folder / "sys").symlink_to(realdata / "01_sysfs/kepler/sys")
    readings = await machine.sense(hwmon, "hwmon")
    assert len({r.channel for r in readings}) == len(readings) > 25
