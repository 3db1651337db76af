"""Units: the suffixes a name may end in, what devices call them, and exact conversions.

Also what the arithmetic of the contract takes as a number: a float, or an array of any library
that follows the array API standard. The contract itself imports none (memory of the agent).
"""

from decimal import Decimal
from fractions import Fraction
from math import nan
from typing import Any, NamedTuple, Protocol, TypeVar

# vocabulary.md, section 3; a test holds the two equal.
# fmt: off
SUFFIXES = (
    "_w", "_wh", "_j", "_uj", "_c", "_k", "_kg_s", "_m3_h", "_kg_m3", "_bytes", "_v", "_a", "_m3",
    "_bar", "_kpa", "_s", "_ns", "_frac", "_eur", "_kgco2e", "_u", "_count", "_id", "_name",
    "_j_kg_k", "_w_k", "_w_m2", "_kwh_m3_k", "_eur_mwh", "_kgco2e_kwh", "_l_kwh",
)
# fmt: on
# Quantities that need no unit.
UNITLESS = ("cop", "pue", "erf", "ere", "scale", "weight", "quality")

J_PER_WH = 3600
NS_PER_S = 1_000_000_000


class Column(Protocol):
    """An array of any library that follows the array API standard."""

    def __array_namespace__(self) -> Any:
        """The functions that belong to this kind of array."""


# Floats in, float out; columns and floats mixed, a column out. Overloads say so, and the first of
# a pair carries an ignore: mypy fears that floats alone could also match the second.
ColumnT = TypeVar("ColumnT", bound=Column)


def array_namespace(*values: object) -> Any:
    """The namespace of the first array among the values; None if all are scalars.

    `Any`, because no array library is imported here that could name the type.
    """
    for value in values:
        # numpy's float64 is a float and also offers a namespace: treat it as the float it is.
        if not isinstance(value, int | float) and hasattr(value, "__array_namespace__"):
            return value.__array_namespace__()
    return None


def within(value: Any, low: float, high: float) -> Any:
    """The value, float or array, where low <= value <= high; NaN elsewhere; same unit."""
    xp = array_namespace(value)
    if xp is None:
        return value if low <= value <= high else nan
    return xp.where((value >= low) & (value <= high), value, nan)


class Unit(NamedTuple):
    """One unit of a device = `factor` units of the suffix."""

    suffix: str
    factor: Fraction


_J_WH = Fraction(1, J_PER_WH)
_L_M3 = Fraction(1, 1000)

# Names as devices, maps and data sheets write them; upper and lower case mean different things.
# fmt: off
_FACTORS: dict[str, dict[str, Fraction | int]] = {
    "_wh": {"Wh": 1, "kWh": 10**3, "MWh": 10**6, "GWh": 10**9, "uJ": _J_WH / 10**6, "J": _J_WH,
            "kJ": _J_WH * 10**3, "MJ": _J_WH * 10**6, "GJ": _J_WH * 10**9},
    "_w": {"uW": Fraction(1, 10**6), "mW": Fraction(1, 1000), "W": 1, "kW": 10**3, "MW": 10**6,
           "J/h": _J_WH, "kJ/h": _J_WH * 10**3, "MJ/h": _J_WH * 10**6, "GJ/h": _J_WH * 10**9},
    "_m3_h": {"m3/h": 1, "m³/h": 1, "m3/min": 60, "m3/s": 3600, "L/h": _L_M3, "l/h": _L_M3,
              "L/min": _L_M3 * 60, "l/min": _L_M3 * 60, "L/s": _L_M3 * 3600, "l/s": _L_M3 * 3600},
    "_m3": {"m3": 1, "m³": 1, "L": _L_M3, "l": _L_M3},
    "_kg_s": {"kg/s": 1, "kg/h": Fraction(1, 3600)},
    "_bar": {"bar": 1, "mbar": Fraction(1, 1000), "kPa": Fraction(1, 100), "Pa": Fraction("1e-5")},
    "_c": {"°C": 1, "degC": 1, "Cel": 1}, "_k": {"K": 1}, "_frac": {"%": Fraction(1, 100)},
    "_v": {"V": 1, "mV": Fraction(1, 1000)}, "_a": {"A": 1, "mA": Fraction(1, 1000)},
    "_s": {"s": 1, "min": 60, "h": 3600, "d": 86400},
}
# fmt: on
UNITS: dict[str, Unit] = {
    name: Unit(suffix, Fraction(factor))
    for suffix, factors in _FACTORS.items()
    for name, factor in factors.items()
}


def unit_named(name: str) -> Unit:
    """Suffix and factor of a device's unit name. Raises ValueError for a name not in UNITS."""
    try:
        return UNITS[name]
    except KeyError:
        raise ValueError(f"units: unit {name!r} is not known; use one of {sorted(UNITS)}") from None


def scaled(value: Any, unit: str) -> Any:
    """The value, float or array, in the unit of its suffix; `exact` is for what is billed."""
    factor = unit_named(unit).factor
    # Two whole numbers instead of one rounded factor: 4.2 kWh is 4200 Wh, 5 L/h 0.005 m3/h.
    return value * factor.numerator / factor.denominator


def exact(value: int | Decimal | Fraction, unit: str) -> Fraction:
    """The value in the unit of its suffix (kWh and GJ alike in Wh), without any rounding."""
    return Fraction(value) * unit_named(unit).factor


def whole_wh(raw: int, unit: str, *, exponent: int = 0) -> int:
    """What a register of `raw`·10^exponent energy units shows, whole Wh, rounded down.

    Rounding down keeps it monotone, and differences add up to less than 1 Wh off the register.
    Raises ValueError if the unit is not one of energy.
    """
    if unit_named(unit).suffix != "_wh":
        raise ValueError(f"units: a register in {unit!r} holds no energy; check its map")
    return int(exact(raw * Fraction(10) ** exponent, unit) // 1)
