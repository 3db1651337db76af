"""What devices say, in our words and units: Modbus words through a map, telegrams through a view.

Here alone supply and return become hot and cold, told by the map's `pipe` or the meter's medium.
Numbers out of words are `words`, maps are `device_map`, telegrams are `mbus`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from heatpool.units import UNITS
from heatpool_agent.core.device_map import (
    Block,
    DeviceMap,
    Point,
    absent_marks,
    counter_exponent,
    is_meter_number,
    span,
    wire_address,
)
from heatpool_agent.core.mbus import HeatView
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.words import bits_of, number_of, text_of, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Which sensor read, of which loop, and when."""

    sensor: str
    loop: str
    event_ns: int
    boot_ns: int


def quantity_of(point: Point) -> str:
    """The name of a point's reading, unit included."""
    if point.pipe:
        return f"{point.pipe}_c"
    return point.quantity + (UNITS[point.unit].suffix if point.unit else "")


def map_readings(
    device: DeviceMap,
    answers: Mapping[Block, Sequence[int]],
    stamp: Stamp,
    *,
    meter_id: str = "",
    primary_loop: str = "",
) -> tuple[Reading, ...]:
    """One reading per point that was answered and is not marked absent; bits come after them.

    `meter_id` names the meter where it has no number of its own; a meter that should tell it and
    did not has no counters this time: nobody knows whose they are. `primary_loop` is the loop
    of the points on an exchanger's primary side.
    """
    seen = _seen(device, answers)
    # Once its plate answers, the settings' name would be another meter: an exchange that never was.
    is_told = any(is_meter_number(point) for point, _ in seen)
    number = _meter_number(device, seen) if is_told else meter_id
    is_nameless = not number and any(is_meter_number(point) for point in device.point)
    readings: list[Reading] = []
    for point, words in seen:
        is_figure = not is_meter_number(point)
        if is_figure and not (is_nameless and point.kind is ReadingKind.COUNTER):
            readings += _point_readings(point, device, words, stamp, primary_loop=primary_loop)
    if not number:
        return tuple(readings)
    return tuple(replace(reading, meter_id=number, generation=number) for reading in readings)


def _seen(
    device: DeviceMap, answers: Mapping[Block, Sequence[int]]
) -> list[tuple[Point, Sequence[int]]]:
    """Each point whose every word was answered, with its words."""
    words = {
        (block.function, block.address + offset): word
        for block, answer in answers.items()
        for offset, word in enumerate(answer)
    }
    seen: list[tuple[Point, Sequence[int]]] = []
    for point in device.point:
        own = span(point, device)
        cells = [(own.function, address) for address in range(own.address, own.end)]
        if all(cell in words for cell in cells):
            seen.append((point, [words[cell] for cell in cells]))
    return seen


def _meter_number(device: DeviceMap, seen: Sequence[tuple[Point, Sequence[int]]]) -> str:
    """The number that the device tells of itself; empty if it tells none, or 0."""
    for point, words in seen:
        if not is_meter_number(point):
            continue
        order = point.word_order or device.word_order
        if point.text_words:
            return text_of(words, order)
        if bits_of(words, order) not in absent_marks(point, device):
            number = number_of(words, point.type, order)
            return str(number) if number > 0 else ""
    return ""


def _point_readings(
    point: Point, device: DeviceMap, words: Sequence[int], stamp: Stamp, *, primary_loop: str
) -> Iterator[Reading]:
    order = point.word_order or device.word_order
    number = number_of(words, point.type, order)
    if bits_of(words, order) in absent_marks(point, device) or not math.isfinite(number):
        return
    value = _in_unit(number, point)
    if not math.isfinite(value):
        return
    is_counter = point.kind is ReadingKind.COUNTER
    side = point.sensor_side or device.sensor_side
    reading = Reading(
        sensor=stamp.sensor,
        channel=f"words/{point.function}/{wire_address(point, device)}",
        quantity=quantity_of(point),
        kind=ReadingKind.STATE if point.bits else point.kind,
        value=value,
        event_ns=stamp.event_ns,
        boot_ns=stamp.boot_ns,
        node=point.node or device.node,
        u=_u_in_unit(point),
        loop=point.loop or (primary_loop if point.circuit == "primary" else stamp.loop),
        flags=("map_unverified",) if device.verified == "manual" else (),
        raw=int(number) if is_counter else None,
        exponent=(counter_exponent(point) or 0) if is_counter else 0,
        modulus=_modulus(point) if is_counter else None,
        sensor_side="" if side == "unknown" else side,
        status_bits=int(number) if point.bits else 0,
    )
    yield reading
    yield from _bit_readings(reading, point)


