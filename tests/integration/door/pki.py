"""Certificates of the test's own making: good ones, and each kind of bad one."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Key and certificate, PEM; `serial` is hexadecimal."""

    key: bytes
    chain: bytes
    serial: str = ""


class Ca:
    """Signs whatever it is asked to, as a foreign or careless CA would."""

    def __init__(self, name: str = "test CA") -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self._signed(self._key, self._name, is_ca=True, lives=(-HOUR, 24 * HOUR)).chain

    def server(self, *hosts: str) -> Identity:
        """The certificate of a server at these names and addresses."""
        return self._issued("server", tuple(_host(host) for host in hosts))

    def caller(
        self, *uris: str, lives: tuple[timedelta, timedelta] = (-HOUR, 24 * HOUR)
    ) -> Identity:
        """The certificate of somebody with these URIs, valid from and until, from now on."""
        names = tuple(x509.UniformResourceIdentifier(uri) for uri in uris)
        return self._issued("caller", names, lives=lives)

    def _issued(
        self,
        name: str,
        names: tuple[x509.GeneralName, ...],
        *,
        lives: tuple[timedelta, timedelta] = (-HOUR, 24 * HOUR),
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        return self._signed(key, _name(name), names=names, lives=lives)

    def _signed(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        *,
        names: tuple[x509.GeneralName, ...] = (),
        is_ca: bool = False,
        lives: tuple[timedelta, timedelta],
    ) -> Identity:
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + lives[0])
            .not_valid_after(now + lives[1])
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        return Identity(
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            chain=made.public_bytes(Encoding.PEM),
            serial=format(made.serial_number, "x"),
        )


def write(folder: Path, ca: Ca, server: Identity) -> dict[str, str]:
    """The files of a server, as `[tls]` names them."""
    files = {"key": server.key, "cert": server.chain, "ca": ca.pem}
    for name, data in files.items():
        (folder / f"{name}.pem").write_bytes(data)
    return {name: str(folder / f"{name}.pem") for name in files}


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
