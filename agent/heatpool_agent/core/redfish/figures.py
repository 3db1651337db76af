"""Numbers as a BMC writes them, and what they measure."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import isfinite, sqrt
from typing import Any

from heatpool.units import J_PER_WH, exact, scaled, unit_named
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.core.redfish.document import Document

# Where the unit's name is not the one of `heatpool.units`; UCUM writes dots.
_NAMES = {"kW.h": "kWh", "W.h": "Wh", "C": "Cel", "Celsius": "Cel", "LPM": "L/min", "Watts": "W"}
_LARGEST = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What a property measures: our quantity, its unit there, and the Sensors that may say it."""

    quantity: str
    unit: str
    types: frozenset[str]
    kind: ReadingKind = ReadingKind.GAUGE
    # Figures of one family say the same amount in different words.
    family: str = ""


def _measure(quantity: str, unit: str, *types: str) -> Measure:
    return Measure(quantity=quantity, unit=unit, types=frozenset(types))


def _counter(quantity: str, unit: str, *types: str) -> Measure:
    return Measure(
        quantity=quantity,
        unit=unit,
        types=frozenset(types),
        kind=ReadingKind.COUNTER,
        family="energy",
    )


POWER = Measure(quantity="power_w", unit="W", types=frozenset({"Power"}), family="power")
REGISTER = _counter("energy_wh", "kWh", "EnergykWh", "EnergyWh")
ENERGY_J = _counter("energy_j", "J", "EnergyJoules")
AMBIENT = _measure("ambient_c", "Cel", "Temperature")
HOT = _measure("hot_c", "Cel", "Temperature")
COLD = _measure("cold_c", "Cel", "Temperature")
VOLUME_FLOW = _measure("volume_flow_m3_h", "L/min", "LiquidFlow", "LiquidFlowLPM")
REPORTED_HEAT = _measure("reported_heat_w", "kW", "Heat", "Power")
HOT_PRESSURE = _measure("hot_pressure_bar", "kPa", "PressurekPa", "Pressure", "PressurePa")
COLD_PRESSURE = _measure("cold_pressure_bar", "kPa", "PressurekPa", "Pressure", "PressurePa")


def number(value: Any) -> float | None:
    """The finite number, also one that was written as text; absent if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        # Python reads underscores and other scripts' digits, no device writes them.
        if len(value) > 40 or not value.isascii() or "_" in value:
            return None
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not -_LARGEST < value < _LARGEST:
        return None
    return float(value) if isfinite(value) else None


def in_unit(value: float, measure: Measure, unit: str = "") -> float | None:
    """A figure in the quantity's own unit; `unit` as the Sensor names it, else the measure's."""
    name = _unit_name(measure, unit)
    if name is None:
        return None
    if measure.kind is ReadingKind.COUNTER:
        return float(_exact(value, measure, name))
    return float(scaled(value, name))


def whole_count(value: Any, measure: Measure, unit: str = "") -> int | None:
    """The counter in whole units of its quantity, rounded down so that it never steps back."""
    name, told = _unit_name(measure, unit), number(value)
    if name is None or told is None:
        return None
    # A float of 18 digits is not the whole number that was written.
    written = value if isinstance(value, int) else told
    return int(_exact(written, measure, name) // 1)


def _exact(value: float | int, measure: Measure, name: str) -> Fraction:
    """The decimal as written, in the quantity's unit: 65.51 kWh are 65510 Wh, not nearly."""
    told = exact(Decimal(repr(value)), name)
    # Joules are told in Wh by the table of units.
    return told * J_PER_WH if measure.quantity == "energy_j" else told


def _unit_name(measure: Measure, unit: str) -> str | None:
    name = _NAMES.get(unit, unit) or measure.unit
    if name == measure.unit:
        return name
    try:
        fits = unit_named(name).suffix == unit_named(measure.unit).suffix
    except ValueError:
        return None
    return name if fits else None


def standard_u(sensor: Document, reading: float, value: float) -> float | None:
    """Standard uncertainty of `value`, which the Sensor tells as `reading` in its own unit.

    `ReadingAccuracy` is the largest deviation in the Sensor's unit, the older `Accuracy` the same
    in percent. A limit L of unknown shape is u = L/sqrt(3). Source: agent.md 5.5, DSP0268.
    """
    limit, part = number(sensor.get("ReadingAccuracy")), number(sensor.get("Accuracy"))
    if limit is not None and limit > 0 and reading:
        return limit * abs(value / reading) / sqrt(3)
    if part is not None and part > 0:
        return abs(value) * part / 100 / sqrt(3) or None
    return None
