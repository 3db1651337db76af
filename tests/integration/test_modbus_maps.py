"""Shipped Modbus maps against twins that were written from the makers' documents on their own."""

import asyncio
import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from integration.map_witness import EXPECTED, MAPS, SHELF, VALUES, named, reader, witness

from heatpool.errors import ConfigError, SensorBusy, SensorError, SensorGone
from heatpool_agent.core.device_map import MODICON, Point, mistakes, span, wire_address
from heatpool_agent.fieldbus.maps import read_map
from heatpool_sim import app, scenario
from heatpool_sim.devices.modbus_manual import names
from heatpool_sim.devices.modbus_model import ModbusModel


def test_every_map_has_a_twin_and_an_expectation() -> None:
    assert set(MAPS) == set(names()) == set(EXPECTED)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_named_after_its_file_and_names_its_source(name: str) -> None:
    device = read_map(name)
    assert (device.name, mistakes(device)) == (name, ())
    assert len(device.source) > 20
    assert device.verified == ("sim" if name == "generic-cdu" else "manual")


@pytest.mark.parametrize("name", MAPS)
async def test_a_map_reads_back_what_the_plant_has(name: str) -> None:
    await witness(name, ModbusModel(name), name)


@pytest.mark.parametrize("name", [name for name in MAPS if name != "generic-cdu"])
async def test_readings_of_an_unproven_map_say_so(name: str) -> None:
    async with reader(ModbusModel(name), name) as sensor:
        assert all("map_unverified" in reading.flags for reading in await sensor.read())


def _text(name: str) -> str:
    return (SHELF / f"{name}.toml").read_text(encoding="utf-8").split("[setpoint]")[0]


def _shifted(text: str) -> str:
    return re.sub(r"^address = (\w+)", lambda m: f"address = {int(m[1], 0) + 1}", text, flags=re.M)


def _pipes_exchanged(text: str) -> str:
    return re.sub(
        r'^pipe = "(\w+)"',
        lambda m: f'pipe = "{"cold" if m[1] == "hot" else "hot"}"',
        text,
        flags=re.M,
    )


def _tenfold(text: str) -> str:
    return re.sub(r"^unit = (.+)", r"unit = \1\nscale = 10.0", _unscaled(text), flags=re.M)


def _unscaled(text: str) -> str:
    return re.sub(r"^scale = .+\n", "", text, flags=re.M)


def _other_function(text: str) -> str:
    return re.sub(r"^function = (\d)", lambda m: f"function = {7 - int(m[1])}", text, flags=re.M)


async def _assert_found_out(name: str, text: str, path: Path) -> None:
    await asyncio.to_thread(path.write_text, text, encoding="utf-8")
    with pytest.raises((AssertionError, ConfigError, SensorGone)):
        await witness(name, ModbusModel(name), str(path))


SPOILERS = (_shifted, _pipes_exchanged, _tenfold, _other_function)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [(name, spoil) for name in MAPS for spoil in SPOILERS if spoil(_text(name)) != _text(name)],
)
async def test_a_spoilt_map_is_found_out(
    name: str, spoil: Callable[[str], str], tmp_path: Path
) -> None:
    await _assert_found_out(name, spoil(_text(name)), tmp_path / "spoilt.toml")


@pytest.mark.parametrize("name", MAPS)
async def test_one_point_shifted_by_one_is_found_out(name: str, tmp_path: Path) -> None:
    head, *points = _text(name).split("[[point]]")
    assert points
    for index, point in enumerate(points):
        some = [*points[:index], _shifted(point), *points[index + 1 :]]
        await _assert_found_out(name, "[[point]]".join([head, *some]), tmp_path / "spoilt.toml")


def _has_pairs(name: str) -> bool:
    return any(row.length > 1 for row in ModbusModel(name).manual.register)


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, "off_by_one") for name in MAPS]
    + [(name, "swapped_words") for name in MAPS if _has_pairs(name)],
)
async def test_a_fault_of_speech_is_found_out(name: str, fault: str) -> None:
    model = ModbusModel(name)
    model.faults.add(fault)
    with pytest.raises((AssertionError, SensorGone)):
        await witness(name, model, name)


@pytest.mark.parametrize(("fault", "error"), [("busy", SensorBusy), ("offline", SensorGone)])
async def test_a_twin_that_cannot_speak_comes_back(fault: str, error: type[SensorError]) -> None:
    model = ModbusModel("carlo-gavazzi-em340")
    async with reader(model, "carlo-gavazzi-em340", timeout_s=2.0) as sensor:
        model.faults.add(fault)
        with pytest.raises(error):
            await sensor.read()
        model.faults.clear()
        assert len(await sensor.read()) == 3


def _marked(name: str) -> list[str]:
    rows = ModbusModel(name).manual.register
    return [row.shows for row in rows if row.missing is not None]


@pytest.mark.parametrize("name", [name for name in MAPS if _marked(name)])
async def test_what_the_maker_sends_for_no_value_is_no_reading(name: str) -> None:
    model = ModbusModel(name)
    model.faults.add("absent")
    marked = set(_marked(name))
    told = EXPECTED[name]
    left = {quantity for quantity, figure in told.figures.items() if figure not in marked}
    async with reader(model, name) as sensor:
        assert set(named(list(await sensor.read()))) == left


