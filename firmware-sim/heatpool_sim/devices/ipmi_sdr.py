"""A controller's own list of sensors: its power supplies, each a full record with watts.

Layout: IPMI 2.0, table 43-1 (full sensor record), sections 33 and 35 (the commands).
"""

import struct
from math import ceil

from heatpool_sim.plant.gauges import Gauges

# Network functions: the one that keeps the list, and the sensors themselves.
LIST, SENSOR = 0x0A, 0x04
_LIST_STATE, _RESERVE, _RECORD = 0x20, 0x22, 0x23
_READING = 0x2D
_INVALID_COMMAND, _ABSENT = 0xC1, 0xCB
_LAST = 0xFFFF
_FULL, _VERSION = 0x01, 0x51
_POWER_SUPPLY, _THRESHOLD, _WATTS = 0x08, 0x01, 6
_ENTITY = 10
_FIRST_NUMBER = 0x30
# Scanned, events on.
_SCANNED = 0xC0
_MOST_RAW = 255


def sdr_answer(netfn: int, command: int, data: bytes, *, gauges: Gauges) -> tuple[int, bytes]:
    """Completion code, and what follows it, for one command about the list or a sensor."""
    if (netfn, command) == (LIST, _LIST_STATE):
        # Version, records, no room left, never changed; may be read without a reservation.
        count = len(gauges.server.shown.input_w)
        return 0, struct.pack("<BHHIIB", _VERSION, count, 0, 0, 0, 0x02)
    if (netfn, command) == (LIST, _RESERVE):
        return 0, b"\x01\x00"
    if (netfn, command) == (LIST, _RECORD) and len(data) == 6:
        return _part(data, gauges)
    if (netfn, command) == (SENSOR, _READING) and data:
        return _reading(data[0] - _FIRST_NUMBER, gauges)
    return _INVALID_COMMAND, b""


def _part(data: bytes, gauges: Gauges) -> tuple[int, bytes]:
    _, index, offset, count = struct.unpack("<HHBB", data)
    supplies = len(gauges.server.shown.input_w)
    index = supplies - 1 if index == _LAST else index
    if index >= supplies:
        return _ABSENT, b""
    after = index + 1 if index + 1 < supplies else _LAST
    whole = _record(index, gauges)
    return 0, struct.pack("<H", after) + whole[offset : offset + count]


def _reading(index: int, gauges: Gauges) -> tuple[int, bytes]:
    if not 0 <= index < len(gauges.server.shown.input_w):
        return _ABSENT, b""
    raw = min(round(gauges.server.shown.input_w[index] / _step_w(gauges)), _MOST_RAW)
    return 0, bytes((raw, _SCANNED, 0))


def _step_w(gauges: Gauges) -> int:
    """Watts of one count: 8 bits must hold what a supply can take."""
    return min(max(ceil(gauges.server.rated_w / _MOST_RAW), 1), 511)


def _record(index: int, gauges: Gauges) -> bytes:
    step_w = _step_w(gauges)
    name = f"PS{index + 1} Input Power".encode()
    key = bytes((0x20, 0, _FIRST_NUMBER + index))
    what = bytes((_ENTITY, index + 1, 0x7F, 0x68, _POWER_SUPPLY, _THRESHOLD))
    units = bytes((0, _WATTS, 0))
    # Linear: value = step * raw; the step has 10 bits, offset and exponents are 0.
    scale = bytes((0, step_w & 0xFF, step_w >> 8 << 6, 0, 0, 0, 0))
    # No nominal values, the whole range, no thresholds, no hysteresis.
    limits = bytes((0, 0, 0, 0, _MOST_RAW, 0)) + bytes(6) + bytes(5)
    body = key + what + bytes(6) + units + scale + limits + bytes((0xC0 | len(name),)) + name
    return struct.pack("<HBBB", index, _VERSION, _FULL, len(body)) + body
