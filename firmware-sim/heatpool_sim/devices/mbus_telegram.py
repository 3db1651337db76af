"""Bytes of a heat meter on the M-Bus: requests read, answers written.

Written from the standard, apart from the agent's decoder.
Source: EN 13757-2 (frames), EN 13757-3 (application layer, records).
"""

import math
from dataclasses import dataclass

from heatpool_sim.plant.meter import Meter, MeterState

ACK = b"\xe5"
STATUS_OK = 0x00
STATUS_FROZEN = 0x18  # permanent and temporary error
MEDIUM_HEAT_OUTLET = 0x04  # flow sensor in the cold pipe
SELECTED = 0xFD  # whichever meter was selected answers here
BROKEN_SENSOR_C = 243.0  # what displays show without a temperature sensor
_SHORT, _LONG, _STOP = 0x10, 0x68, 0x16
_RSP_UD = 0x08
_CI_VARIABLE, _CI_FIXED, _CI_ERROR, _CI_SELECT = 0x72, 0x73, 0x70, 0x52
_TOO_BUSY, _TOO_MANY_READOUTS = 0x08, 0x09
_INT16_MOST = 0x7FFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A frame from the master: its control field, the address it calls, and what it brings."""

    control: int
    address: int
    user_data: bytes = b""

    @property
    def selection(self) -> bytes | None:
        """The eight bytes by which meters are selected, lowest first; F and FF stand for any."""
        is_selection = self.is_user_data and self.address == SELECTED and len(self.user_data) == 9
        return self.user_data[1:] if is_selection and self.user_data[0] == _CI_SELECT else None

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
            return Request(control=body[0], address=body[1], user_data=body[2:]), data[size:]
        data = data[1:]  # noise on the wire: look for a start byte further on
    return None, data


def answer(
    meter: Meter, state: MeterState, *, address: int, access: int, status: int = STATUS_OK
) -> bytes:
    """RSP_UD: the registers, rates and temperatures in a long frame with a variable header."""
    header = _identity(meter) + bytes([access & 0xFF, status, 0, 0])
    return _long_frame(address, bytes([_CI_VARIABLE]) + header + _records(state))


def fixed_answer(
    meter: Meter, state: MeterState, *, address: int, access: int, status: int = STATUS_OK
) -> bytes:
    """RSP_UD as old meters send it: number and two counters, Wh and L, nothing else.

    Source: EN 13757-3, fixed data structure: unit codes 02 and 29, medium 4 in the top bits.
    """
    head = _bcd(meter.number, digits=8) + bytes([access & 0xFF, status, 0x02, 0x40 | 0x29])
    counters = _bcd(state.register_wh, digits=8) + _bcd(state.register_l, digits=8)
    return _long_frame(address, bytes([_CI_FIXED]) + head + counters)


def is_selected(meter: Meter, selection: bytes) -> bool:
    """Whether a selection means this meter."""
    own = _identity(meter)
    digits = zip(own[:4].hex(), selection[:4].hex(), strict=True)
    rest = ((own[4:6], selection[4:6]), (own[6:7], selection[6:7]), (own[7:8], selection[7:8]))
    return all(wished in ("f", digit) for digit, wished in digits) and all(
        wished in (mine, b"\xff" * len(mine)) for mine, wished in rest
    )


def busy(*, address: int) -> bytes:
    """RSP_UD with an application error: ask again later."""
    return _long_frame(address, bytes([_CI_ERROR, _TOO_BUSY]))


def too_many_readouts(*, address: int) -> bytes:
    """RSP_UD with an application error: the battery allows no more today."""
    return _long_frame(address, bytes([_CI_ERROR, _TOO_MANY_READOUTS]))


def together(replies: list[bytes]) -> bytes:
    """What a bus carries when several meters speak at once: a mark of one is lost to a space."""
    spoken = [reply for reply in replies if reply]
    if not spoken:
        return b""
    longest = max(map(len, spoken))
    mixed = bytearray(b"\xff" * longest)
    for reply in spoken:
        for place, byte in enumerate(reply):
            mixed[place] &= byte
    return bytes(mixed)


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


def _identity(meter: Meter) -> bytes:
    """Number, maker, version and medium: what makes a meter this one, and its secondary address."""
    letters = manufacturer_code(meter.manufacturer).to_bytes(2, "little")
    plate = bytes([meter.version, MEDIUM_HEAT_OUTLET])
    return _bcd(meter.number, digits=8) + letters + plate


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
