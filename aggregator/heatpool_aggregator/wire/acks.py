"""The Ack, put together by hand: one is made of each stream and commit.

Protobuf would build and throw away three objects for it, at five times the cost.
"""

from collections.abc import Sequence

from heatpool.sample import BootId
from heatpool_aggregator.wire.messages import Lane

_VARINT, _BYTES = 0, 2
_SITE_INDEX, _BOOT_ID, _LANE = 1 << 3 | _VARINT, 2 << 3 | _BYTES, 3 << 3 | _VARINT
_RECEIVED, _DURABLE = bytes([4 << 3 | _VARINT]), bytes([5 << 3 | _VARINT])
_SPOOL, _SERVER_NS, _ACK = bytes([1 << 3 | _BYTES]), 3 << 3 | _VARINT, bytes([2 << 3 | _BYTES])
_ONE_BYTE = tuple(bytes([value]) for value in range(0x80))


def varint(value: int) -> bytes:
    """A number that is not negative."""
    if value < 0x80:
        return _ONE_BYTE[value]
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


class AckedPrefix:
    """What stays the same of a lane in every Ack of a stream."""

    __slots__ = ("_prefix", "lane")

    def __init__(self, *, site_index: int, boot_id: BootId, lane: Lane) -> None:
        self.lane = lane
        boot = boot_id.encode()
        self._prefix = b"".join(
            (
                bytes([_SITE_INDEX]),
                varint(site_index),
                bytes([_BOOT_ID]),
                varint(len(boot)),
                boot,
                bytes([_LANE, lane]),
                _RECEIVED,
            )
        )

    def with_marks(self, received_seq: int, durable_seq: int) -> bytes:
        """The AckedSpool as a field of an Ack."""
        body = self._prefix + varint(received_seq) + _DURABLE + varint(durable_seq)
        return _SPOOL + varint(len(body)) + body


def server_time(server_ns: int) -> bytes:
    """Our clock as a field of an Ack."""
    return bytes([_SERVER_NS]) + varint(server_ns)


def ack_of(parts: Sequence[bytes]) -> bytes:
    """The response that holds an Ack of these fields."""
    body = b"".join(parts)
    return _ACK + varint(len(body)) + body
