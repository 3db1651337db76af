"""Certificates as they are read: whose, which, until when, and how a newcomer checks the CA."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heatpool.errors import HeatpoolError

_NS_PER_S = 1_000_000_000
RENEW_FRAC = 2 / 3
_HOST = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a caller's certificate says: its one URI, empty where it has none or several."""

    uri: str
    serial: str
    issued_ns: int
    expires_ns: int


def named(pem: bytes) -> Named:
    """The first certificate of a PEM text; who signed it is for TLS to check.

    Raises:
        HeatpoolError: there is no certificate in it.
    """
    certificate = load(pem, "certificate")
    uris = uris_of(certificate)
    return Named(
        uri=uris[0] if len(uris) == 1 else "",
        serial=serial_of(certificate),
        issued_ns=at_ns(certificate.not_valid_before_utc),
        expires_ns=at_ns(certificate.not_valid_after_utc),
    )


def load(pem: bytes, what: str) -> x509.Certificate:
    """The first certificate of a PEM text.

    Raises:
        HeatpoolError: there is none; `what` says where.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise _no_certificate(what) from error


def load_all(pem: bytes, what: str) -> list[x509.Certificate]:
    """Every certificate of a PEM text, one at least.

    Raises:
        HeatpoolError: there is none; `what` says where.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _no_certificate(what) from error


def uris_of(certificate: x509.Certificate) -> list[str]:
    """The URIs that name the holder."""
    names = _alternative_names(certificate)
    return [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Host names and addresses that a server's certificate is for."""
    names = _alternative_names(certificate)
    if names is None:
        return []
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses)]


def general_name(host: str) -> x509.GeneralName:
    """A host name or address as it stands in a certificate.

    Raises:
        HeatpoolError: no certificate can carry it.
    """
    try:
        return x509.IPAddress(ip_address(host.strip("[]")))
    except ValueError:
        pass
    if not _HOST.fullmatch(host):
        raise HeatpoolError(
            f"--host: {host!r} is no host name: write one in ASCII, without https:// and port"
        )
    return x509.DNSName(host)


def serial_of(certificate: x509.Certificate) -> str:
    """Lower-case hexadecimal without leading zeros."""
    return f"{certificate.serial_number:x}"


def ca_hash(certificate: x509.Certificate) -> str:
    """`sha256:…` over the public key info, what `heatpool-agent join --ca-hash` takes."""
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def renew_after_ns(issued_ns: int, expires_ns: int) -> int:
    """When a certificate has lived two thirds of its life."""
    return issued_ns + int((expires_ns - issued_ns) * RENEW_FRAC)


def at_ns(at: datetime) -> int:
    """Nanoseconds since 1970."""
    return int(at.timestamp()) * _NS_PER_S


def _no_certificate(what: str) -> HeatpoolError:
    return HeatpoolError(
        f"{what}: is no certificate in PEM: restore it from a backup, or run "
        "`heatpool-aggregator init --force`"
    )


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
