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
# Fields that may differ when the same frame is sent again: who it is in this stream, and when.
_VOLATILE = {MessageKind.TELEMETRY: (_SITE_INDEX, 10), MessageKind.REGISTERS: (_SITE_INDEX, 4)}

_PARTS_LIMIT = 4_096  # a full batch has 1,000 register rows; more would hold up the other streams

# number, value of a varint (else 0), where it starts and where it ends
_Field = tuple[int, int, int, int]


def peek(data: bytes) -> Peek:
    """Kind, site and number of a message.

    A body that is broken behind its number is no matter of the door: it has an identity, so it can
    be kept, acknowledged and refused.

    Raises:
        WireError: the message has no identity.
    """
    fields = list(islice(_fields(data, 0, len(data)), 2))
    if len(fields) != 1:
        raise WireError(f"a message holds {'two parts or more' if fields else 'nothing'}")
    number, _, start, end = fields[0]
    if number not in MessageKind._value2member_map_ or data[0] & 7 != _BYTES:
        raise WireError(f"field {number} is not a message that this server knows")
    kind = MessageKind(number)
    volatile = _VOLATILE.get(kind)
    if volatile is None:
        return Peek(kind=kind)
    body_start = end - _body_length(data, start)
    return _peek_body(kind, data, body_start, end, volatile)


def _body_length(data: bytes, start: int) -> int:
    _, after_tag = _varint(data, start, len(data))
    length, _ = _varint(data, after_tag, len(data))
    return length


def _peek_body(
    kind: MessageKind, data: bytes, start: int, end: int, volatile: tuple[int, ...]
) -> Peek:
    seen: dict[int, int] = {}
    crc = 0
    try:
        parts = islice(_fields(data, start, end), _PARTS_LIMIT)
        for number, value, field_start, field_end in parts:
            if number in (_SITE_INDEX, _SEQ):
                seen[number] = value
            if number not in volatile:
                crc = crc32(data[field_start:field_end], crc)
    except WireError:
        if _SEQ not in seen:
            raise
        crc = 0
    return Peek(
        kind=kind,
        site_index=seen.get(_SITE_INDEX, 0),
        seq=seen.get(_SEQ, 0),
        content_crc32=crc,
    )


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
