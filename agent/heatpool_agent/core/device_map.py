"""A Modbus device as data: the file a maker's manual becomes, its mistakes, its requests.

The file is read by the drivers (`sensors/maps/*.toml` or a path); supply and return appear in its
comments only, each temperature says `pipe = "hot"` or `"cold"`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Literal

import msgspec

from heatpool.units import UNITS
from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.core.words import WordOrder, WordType, width

# A response carries at most 250 bytes of words (Modbus Application Protocol V1.1b3, 6.3).
MAX_WORDS = 125
# Reading eight words more costs 16 bytes; another request costs a round trip.
MAX_HOLE = 8
# How manuals count: from 0 as on the wire, from 1, or 30001 and 40001 ("modicon").
MODICON = {4: 30001, 3: 40001}
METER_NUMBER = "meter_number"
# A factor or a distance beyond is a slip of the pen, as infinity is: no unit differs by so much.
MOST = 1e30

Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Stem = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")]


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number of the device: `(raw * scale + offset)` in `unit`, or bits with names.

    The name of the reading is `quantity` and the suffix of the unit, `volume_flow` in m3/h gives
    `volume_flow_m3_h`; a `temperature` is named after its pipe, `hot_c` or `cold_c`.
    `absent` lists what the device sends for "no value", as unsigned words joined in order ABCD.
    `u` is the standard uncertainty in `unit`. `circuit` names the side of an exchanger that the
    point belongs to, `loop` a loop of the site by its id (in a map of one's own only).
    The quantity `meter_number` is the number on the plate; it names the counters beside it. Where
    it is text, `text_words` words of type uint16 hold two characters each.
    """

    quantity: Stem
    function: Literal[3, 4]
    address: Annotated[int, msgspec.Meta(ge=0)]
    type: WordType
    word_order: WordOrder | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    absent: tuple[int, ...] = ()
    kind: ReadingKind = ReadingKind.GAUGE
    pipe: Literal["hot", "cold"] | None = None
    node: Node | None = None
    digits: Annotated[int, msgspec.Meta(ge=1, le=18)] | None = None
    u: Annotated[float, msgspec.Meta(gt=0)] | None = None
    bits: dict[str, Annotated[int, msgspec.Meta(ge=0, le=15)]] = {}
    circuit: Literal["primary", "secondary"] | None = None
    loop: str = ""
    sensor_side: Literal["hot", "cold"] | None = None
    text_words: Annotated[int, msgspec.Meta(ge=1, le=32)] | None = None


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One number of the setpoint block, in the unit that the device counts in."""

    address: Word
    type: WordType


class SetpointBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Holding words that take a heat rate in W, a watchdog in s and a mode; written at once."""

    heat_rate: Field
    watchdog: Field
    mode: Field
    mode_local: Word = 0
    mode_remote: Word = 1


class DeviceMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is known of one device model.

    `source` is the document behind the map: title, edition and page, or the address of a published
    list. `absent` marks "no value" for every point of a type. `torn` says which numbers of several
    words are read until two readings fit together: counters, every one, or none.
    """

    name: str
    point: tuple[Point, ...]
    source: str = ""
    absent: dict[WordType, tuple[int, ...]] = {}
    torn: Literal["counters", "reread", "never"] = "counters"
    setpoint: SetpointBlock | None = None
    address_base: Literal[0, 1, "modicon"] = 0
    word_order: WordOrder = "ABCD"
    holes: Literal["bridged", "forbidden"] = "bridged"
    max_words: Annotated[int, msgspec.Meta(ge=4, le=MAX_WORDS)] = MAX_WORDS
    pause_ms: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    sensor_side: Literal["hot", "cold", "unknown"] = "unknown"
    node: Node = Node.CDU
    verified: Literal["manual", "sim", "bench", "field"] = "manual"


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """Neighbouring words that one request reads; `address` as on the wire."""

    function: int
    address: int
    count: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.count


def is_meter_number(point: Point) -> bool:
    """Whether the point is no figure but the number on the device's plate."""
    return point.quantity == METER_NUMBER


