"""How a meter is reached on M-Bus: secondary addresses, and a serial line with its times.

Source: EN 13757-2 (times), EN 13757-3 (secondary address), clauses of the same names.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from heatpool_agent.core.mbus_telegram import Header

# A byte on the line: start, eight bits, parity, stop.
BITS_PER_BYTE = 11
BAUDS = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400)
# A meter answers 11 to 330 bit times and 50 ms after the request.
IDLE_BITS, ANSWER_BITS, ANSWER_EXTRA_S = 11, 330, 0.05
# After noise the line counts as free when it rested so long.
QUIET_BITS = 33
# What adapters and drivers of ports hold back before they pass a byte on.
PORT_DELAY_S = 0.05

_SECONDARY = re.compile(
    r"(?P<id>[0-9Ff]{8})"
    r"(\.(?P<manufacturer>[A-Z]{3}|\*)"
    r"(\.(?P<version>[0-9]{1,3}|\*)"
    r"(\.(?P<medium>[0-9]{1,3}|\*))?)?)?"
)
SECONDARY_FORM = (
    "ID[.MANUFACTURER[.VERSION[.MEDIUM]]]: 8 digits or F, 3 letters, numbers, * for any"
)
_ANY = 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Secondary:
    """A meter by what it is; "F" in the id and None elsewhere stand for any."""

    id: str
    manufacturer: str | None = None
    version: int | None = None
    medium: int | None = None

    def to_bytes(self) -> bytes:
        """The eight bytes of a selection."""
        letters = 0xFFFF
        if self.manufacturer is not None:
            first, second, third = (ord(letter) - 64 for letter in self.manufacturer)
            letters = first << 10 | second << 5 | third
        rest = (_ANY if part is None else part for part in (self.version, self.medium))
        return bytes.fromhex(self.id)[::-1] + letters.to_bytes(2, "little") + bytes(rest)

    def fits(self, header: Header) -> bool:
        """Whether a telegram can come from the meter that was selected."""
        is_id = header.id is None or all(
            wanted in ("F", seen) for wanted, seen in zip(self.id, header.id, strict=True)
        )
        pairs = (
            (self.manufacturer, header.manufacturer),
            (self.version, header.version),
            (self.medium, header.medium),
        )
        return is_id and all(w is None or s is None or w == s for w, s in pairs)


def secondary_of(text: str) -> Secondary:
    """The secondary address that a configuration names.

    Raises: ValueError for text of another form.
    """
    found = _SECONDARY.fullmatch(text)
    if found is None:
        raise ValueError(f"secondary: is {text!r}, must be {SECONDARY_FORM}")
    manufacturer = found["manufacturer"]
    return Secondary(
        id=found["id"].upper(),
        manufacturer=None if manufacturer == "*" else manufacturer,
        version=_number_or_any(found["version"]),
        medium=_number_or_any(found["medium"]),
    )


def _number_or_any(text: str | None) -> int | None:
    if text is None or text == "*":
        return None
    if int(text) > 0xFF:
        raise ValueError(f"secondary: {text} is above 255; write {SECONDARY_FORM}")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialPort:
    """A port of this machine and the speed of the bus behind it, 8E1."""

    path: str
    baud: int = 2400

    def idle_s(self) -> float:
        """How long the line rests before the next request."""
        return IDLE_BITS / self.baud

    def quiet_s(self) -> float:
        """After how much silence nobody speaks any more."""
        return QUIET_BITS / self.baud + PORT_DELAY_S

    def answer_s(self, request_bytes: int) -> float:
        """How long the first byte of an answer may take from when the request is handed over."""
        sent_s = BITS_PER_BYTE * request_bytes / self.baud
        return sent_s + ANSWER_BITS / self.baud + ANSWER_EXTRA_S + PORT_DELAY_S


def serial_port(url: str) -> SerialPort:
    """The port of `serial:/dev/ttyUSB0?baud=2400`.

    Raises: ValueError for another form, or a speed that M-Bus does not know.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    baud = options.pop("baud", "2400")
    if parts.scheme != "serial" or parts.netloc or not parts.path.startswith("/") or options:
        raise ValueError(f"url: {url!r} names no port; write serial:/dev/ttyUSB0?baud=2400")
    if not baud.isascii() or not baud.isdecimal() or int(baud) not in BAUDS:
        known = ", ".join(str(one) for one in BAUDS)
        raise ValueError(f"url: baud is {baud!r}; M-Bus knows {known}")
    return SerialPort(path=parts.path, baud=int(baud))
