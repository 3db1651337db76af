"""One MQTT payload under the rules of one point: its number, or why there is none.

Any bytes give a number or a `Refusal`, never another error. What is held over time is
`mqtt_newest`.
"""

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any

from heatpool.units import NS_PER_S, UNITS
from heatpool_agent.core.mqtt_rules import Path, Point, path_steps
from heatpool_agent.core.reading import ReadingKind

# A device's document of figures has a few hundred bytes; more is something else.
MAX_PAYLOAD_BYTES = 65_536
# Numbers beyond are no measurement, and whole numbers made of them would fill the memory.
_MOST_EXPONENT, _MOST_DIGITS = 30, 100
_PLAIN = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_COMMA = re.compile(r"[+-]?[0-9]{1,30}(?:,[0-9]{1,30})?", re.ASCII)
# Seconds, milliseconds, microseconds since 1970 stay below these until the year 5138.
_EPOCH_NS = ((10**11, 10**9), (10**14, 10**6), (10**17, 10**3))
_MOST_NS = 1 << 63
_SHOWN_CHARACTERS = 40


class Refusal(ValueError):
    """A payload that gives this point no number: the text says why."""


class Absent(Exception):
    """The payload says itself that there is no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A value in the unit of its suffix; counters with their raw count."""

    value: float
    raw: int | None = None


def document(payload: bytes) -> Any:
    """The JSON value of a payload, numbers exact; text that is no JSON as it stands.

    Raises:
        Refusal: too long, or no text.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise Refusal(f"has more than {MAX_PAYLOAD_BYTES} bytes")
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise Refusal(f"is no text: {payload[:8].hex(' ')}") from None
    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except RecursionError:
        raise Refusal("is nested too deeply") from None
    except (ValueError, InvalidOperation):
        return text


def told_ns(told: Any, point: Point) -> int | None:
    """The payload's own time, ns since 1970; None if it tells none.

    Raises:
        Refusal: it is there and cannot be read.
    """
    try:
        value = _at(told, path_steps(point.time)) if point.time else None
    except Refusal:
        return None
    if value is None:
        return None
    if isinstance(value, str):
        found = _iso_ns(value)
    elif isinstance(value, Decimal) and _is_sized(value):
        found = _epoch_ns(value)
    else:
        found = None
    if found is None or not 0 <= found < _MOST_NS:
        raise Refusal(f"{point.time} is {_shown(value)}, no time since 1970 with its zone")
    return found


def figure(told: Any, point: Point) -> Figure:
    """The value of a point in a document.

    Raises:
        Refusal: there is no number that the point's rules allow.
        Absent: there is none, by the device's own word.
    """
    leaf = _at(told, path_steps(point.path))
    if leaf is None:
        raise Absent
    number = _number(leaf, point)
    if float(number) in point.absent:
        raise Absent
    if point.kind is ReadingKind.COUNTER:
        return _count(number, point)
    return Figure(value=_in_unit(number, point))


def _at(told: Any, path: Path) -> Any:
    for index, step in enumerate(path):
        is_there = (
            isinstance(told, dict) and step in told
            if isinstance(step, str)
            else isinstance(told, list) and step < len(told)
        )
        if not is_there:
            raise Refusal(f"has no {_written(path[: index + 1])}")
        told = told[step]
    return told


def _written(path: Path) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def _number(leaf: Any, point: Point) -> Decimal:
    if isinstance(leaf, str) and leaf.strip() in point.states:
        return Decimal(repr(point.states[leaf.strip()]))
    if isinstance(leaf, bool):
        if point.kind is ReadingKind.STATE:
            return Decimal(int(leaf))
        raise Refusal(f"{_shown(leaf)} is yes or no, no number")
    if isinstance(leaf, str):
        leaf = _from_text(leaf, point)
    if not isinstance(leaf, Decimal):
        raise Refusal(f"{_shown(leaf)} is no number")
    if not _is_sized(leaf):
        raise Refusal(f"{_shown(leaf)} is beyond every measurement")
    return leaf


def _from_text(text: str, point: Point) -> Decimal:
    bare = text.strip()
    form = _COMMA if point.decimal == "," else _PLAIN
    if form.fullmatch(bare) is None:
        raise Refusal(f"{_shown(text)} is no number" + _hint(bare, point))
    if not point.text:
        raise Refusal(f"{_shown(text)} is a number as text; if it is meant, set text = true")
    return Decimal(bare.replace(",", "."))


def _hint(bare: str, point: Point) -> str:
    if point.decimal == "." and _COMMA.fullmatch(bare):
        return '; if the comma is a decimal one, set text = true and decimal = ","'
    return ""


def _is_sized(number: Decimal) -> bool:
    if not number.is_finite() or len(number.as_tuple().digits) > _MOST_DIGITS:
        return False
    return not number or abs(number.adjusted()) <= _MOST_EXPONENT


def _in_unit(number: Decimal | Fraction, point: Point) -> float:
    """The number in the unit of its suffix, rounded once."""
    step, start = _conversion(point.scale, point.offset, point.unit)
    top, bottom = number.as_integer_ratio()
    # Whole numbers all the way: the same as with fractions, at a tenth of their cost.
    top = top * step.numerator * start.denominator + start.numerator * bottom * step.denominator
    try:
        return top / (bottom * step.denominator * start.denominator)
    except OverflowError:
        raise Refusal("is beyond every measurement") from None


@lru_cache(maxsize=1024)
def _conversion(scale: float, offset: float, unit: str) -> tuple[Fraction, Fraction]:
    """What one step of the number is, and where it starts, in the unit of its suffix."""
    factor = UNITS[unit].factor if unit else Fraction(1)
    return Fraction(repr(scale)) * factor, Fraction(repr(offset)) * factor


def _count(number: Decimal, point: Point) -> Figure:
    """The value, and the count of its smallest step; less than a step is not counted."""
    if number < 0:
        raise Refusal(f"{_shown(number)} is below 0, no count")
    raw = int(Fraction(number) * 10**point.decimals)
    if point.digits is not None and raw >= 10**point.digits:
        raise Refusal(f"{_shown(number)} has more than {point.digits} digits")
    return Figure(value=_in_unit(Fraction(raw, 10**point.decimals), point), raw=raw)


def _iso_ns(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            return None
        whole_s = math.floor(moment.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError):
        return None
    return whole_s * NS_PER_S + moment.microsecond * 1000


def _epoch_ns(value: Decimal) -> int:
    for limit, step_ns in _EPOCH_NS:
        if abs(value) < limit:
            return int(value * step_ns)
    return int(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