def absent_marks(point: Point, device: DeviceMap) -> tuple[int, ...]:
    """What stands for "no value" here: the point's own marks and those of its type."""
    return (*point.absent, *device.absent.get(point.type, ()))


def span(point: Point, device: DeviceMap) -> Block:
    """The words of one point."""
    count = point.text_words or width(point.type)
    return Block(point.function, wire_address(point, device), count)


def holds(block: Block, point: Point, device: DeviceMap) -> bool:
    """Whether one answer to `block` carries the whole point."""
    own = span(point, device)
    is_inside = block.address <= own.address and own.end <= block.end
    return own.function == block.function and is_inside


def within(block: Block, points: Iterable[Point], device: DeviceMap) -> Block | None:
    """The part of a block from the first to the last of the points in it; None if none is."""
    inside = [span(point, device) for point in points if holds(block, point, device)]
    if not inside:
        return None
    start, end = min(own.address for own in inside), max(own.end for own in inside)
    return Block(block.function, start, end - start)


def wire_address(point: Point, device: DeviceMap) -> int:
    """The 0-based address that travels, whatever the manual counts from."""
    if device.address_base == "modicon":
        return point.address - MODICON[point.function]
    return point.address - device.address_base


def requests(
    device: DeviceMap, *, max_hole: int = MAX_HOLE, points: Iterable[Point] | None = None
) -> tuple[Block, ...]:
    """The fewest requests that read every point, or those given; none cuts a number in two."""
    hole = 0 if device.holes == "forbidden" else max_hole
    blocks: list[Block] = []
    for own in sorted(span(p, device) for p in (device.point if points is None else points)):
        last = blocks[-1] if blocks else None
        if last and _joins(last, own, hole=hole, limit=device.max_words):
            blocks[-1] = Block(own.function, last.address, own.end - last.address)
        else:
            blocks.append(own)
    return tuple(blocks)


def _joins(last: Block, own: Block, *, hole: int, limit: int) -> bool:
    is_near = last.function == own.function and own.address - last.end <= hole
    return is_near and own.end - last.address <= limit


def pieces(block: Block, device: DeviceMap) -> tuple[Block, ...]:
    """What to ask instead of a block that the device refused: smaller ones, or nothing is left.

    Without the bridged holes first; a block without holes is halved between two points.
    """
    inside = sorted((p for p in device.point if holds(block, p, device)), key=_place(device))
    tight = requests(device, max_hole=0, points=inside)
    if len(inside) < 2 or tight != (block,):
        return tight if tight != (block,) else ()
    middle = len(inside) // 2
    halves = (inside[:middle], inside[middle:])
    return tuple(piece for half in halves for piece in requests(device, max_hole=0, points=half))


def _place(device: DeviceMap) -> Callable[[Point], Block]:
    return lambda point: span(point, device)


def mistakes(device: DeviceMap) -> tuple[str, ...]:
    """Everything in a map that no device can be read with; empty if all is well."""
    found = [] if device.point or device.setpoint else ["point: is missing, list at least one"]
    for index, point in enumerate(device.point):
        found += [f"point[{index}] ({point.quantity}): {text}" for text in _flaws(point, device)]
    return (*found, *_overlaps(device), *_repeats(device), *_block_flaws(device.setpoint))