async def test_a_register_that_this_device_lacks_is_left_out() -> None:
    values = {key: value for key, value in VALUES.items() if key != "unit_energy_wh"}
    async with reader(ModbusModel("lambda-eu-l"), "lambda-eu-l", values) as sensor:
        seen = named(list(await sensor.read()))
        assert sensor.missing == ("electric_energy_wh",)
    assert set(seen) == set(EXPECTED["lambda-eu-l"].figures) - {"electric_energy_wh"}


@pytest.mark.parametrize(
    ("wh", "raw"), [(999_999, 999), (1_000_000, 0), (1_000_999, 0), (1_001_000, 1)]
)
async def test_three_digits_of_a_heat_pump_begin_anew(wh: int, raw: int) -> None:
    values = {**VALUES, "heat_energy_wh": wh}
    async with reader(ModbusModel("stiebel-wpm"), "stiebel-wpm", values) as sensor:
        reading = named(list(await sensor.read()))["heat_energy_wh"]
    assert (reading.raw, reading.modulus, reading.exponent) == (raw, 1000, 3)


@pytest.mark.parametrize("name", ["diehl-sharky-775", "kamstrup-multical-legacy"])
async def test_a_heat_meter_that_tells_its_number_can_be_billed_by(name: str) -> None:
    async with reader(ModbusModel(name), name, role="billing") as sensor:
        energy = named(list(await sensor.read()))["energy_wh"]
    assert (energy.raw, energy.exponent, energy.meter_id) == (1_234_567, 3, "67211183")


@pytest.mark.parametrize("name", MAPS)
async def test_a_twin_in_a_site_shows_the_site(name: str) -> None:
    demo = scenario.load("demo")
    async with app.serve(replace(demo, sites=demo.sites[:1], step_s=0.05)) as fleet:
        running = next(iter(fleet.doors.values())).running
        async with reader(ModbusModel(name), name, running) as sensor:
            seen = named(list(await sensor.read()))
        shown, (_, state) = running.gauges(), running.meter()
    is_in_network = ModbusModel(name).manual.place == "network"
    if "hot_c" in seen:
        hot_c = state.hot_c if is_in_network else shown.hot_c
        assert seen["hot_c"].value == pytest.approx(hot_c, abs=1.0)
    else:
        assert seen["power_w"].value == pytest.approx(shown.rack_electric_w, rel=0.1)


async def test_a_site_meter_counts_what_its_site_draws() -> None:
    at_s = iter((0, 1800, 3600))
    # Power and instant of one look; the meter's plate.
    site: Any = SimpleNamespace(
        faults=frozenset(),
        meter=lambda: (SimpleNamespace(number=7), None),
        gauges=lambda: SimpleNamespace(rack_electric_w=90_000.0, at_ns=next(at_s) * 10**9),
    )
    show = ModbusModel("schneider-iem3155").shown(site)
    assert [show()["electric_energy_wh"] for _ in range(3)] == [0, 45_000, 90_000]


def _point(name: str, address: int) -> Point:
    return next(point for point in read_map(name).point if point.address == address)


def test_a_printed_input_register_travels_as_function_4() -> None:
    device = read_map("vertiv-liebert-unity")
    point = _point("vertiv-liebert-unity", 30904)
    assert (point.function, wire_address(point, device)) == (4, 903)
    assert (point.scale, point.unit, point.pipe) == (0.1, "degC", "hot")


@pytest.mark.realdata
def test_the_printed_unity_list_and_its_map_agree(realdata: Path) -> None:
    device = read_map("vertiv-liebert-unity")
    rows = _excerpt(realdata, "vertiv_liebert_unity_modbus_excerpt.csv")
    printed = {int(row["input_register"]): row for row in rows if row["input_register"]}
    assert {point.address for point in device.point} <= set(printed)
    row, point = printed[30904], _point(device.name, 30904)
    assert (row["name"], row["unit"], row["scale"]) == ("Fluid Output Temperature 1", "deg C", "10")
    assert (point.function, wire_address(point, device), point.scale) == (4, 903, 0.1)
    for point in device.point:
        row = printed[point.address]
        assert span(point, device).count == int(row["n_registers"])
        factor = 5 / 9 if row["unit"] == "deg F" else 1.0
        assert point.scale == pytest.approx(factor / int(row["scale"]), rel=1e-12)
        assert wire_address(point, device) == int(row["input_register"]) - MODICON[4]


@pytest.mark.realdata
def test_the_printed_door_list_and_its_map_agree(realdata: Path) -> None:
    device = read_map("vertiv-liebert-dcdactive")
    rows = _excerpt(realdata, "vertiv_liebert_dcd_modbus_excerpt.csv")
    printed = {int(row["address"]): row for row in rows}
    for point in device.point:
        row = printed[point.address]
        assert (point.function, span(point, device).count) == (
            int(row["function"]), int(row["length"]),
        )  # fmt: skip
        assert row["type"].startswith("float32 (sw)") == (point.type == "float32")
        assert wire_address(point, device) == int(row["address"])


@pytest.mark.realdata
def test_the_printed_kamstrup_offsets_are_twice_the_registers(realdata: Path) -> None:
    device = read_map("kamstrup-multical-legacy")
    rows = _excerpt(realdata, "kamstrup_multical_modbus_excerpt.csv")
    printed = {int(row["offset"]): row["type"] for row in rows}
    for point in device.point:
        coding = printed[2 * wire_address(point, device)]
        assert span(point, device).count == int(coding[-2:]) // 16
        assert coding.startswith("float") == point.type.startswith("float")


def _excerpt(realdata: Path, name: str) -> list[dict[str, str]]:
    path = realdata / "04_modbus" / "vendor_excerpts" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
