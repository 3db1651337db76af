"""When a certificate begins and ends, read from its own bytes.

A library for certificates costs megabytes that an agent must not carry for two dates. The file is
our own, and what is no certificate the channel refuses by itself.
Source: RFC 5280, 4.1 (fields of a certificate), ITU-T X.690 (DER).
"""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

from heatpool.units import NS_PER_S

_CONTEXT_0, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}
_END = "-----END CERTIFICATE-----"


def life_ns(chain_pem: bytes) -> tuple[int, int] | None:
    """First and last moment of a chain's first certificate, ns since 1970; None: unreadable."""
    try:
        first, end, _ = chain_pem.decode("ascii").partition(_END)
        der = ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN CERT") :] + end)
        (_, certificate), *_ = _parts(der)
        (_, body), *_ = _parts(certificate)
        fields = [part for part in _parts(body) if part[0] != _CONTEXT_0]
        # Serial number, algorithm, issuer, then validity: two times.
        (before, after), *_ = [tuple(_parts(fields[3][1]))]
        return _time_ns(*before), _time_ns(*after)
    except (ValueError, IndexError, KeyError):
        return None


def renewal_ns(chain_pem: bytes) -> int | None:
    """When five sixths of a chain's life have passed, ns; None: unreadable."""
    life = life_ns(chain_pem)
    return None if life is None else life[0] + (life[1] - life[0]) * 5 // 6


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element in a row."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        yield tag, data[at : at + length]
        at += length


def _time_ns(tag: int, content: bytes) -> int:
    told = datetime.strptime(content.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)
    return int(told.timestamp()) * NS_PER_S
