"""What the door needs to know of a message, read off its bytes without decoding it.

Decoding costs five times as much inside a stream's handler, so the bytes go to the log as they are.
"""

from collections.abc import Iterator
from itertools import islice
from zlib import crc32

from heatpool.errors import WireError
from heatpool_aggregator.wire.messages import MessageKind, Peek

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SITE_INDEX, _SEQ = 1, 2
_SITE_INDEX_TAG, _SEQ_TAG = _SITE_INDEX << 3, _SEQ << 3
_KINDS = {kind << 3 | _BYTES: kind for kind in MessageKind}
# Fields that may differ when the same frame is sent again: who it is in this stream, and when.
_VOLATILE = {MessageKind.TELEMETRY: (_SITE_INDEX, 10), MessageKind.REGISTERS: (_SITE_INDEX, 4)}

_PARTS_LIMIT = 4_096  # a full batch has 1,000 register rows; more would hold up the other streams

# number, value of a varint (else 0), where it starts and where it ends
_Field = tuple[int, int, int, int]


def peek(data: bytes) -> Peek:
    """Kind, site and number of a message.

    A body that is broken behind its number is no matter of the door: it has an identity, so it can
    be kept, acknowledged and refused. The first number counts, whatever comes behind it.

    Raises:
        WireError: the message has no identity.
    """
    kind, at = _kind(data)
    if kind not in _VOLATILE:
        return Peek(kind)
    # Site and number come first in what our agents send: nothing behind them is looked at.
    site_index, end = 0, len(data)
    if at < end and data[at] == _SITE_INDEX_TAG:
        site_index, at = _varint(data, at + 1, end)
    if at < end and data[at] == _SEQ_TAG:
        seq, _ = _varint(data, at + 1, end)
        return Peek(kind, site_index, seq)
    return _sought(kind, data, at, site_index)


def _kind(data: bytes) -> tuple[MessageKind, int]:
    """Kind of the message, and where its body starts; it ends with the bytes."""
    if not data:
        raise WireError("a message holds nothing")
    kind = _KINDS.get(data[0])
    if kind is None:
        number = _varint(data, 0, len(data))[0] >> 3
        raise WireError(f"field {number} is not a message that this server knows")
    # Nearly all are as short as this, and a call would cost more than what it finds out.
    if len(data) > 1 and data[1] < 0x80:
        length, at = data[1], 2
    else:
        length, at = _varint(data, 1, len(data))
    if at + length != len(data):
        raise WireError(
            "a field reaches beyond its message"
            if at + length > len(data)
            else "a message holds two parts or more"
        )
    return kind, at


def _sought(kind: MessageKind, data: bytes, at: int, site_index: int) -> Peek:
    """The same where the fields come in another order."""
    seq = 0
    is_numbered = False
    try:
        for number, value, _, _ in islice(_fields(data, at, len(data)), _PARTS_LIMIT):
            if number == _SITE_INDEX:
                site_index = value
            elif number == _SEQ and not is_numbered:
                seq, is_numbered = value, True
    except WireError:
        if not is_numbered:
            raise
    return Peek(kind, site_index, seq)


def content_crc32(data: bytes) -> int:
    """Checksum of what may not differ when a frame is sent again; 0 where it is unknown."""
    crc = 0
    try:
        kind, at = _kind(data)
        volatile = _VOLATILE.get(kind, ())
        for number, _, start, end in islice(_fields(data, at, len(data)), _PARTS_LIMIT):
            if number not in volatile:
                crc = crc32(data[start:end], crc)
    except WireError:
        return 0
    return crc


def _fields(data: bytes, at: int, end: int) -> Iterator[_Field]:
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        value = 0
        wire_type = tag & 7
        if wire_type == _VARINT:
            value, at = _varint(data, at, end)
        elif wire_type == _BYTES:
            length, at = _varint(data, at, end)
            at += length
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise WireError(f"wire type {wire_type} does not exist", offset=start)
        if at > end:
            raise WireError("a field reaches beyond its message", offset=start)
        yield tag >> 3, value, start, at


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    start = at
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("a number does not end", offset=start)
