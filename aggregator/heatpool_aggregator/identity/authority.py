"""Our own CA: what it signs, it words itself; of a request only the public key is taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heatpool.errors import HeatpoolError
from heatpool_aggregator.core.enrolment import Issued
from heatpool_aggregator.core.principal import uri_of
from heatpool_aggregator.identity import certificates, places
from heatpool_aggregator.identity.places import OPEN_MODE, Places
from heatpool_aggregator.identity.requests import PublicKey, key_sha256

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
SITE_LIFE = timedelta(days=30)
USER_LIFE = timedelta(days=365)
# A newcomer's clock may be half a day behind; it must take us for valid all the same.
BACKDATED = timedelta(days=1)
# A CA that replaces another begins so much later, and dates nothing earlier: what the old one signs
# until its key is exchanged is known by its time.
_EXCHANGE_NS = 10 * 1_000_000_000
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Authority:
    """Certificate and key of the CA; `old` is the one that it replaces, while sites still know it.

    Callers' certificates are then of the new one, and the server's of the old one: that is the one
    that every site trusts.
    """

    certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey
    old: "Authority | None" = None
    _files: Places | None = None

    @property
    def pem(self) -> str:
        """What whoever calls us is to trust: the CA's certificate, and the old one's."""
        own = self.certificate.public_bytes(Encoding.PEM).decode()
        return own + (self.old.pem if self.old else "")

    @property
    def ca_hash(self) -> str:
        """`sha256:…`, by which a newcomer knows the CA that signed the server's certificate."""
        return certificates.ca_hash(self.of_server.certificate)

    @property
    def of_server(self) -> "Authority":
        """Who signs the server's certificate."""
        return self.old or self

    @property
    def began_ns(self) -> int:
        """When it was made, ns."""
        return certificates.at_ns(self.certificate.not_valid_before_utc + BACKDATED)

    def alone(self) -> "Authority":
        """Without the old one."""
        return Authority(self.certificate, self._key, _files=self._files)

    def current(self) -> "Authority":
        """As its files are now: a command may have exchanged them; blocking."""
        if self._files is None:
            return self
        try:
            return load(self._files)
        except HeatpoolError:
            return self  # a key that was carried away after the start

    def sign_holder(
        self, key: PublicKey, name: str, *, trust_domain: str, life: timedelta, now_ns: int
    ) -> Issued:
        """A certificate by which a site, person or machine, `site/e1`, calls us."""
        now_ns = max(now_ns, self.began_ns)
        start = _at(now_ns)
        certificate = (
            _begun(self.certificate.subject, name.rpartition("/")[2], start, life)
            .public_key(key)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(uri_of(trust_domain, name))]
                ),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        return self._issued(certificate, name, now_ns)

    def sign_server(
        self, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], *, now_ns: int
    ) -> Issued:
        """The certificate by which sites and browsers know this server.

        Raises:
            HeatpoolError: a host cannot stand in a certificate.
        """
        if self.old is not None:
            return self.old.sign_server(key, hosts, now_ns=now_ns)
        names = [certificates.general_name(host) for host in dict.fromkeys(hosts)]
        certificate = (
            _begun(self.certificate.subject, "heatpool aggregator", _at(now_ns), SERVER_LIFE)
            .public_key(key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return self._issued(certificate, "server", now_ns)

    def _issued(self, builder: x509.CertificateBuilder, name: str, now_ns: int) -> Issued:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
            critical=False,
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        key = certificate.public_key()
        assert isinstance(key, PublicKey)  # we put it there
        return Issued(
            serial=certificates.serial_of(certificate),
            name=name,
            key_sha256=key_sha256(key),
            issued_ns=now_ns,
            expires_ns=certificates.at_ns(certificate.not_valid_after_utc),
            chain_pem=certificate.public_bytes(Encoding.PEM).decode(),
        )


def make(files: Places, *, now_ns: int) -> Authority:
    """A new CA in its files.

    Raises:
        HeatpoolError: they cannot be written.
    """
    certificate, key = _new_ca(now_ns)
    places.write(files.ca_key, key_pem(key))
    places.write(files.ca, certificate.public_bytes(Encoding.PEM), mode=OPEN_MODE)
    return Authority(certificate, key, _files=files)


def exchange(files: Places, *, now_ns: int) -> Authority:
    """A new CA that signs from now on, beside the old one, which stays trusted.

    Each file is replaced whole, the key last: until then, and after a kill, the old CA goes on.

    Raises:
        HeatpoolError: one is being exchanged already, or a file cannot be used.
    """
    present = load(files)
    if present.old is not None:
        raise HeatpoolError(
            f"{files.old_ca}: the CA is being exchanged already: `heatpool-aggregator init "
            "--drop-old-ca` ends that"
        )
    certificate, key = _new_ca(now_ns + _EXCHANGE_NS)
    old_pem = present.certificate.public_bytes(Encoding.PEM)
    places.write(files.ca, certificate.public_bytes(Encoding.PEM) + old_pem, mode=OPEN_MODE)
    places.write(files.old_ca, old_pem)
    places.write(files.old_ca_key, key_pem(present._key))
    places.write(files.ca_key, key_pem(key))
    return load(files)


def drop_old(files: Places) -> None:
    """From now on the old CA is trusted no more; the server's certificate must be new already.

    Raises:
        HeatpoolError: a file cannot be written.
    """
    own = load(files).certificate.public_bytes(Encoding.PEM)
    places.write(files.ca, own, mode=OPEN_MODE)
    for path in (files.old_ca_key, files.old_ca):
        places.remove(path)


def _new_ca(now_ns: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = new_key()
    start = _at(now_ns)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"heatpool CA {start:%Y-%m-%d}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + CA_LIFE)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def load(files: Places) -> Authority:
    """The CA from its files.

    Raises:
        HeatpoolError: they cannot be read, or do not belong together.
    """
    own = _pair(files.ca, files.ca_key)
    if not files.old_ca_key.exists():
        return Authority(own.certificate, own._key, _files=files)
    old = _pair(files.old_ca, files.old_ca_key)
    is_exchanged = old.certificate != own.certificate
    return Authority(own.certificate, own._key, old=old if is_exchanged else None, _files=files)


def _pair(ca: Path, ca_key: Path) -> Authority:
    """The certificate among those of a file that this key is of."""
    key = load_key(ca_key)
    for certificate in certificates.load_all(places.read(ca), str(ca)):
        if certificate.public_key() == key.public_key():
            return Authority(certificate, key)
    raise HeatpoolError(f"{ca_key}: is not the key of {ca}: restore both from the same backup")


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PKCS #8 PEM, for files that their owner alone reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A key on an elliptic curve from its file.

    Raises:
        HeatpoolError: it is none.
    """
    try:
        key = load_pem_private_key(places.read(path), password=None)
    except (ValueError, TypeError) as error:
        raise HeatpoolError(f"{path}: is no key in PEM: restore it from a backup") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HeatpoolError(f"{path}: is no key on an elliptic curve: restore it from a backup")
    return key


def _begun(
    issuer: x509.Name, holder: str, start: datetime, life: timedelta
) -> x509.CertificateBuilder:
    """What all certificates below the CA have in common."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, holder)]))
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_ca=False), critical=True)
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _at(now_ns: int) -> datetime:
    return datetime.fromtimestamp(now_ns // _NS_PER_S, UTC)
