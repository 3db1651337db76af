"""The line to an aggregator: plain on this machine, else TLS with an identity, and what ails it."""

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc

from heatpool.errors import HeatpoolError, UplinkError

# No proxy: the address that was given is the one that is asked.
_OPTIONS = (("grpc.enable_http_proxy", 0),)
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_BLOCK = re.compile(
    rb"-----BEGIN (CERTIFICATE|(?:EC |RSA )?PRIVATE KEY)-----\n.+?\n-----END \1-----\n?", re.DOTALL
)
_CERTIFICATE = b"CERTIFICATE"
_CERTIFICATES_LEAST = 2  # one's own and the CA's


class Refused(HeatpoolError):
    """The aggregator answered that it cannot answer: the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks: key, certificate and what stands behind it, and the CA to trust; all PEM."""

    file: str
    key: bytes = field(repr=False)
    chain: bytes
    ca: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the aggregator is, HOST:PORT, and as whom it is asked; None: as this machine."""

    address: str
    identity: Identity | None = None

    @property
    def is_own(self) -> bool:
        """Whether the address is one of this machine that no other reaches."""
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def read_identity(file: Path) -> Identity:
    """Key, certificate and CA out of one file, as `heatpool-aggregator user add` makes it.

    Raises:
        HeatpoolError: it cannot be read, or one of them is not in it.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise HeatpoolError(f"{file}: cannot be read: {error.strerror}") from error
    blocks = [(found[1], found[0]) for found in _BLOCK.finditer(data.replace(b"\r\n", b"\n"))]
    certificates = [block for kind, block in blocks if kind == _CERTIFICATE]
    keys = [block for kind, block in blocks if kind != _CERTIFICATE]
    if len(keys) != 1 or len(certificates) < _CERTIFICATES_LEAST:
        raise HeatpoolError(
            f"{file}: holds {len(keys)} keys and {len(certificates)} certificates, must hold "
            "one's own key, one's own certificate and the CA's, PEM, in this order: "
            "`heatpool-aggregator user add` makes such a file"
        )
    return Identity(
        file=str(file),
        key=keys[0],
        chain=b"".join(certificates[:-1]),
        ca=b"".join(certificates[1:]),
    )


def open_channel(place: Place) -> grpc.Channel:
    """A channel to the aggregator; nothing is sent yet."""
    identity = place.identity
    if identity is None:
        return grpc.insecure_channel(place.address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(identity.ca, identity.key, identity.chain)
    return grpc.secure_channel(place.address, credentials, options=_OPTIONS)


def failure(place: Place, error: grpc.RpcError) -> HeatpoolError:
    """What went wrong, in words that say what to do."""
    if not isinstance(error, grpc.Call):
        return Refused(str(error))
    code, detail = error.code(), " ".join((error.details() or "").split())
    if code not in _GONE:
        return Refused(f"{detail} ({code.name})")
    if told := _handshake(place, detail):
        return Refused(f"aggregator at {place.address}: {told}")
    fix = "is it running? --address or HEATPOOL_ADDRESS names another one"
    return UplinkError(f"aggregator at {place.address} does not answer ({detail}); {fix}")


def _handshake(place: Place, detail: str) -> str:
    """Why no handshake came about; empty: it is not that, or nobody can say."""
    identity = place.identity
    is_cut = "Socket closed" in detail or "reset by peer" in detail
    if identity is None:
        how = "it may want a certificate: name yours by --identity or HEATPOOL_IDENTITY"
        return f"it hung up; {how}" if is_cut else ""
    if "certificate has expired" in detail:
        return "its certificate has expired; `heatpool-aggregator certificate` renews it there"
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        return f"its certificate is not of the CA in {identity.file}; is it the right aggregator?"
    if "ostname" in detail or "not in peer certificate" in detail:
        return "its certificate is for other names; ask it by one of them, or make it one for this"
    if "ALPN" in detail:
        return "it speaks TLS and no gRPC; that may be its web port: gRPC is at listen.grpc, 8443"
    if "WRONG_VERSION_NUMBER" in detail:
        return "it speaks no TLS; on its own machine ask it without --identity"
    return f"it refused the certificate in {identity.file}{_own_fault(identity)}" if is_cut else ""


def _own_fault(identity: Identity) -> str:
    """What can be seen of it from here."""
    # Only where something went wrong: it costs more to load than all the rest.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        own = x509.load_pem_x509_certificate(identity.chain)
        key = load_pem_private_key(identity.key, None)
    except (ValueError, TypeError) as error:
        return f": {error}"
    if key.public_key() != own.public_key():
        return ": the key in it belongs to another certificate"
    until = own.not_valid_after_utc
    if until <= datetime.now(UTC):
        return f": it expired at {until:%Y-%m-%dT%H:%M:%SZ}; ask an admin for a new one"
    return "; it may be of another CA: ask an admin for a new one"
