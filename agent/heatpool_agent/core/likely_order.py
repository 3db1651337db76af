"""Which word order a device speaks, guessed from answers that make no sense in the map's own.

Wrong order shows as absurd magnitude: 21.5 degC read the wrong way is 1e-19 or 3e+31.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import get_args

from heatpool.units import UNITS
from heatpool_agent.core.device_map import (
    Block,
    DeviceMap,
    Point,
    absent_marks,
    is_meter_number,
)
from heatpool_agent.core.torn import words_at
from heatpool_agent.core.words import WordOrder, bits_of, number_of, width

# Beyond these no site of ours has anything; below the last line a float is a wrong float.
_MOST = {
    "_c": 500.0,
    "_k": 500.0,
    "_w": 1e9,
    "_wh": 1e14,
    "_m3_h": 1e5,
    "_m3": 1e9,
    "_kg_s": 1e5,
    "_bar": 1e3,
    "_v": 1e6,
    "_a": 1e5,
    "_frac": 10.0,
    "_s": 1e10,
}
_MOST_OTHER = 1e12
_LEAST_FLOAT = 1e-9


def likely_word_order(
    device: DeviceMap, answers: Mapping[Block, Sequence[int]]
) -> WordOrder | None:
    """The order in which fewer values are absurd than in the map's own; None if there is none.

    Only points of several words that have no order of their own say anything. Of equally good
    orders the more common one is told: a suggestion for a person, never taken by itself.
    """
    seen = [
        (point, words)
        for point in device.point
        if width(point.type) > 1 and not point.word_order and not is_meter_number(point)
        if (words := words_at(point, device, answers)) is not None
    ]
    orders: tuple[WordOrder, ...] = get_args(WordOrder)
    absurd = {order: sum(_absurdities(seen, device, order)) for order in orders}
    best = min(orders, key=lambda order: absurd[order])
    return best if absurd[best] < absurd[device.word_order] else None


def _absurdities(
    seen: Sequence[tuple[Point, Sequence[int]]], device: DeviceMap, order: WordOrder
) -> Iterator[bool]:
    for point, words in seen:
        # An absent mark reads the same in every order that sets all its bits, and says nothing.
        if bits_of(words, order) not in absent_marks(point, device):
            yield _is_absurd(point, float(number_of(words, point.type, order)))


def _is_absurd(point: Point, number: float) -> bool:
    unit = UNITS.get(point.unit)
    factor = float(Fraction(repr(point.scale)) * (unit.factor if unit else 1))
    value = number * factor
    most = _MOST.get(unit.suffix, _MOST_OTHER) if unit else _MOST_OTHER
    is_tiny = point.type.startswith("float") and 0 < abs(number) < _LEAST_FLOAT
    return not math.isfinite(value) or abs(value) > most or is_tiny
