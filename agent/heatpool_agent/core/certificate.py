"""What a certificate says, read from its own bytes: whose it is, from when until when.

A library for certificates costs 9 MB that an agent must not carry for a few fields. Nothing is
verified here: TLS does that, and a stranger's certificate is only ever compared with a hash.
Source: RFC 5280, 4.1 and 4.2.1.6; ITU-T X.690 (DER).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from heatpool.errors import WireError
from heatpool.units import NS_PER_S

_SEQUENCE, _OCTETS, _VERSION, _EXTENSIONS = 0x30, 0x04, 0xA0, 0xA3
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_URI = 0x86
_ALTERNATIVE_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# Two to four times what real ones have.
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate; both ends of its life are within it."""

    start_ns: int
    end_ns: int
    uris: tuple[str, ...]
    serial: str  # lower-case hexadecimal without leading zeros
    key_sha256: str  # over the SubjectPublicKeyInfo, hexadecimal
    fingerprint: str  # SHA-256 over all of it, hexadecimal

    @property
    def site_ids(self) -> tuple[str, ...]:
        """Ids of the sites that it names, whatever their trust domain."""
        ways = (uri.partition("://")[2].partition("/")[2] for uri in self.uris)
        return tuple(way.removeprefix("site/") for way in ways if way.startswith("site/"))


@dataclass(frozen=True, slots=True)
class _Part:
    """One element: its tag, what is in it, and all of it with tag and length."""

    tag: int
    content: bytes
    whole: bytes


def first(pem: str) -> Certificate:
    """The first certificate of a PEM text.

    Raises:
        WireError: there is none that can be read.
    """
    return read(blocks(pem)[0])


def blocks(pem: str) -> list[bytes]:
    """All certificates of a PEM text, DER; at least one.

    Raises:
        WireError: there is none, or one is no base64.
    """
    if len(pem) > _MOST_BYTES:
        raise WireError(f"certificate: {len(pem)} bytes are too many")
    found = []
    for block in pem.split(_BEGIN)[1:]:
        text, end, _ = block.partition(_END)
        try:
            found.append(base64.b64decode("".join(text.split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise WireError("certificate: its PEM is no base64") from error
        if not end:
            raise WireError("certificate: its PEM has no end")
    if not found:
        raise WireError("certificate: no PEM of one is there")
    return found


def read(der: bytes) -> Certificate:
    """A certificate.

    Raises:
        WireError: these bytes are none.
    """
    try:
        (outer,) = _parts(der)
        body, *_ = _parts(_sequence(outer))
        fields = [part for part in _parts(_sequence(body)) if part.tag != _VERSION]
        # Serial number, algorithm, issuer, validity, subject, key, extensions.
        start, end = _parts(_sequence(fields[3]))
        return Certificate(
            start_ns=_time_ns(start),
            end_ns=_time_ns(end),
            uris=tuple(_uris(fields[6:])),
            serial=f"{int.from_bytes(fields[0].content, 'big'):x}",
            key_sha256=hashlib.sha256(fields[5].whole).hexdigest(),
            fingerprint=hashlib.sha256(der).hexdigest(),
        )
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise WireError("certificate: its bytes cannot be read") from error


def _uris(fields: list[_Part]) -> Iterator[str]:
    for outer in (part for part in fields if part.tag == _EXTENSIONS):
        (entries,) = _parts(outer.content)
        for entry in _parts(_sequence(entries)):
            name, *_, value = _parts(_sequence(entry))
            if name.content == _ALTERNATIVE_NAME and value.tag == _OCTETS:
                (names,) = _parts(value.content)
                yield from (
                    one.content.decode("ascii")
                    for one in _parts(_sequence(names))
                    if one.tag == _URI
                )


def _sequence(part: _Part) -> bytes:
    if part.tag != _SEQUENCE:
        raise ValueError(part.tag)
    return part.content


def _parts(data: bytes) -> Iterator[_Part]:
    """The elements in a row."""
    at = 0
    while at < len(data):
        start, length, body = at, data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, body = int.from_bytes(data[body : body + count], "big"), body + count
        at = body + length
        if at > len(data):
            raise ValueError(at)
        yield _Part(data[start], data[body:at], data[start:at])


def _time_ns(part: _Part) -> int:
    text, form = part.content.decode("ascii"), _FORMATS[part.tag]
    return int(datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()) * NS_PER_S
