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
        ValueError: the port is above 65535 or the host is missing.
    """
    parts = urlsplit(url)
    if not parts.hostname or not parts.port:
        raise ValueError(f"url: {url!r} names no host and port; write tcp://HOST:PORT")
    return parts.hostname, parts.port
