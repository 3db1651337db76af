"""Numbers of several words that a device changes while it answers: which readings fit together.

A device may fill the upper word before and the lower word after a step of the number, so that one
answer holds halves of two. The number is asked for again; two looks that fit settle it.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from heatpool_agent.core.device_map import (
    Block,
    DeviceMap,
    Point,
    is_meter_number,
    span,
    within,
)
from heatpool_agent.core.reading import ReadingKind
from heatpool_agent.core.words import bits_of, number_of, width

# A torn number is wrong by whole words, 65536 counts; a slow counter moves less between two looks.
_STEP_COUNT = 1 << 15
# The third look may be as far from the second as four times the second from the first.
_PACE = 4
MOST_LOOKS = 3


def guarded(device: DeviceMap) -> tuple[Point, ...]:
    """The points of several words that are looked at more than once."""
    if device.torn == "never":
        return ()
    return tuple(
        point
        for point in device.point
        if width(point.type) > 1
        and not is_meter_number(point)
        and (device.torn == "reread" or point.kind is ReadingKind.COUNTER)
    )


def is_settled(point: Point, device: DeviceMap, looks: Sequence[Sequence[int]]) -> bool:
    """Whether the last look, words as they came, may be taken for whole.

    A counter fits an earlier look if it stands still or rises by less than half a word, or, being
    a quick one, if it rises evenly. A gauge fits if all but its lowest word is the same.
    """
    order = point.word_order or device.word_order
    if point.kind is ReadingKind.COUNTER:
        return _rises([number_of(words, point.type, order) for words in looks])
    *before, last = (bits_of(words, order) >> 16 for words in looks)
    return last in before


def _rises(counts: Sequence[float]) -> bool:
    *before, last = counts
    if any(0 <= last - count < _STEP_COUNT for count in before):
        return True
    steps = [after - count for count, after in pairwise(counts)]
    return len(steps) > 1 and steps[-2] > 0 and 0 <= steps[-1] <= _PACE * steps[-2]


def words_at(
    point: Point, device: DeviceMap, answers: Mapping[Block, Sequence[int]]
) -> Sequence[int] | None:
    """The words of a point among the answers; None if none carries it whole."""
    own = span(point, device)
    for block, words in answers.items():
        is_inside = block.address <= own.address and own.end <= block.end
        if block.function == own.function and is_inside:
            return words[own.address - block.address : own.end - block.address]
    return None


class Looks:
    """One pass over a device: the first answers, second looks, and what they leave."""

    def __init__(
        self, device: DeviceMap, watched: Sequence[Point], answers: Mapping[Block, Sequence[int]]
    ) -> None:
        self._device = device
        self._seen = {
            span(point, device): [words]
            for point in device.point
            if (words := words_at(point, device, answers)) is not None
        }
        self.unsettled = tuple(point for point in watched if span(point, device) in self._seen)

    def blocks(self, plan: Sequence[Block]) -> tuple[Block, ...]:
        """What to ask again: the unsettled points, inside blocks that the device answers."""
        parts = (within(block, self.unsettled, self._device) for block in plan)
        return tuple(part for part in parts if part is not None)

    def look(self, answers: Mapping[Block, Sequence[int]]) -> None:
        """Takes further answers in."""
        left = []
        for point in self.unsettled:
            looks = self._seen[span(point, self._device)]
            words = words_at(point, self._device, answers)
            looks += [] if words is None else [words]
            if len(looks) < 2 or not is_settled(point, self._device, looks):
                left.append(point)
        self.unsettled = tuple(left)

    def answers(self) -> dict[Block, Sequence[int]]:
        """The last words of every point that is settled or needs not be."""
        left = {span(point, self._device) for point in self.unsettled}
        return {own: looks[-1] for own, looks in self._seen.items() if own not in left}
