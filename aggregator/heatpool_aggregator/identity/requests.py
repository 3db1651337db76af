"""Certificate signing requests of strangers: what is refused before anything is signed."""

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heatpool_aggregator.core.enrolment import JoinReason, JoinRefused

CSR_BYTES_LIMIT = 8192
RSA_BITS_MIN, RSA_BITS_MAX = 2048, 4096  # longer ones cost the service more than the sender
_EXPONENT_MIN = 65_537
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)

# What the library raises over bytes of strangers; some of it is no ValueError.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def read_pem(data: bytes, *, uri: str) -> PublicKey:
    """The key of a PEM request, as `read_der`.

    Raises:
        JoinRefused: with the reason.
    """
    _check_size(data)
    try:
        return _checked(x509.load_pem_x509_csr(data), uri)
    except _UNREADABLE as error:
        raise _bad("csr_pem is no certificate signing request in PEM") from error


def read_der(data: bytes, *, uri: str) -> PublicKey:
    """The key for which a certificate is asked, whose holder has signed the request with it.

    Subject and extensions are read only to refuse those who ask for what they shall not get;
    nothing of them enters the certificate. `uri` is the only name that may be asked for.

    Raises:
        JoinRefused: with the reason.
    """
    _check_size(data)
    try:
        return _checked(x509.load_der_x509_csr(data), uri)
    except _UNREADABLE as error:
        raise _bad("csr_der is no certificate signing request in DER") from error


def key_sha256(key: PublicKey) -> bytes:
    """SHA-256 over a key's SubjectPublicKeyInfo."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def _check_size(data: bytes) -> None:
    if len(data) > CSR_BYTES_LIMIT:
        raise _bad(f"the request has {len(data)} bytes, at most {CSR_BYTES_LIMIT} are read")


def _checked(request: x509.CertificateSigningRequest, uri: str) -> PublicKey:
    key = request.public_key()
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, _CURVES):
            pass
        case rsa.RSAPublicKey():
            _check_rsa(key)
        case _:
            raise _bad("the key is of a kind that is not taken: make one on P-256")
    if not isinstance(request.signature_hash_algorithm, _HASHES):
        raise _bad("the request is signed over a weak hash: use SHA-256")
    if not _is_signed(request):
        raise _bad("the request is not signed by its own key")
    _check_extensions(request.extensions, uri)
    return key


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except InvalidSignature:
        return False


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        raise _bad(
            f"the RSA key has {key.key_size} bits, taken are {RSA_BITS_MIN} to {RSA_BITS_MAX}: "
            "better make one on P-256"
        )
    if key.public_numbers().e < _EXPONENT_MIN:
        raise _bad("the RSA key has a weak exponent: use 65537")


def _check_extensions(extensions: x509.Extensions, uri: str) -> None:
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise _bad("the request asks to become a CA: leave that out")
            case x509.SubjectAlternativeName() as names:
                if list(names) != [x509.UniformResourceIdentifier(uri)]:
                    raise _bad(f"the request asks for another name than {uri}: leave it out")


def _bad(text: str) -> JoinRefused:
    return JoinRefused(JoinReason.BAD_REQUEST, text)
