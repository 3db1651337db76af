"""From the bytes of one M-Bus record to its value: DIF and VIF chains, numbers, text, dates.

Offsets are positions in the whole frame, so that a refusal points at the byte. `order` is the
byte order of the telegram's mode: "little" for CI 72, 7A and 78, "big" for CI 76.

Source: EN 13757-3, clauses on the variable data structure, and its annex of data types.
"""

from dataclasses import dataclass, replace
from typing import Literal

from heatpool.errors import WireError
from heatpool_agent.core.mbus_units import (
    EXTENSION_FB,
    EXTENSION_FD,
    MANUFACTURER,
    PRIMARY,
    QUALIFIERS,
    RECORD_ERRORS,
    UNKNOWN,
    Meaning,
    power_of_ten,
)
from heatpool_agent.core.mbus_values import Datum, Order, datum, text_of

Function = Literal["instantaneous", "maximum", "minimum", "error"]
FUNCTIONS: tuple[Function, ...] = ("instantaneous", "maximum", "minimum", "error")

_REFUSED = frozenset(RECORD_ERRORS.values())

MAX_EXTENSIONS = 10  # DIFE or VIFE of one record, by the standard
MAX_TEXT = 0xBF  # the longest text a length byte can announce
FILLER = 0x2F

# Data field of the DIF -> (form, bytes); variable length reads its own.
_FIELDS: tuple[tuple[str, int], ...] = (
    ("none", 0),
    ("integer", 1),
    ("integer", 2),
    ("integer", 3),
    ("integer", 4),
    ("real", 4),
    ("integer", 6),
    ("integer", 8),
    ("none", 0),
    ("bcd", 1),
    ("bcd", 2),
    ("bcd", 3),
    ("bcd", 4),
    ("variable", 0),
    ("bcd", 6),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One value of a telegram, in the unit its name ends with.

    `raw` is the integer as sent, `digits` its width where it was BCD, and `exponent` the power
    of ten from raw to `unit`, None where the unit is converted by another factor. `value` is
    None where the device marks it as invalid. A record with `qualifiers` is not the plain
    quantity: it is a flow backwards, a value per hour, the date of a maximum.
    """

    storage: int
    tariff: int
    subunit: int
    function: Function
    quantity: str
    unit: str
    value: int | float | str | None
    raw: int | None
    exponent: int | None
    digits: int | None
    qualifiers: tuple[str, ...]


def record_at(frame: bytes, at: int, *, end: int, order: Order) -> tuple[Record, int]:
    """The record that starts at `at`, and the position after it.

    Raises: WireError if it does not end before `end` or is coded against the standard.
    """
    dif = frame[at]
    storage, tariff, subunit, at = _address(frame, at, end=end)
    meaning, qualifiers, at = _meaning(frame, at, end=end, order=order)
    form, size, at = _form(frame, dif, at, end=end)
    found = _datum(frame[at : at + size], form, meaning, order)
    if found.qualifier:
        qualifiers = (*qualifiers, found.qualifier)
    record = Record(
        storage=storage,
        tariff=tariff,
        subunit=subunit,
        function=FUNCTIONS[(dif >> 4) & 0x03],
        quantity=meaning.quantity,
        unit=meaning.unit,
        value=_value(found, meaning, qualifiers),
        raw=found.raw,
        exponent=meaning.exponent if meaning.form == "number" and found.raw is not None else None,
        digits=found.digits,
        qualifiers=qualifiers,
    )
    return record, at + size


def value_place(frame: bytes, at: int, *, end: int, order: Order) -> tuple[str, bool, int, int]:
    """Quantity of the record at `at`, whether it is text, and where its value starts and ends.

    Raises: WireError as `record_at` does.
    """
    dif = frame[at]
    *_, at = _address(frame, at, end=end)
    meaning, _, at = _meaning(frame, at, end=end, order=order)
    form, size, at = _form(frame, dif, at, end=end)
    return meaning.quantity, form == "text", at, at + size


def manufacturer_record(data: bytes) -> Record:
    """The maker's own data after the last record, as hex text."""
    return Record(
        storage=0,
        tariff=0,
        subunit=0,
        function="instantaneous",
        quantity=MANUFACTURER.quantity,
        unit="",
        value=data.hex(" ").upper(),
        raw=None,
        exponent=None,
        digits=None,
        qualifiers=(),
    )


def counter_record(
    data: bytes, meaning: Meaning, *, is_binary: bool, order: Order, storage: int
) -> Record:
    """One of the two counters of the fixed data structure."""
    form = "integer" if is_binary else "bcd"
    found = _datum(data, form, meaning, order)
    qualifiers = (found.qualifier,) if found.qualifier else ()
    return Record(
        storage=storage,
        tariff=0,
        subunit=0,
        function="instantaneous",
        quantity=meaning.quantity,
        unit=meaning.unit,
        value=_value(found, meaning, qualifiers),
        raw=found.raw,
        exponent=None if found.raw is None else meaning.exponent,
        digits=found.digits,
        qualifiers=qualifiers,
    )


def _address(frame: bytes, at: int, *, end: int) -> tuple[int, int, int, int]:
    """Storage number, tariff, subunit, and the position after the DIF chain."""
    byte = frame[at]
    at += 1
    storage, tariff, subunit = (byte >> 6) & 0x01, 0, 0
    place = 0
    while byte & 0x80:
        if at >= end:
            raise WireError("telegram ends inside a DIF chain", offset=at)
        if place == MAX_EXTENSIONS:
            raise WireError("a record has more than 10 DIFEs", offset=at)
        byte = frame[at]
        storage |= (byte & 0x0F) << (1 + 4 * place)
        tariff |= ((byte >> 4) & 0x03) << (2 * place)
        subunit |= ((byte >> 6) & 0x01) << place
        place += 1
        at += 1
    return storage, tariff, subunit, at


def _meaning(
    frame: bytes, at: int, *, end: int, order: Order
) -> tuple[Meaning, tuple[str, ...], int]:
    """What the VIF chain says of the number, and the position after the chain."""
    if at >= end:
        raise WireError("telegram ends before a VIF", offset=at)
    vif = frame[at]
    at += 1
    if vif < 0x7C:
        return PRIMARY[vif], (), at
    meaning = PRIMARY[vif & 0x7F]
    if vif & 0x7F == 0x7C:
        text, at = _plain_text(frame, at, end=end, order=order)
        meaning = replace(meaning, unit=text)
    if not vif & 0x80:
        return (UNKNOWN if vif in (0x7B, 0x7D) else meaning), (), at
    codes, at = _extensions(frame, at, end=end)
    if vif == 0xFB:
        return _modified(EXTENSION_FB[codes[0]], codes[1:], at)
    if vif == 0xFD:
        return _modified(EXTENSION_FD[codes[0]], codes[1:], at)
    if vif == 0xFF:
        # What follows is the maker's own code: skipped, never interpreted.
        return meaning, (), at
    return _modified(meaning, codes, at)


def _extensions(frame: bytes, at: int, *, end: int) -> tuple[bytes, int]:
    """The VIFEs without their extension bits, at least one."""
    start = at
    while True:
        if at >= end:
            raise WireError("telegram ends inside a VIF chain", offset=at)
        if at - start == MAX_EXTENSIONS:
            raise WireError("a record has more than 10 VIFEs", offset=at)
        at += 1
        if not frame[at - 1] & 0x80:
            return bytes(byte & 0x7F for byte in frame[start:at]), at


def _plain_text(frame: bytes, at: int, *, end: int, order: Order) -> tuple[str, int]:
    if at >= end:
        raise WireError("telegram ends before the length of a plain-text unit", offset=at)
    size = frame[at]
    if size > MAX_TEXT:
        reason = f"a plain-text unit of {size} characters, at most {MAX_TEXT} are allowed"
        raise WireError(reason, offset=at)
    at += 1
    if at + size > end:
        reason = f"telegram ends inside a plain-text unit of {size} characters"
        raise WireError(reason, offset=at)
    return text_of(frame[at : at + size], order), at + size


def _modified(meaning: Meaning, codes: bytes, at: int) -> tuple[Meaning, tuple[str, ...], int]:
    """The meaning after its VIFEs: scaled, shifted, or qualified."""
    qualifiers: list[str] = []
    for code in codes:
        if 0x70 <= code <= 0x77:
            meaning = _scaled(meaning, code - 0x76)
        elif code == 0x7D:
            meaning = _scaled(meaning, 3)
        elif 0x78 <= code <= 0x7B:
            meaning = _shifted(meaning, code - 0x7B)
        elif code in (0x7C, 0x7F):
            # A further table, or the maker's: the rest of the chain is not for us to read.
            qualifiers.append("manufacturer_specific" if code == 0x7F else "vife_7c")
            break
        elif code:
            name = RECORD_ERRORS.get(code) if code < 0x20 else QUALIFIERS.get(code)
            qualifiers.append(name or f"vife_{code:02x}")
    return meaning, tuple(qualifiers), at


def _scaled(meaning: Meaning, exponent: int) -> Meaning:
    up, down = power_of_ten(exponent)
    if meaning.exponent is None:
        add = meaning.add * up
        return replace(meaning, up=meaning.up * up, add=add, down=meaning.down * down)
    total = meaning.exponent + exponent
    up, down = power_of_ten(total)
    return replace(meaning, exponent=total, up=up, down=down)


def _shifted(meaning: Meaning, exponent: int) -> Meaning:
    """Meaning plus 10**exponent of its own unit, in whole numbers over one divisor."""
    shift_up, shift_down = power_of_ten(exponent)
    return replace(
        meaning,
        exponent=None,
        up=meaning.up * shift_down,
        add=meaning.add * shift_down + shift_up * meaning.down,
        down=meaning.down * shift_down,
    )


def _form(frame: bytes, dif: int, at: int, *, end: int) -> tuple[str, int, int]:
    """How the value is coded, its bytes, and where it starts."""
    form, size = _FIELDS[dif & 0x0F]
    if form == "variable":
        form, size, at = _variable(frame, at, end=end)
    if at + size > end:
        reason = f"telegram ends inside a value of {size} bytes, {end - at} are left"
        raise WireError(reason, offset=at)
    return form, size, at


def _variable(frame: bytes, at: int, *, end: int) -> tuple[str, int, int]:
    """Form and size that the length byte of a variable value announces."""
    if at >= end:
        raise WireError("telegram ends before the length of a variable value", offset=at)
    length = frame[at]
    if length <= MAX_TEXT:
        return "text", length, at + 1
    if length < 0xE0:
        return ("bcd" if length < 0xD0 else "negative_bcd"), length & 0x0F, at + 1
    if length < 0xF0:
        return "integer", length - 0xE0, at + 1
    raise WireError(f"reserved length {length:02X} of a variable value", offset=at)


def _datum(chunk: bytes, form: str, meaning: Meaning, order: Order) -> Datum:
    return datum(
        chunk,
        form=form,
        order=order,
        is_bits=meaning.form == "bits",
        is_moment=meaning.form == "moment",
    )


def _value(found: Datum, meaning: Meaning, qualifiers: tuple[str, ...]) -> int | float | str | None:
    number = found.number
    if number is None or isinstance(number, str):
        return number
    if qualifiers and not _REFUSED.isdisjoint(qualifiers):
        return None
    if meaning.exponent == 0:
        return number
    counted = number * meaning.up + meaning.add
    return counted if meaning.down == 1 else counted / meaning.down
