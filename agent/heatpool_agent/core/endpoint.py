"""Where a device listens: `tcp://HOST:PORT`, as it stands in a configuration."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

TcpUrl = Annotated[
    str, msgspec.Meta(pattern=r"^tcp://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]@ ]+):[0-9]{1,5}$")
]


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
