"""Who is at the other end of a call, by the certificate that TLS has checked."""

from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from cryptography import x509

from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.rpc.refused import Refused

Context = grpc.aio.ServicerContext[Any, Any]

_PEM = "x509_pem_cert"
_NS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What it says: SPIFFE URI, serial number as lower-case hexadecimal, end of its life in ns."""

    uri: str
    serial: str
    until_ns: int


def certificate_of(context: Context) -> Certificate:
    """The certificate of the caller.

    Raises:
        Refused: there is none, or it does not name exactly one URI as a SPIFFE identity does.
    """
    found = tuple(context.auth_context().get(_PEM, ()))
    if len(found) != 1:
        raise _unknown("no client certificate came with this call")
    try:
        own = x509.load_pem_x509_certificate(found[0])
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise _unknown(f"the client certificate names nobody: {error}") from error
    if len(uris) != 1:
        raise _unknown(f"the client certificate names {len(uris)} URIs, must name one")
    return Certificate(
        uri=uris[0],
        serial=format(own.serial_number, "x"),
        until_ns=int(own.not_valid_after_utc.timestamp()) * _NS,
    )


def host_of(context: Context) -> str:
    """The caller's address without its port, for the journal."""
    return context.peer().rpartition(":")[0].partition(":")[2] or "unknown"


def _unknown(detail: str) -> Refused:
    return Refused(grpc.StatusCode.UNAUTHENTICATED, detail, reason=Reason.UNKNOWN)
