"""Makes a key with its signing request, and asks for the next certificate; a process of its own.

`python -m heatpool_agent.enrol.child request|renew`, one JSON document in, one out: so that the
library for keys, and a key that is not used yet, never enter the daemon's memory.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from heatpool.errors import HeatpoolError, UplinkError, WireError
from heatpool_agent import wire_identity
from heatpool_agent.core import certificate

_TIMEOUT_S = 30.0


def main() -> None:
    """Does what the command line says; a failure is one line on stderr."""
    verbs = {"request": requested, "renew": renewed}
    try:
        json.dump(verbs[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
    except HeatpoolError as error:
        sys.exit(str(error))


def requested(asked: Mapping[str, Any]) -> dict[str, str]:
    """A key, or the one that is there already, and the request that it signs."""
    key = _key(asked["key_pem"])
    return {
        "key_pem": _key_pem(key),
        "csr_pem": _request(key).public_bytes(Encoding.PEM).decode(),
        "key_sha256": _key_sha256(key),
    }


def renewed(asked: Mapping[str, Any]) -> dict[str, Any]:
    """A new key with its certificate, asked for in the name of the present one.

    Raises:
        UplinkError: the aggregator cannot be reached, or said no.
        WireError: it did not answer with a certificate for the new key.
    """
    key = _key("")
    request = wire_identity.renew_request(_request(key).public_bytes(Encoding.DER))
    credentials = grpc.ssl_channel_credentials(
        root_certificates=asked["root_pem"].encode(),
        private_key=asked["key_pem"].encode(),
        certificate_chain=asked["chain_pem"].encode(),
    )
    with grpc.secure_channel(asked["target"], credentials) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(wire_identity.RENEW_METHOD)
        try:
            answer = call(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            raise UplinkError(f"{error.code().name}: {error.details()}") from error
    found = wire_identity.renewed(answer)
    certificate.blocks(found.ca_pem)
    if certificate.first(found.chain_pem).key_sha256 != _key_sha256(key):
        raise WireError("the new certificate is for another key than ours")
    return {
        "key_pem": _key_pem(key),
        "chain_pem": found.chain_pem,
        "ca_pem": found.ca_pem,
        "renew_after_ns": found.renew_after_ns,
    }


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    if not pem:
        return ec.generate_private_key(ec.SECP256R1())
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise HeatpoolError("the key that waits cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HeatpoolError("the key that waits is none on an elliptic curve")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key_sha256(key: ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _request(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """A request without a name: whom it is for, the aggregator knows by token or certificate."""
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(
        key, hashes.SHA256()
    )  # fmt: skip


if __name__ == "__main__":
    main()
