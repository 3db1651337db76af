"""What every shipped Modbus map must give of one plant, and the twin that shows that plant."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Roots
from heatpool_agent.sensors import modbus
from heatpool_sim.devices.modbus_manual import Register
from heatpool_sim.devices.modbus_model import ModbusModel
from heatpool_sim.ports import Twin

SHELF = Path(str(files("heatpool_agent"))) / "sensors" / "maps"
MAPS = tuple(sorted(path.stem for path in SHELF.glob("*.toml")))

# What the plant has; no two figures are alike, so that none can stand for another.
VALUES: dict[str, int | float] = {
    "hot_c": 62.34, "cold_c": 41.87, "source_hot_c": 38.21, "source_cold_c": 27.65,
    "volume_flow_m3_h": 3.456, "second_volume_flow_m3_h": 1.234, "heat_w": 81_342,
    "electric_w": 91_257.5, "unit_w": 17_430, "heat_energy_wh": 1_234_567_890,
    "cooling_energy_wh": 98_765_432, "electric_energy_wh": 87_654_321_987 // 100,
    "fed_energy_wh": 7_654_321, "unit_energy_wh": 345_678_901, "volume_m3": 4321.5,
    "meter_number": 67_211_183, "error_code": 516, "pump_frac": 0.655, "valve_frac": 0.42,
    "exhaust_air_c": 24.6, "cabinet_air_c": 27.5, "valve_water_c": 15.1,
    "air_pressure_difference_bar": 2.9e-5, "pump_runs": 1, "leak": 0, "watchdog_ran_out": 1,
    "remote_control": 0,
}  # fmt: skip
UNIT = {
    "hot_c": "hot_c",
    "cold_c": "cold_c",
    "volume_flow_m3_h": "volume_flow_m3_h",
    "reported_heat_w": "heat_w",
}
METER = {
    "hot_c": "hot_c",
    "cold_c": "cold_c",
    "volume_flow_m3_h": "volume_flow_m3_h",
    "delivered_heat_w": "heat_w",
}
WALL = {
    "power_w": "electric_w",
    "energy_wh": "electric_energy_wh",
    "exported_energy_wh": "fed_energy_wh",
}
SHOWN_WALL = {
    "power_w": "electric_w",
    "shown_energy_wh": "electric_energy_wh",
    "shown_exported_energy_wh": "fed_energy_wh",
}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a map must give: which figure of the plant under which name, and where it stands."""

    node: Node
    figures: Mapping[str, str]
    elsewhere: Mapping[str, tuple[Node, str]]
    has_number: bool


def _told(
    node: Node,
    *parts: Mapping[str, str],
    elsewhere: Mapping[str, tuple[Node, str]] | None = None,
    has_number: bool = False,
) -> Told:
    figures = {quantity: figure for part in parts for quantity, figure in part.items()}
    return Told(node=node, figures=figures, elsewhere=elsewhere or {}, has_number=has_number)


