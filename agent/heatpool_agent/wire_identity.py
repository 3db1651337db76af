"""Renewal of a site's certificate <-> protobuf messages; nothing else imports these stubs."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from heatpool.errors import WireError
from heatpool.v1 import registry_pb2

RENEW_METHOD = "/heatpool.v1.RegistryService/RenewCertificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """The next certificate, the CA now, and when the one after it is due."""

    chain_pem: str
    ca_pem: str
    renew_after_ns: int


def renew_request(csr_der: bytes) -> bytes:
    """The wish for another certificate."""
    return registry_pb2.RenewCertificateRequest(csr_der=csr_der).SerializeToString()


def renewed(data: bytes) -> Renewed:
    """The answer.

    Raises:
        WireError: it is none.
    """
    try:
        found = registry_pb2.RenewCertificateResponse.FromString(data)
    except DecodeError as error:
        raise WireError("RenewCertificateResponse cannot be read") from error
    if not found.chain_pem or not found.ca_pem:
        raise WireError("RenewCertificateResponse holds no certificate")
    return Renewed(
        chain_pem=found.chain_pem, ca_pem=found.ca_pem, renew_after_ns=found.renew_after_ns
    )
