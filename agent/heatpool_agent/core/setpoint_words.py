"""The words that a setpoint becomes, and what a device's setpoint block says when read back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from heatpool_agent.core.device_map import DeviceMap, Field, SetpointBlock
from heatpool_agent.core.words import number_of, width, words_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SetpointSeen:
    """What a device's setpoint block says: W, s, and whether it obeys from afar."""

    heat_rate_w: float
    watchdog_s: float
    is_remote: bool


def block_span(device: DeviceMap) -> tuple[int, int]:
    """First address on the wire and count of words of the block."""
    fields = _ordered(_block(device))
    base = 40001 if device.address_base == "modicon" else device.address_base
    return fields[0].address - base, sum(width(field.type) for field in fields)


def _ordered(block: SetpointBlock) -> list[Field]:
    return sorted((block.heat_rate, block.watchdog, block.mode), key=lambda field: field.address)


def _block(device: DeviceMap) -> SetpointBlock:
    if device.setpoint is None:
        raise ValueError(f"map {device.name}: has no setpoint block")
    return device.setpoint


def setpoint_words(
    device: DeviceMap, heat_rate_w: float | None, *, watchdog_s: int
) -> tuple[int, ...]:
    """The words of the block that asks for a heat rate, W, or releases (None).

    Raises:
        ValueError: the map has no block, or the number does not fit it.
    """
    block = _block(device)
    # Rounded down, so that what is asked never exceeds what was allowed.
    values = (
        (block.heat_rate, math.floor(heat_rate_w or 0)),
        (block.watchdog, 0 if heat_rate_w is None else watchdog_s),
        (block.mode, block.mode_local if heat_rate_w is None else block.mode_remote),
    )
    words: list[int] = []
    for field, number in sorted(values, key=lambda pair: pair[0].address):
        words += words_of(number, field.type, device.word_order)
    return tuple(words)


def setpoint_seen(device: DeviceMap, words: Sequence[int]) -> SetpointSeen:
    """What the block's words say.

    Raises:
        ValueError: the map has no block, or the words are not all of it.
    """
    block = _block(device)
    start = _ordered(block)[0].address

    def number(field: Field) -> float:
        at = field.address - start
        return number_of(words[at : at + width(field.type)], field.type, device.word_order)

    return SetpointSeen(
        heat_rate_w=number(block.heat_rate),
        watchdog_s=number(block.watchdog),
        is_remote=number(block.mode) == block.mode_remote,
    )