def _flaws(point: Point, device: DeviceMap) -> Iterator[str]:
    count = width(point.type)
    if not 0 <= wire_address(point, device) <= 0x10000 - span(point, device).count:
        yield f"address {point.address} is outside the device; check address_base"
    if point.unit and point.unit not in UNITS:
        yield f"unit {point.unit!r} is not known; known: {', '.join(UNITS)}"
    if (point.quantity == "temperature") != (point.pipe is not None):
        yield 'a temperature of a pipe needs quantity "temperature" and pipe "hot" or "cold"'
    if point.pipe and point.unit not in ("degC", "°C"):
        yield f"a pipe's temperature is in degC, not {point.unit!r}"
    if point.bits and point.type != "uint16":
        yield f"bits are named in a uint16, not in {point.type}"
    if any(not 0 <= mark < 1 << 16 * count for mark in absent_marks(point, device)):
        yield f"an absent mark does not fit {point.type}; write it unsigned"
    if point.scale == 0:
        yield "scale is 0: every value would be the offset"
    for key, told in (("scale", point.scale), ("offset", point.offset), ("u", point.u or 0.0)):
        if not abs(told) <= MOST:
            yield f"{key} is {told:g}, beyond every measurement"
            return
    if point.kind is ReadingKind.COUNTER and counter_exponent(point) is None:
        yield "a counter is an integer with a scale that is a power of ten, and no offset"
    if point.circuit and point.loop:
        yield "circuit and loop both say where the point belongs; take one"
    yield from _digit_flaws(point)
    yield from _number_flaws(point, device)


def _digit_flaws(point: Point) -> Iterator[str]:
    if point.digits is None:
        return
    if point.kind is not ReadingKind.COUNTER:
        yield 'digits tell where a counter starts again; the kind is not "counter"'
    elif 10**point.digits > 1 << 16 * width(point.type):
        yield f"{point.digits} digits do not fit {point.type}"


def _number_flaws(point: Point, device: DeviceMap) -> Iterator[str]:
    if not is_meter_number(point):
        if point.text_words:
            yield "text_words is for a meter_number; every other point is a number"
        return
    if point.text_words and point.text_words > device.max_words:
        yield f"{point.text_words} words of text are more than max_words, {device.max_words}"
    if point.text_words and point.type != "uint16":
        yield f"text comes in uint16, not in {point.type}"
    is_plain = (point.scale, point.offset, point.unit) == (1.0, 0.0, "") and not point.bits
    if not is_plain or point.type.startswith("float") or point.kind is not ReadingKind.GAUGE:
        yield "a meter number is a whole number without unit, scale, offset, bits or kind"


def billing_flaws(device: DeviceMap, *, meter_id: str) -> list[str]:
    """Why a device cannot be billed by: one register of energy, and the name of the meter."""
    registers = [
        p for p in device.point if p.kind is ReadingKind.COUNTER and p.quantity == "energy"
    ]
    found = []
    if len(registers) != 1:
        found.append(
            f'map: billing needs one counter "energy"; {device.name} has {len(registers) or "none"}'
        )
    if not meter_id and not any(is_meter_number(point) for point in device.point):
        found.append(f"meter_id: is missing; {device.name} does not tell the number of its meter")
    return found


def counter_exponent(point: Point) -> int | None:
    """The power of ten from a counter's raw count to its unit; None if it is not one."""
    if point.offset or point.type.startswith("float") or point.unit not in UNITS:
        return None
    factor = Fraction(repr(point.scale)) * UNITS[point.unit].factor
    powers = (n for n in range(-12, 13) if factor == Fraction(10) ** n)
    return next(powers, None)


def _overlaps(device: DeviceMap) -> Iterator[str]:
    for own, other in pairwise(sorted(span(point, device) for point in device.point)):
        if own.function == other.function and other.address < own.end:
            yield (
                f"point: words from {own.address} and from {other.address} of function "
                f"{own.function} overlap; each word belongs to one point"
            )


def _repeats(device: DeviceMap) -> Iterator[str]:
    named = [
        f"{p.circuit or p.loop} {p.node.value if p.node else ''} {p.pipe or ''} {p.quantity}"
        for p in device.point
    ]
    for name in sorted({name for name in named if named.count(name) > 1}):
        yield f"point: {' '.join(name.split())} is there twice; take one unit or scale of it"


def _block_flaws(block: SetpointBlock | None) -> Iterator[str]:
    if block is None:
        return
    fields = sorted((block.heat_rate, block.watchdog, block.mode), key=lambda field: field.address)
    for field, after in pairwise(fields):
        if field.address + width(field.type) != after.address:
            yield f"setpoint: the words around {after.address} do not join; one request writes all"
    if block.mode_local == block.mode_remote:
        yield "setpoint: mode_local and mode_remote are equal"
