"""Where a device listens, as it stands in a configuration: on a network or on a serial line.

`tcp://HOST:PORT`, `rtu+tcp://HOST:PORT` (frames of a serial line through a plain gateway), and
`rtu:/dev/ttyUSB0?baud=9600&parity=even&stop=1`, where all three keys must be told.
"""

from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

_EXAMPLE = "rtu:/dev/ttyUSB0?baud=9600&parity=even&stop=1"

# A form is told to whoever writes another one: nobody reads a pattern.
TcpUrl = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^tcp://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@ ]+):[0-9]{1,5}$",
        description="tcp://HOST:PORT, such as tcp://10.0.0.5:502",
    ),
]
LineUrl = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^((rtu\+)?tcp://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@ ]+):[0-9]{1,5}"
        r"|rtu:/[^? ]+(\?[a-z]+=[a-z0-9]+(&[a-z]+=[a-z0-9]+)*)?)$",
        description="tcp://HOST:PORT, rtu+tcp://HOST:PORT or rtu:/DEVICE, such as "
        f"tcp://10.0.0.5:502 or {_EXAMPLE}",
    ),
]
Parity = Literal["none", "even", "odd"]

# What a line does not tell by itself; each is the maker's and none may be guessed.
_CHOICES = {
    "baud": ("300", "600", "1200", "2400", "4800", "9600", "19200", "38400", "57600", "115200"),
    "parity": ("none", "even", "odd"),
    "stop": ("1", "2"),
}
# Above 19200 baud the silence is a fixed time (Modbus over Serial Line V1.02, 2.5.1.1).
_FAST_BAUD, _FAST_SILENCE_S = 19_200, 0.00175
_SILENCE_CHARACTERS = 3.5


def endpoint(url: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: the port is outside 1..65535 or the host is missing.
    """
    parts = urlsplit(url)
    _, _, port = parts.netloc.rpartition(":")
    if not parts.hostname or not port.isdecimal() or not 0 < int(port) < 0x10000:
        raise ValueError(f"url: {url!r} names no host and port 1..65535; write tcp://HOST:PORT")
    return parts.hostname, int(port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serial:
    """How the characters of a serial line look; they always hold eight bits of data."""

    baud: int
    parity: Parity
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAddress:
    """One end of one line: `place` is `HOST:PORT` or the path of a serial port.

    `is_rtu` means frames with a checksum, without the header that Modbus TCP has.
    """

    place: str
    is_rtu: bool
    host: str = ""
    port: int = 0
    serial: Serial | None = None


def line_address(url: str) -> LineAddress:
    """The address behind a url.

    Raises:
        ValueError: with all that is missing or unknown in it.
    """
    if url.startswith("rtu:"):
        return _serial_address(url)
    host, port = endpoint(url)
    return LineAddress(
        place=f"{host}:{port}", is_rtu=url.startswith("rtu+tcp:"), host=host, port=port
    )


def _serial_address(url: str) -> LineAddress:
    path, _, query = url.removeprefix("rtu:").partition("?")
    told = dict(parse_qsl(query))
    found = [f"{key} is missing" for key in _CHOICES if key not in told]
    found += [f"{key} is unknown" for key in told if key not in _CHOICES]
    found += [
        f"{key} is {told[key]!r}, must be one of {', '.join(choices)}"
        for key, choices in _CHOICES.items()
        if key in told and told[key] not in choices
    ]
    if found:
        raise ValueError(f"url: {url!r}: {'; '.join(found)}; write {_EXAMPLE}")
    parity: Parity = msgspec.convert(told["parity"], Parity)
    serial = Serial(baud=int(told["baud"]), parity=parity, stop=int(told["stop"]))
    return LineAddress(place=path, is_rtu=True, serial=serial)


def silence_s(serial: Serial) -> float:
    """How long a line must be quiet between two frames, s: three and a half characters.

    Source: Modbus over Serial Line V1.02, 2.5.1.1.
    """
    if serial.baud > _FAST_BAUD:
        return _FAST_SILENCE_S
    bits = 1 + 8 + (serial.parity != "none") + serial.stop
    return _SILENCE_CHARACTERS * bits / serial.baud
