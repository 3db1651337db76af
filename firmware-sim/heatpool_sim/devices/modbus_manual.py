"""A maker's Modbus manual in the simulator's own words, and the registers it fills.

The files in `modbus_models` are written from makers' documents, not from any reader's map: numbers
as printed, codings and digits as printed. What a register shows is a name of the plant with its
unit; a value of the plant goes in, words come out. No I/O but reading the files.
"""

import struct
from collections.abc import Mapping
from fractions import Fraction
from importlib.resources import as_file, files
from math import nan
from typing import Literal, TypeAlias

import msgspec

from heatpool.process import settings

Value: TypeAlias = int | float
Coding = Literal[
    "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FLOAT32", "FLOAT64"
]  # fmt: skip
# Big-endian codes of `struct`: Modbus sends the upper byte of a register first.
_CODES: dict[Coding, str] = {
    "INT16": ">h", "UINT16": ">H", "INT32": ">i", "UINT32": ">I",
    "INT64": ">q", "UINT64": ">Q", "FLOAT32": ">f", "FLOAT64": ">d",
}  # fmt: skip
# One printed unit in the plant's unit of that kind, and where its scale begins.
_UNITS: dict[str, tuple[Fraction, Fraction]] = {
    name: (Fraction(one), Fraction(zero))
    for name, one, zero in (
        ("", 1, 0), ("degC", 1, 0), ("degF", Fraction(5, 9), Fraction(-160, 9)),
        ("W", 1, 0), ("kW", 1000, 0), ("Wh", 1, 0), ("kWh", 1000, 0), ("m3", 1, 0),
        ("m3/h", 1, 0), ("l/h", Fraction(1, 1000), 0), ("l/min", Fraction(60, 1000), 0),
        ("l/s", Fraction(3600, 1000), 0), ("%", Fraction(1, 100), 0), ("Pa", Fraction(1, 10**5), 0),
    )
}  # fmt: skip
# What only ever grows is shown cut off, not rounded.
_CUT = ("_wh", "_m3")
_MANTISSA = {"FLOAT32": 24, "FLOAT64": 53}


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of the maker's list.

    `digit` is one count of the register, such as "0.1 l/min"; `missing` what the maker sends for a
    sensor that is not there, upper register first; `turns_over` the count that shows as 0 again.
    A register that shows `flags` has a bit for each name.
    """

    number: int
    shows: str
    coding: Coding
    digit: str = "1"
    missing: int | None = None
    turns_over: int | None = None
    flags: dict[str, int] = {}

    @property
    def length(self) -> int:
        """How many registers it takes."""
        return struct.calcsize(_CODES[self.coding]) // 2

    def resolution(self, value: Value) -> float:
        """One digit at this value, in the plant's unit."""
        one, _ = _unit(self.digit)
        steps = abs(Fraction(value)) / 2 ** (_MANTISSA.get(self.coding, 64) - 1)
        return float(steps if self.coding in _MANTISSA else one)


class Manual(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that the maker prints of one model; `place` is where in the plant it stands.

    `first_number` is how the first register is called. Where `numbers_count` bytes, a register
    takes two numbers.
    """

    maker: str
    model: str
    document: str
    table: Literal["input", "holding"]
    place: Literal["loop", "network", "wall"]
    register: tuple[Register, ...]
    first_number: int = 0
    numbers_count: Literal["registers", "bytes"] = "registers"
    words: Literal["high first", "low first"] = "high first"

    def wire(self, register: Register) -> int:
        """The address of its first register on the wire."""
        step = 2 if self.numbers_count == "bytes" else 1
        return (register.number - self.first_number) // step

    def span(self) -> tuple[int, int]:
        """The first address that the device has, and the one behind its last."""
        firsts = [(self.wire(row), row.length) for row in self.register]
        return min(at for at, _ in firsts), max(at + length for at, length in firsts)


def names() -> tuple[str, ...]:
    """The models on the shelf."""
    folder = files("heatpool_sim") / "devices" / "modbus_models"
    found = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def read_manual(name: str) -> Manual:
    """The manual of that model; blocking.

    Raises:
        ConfigError: there is none, or it has mistakes.
    """
    shelf = files("heatpool_sim") / "devices" / "modbus_models"
    with as_file(shelf / f"{name}.toml") as path:
        return settings.convert(settings.read_toml(path), Manual, file=str(path))


def filled(
    manual: Manual, values: Mapping[str, Value], *, faults: frozenset[str] = frozenset()
) -> dict[int, int]:
    """Words by address; what the plant does not have and the maker has no mark for is left out.

    Faults: `absent` (every sensor that can be missing is), `swapped_words` (the other register of
    a number first), `off_by_one` (each address shows its neighbour's word).
    """
    cells: dict[int, int] = {}
    for register in manual.register:
        is_missing = register.shows not in values and not register.flags
        if "absent" in faults and register.missing is not None:
            is_missing = True
        if is_missing and register.missing is None:
            continue
        data = _missing(register) if is_missing else _shown(register, values)
        words = list(struct.unpack(f">{register.length}H", data))
        if (manual.words == "low first") != ("swapped_words" in faults):
            words.reverse()
        cells |= enumerate(words, manual.wire(register))
    if "off_by_one" in faults:
        return {at + 1: word for at, word in cells.items()}
    return cells


def _missing(register: Register) -> bytes:
    return (register.missing or 0).to_bytes(2 * register.length, "big")


def _shown(register: Register, values: Mapping[str, Value]) -> bytes:
    code = _CODES[register.coding]
    if register.flags:
        on = sum(1 << bit for name, bit in register.flags.items() if values.get(name))
        return struct.pack(code, on)
    value = values[register.shows]
    if register.coding in _MANTISSA and value != value:
        return struct.pack(code, nan)
    one, zero = _unit(register.digit)
    counts = (Fraction(value) - zero) / one
    if register.coding in _MANTISSA:
        return struct.pack(code, float(counts))
    count = int(counts // 1) if register.shows.endswith(_CUT) else round(counts)
    return struct.pack(code, count % register.turns_over if register.turns_over else count)


def _unit(digit: str) -> tuple[Fraction, Fraction]:
    """One count in the plant's unit, and the value at count 0."""
    number, _, unit = digit.partition(" ")
    one, zero = _UNITS[unit]
    return Fraction(number) * one, zero
