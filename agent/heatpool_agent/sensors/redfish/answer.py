"""One answer of a Redfish service as a tape keeps it, without what must not be kept."""

import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from heatpool.errors import WireError

# A collection with every member expanded has 300 kB; more than this would only fill memory.
MAX_BODY_BYTES = 4 << 20

# Properties that tell who somebody is or where: numbers of parts, names and addresses of hosts.
_PRIVATE = (
    "SerialNumber|SparePartNumber|UUID|ServiceEntryPointUUID|AssetTag|HostName|FQDN|SKU|"
    "MACAddress|PermanentMACAddress|AssociatedNetworkAddresses|DurableName|"
    "Password|Token|UserName|Address|Gateway|IPv4Address|IPv6Address|NodeGUID|PortGUID"
)
# A string may lack its end: half a document is kept, too.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_PROPERTY = re.compile(rb'("(?:%s)"\s*:\s*)%s' % (_PRIVATE.encode(), _STRING), re.DOTALL)
_ANY = re.compile(_STRING, re.DOTALL)
_ADDRESS = re.compile(
    rb"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status as in HTTP, and the body as it came."""

    status: int
    body: bytes

    def packed(self) -> bytes:
        """One line of status, then the body."""
        return b"%d\n" % self.status + self.body


class Transport(Protocol):
    """Where documents come from: a BMC or a folder."""

    # The longest that one answer took since this was last set to 0, s.
    slowest_s: float

    async def starts(self) -> tuple[str, ...]:
        """Paths with which a discovery begins."""
        ...

    async def get(self, path: str) -> Answer:
        """The answer to one question.

        Raises OSError, TimeoutError, SensorBusy, SensorGone or WireError.
        """
        ...

    async def close(self) -> None:
        """Leaves the service; may be called twice."""
        ...


def unpacked(data: bytes) -> Answer:
    """The answer in a packed one.

    Raises:
        WireError: no status stands in the first line.
    """
    head, _, body = data.partition(b"\n")
    if len(head) != 3 or not head.isdigit():
        raise WireError("redfish: the first line of a recorded answer is no status")
    return Answer(status=int(head), body=body)


def hidden(data: bytes) -> bytes:
    """A packed answer without serial numbers, names, secrets and addresses; numbers stay as is."""
    data = _PROPERTY.sub(rb'\1"hidden"', data)
    return _ANY.sub(_without_address, data)


def _without_address(found: re.Match[bytes]) -> bytes:
    # A path keeps what looks like an address, or the links of a recording would break.
    text = found[0]
    return text if text.startswith(b'"/') else _ADDRESS.sub(b"hidden", text)


def own_path(link: str) -> str | None:
    """The link as a path on the same service, without fragment; None where it leads elsewhere."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return None
    is_odd = any(sign <= " " or sign in '\\"<>\x7f' for sign in link) or "/../" in f"{parts.path}/"
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or is_odd:
        return None
    # `//` at the start names a host to some clients and nothing to others.
    if link.startswith("//"):
        return None
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def place(path: str) -> str:
    """One spelling of a path, with which visits are counted: no slash at its end."""
    return path.rstrip("/") or "/"
