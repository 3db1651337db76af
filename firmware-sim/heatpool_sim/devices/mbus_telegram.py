"""Bytes of a heat meter on the M-Bus: requests read, answers written.

Written from the standard, apart from the agent's decoder.
Source: EN 13757-2 (frames), EN 13757-3 (application layer, records).
"""

import math
from dataclasses import dataclass

from heatpool_sim.plant.meter import Meter, MeterState

ACK = b"\xe5"
STATUS_OK = 0x00
MEDIUM_HEAT_OUTLET = 0x04  # flow sensor in the cold pipe
_SHORT, _LONG, _STOP = 0x10, 0x68, 0x16
_RSP_UD = 0x08
_CI_VARIABLE, _CI_ERROR = 0x72, 0x70
_TOO_BUSY = 0x08
_INT16_MOST = 0x7FFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A frame from the master: its control field and the address it calls."""

    control: int
    address: int

    @property
    def is_reset(self) -> bool:
        """SND_NKE: be as after power-up."""
        return self.control == 0x40

    @property
    def is_data_request(self) -> bool:
        """REQ_UD2, with or without the frame count bits."""
        return self.control & 0xCF == 0x4B

    @property
    def is_user_data(self) -> bool:
        """SND_UD: something is written to the meter."""
        return self.control & 0xDF == 0x53


def next_request(data: bytes) -> tuple[Request | None, bytes]:
    """The first whole and sound frame and the bytes after it; None: wait for more bytes."""
    while data:
        size = _frame_size(data)
        if size is None or (size and len(data) < size):
            return None, data
        if size and (body := _sound_body(data[:size])):
            return Request(control=body[0], address=body[1]), data[size:]
        data = data[1:]  # noise on the wire: look for a start byte further on
    return None, data


def answer(meter: Meter, state: MeterState, *, address: int, access: int) -> bytes:
    """RSP_UD: the registers, rates and temperatures in a long frame with a variable header."""
    header = (
        _bcd(meter.number, digits=8)
        + manufacturer_code(meter.manufacturer).to_bytes(2, "little")
        + bytes([meter.version, MEDIUM_HEAT_OUTLET, access & 0xFF, STATUS_OK, 0, 0])
    )
    return _long_frame(address, bytes([_CI_VARIABLE]) + header + _records(state))


def busy(*, address: int) -> bytes:
    """RSP_UD with an application error: ask again later."""
    return _long_frame(address, bytes([_CI_ERROR, _TOO_BUSY]))


def with_wrong_checksum(frame: bytes) -> bytes:
    """The same frame as a disturbed line delivers it."""
    return frame[:-2] + bytes([frame[-2] ^ 0x5A, frame[-1]])


def manufacturer_code(letters: str) -> int:
    """Three capital letters in 15 bits.

    Raises:
        ValueError: anything else.
    """
    if len(letters) != 3 or not all("A" <= letter <= "Z" for letter in letters):
        raise ValueError(f"a manufacturer is three capital letters, not {letters!r}")
    first, second, third = (ord(letter) - 64 for letter in letters)
    return first << 10 | second << 5 | third


def _records(state: MeterState) -> bytes:
    """Data records: DIF, VIF, value; the trade calls the hot pipe flow and the cold one return."""
    return b"".join(
        (
            b"\x0c\x03" + _bcd(state.register_wh, digits=8),  # Wh
            b"\x0c\x13" + _bcd(state.register_l, digits=8),  # 0.001 m3
            b"\x0c\x2b" + _bcd(state.heat_rate_w, digits=8),  # W
            b"\x0c\x3b" + _bcd(state.volume_flow_m3_h * 1000.0, digits=8),  # L/h
            b"\x02\x59" + _int16(state.hot_c * 100.0),  # 0.01 degC
            b"\x02\x5d" + _int16(state.cold_c * 100.0),  # 0.01 degC
        )
    )


def _long_frame(address: int, user_data: bytes) -> bytes:
    body = bytes([_RSP_UD, address]) + user_data
    size = bytes([len(body), len(body)])
    return bytes([_LONG]) + size + bytes([_LONG]) + body + bytes([sum(body) & 0xFF, _STOP])


def _frame_size(data: bytes) -> int | None:
    """Bytes of the frame that starts here; 0: none does; None: too early to say."""
    if data[0] == _SHORT:
        return 5
    if data[0] != _LONG:
        return 0
    if len(data) < 4:
        return None
    return data[1] + 6 if data[1] == data[2] and data[3] == _LONG and data[1] >= 3 else 0


def _sound_body(frame: bytes) -> bytes:
    """Control, address and user data of a frame whose checksum and stop are right; else empty."""
    body = frame[1:-2] if frame[0] == _SHORT else frame[4:-2]
    return body if frame[-2:] == bytes([sum(body) & 0xFF, _STOP]) else b""


def _bcd(value: float, *, digits: int) -> bytes:
    """Decimal digits, two to a byte, lowest byte first; F in front is a minus.

    What does not fit is E in every place, an error of the whole field: a figure that lost its
    first digit would read as a good one. Source: EN 13757-3, data type A.
    """
    whole = round(value) if math.isfinite(value) else None
    if whole is not None and 0 <= whole < 10**digits:
        text = f"{whole:0{digits}d}"
    elif whole is not None and -(10 ** (digits - 1)) < whole < 0:
        text = f"f{-whole:0{digits - 1}d}"
    else:
        text = "e" * digits
    return bytes.fromhex(text)[::-1]


def _int16(value: float) -> bytes:
    """Whole number; what does not fit is the most negative one, which says "no value" (type B)."""
    fits = math.isfinite(value) and abs(round(value)) <= _INT16_MOST
    return (round(value) if fits else -_INT16_MOST - 1).to_bytes(2, "little", signed=True)
