"""M-Bus frames: cut out of a stream of bytes, checked, and made. What they carry is `mbus`.

Source: EN 13757-2.
"""

from heatpool.errors import WireError

ACK = b"\xe5"
SHORT_START, LONG_START, STOP = 0x10, 0x68, 0x16
SND_NKE, SND_UD, REQ_UD1, REQ_UD2, FCB = 0x40, 0x53, 0x5A, 0x5B, 0x20
# RSP_UD is 08; the access demand and flow control bits may be set on top.
RSP_UD, RSP_UD_BITS = 0x08, 0xCF
# Whichever meter was selected by its secondary address answers at this primary one.
SELECTED = 0xFD
# Commands of a master, as they stand on a bus that was listened to.
_SHORT_NAMES = {SND_NKE: "link reset", REQ_UD1: "alarm request", REQ_UD2: "data request"}
_COMMANDS = {
    0x50: "application reset",
    0x51: "data for the meter",
    0x52: "selection",
    0x54: "synchronisation",
    0x55: "data for the meter, high byte first",
    0x56: "selection, high byte first",
    **{0xB8 + n: f"baud rate {300 << n}" for n in range(8)},
}


def split_frame(data: bytes) -> tuple[bytes | None, bytes]:
    """The first frame of `data` and the rest; (None, data) while bytes are missing.

    Raises: WireError at the first byte that shows that this can never become a frame.
    """
    if not data:
        return None, data
    if data[0] == ACK[0]:
        return data[:1], data[1:]
    if data[0] == SHORT_START:
        return _split(data, size=5, first=1)
    if data[0] != LONG_START:
        raise WireError(f"{data[0]:02X} starts no M-Bus frame", offset=0)
    if len(data) < 2:
        return None, data
    if data[1] < 3:
        raise WireError(f"frame length {data[1]} is below 3", offset=1)
    if len(data) > 2 and data[2] != data[1]:
        raise WireError(f"second length {data[2]} is not the first, {data[1]}", offset=2)
    if len(data) > 3 and data[3] != LONG_START:
        raise WireError(f"second start byte is {data[3]:02X}, not 68", offset=3)
    return _split(data, size=data[1] + 6, first=4)


def _split(data: bytes, *, size: int, first: int) -> tuple[bytes | None, bytes]:
    if len(data) < size:
        return None, data
    if data[size - 1] != STOP:
        raise WireError(f"frame ends with {data[size - 1]:02X}, not 16", offset=size - 1)
    checksum = sum(data[first : size - 2]) & 0xFF
    if checksum != data[size - 2]:
        reason = (
            f"checksum is {data[size - 2]:02X}, the bytes add up to {checksum:02X}: "
            "noise, or two meters answered at once"
        )
        raise WireError(reason, offset=size - 2)
    return data[:size], data[size:]


def request_frame(address: int, *, fcb: bool) -> bytes:
    """REQ_UD2: asks a meter for its data; `fcb` toggles, otherwise the meter repeats itself."""
    return _short_frame(REQ_UD2 | FCB if fcb else REQ_UD2, address)


def reset_frame(address: int) -> bytes:
    """SND_NKE: sets a meter's link to the start; it answers E5."""
    return _short_frame(SND_NKE, address)


def select_frame(secondary: bytes) -> bytes:
    """SND_UD to every meter: the one whose eight identity bytes match answers E5."""
    return long_frame(SND_UD, SELECTED, b"\x52" + secondary)


def long_frame(control: int, address: int, user_data: bytes) -> bytes:
    """A long frame, or a control frame where `user_data` is the CI field alone."""
    body = bytes((control, address)) + user_data
    size = len(body)
    return bytes((LONG_START, size, size, LONG_START)) + body + bytes((sum(body) & 0xFF, STOP))


def is_response(frame: bytes) -> bool:
    """Whether a whole frame comes from a meter: an RSP_UD, whatever it carries."""
    return frame[0] == LONG_START and frame[4] & RSP_UD_BITS == RSP_UD


def frame_name(frame: bytes) -> str:
    """What a whole frame is, for people: it carries no figures unless it is a response."""
    if frame == ACK:
        return "acknowledgement (E5)"
    if frame[0] == SHORT_START:
        name = _SHORT_NAMES.get(frame[1] & ~FCB, "short frame")
        return f"{name} ({frame[1]:02X}) to address {frame[2]}"
    if is_response(frame):
        return f"response of address {frame[5]}"
    kind = "control frame" if frame[1] == 3 else "long frame"
    command = _COMMANDS.get(frame[6], f"CI field {frame[6]:02X}")
    return f"{kind} ({frame[4]:02X}) to address {frame[5]}: {command}"


def _short_frame(control: int, address: int) -> bytes:
    if not 0 <= address <= 255:
        raise ValueError(f"M-Bus address {address} is outside 0..255")
    return bytes((SHORT_START, control, address, (control + address) & 0xFF, STOP))
