"""An M-Bus telegram without its serial numbers, fit to be kept and to be decoded again.

Who holds a telegram holds the meter's number, and by it an address and a bill. The identity in the
header and every number of the same kind in the records becomes another one, the same for the same
meter under one key; maker, version and medium stay, and the checksum is right again.
"""

import hashlib

from heatpool.errors import WireError
from heatpool_agent.core.mbus_frames import is_response, long_frame, split_frame
from heatpool_agent.core.mbus_records import FILLER, value_place
from heatpool_agent.core.mbus_values import Order

# What names a device, a place or a person instead of measuring something.
_NAMING = frozenset(
    {
        "fabrication_number",
        "identification",
        "installation_place",
        "owner",
        "password",
        "special_supplier_number",
    }
)
_ID_AT, _ID_BYTES = 7, 4
_HEADS = {0x72: 12, 0x76: 12, 0x7A: 4, 0x78: 0}
_FIXED = (0x73, 0x77)


def hidden(data: bytes, *, key: bytes) -> bytes:
    """`data` with other serial numbers where it is a meter's telegram, else as it is."""
    try:
        frame, rest = split_frame(data)
    except WireError:
        return data
    if frame is None or rest or not is_response(frame):
        return data
    body = bytearray(frame)
    if frame[6] in _FIXED or _HEADS.get(frame[6], 0) == 12:
        _replace(body, _ID_AT, min(_ID_AT + _ID_BYTES, len(frame) - 2), key=key)
    if frame[6] in _HEADS:
        _hide_records(body, frame, key=key)
    return long_frame(body[4], body[5], bytes(body[6:-2]))


def _hide_records(body: bytearray, frame: bytes, *, key: bytes) -> None:
    end, at = len(frame) - 2, 7 + _HEADS[frame[6]]
    order: Order = "big" if frame[6] == 0x76 else "little"
    while at < end:
        if frame[at] == FILLER:
            at += 1
            continue
        if frame[at] & 0x0F == 0x0F:
            # The maker's own data: nobody else knows where a number stands in it.
            body[at + 1 : end] = bytes(end - at - 1)
            return
        try:
            quantity, is_text, start, at = value_place(frame, at, end=end, order=order)
        except WireError:
            return
        if quantity in _NAMING:
            _replace(body, start, at, key=key, is_text=is_text)


def _replace(body: bytearray, start: int, end: int, *, key: bytes, is_text: bool = False) -> None:
    """Other decimal digits for these bytes: good as BCD and as an integer, or as text."""
    found = hashlib.blake2b(bytes(body[start:end]), key=key, digest_size=64).digest()
    for place in range(start, end):
        byte = found[(place - start) % len(found)]
        body[place] = 0x30 + byte % 10 if is_text else byte % 10 << 4 | (byte >> 4) % 10
