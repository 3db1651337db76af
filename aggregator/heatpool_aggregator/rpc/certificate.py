"""Who is at the other end of a call, by the certificate that TLS has checked."""

from typing import Any

import grpc
import grpc.aio

from heatpool.errors import HeatpoolError
from heatpool_aggregator.identity.certificates import Named, named
from heatpool_aggregator.rpc.refused import Refused

Context = grpc.aio.ServicerContext[Any, Any]

_PEM = "x509_pem_cert"


def certificate_of(context: Context) -> Named:
    """The certificate of the caller.

    Raises:
        Refused: there is none, or it does not name exactly one URI as a SPIFFE identity does.
    """
    found = tuple(context.auth_context().get(_PEM, ()))
    if len(found) != 1:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "no client certificate came with this call")
    try:
        certificate = named(found[0])
    except HeatpoolError as error:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
    if not certificate.uri:
        text = "the client certificate does not name one URI, as spiffe://heatpool/person/anna"
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, text)
    return certificate


def host_of(context: Context) -> str:
    """The caller's address without its port, for the journal."""
    return context.peer().rpartition(":")[0].partition(":")[2] or "unknown"
