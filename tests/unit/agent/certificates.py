"""A CA and certificates of its own for tests, made by the library that the daemon does without."""

import hashlib
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

START = datetime(2026, 1, 1, tzinfo=UTC)
Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def spki_sha256(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


class Ca:
    """A CA that signs what it is asked to."""

    def __init__(self, name: str = "test CA") -> None:
        self.key = new_key()
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.key.public_key(), self.name, (), is_ca=True)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    @property
    def ca_hash(self) -> str:
        return f"sha256:{spki_sha256(self.key.public_key())}"

    def site(
        self,
        key: ec.EllipticCurvePublicKey,
        site_id: str,
        *,
        start: datetime = START,
        life: timedelta = timedelta(days=3650),
    ) -> str:
        uri = x509.UniformResourceIdentifier(f"spiffe://heatpool/site/{site_id}")
        return pem(self._signed(key, x509.Name([]), (uri,), start=start, life=life))

    def server(self, key: ec.EllipticCurvePublicKey, *hosts: str) -> str:
        names = [x509.IPAddress(ip_address(host)) for host in hosts]
        return pem(self._signed(key, x509.Name([]), names))

    def _signed(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: x509.Name,
        names: "tuple[x509.GeneralName, ...] | list[x509.IPAddress]",
        *,
        start: datetime = START,
        life: timedelta = timedelta(days=3650),
        is_ca: bool = False,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + life)
            .public_key(key)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            extension = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())
