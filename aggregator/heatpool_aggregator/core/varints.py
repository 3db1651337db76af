"""Numbers as protobuf writes them, many at once: 7 bits a byte, least significant first.

Bytes of a great many messages lie end to end in one array; loops run over the length of a number,
never over numbers.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Values = NDArray[np.uint64]

LAST_BIT = 0x80  # set in every byte of a number but its last
LENGTH_LIMIT = 10

_WORD = 8
_STOPS = np.uint64(0x8080808080808080)
# Eight 7-bit groups become four of 14 bits, two of 28, one of 56: mask of the low ones, shift.
_FOLDS = tuple(
    (np.uint64(low), np.uint64(low << bits), np.uint64(shift))
    for low, bits, shift in (
        (0x007F007F007F007F, 8, 1),
        (0x00003FFF00003FFF, 16, 2),
        (0x000000000FFFFFFF, 32, 4),
    )
)


def ends_of(data: Bytes) -> Places:
    """Place of the last byte of each number."""
    return np.flatnonzero(data < LAST_BIT)


def values_at(data: Bytes, ends: Places) -> tuple[Values, Places]:
    """Numbers that end at these places, and the length of each in bytes.

    Numbers lie end to end from the start of `data`; beyond 64 bits they are cut.
    """
    lengths = np.diff(ends, prepend=-1)
    return _values_of(data, ends, lengths), lengths


def signed_at(data: Bytes, bounds: Places) -> tuple[NDArray[np.int64], Places, Places]:
    """Signed numbers, how many of them are before each bound, and which are longer than any may be.

    Numbers lie end to end, the last one ends with `data`; beyond 64 bits they are cut. A bound is a
    place where a number begins, or the end.
    """
    is_last = data < LAST_BIT
    # Nearly all differences fit one byte. Of as many numbers there is one array and no more of
    # eight bytes each: to touch new memory costs more than all that is reckoned here.
    short = data[is_last]
    found = (short >> 1 ^ -(short & 1)).view(np.int8).astype(np.int64)
    goes_on = np.flatnonzero(~is_last)
    starts = goes_on[(goes_on == 0) | is_last[goes_on - 1]]
    ends = goes_on[is_last[goes_on + 1]] + 1
    lengths = ends - starts + 1
    longer = ends - np.searchsorted(goes_on, ends)
    found[longer] = zigzag(_values_of(data, ends, lengths))
    counts = bounds - np.searchsorted(goes_on, bounds)
    return found, counts, longer[lengths >= LENGTH_LIMIT]


def _values_of(data: Bytes, ends: Places, lengths: Places) -> Values:
    values = data[ends].astype(np.uint64)
    # Few are long: only those are looked at again.
    longer = np.arange(len(ends))
    for back in range(1, min(int(lengths.max(initial=0)), LENGTH_LIMIT)):
        longer = longer[lengths[longer] > back]
        more = data[ends[longer] - back] & np.uint8(0x7F)
        values[longer] = values[longer] << np.uint64(7) | more
    return values


def zigzag(values: Values) -> NDArray[np.int64]:
    """Signed numbers out of their zigzag form."""
    signs = -(values & np.uint64(1)).view(np.int64)
    return (values >> np.uint64(1)).view(np.int64) ^ signs


class Scattered:
    """Bytes in which numbers begin anywhere."""

    def __init__(self, data: bytes) -> None:
        # A number that begins at the end is looked for behind it, and has no end there.
        padded = data + b"\xff" * (2 * LENGTH_LIMIT)
        self.data: Bytes = np.frombuffer(padded, np.uint8)
        self._words = np.ndarray((len(padded) - _WORD,), np.dtype("<u8"), padded, 0, (1,))

    def read(self, at: Places) -> tuple[Values, Places, NDArray[np.bool_]]:
        """Numbers that begin there, the places behind them, and which are beyond nine bytes."""
        words = self._words[at]
        stops = ~words & _STOPS
        # All bits up to the stop bit of the last byte; all of them where there is none.
        below = (stops & -stops) - np.uint64(1)
        length = (np.bitwise_count(below) >> 3).astype(np.int64) + 1
        values = words & below & ~_STOPS
        for low, high, shift in _FOLDS:
            values = values & low | (values & high) >> shift
        is_nine = stops == 0
        if not is_nine.any():
            return values, at + length, is_nine
        last = self.data[at + _WORD]
        values |= np.where(is_nine, last.astype(np.uint64) << np.uint64(56), np.uint64(0))
        return values, at + length, is_nine & (last >= LAST_BIT)
