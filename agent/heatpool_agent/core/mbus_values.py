"""The value bytes of one M-Bus record: integers, BCD, reals, text, dates. No units here.

Source: EN 13757-3, annex of data types A to M.
"""

import datetime
import math
import struct
from dataclasses import dataclass
from typing import Literal

Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Datum:
    """What the bytes say: `number` is None where they say "no value", `qualifier` why."""

    number: int | float | str | None
    raw: int | None = None
    digits: int | None = None
    qualifier: str = ""


def text_of(chunk: bytes, order: Order) -> str:
    """Latin-1 text; the first mode sends the last character first."""
    return (chunk[::-1] if order == "little" else chunk).decode("latin-1")


def datum(
    chunk: bytes, *, form: str, order: Order, is_bits: bool = False, is_moment: bool = False
) -> Datum:
    """The value of `chunk`, coded as `form`; integers may be bit fields or moments."""
    if not chunk:
        return Datum(number="" if form == "text" else None)
    if is_moment and form == "integer":
        return _moment(int.from_bytes(chunk, order), len(chunk))
    if form == "integer":
        return _integer(chunk, is_signed=not is_bits, order=order)
    if form == "text":
        return Datum(number=text_of(chunk, order))
    if form == "real":
        number: float = struct.unpack("<f" if order == "little" else ">f", chunk)[0]
        is_finite = math.isfinite(number)
        return Datum(number=number if is_finite else None, qualifier="" if is_finite else "invalid")
    return _bcd(chunk, is_negative=form == "negative_bcd", order=order)


def _integer(chunk: bytes, *, is_signed: bool, order: Order) -> Datum:
    raw = int.from_bytes(chunk, order, signed=is_signed)
    # The most negative number is how a meter says "no value" (EN 13757-3, type B).
    if is_signed and raw == -(1 << (8 * len(chunk) - 1)):
        return Datum(number=None, raw=raw, qualifier="invalid")
    return Datum(number=raw, raw=raw)


def _bcd(chunk: bytes, *, is_negative: bool, order: Order) -> Datum:
    """Decimal digits; F in the first place is a minus, any other letter an error display."""
    text = (chunk[::-1] if order == "little" else chunk).hex()
    digits = 2 * len(chunk)
    if text[0] == "f":
        text, is_negative, digits = text[1:], not is_negative, digits - 1
    if not text.isdigit():
        return Datum(number=None, digits=digits, qualifier="invalid")
    raw = -int(text) if is_negative else int(text)
    return Datum(number=raw, raw=raw, digits=digits)


def _moment(bits: int, size: int) -> Datum:
    """A date (2 bytes), time (3), date and time (4, 6) as ISO text of the meter's own clock."""
    if size == 2:
        text = _date(bits)
    elif size == 3:
        text = _clock(hour=bits >> 16 & 0x1F, minute=bits >> 8 & 0x3F, second=bits & 0x3F)
    elif size == 4:
        text = _minute_text(bits)
    elif size == 6:
        text = _second_text(bits)
    else:
        text = None
    if text is None:
        return Datum(number=None, raw=bits, qualifier="invalid")
    is_summer = (size == 4 and bits & 0x8000) or (size == 6 and bits & 0x40)
    return Datum(number=text, raw=bits, qualifier="summer_time" if is_summer else "")


def _minute_text(bits: int) -> str | None:
    day = _date(bits >> 16, century=bits >> 13 & 0x03)
    clock = _clock(hour=bits >> 8 & 0x1F, minute=bits & 0x3F, second=0)
    return f"{day}T{clock}" if day and clock and not bits & 0x80 else None


def _second_text(bits: int) -> str | None:
    day = _date(bits >> 24)
    clock = _clock(hour=bits >> 16 & 0x1F, minute=bits >> 8 & 0x3F, second=bits & 0x3F)
    return f"{day}T{clock}" if day and clock and not bits & 0x8000 else None


def _date(bits: int, *, century: int = 0) -> str | None:
    """ISO date of 16 bits; two-digit years up to 80 are 20xx unless the century is told."""
    year = bits >> 5 & 0x07 | bits >> 9 & 0x78
    if year > 99:
        return None
    year += 1900 + 100 * century if century or year > 80 else 2000
    try:
        return datetime.date(year, bits >> 8 & 0x0F, bits & 0x1F).isoformat()
    except ValueError:
        return None


def _clock(*, hour: int, minute: int, second: int) -> str | None:
    if hour > 23 or minute > 59 or second > 59:
        return None
    return f"{hour:02d}:{minute:02d}:{second:02d}"
