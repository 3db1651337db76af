"""Numbers in the 16-bit words of Modbus: types, word orders, and both ways between them.

What a number means (unit, pipe, absent) is said by the map and stands in `decode`.
"""

import struct
from collections.abc import Sequence
from typing import Literal

WordType = Literal["int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]

# Big-endian codes of `struct`.
_CODES: dict[WordType, str] = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}


def width(kind: WordType) -> int:
    """How many words a number of this type takes."""
    return struct.calcsize(_CODES[kind]) // 2


def bits_of(words: Sequence[int], order: WordOrder) -> int:
    """The words in order ABCD as one unsigned integer: what absent marks are compared with."""
    return int.from_bytes(_ordered(words, order), "big")


def number_of(words: Sequence[int], kind: WordType, order: WordOrder) -> int | float:
    """The number in `words`.

    Raises:
        ValueError: it takes another count of words.
    """
    data = _ordered(words, order)
    if len(words) != width(kind):
        raise ValueError(f"words: {kind} takes {width(kind)} words, not {len(words)}")
    number: int | float = struct.unpack(_CODES[kind], data)[0]
    return number


def text_of(words: Sequence[int], order: WordOrder) -> str:
    """The letters, digits, dots and dashes that words hold, two characters each, in order."""
    is_swapped = order in ("BADC", "DCBA")
    data = b"".join(word.to_bytes(2, "little" if is_swapped else "big") for word in words)
    signs = data.decode("ascii", errors="ignore")
    return "".join(sign for sign in signs if sign.isalnum() or sign in ".-_")


def words_of(number: int | float, kind: WordType, order: WordOrder) -> tuple[int, ...]:
    """The words that say `number`.

    Raises:
        ValueError: the type cannot hold it.
    """
    try:
        data = struct.pack(_CODES[kind], number)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"words: {number!r} does not fit {kind}") from error
    plain = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
    # Each of the four orders undoes itself.
    ordered = _ordered(plain, order)
    return tuple(int.from_bytes(ordered[at : at + 2], "big") for at in range(0, len(ordered), 2))


def _ordered(words: Sequence[int], order: WordOrder) -> bytes:
    """Bytes from most to least significant; single words are big-endian by the standard."""
    if len(words) == 1:
        return words[0].to_bytes(2, "big")
    is_swapped = order in ("BADC", "DCBA")
    is_reversed = order in ("CDAB", "DCBA")
    row = reversed(words) if is_reversed else words
    return b"".join(word.to_bytes(2, "little" if is_swapped else "big") for word in row)