def _bit_readings(word: Reading, point: Point) -> Iterator[Reading]:
    for name, bit in point.bits.items():
        yield Reading(
            sensor=word.sensor,
            channel=f"{word.channel}.{bit}",
            quantity=name,
            kind=ReadingKind.STATE,
            value=float(word.status_bits >> bit & 1),
            event_ns=word.event_ns,
            boot_ns=word.boot_ns,
            node=word.node,
            loop=word.loop,
            flags=word.flags,
        )


def _in_unit(number: int | float, point: Point) -> float:
    """The number in the unit of its suffix, rounded once: 235 x 0.1 % is 0.235, not nearly."""
    numerator, denominator, offset = _conversion(point.scale, point.offset, point.unit)
    try:
        return number * numerator / denominator + offset
    except OverflowError:  # an absurd float times a large scale is beyond every float
        return math.inf


@lru_cache(maxsize=1024)  # exact fractions cost more than all the rest of a reading
def _conversion(scale: float, offset: float, unit: str) -> tuple[int, int, float]:
    factor = UNITS[unit].factor if unit else Fraction(1)
    step = Fraction(repr(scale)) * factor
    return step.numerator, step.denominator, float(Fraction(offset) * factor)


def _u_in_unit(point: Point) -> float | None:
    """The map's standard uncertainty in the unit of the reading's suffix."""
    if point.u is None or not point.unit:
        return point.u
    return float(Fraction(point.u) * UNITS[point.unit].factor)


def _modulus(point: Point) -> int | None:
    """Where the raw count starts again: after its digits, or where its unsigned words are full."""
    if point.digits is not None:
        return int(10**point.digits)
    return 1 << 16 * width(point.type) if point.type.startswith("u") else None


def heat_readings(view: HeatView, stamp: Stamp) -> tuple[Reading, ...]:
    """What a heat meter says now, each figure that is there; channels begin with `meter/`."""
    figures = {
        "delivered_heat_w": view.heat_rate_w,
        "volume_flow_m3_h": view.volume_flow_m3_h,
        "hot_c": view.hot_c,
        "cold_c": view.cold_c,
    }
    gauges = [
        _meter_reading(quantity, value, ReadingKind.GAUGE, view=view, stamp=stamp)
        for quantity, value in figures.items()
        if value is not None
    ]
    return (*_registers(view, stamp), *gauges)


def _registers(view: HeatView, stamp: Stamp) -> Iterator[Reading]:
    if view.energy_wh is not None and view.energy_wh >= 0:
        energy = _meter_reading(
            "energy_wh", view.energy_wh, ReadingKind.COUNTER, view=view, stamp=stamp
        )
        yield replace(energy, **_count(view))
    if view.volume_m3 is not None:
        yield _meter_reading(
            "volume_m3", view.volume_m3, ReadingKind.COUNTER, view=view, stamp=stamp
        )


def _count(view: HeatView) -> dict[str, Any]:
    """Raw count of the energy register; one in J has no count in Wh but its whole Wh."""
    is_wh = view.energy_unit == "Wh"
    if not is_wh or view.energy_raw is None or view.energy_exponent is None:
        return {"raw": view.energy_wh, "exponent": 0, "modulus": None}
    digits = view.energy_digits
    return {
        "raw": view.energy_raw,
        "exponent": view.energy_exponent,
        "modulus": None if digits is None else 10**digits,
    }


def _meter_reading(
    quantity: str, value: float, kind: ReadingKind, *, view: HeatView, stamp: Stamp
) -> Reading:
    return Reading(
        sensor=stamp.sensor,
        channel=f"meter/{quantity}",
        quantity=quantity,
        kind=kind,
        value=float(value),
        event_ns=stamp.event_ns,
        boot_ns=stamp.boot_ns,
        node=Node.HEAT_METER,
        loop=stamp.loop,
        flags=view.flags,
        generation=view.meter_id,
        meter_id=view.meter_id,
        sensor_side=view.sensor_side or "",
        status_bits=view.status,
    )
