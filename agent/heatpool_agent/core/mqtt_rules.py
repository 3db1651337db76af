"""How the numbers of MQTT messages are told: points as configured, and every mistake in them.

Supply and return stay in a device's own topic names; each temperature says `pipe = "hot"` or
`"cold"`. What a payload gives under these rules is `mqtt_payload`.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Annotated, Literal

import msgspec

from heatpool.units import UNITS
from heatpool_agent.core.reading import Node, ReadingKind

# MQTT 3.1.1, 1.5.3 and 4.7: the length has two bytes, and two characters are wildcards.
MAX_TOPIC_BYTES = 0xFFFF
# An uncertainty beyond is a slip of the pen.
MOST = 1e30
_STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[([0-9]{1,4})\]")

Path = tuple[str | int, ...]
Stem = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number on one topic: `(number * scale + offset)` in `unit`.

    `path` leads into a JSON payload, `a.b[0].c`; empty is the payload itself. `time` leads to the
    payload's own time. `text` allows a number in quotes or bare text, `decimal` says that its
    fraction stands behind a comma. `states` gives words their numbers, for kind "state". A counter
    shows `decimals` places of `unit` and starts again after `digits` digits, those included.
    `sensor_side` is the pipe that a flow sensor sits in.
    """

    topic: str
    quantity: Stem
    path: str = ""
    unit: str = ""
    pipe: Literal["hot", "cold"] | None = None
    node: Node | None = None
    kind: ReadingKind = ReadingKind.GAUGE
    scale: float = 1.0
    offset: float = 0.0
    max_age_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    time: str = ""
    text: bool = False
    decimal: Literal[".", ","] = "."
    states: dict[str, float] = {}
    absent: tuple[float, ...] = ()
    decimals: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    digits: Annotated[int, msgspec.Meta(ge=1, le=18)] | None = None
    u: Annotated[float, msgspec.Meta(gt=0)] | None = None
    sensor_side: Literal["hot", "cold"] | None = None


def quantity_of(point: Point) -> str:
    """The name of a point's reading, unit included."""
    if point.pipe:
        return f"{point.pipe}_c"
    return point.quantity + (UNITS[point.unit].suffix if point.unit else "")


def channel_of(point: Point) -> str:
    """Where the number is found, for good: its topic, and its place in the payload."""
    return f"mqtt/{point.topic}" + (f"#{point.path}" if point.path else "")


@lru_cache(maxsize=1024)
def path_steps(path: str) -> Path:
    """Keys and indexes on the way into a document; none for the document itself.

    Raises:
        ValueError: it is no path.
    """
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        found = _STEP.match(path, at)
        # A dot at the very start names no key.
        if found is None or (at == 0 and path.startswith(".")):
            raise ValueError(f"{path!r} is no path; write it as a.b[0].c")
        steps.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    return tuple(steps)


def counter_exponent(point: Point) -> int | None:
    """The power of ten from a counter's raw count to its unit; None if it is not one."""
    if point.offset or not isfinite(point.scale) or point.unit not in UNITS:
        return None
    factor = Fraction(repr(point.scale)) * UNITS[point.unit].factor
    powers = (n for n in range(-15, 16) if factor == Fraction(10) ** n)
    power = next(powers, None)
    return None if power is None else power - point.decimals


def mistakes(points: Sequence[Point]) -> Iterator[str]:
    """Everything in the points that no message can be read with."""
    if not points:
        yield "point: is missing, list at least one"
    for index, point in enumerate(points):
        for text in _flaws(point):
            yield f"point[{index}] ({point.quantity}): {text}"
    yield from _repeats(points)


def topic_flaws(key: str, topic: str) -> Iterator[str]:
    """Why a topic cannot be subscribed to as one topic."""
    if not topic:
        yield f"{key} is empty"
    elif "\0" in topic or len(topic.encode(errors="replace")) > MAX_TOPIC_BYTES:
        yield f"{key} is no MQTT topic"
    elif "+" in topic or "#" in topic:
        yield f"{key} {topic!r} has a wildcard, which would mix devices; name one topic"


def _flaws(point: Point) -> Iterator[str]:
    yield from topic_flaws("topic", point.topic)
    for key in ("path", "time"):
        try:
            path_steps(getattr(point, key))
        except ValueError as error:
            yield f"{key}: {error}"
    if point.unit and point.unit not in UNITS:
        yield f"unit {point.unit!r} is not known; known: {', '.join(UNITS)}"
    if (point.quantity == "temperature") != (point.pipe is not None):
        yield 'a temperature of a pipe needs quantity "temperature" and pipe "hot" or "cold"'
    if point.pipe and point.unit not in ("degC", "°C", "Cel"):
        yield f"a pipe's temperature is in degC, not {point.unit!r}"
    if point.scale == 0 or not isfinite(point.scale) or not isfinite(point.offset):
        yield "scale and offset are numbers, and a scale of 0 would leave the offset alone"
    if point.u is not None and not point.u <= MOST:
        yield f"u is {point.u:g}, beyond every measurement"
    if point.decimal == "," and not point.text:
        yield 'decimal "," is for numbers as text; set text = true'
    yield from _kind_flaws(point)


def _kind_flaws(point: Point) -> Iterator[str]:
    is_counter = point.kind is ReadingKind.COUNTER
    if point.states and point.kind is not ReadingKind.STATE:
        yield 'states are numbers of words; the kind is not "state"'
    if not all(isfinite(number) for number in point.states.values()):
        yield "states are numbers: neither inf nor nan can be counted or compared"
    if (point.decimals or point.digits is not None) and not is_counter:
        yield 'digits and decimals tell how a counter counts; the kind is not "counter"'
    if is_counter and counter_exponent(point) is None:
        yield "a counter has a unit and scale that make a power of ten, and no offset"
    if point.digits is not None and point.decimals >= point.digits:
        yield f"decimals, {point.decimals}, leave no digit of {point.digits} before the point"


def _repeats(points: Sequence[Point]) -> Iterator[str]:
    places = [channel_of(point) for point in points]
    for place in sorted({place for place in places if places.count(place) > 1}):
        yield f"point: {place.removeprefix('mqtt/')} is there twice; each place is one number"
    named = [(p.node, p.pipe, p.quantity) for p in points]
    for node, pipe, quantity in dict.fromkeys(name for name in named if named.count(name) > 1):
        words = " ".join(filter(None, (node.value if node else "", pipe, quantity)))
        yield f"point: {words} is there twice; take one, or give them nodes"