EXPECTED: dict[str, Told] = {
    "generic-cdu": _told(
        Node.CDU, UNIT, {"pump_frac": "pump_frac", "valve_frac": "valve_frac"},
        {name: name for name in ("pump_runs", "leak", "watchdog_ran_out", "remote_control")},
        elsewhere={"power_w": (Node.PDU, "electric_w")},
    ),
    "vertiv-liebert-unity": _told(
        Node.CDU, UNIT, {"unit_power_w": "unit_w", "pump_runs": "pump_runs"}
    ),
    "vertiv-liebert-dcdactive": _told(
        Node.CDU, {"hot_c": "hot_c", "cold_c": "cold_c", "valve_frac": "valve_frac"},
        {name: name for name in ("exhaust_air_c", "cabinet_air_c", "valve_water_c")},
        {"air_pressure_difference_bar": "air_pressure_difference_bar"},
    ),
    "belimo-energy-valve-v4": _told(
        Node.HEAT_METER, METER, {"energy_wh": "heat_energy_wh", "valve_frac": "valve_frac"},
        {"cooling_energy_wh": "cooling_energy_wh"},
    ),
    "diehl-sharky-775": _told(
        Node.HEAT_METER, METER, {"energy_wh": "heat_energy_wh", "volume_m3": "volume_m3"},
        {"error_code": "error_code"}, has_number=True,
    ),
    "kamstrup-multical-legacy": _told(
        Node.HEAT_METER, METER, {"energy_wh": "heat_energy_wh", "volume_m3": "volume_m3"},
        {"info_code": "error_code"}, has_number=True,
    ),
    "kamstrup-multical-xx3": _told(Node.HEAT_METER, METER),
    "carlo-gavazzi-em340": _told(Node.SITE_METER, WALL),
    "schneider-iem3155": _told(
        Node.SITE_METER, {"power_w": "electric_w", "energy_wh": "electric_energy_wh"},
        has_number=True,
    ),
    "eastron-sdm630": _told(Node.SITE_METER, SHOWN_WALL),
    "siemens-pac2200": _told(Node.SITE_METER, SHOWN_WALL),
    "lambda-eu-l": _told(
        Node.CDU, UNIT, {"source_in_c": "source_hot_c", "source_out_c": "source_cold_c"},
        {"inverter_power_w": "unit_w", "electric_energy_wh": "unit_energy_wh"},
        {"heat_energy_wh": "heat_energy_wh"},
    ),
    "stiebel-wpm": _told(
        Node.CDU, {"hot_c": "hot_c", "cold_c": "cold_c", "volume_flow_m3_h": "volume_flow_m3_h"},
        {"heat_energy_wh": "heat_energy_wh", "electric_energy_wh": "unit_energy_wh"},
    ),
    "nibe-s": _told(
        Node.CDU, {"hot_c": "hot_c", "cold_c": "cold_c", "drawn_power_w": "unit_w"},
        {"site/hot_c": "source_hot_c", "site/cold_c": "source_cold_c"},
    ),
}  # fmt: skip
# The word with named bits, beside its bits.
WORDS = frozenset({"status", "pump_state"})


class _Clock:
    def event_ns(self) -> int:
        return 1_750_000_000_000_000_000

    def boot_ns(self) -> int:
        return 7


def _sensor(url: str, map_name: str, **more: Any) -> Any:
    tree = {"id": "m", "kind": "modbus", "map": map_name, "url": url, "loop": "rack"}
    tree |= {"primary_loop": "site"} | more
    return modbus.open(msgspec.convert(tree, modbus.Config), Roots(), _Clock())


@asynccontextmanager
async def reader(
    model: ModbusModel,
    map_name: str,
    values: Mapping[str, int | float] | Twin = VALUES,
    **more: Any,
) -> AsyncIterator[Any]:
    async with model.serve(values) as address, _sensor(address.url, map_name, **more) as sensor:
        yield sensor


def named(readings: list[Reading]) -> dict[str, Reading]:
    """By name, those of the other side of an exchanger with its loop before it."""
    return {
        (f"{reading.loop}/" if reading.loop != "rack" else "") + reading.quantity: reading
        for reading in readings
        if reading.quantity not in WORDS
    }


def _row(model: ModbusModel, figure: str, *, is_counter: bool) -> Register:
    rows = [row for row in model.manual.register if row.shows == figure]
    if is_counter:
        return next(row for row in rows if not row.coding.startswith("FLOAT"))
    return next((row for row in rows if row.coding.startswith("FLOAT")), rows[0])


def _assert_shown(model: ModbusModel, reading: Reading, figure: str) -> None:
    value = VALUES[figure]
    if any(figure in row.flags for row in model.manual.register):
        assert reading.value == value
        return
    is_counter = reading.kind is ReadingKind.COUNTER
    row = _row(model, figure, is_counter=is_counter)
    if is_counter:
        assert isinstance(value, int)
        count = value // round(row.resolution(value))
        assert reading.raw == (count % row.turns_over if row.turns_over else count)
        assert reading.value == pytest.approx(reading.raw * 10.0**reading.exponent, rel=1e-12)
        assert reading.modulus is None or reading.raw < reading.modulus
    else:
        assert reading.value == pytest.approx(value, abs=row.resolution(value))


async def witness(name: str, model: ModbusModel, map_name: str) -> None:
    """Raises AssertionError where the map reads anything but what the twin was given."""
    told = EXPECTED[name]
    async with reader(model, map_name) as sensor:
        readings = list(await sensor.read())
    seen = named(readings)
    assert set(seen) == {*told.figures, *told.elsewhere}
    for quantity, figure in told.figures.items():
        assert seen[quantity].node is told.node
        _assert_shown(model, seen[quantity], figure)
    for quantity, (node, figure) in told.elsewhere.items():
        assert seen[quantity].node is node
        _assert_shown(model, seen[quantity], figure)
    number = str(VALUES["meter_number"]) if told.has_number else ""
    assert {reading.meter_id for reading in readings} == {number}
