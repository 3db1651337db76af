"""One cell of a trace as a number in our unit, or the reason why it is absent.

Nothing is repaired: what no sensor can show is absent, counted by its reason, and never zero.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from heatpool.water import CALCULATOR_WATER, FLUIDS
from heatpool_agent.core.plausible import RANGES, SENTINELS

EMPTY = "empty"
NOT_A_NUMBER = "not_a_number"
SENTINEL = "sentinel"
OUT_OF_RANGE = "out_of_range"
NEGATIVE = "below_zero"

# What each column can be at all; the fluid narrows the two pipes.
_POWER_W = RANGES["power_w"]
LIMITS: dict[str, tuple[float, float]] = {
    "power_w": _POWER_W,
    "it_w": _POWER_W,
    "facility_w": _POWER_W,
    "cpu_w": _POWER_W,
    "gpu_w": _POWER_W,
    # Backward flow is a fault of the wiring, and no figure that heat can be made of.
    "volume_flow_m3_h": (0.0, RANGES["volume_flow_m3_h"][1]),
    "hot_c": RANGES["hot_c"],
    "cold_c": RANGES["cold_c"],
    "ambient_c": (-60.0, 80.0),
    "heat_rate_w": RANGES["heat_rate_w"],
}
_PIPES = ("hot_c", "cold_c")
_WORDS = frozenset({"", "-", "--", "n/a", "na", "#n/a", "null", "none", "nan", "\\n", "?"})
# The same words, scaled as devices scale: tenths and hundredths.
_SCALED = frozenset({6553.5, 655.35, 3276.7, 327.67, -3276.8, -327.68, 9999.0, -9999.0, -999.0})
_GROUPED = re.compile(r"[+-]?\d{1,3}(?P<sep>[.,' \u00a0\u202f])\d{3}(?:(?P=sep)\d{3})*(?!\d)")
_SEPARATORS = str.maketrans("", "", "' \u00a0\u202f")
_EXPONENT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How the cells of one column become numbers: `value * factor + offset`, between two limits."""

    factor: float = 1.0
    offset: float = 0.0
    low: float
    high: float
    decimal: str = "."
    no_values: frozenset[float] = SENTINELS | _SCALED


def limits(name: str, fluid: str) -> tuple[float, float]:
    """The least and the most that a column of that name can show with that fluid."""
    if name in _PIPES:
        known = CALCULATOR_WATER if fluid == "water" else FLUIDS[fluid]
        return known.range_c
    return LIMITS[name]


def cell_of(name: str, fluid: str, *, factor: float, offset: float, decimal: str) -> Cell:
    """How the cells of the column of that name are read."""
    low, high = limits(name, fluid)
    # What many heat meters show for a sensor that is broken or missing.
    more = {243.0} if name in _PIPES else set()
    return Cell(
        factor=factor,
        offset=offset,
        low=low,
        high=high,
        decimal=decimal,
        no_values=SENTINELS | _SCALED | more,
    )


def value_of(text: str, cell: Cell) -> float | str:
    """The cell in our unit, or the reason why it is absent."""
    number = _plain(text) if cell.decimal == "." else None
    if number is None:
        number = _written(text, cell.decimal)
    if number is None:
        return EMPTY if text.strip().lower() in _WORDS else NOT_A_NUMBER
    value = number * cell.factor + cell.offset
    if number in cell.no_values or value in cell.no_values:
        return SENTINEL
    if cell.low <= value <= cell.high:
        return value
    return NEGATIVE if cell.low == 0.0 and value < 0.0 else OUT_OF_RANGE


def decimal_sign(cells: Iterable[str], *, is_comma_free: bool) -> str:
    """The sign before the decimals in these cells, `.` or `,`.

    `is_comma_free`: the comma separates cells, so that only quoted ones can hold it. A comma and
    three digits alone could be either: between cells set off by semicolons it is the decimal sign.
    """
    votes = {".": 0, ",": 0}
    for text in cells:
        if sign := _voted(text.strip()):
            votes[sign] += 1
    if votes["."] == votes[","]:
        return "." if is_comma_free else ","
    return max(votes, key=lambda sign: votes[sign])


def _voted(text: str) -> str | None:
    """The decimal sign that this one cell proves, or None."""
    has_comma, has_dot = "," in text, "." in text
    if not any(letter.isdigit() for letter in text) or not (has_comma or has_dot):
        return None
    if has_comma and has_dot:
        return max(",.", key=text.rfind)
    sign = "," if has_comma else "."
    is_open = _GROUPED.fullmatch(text) is not None
    if text.count(sign) > 1:
        # Groups of thousands: then the other one is the decimal sign. A date is neither.
        return ("." if has_comma else ",") if is_open else None
    whole, _, rest = text.partition(sign)
    is_number = whole.lstrip("+-").isdigit() or whole in ("", "+", "-")
    if is_open or not is_number or not rest.replace("e", "").replace("-", "").isdigit():
        return None
    return sign


def _plain(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and "_" not in text else None


def _written(text: str, decimal: str) -> float | None:
    """A number as people and building automation write it; None: it is none."""
    text = text.strip()
    group = "." if decimal == "," else ","
    whole, sign, rest = text.partition(decimal)
    if group in rest or (group in whole and not _is_grouped(whole, group)):
        return None
    if any(space in whole for space in "' \u00a0\u202f") and not _is_grouped(whole, None):
        return None
    whole = whole.replace(group, "").translate(_SEPARATORS)
    shown = f"{whole}.{rest}" if sign else whole
    if not _EXPONENT.fullmatch(shown):
        return None
    return _plain(shown)


def _is_grouped(whole: str, group: str | None) -> bool:
    match = _GROUPED.fullmatch(whole)
    return match is not None and (group is None or match["sep"] == group)
