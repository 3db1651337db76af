"""The server's own certificate: made, renewed, and read again when its file changes."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from heatpool.errors import HeatpoolError
from heatpool_aggregator.core.enrolment import Issued
from heatpool_aggregator.identity import authority, certificates, places
from heatpool_aggregator.identity.authority import Authority
from heatpool_aggregator.identity.places import OPEN_MODE, Places

Mark = tuple[int, ...]
# A CA that has just replaced another dates nothing earlier than its own beginning, some seconds on.
_AHEAD_NS = 60 * 10**9


def make(ca: Authority, files: Places, hosts: Sequence[str], *, now_ns: int) -> Issued:
    """A new key and certificate for these host names and addresses.

    Raises:
        HeatpoolError: a host cannot stand in a certificate, or a file cannot be written.
    """
    key = authority.new_key()
    issued = ca.sign_server(key.public_key(), hosts, now_ns=now_ns)
    # A reader between the two sees a pair that does not fit, keeps what it has and looks again.
    places.write(files.server_key, authority.key_pem(key))
    places.write(files.server, issued.chain_pem.encode(), mode=OPEN_MODE)
    return issued


def renew(ca: Authority, files: Places, *, now_ns: int) -> Issued:
    """Another certificate on the same key for the same names: one file, replaced at once.

    Raises:
        HeatpoolError: the present one, or its key, cannot be read.
    """
    present = certificates.load(places.read(files.server), str(files.server))
    key = authority.load_key(files.server_key)
    issued = ca.sign_server(key.public_key(), certificates.hosts_of(present), now_ns=now_ns)
    places.write(files.server, issued.chain_pem.encode(), mode=OPEN_MODE)
    return issued


def is_due(ca: Authority, files: Places, *, now_ns: int) -> bool:
    """Whether our CA signed the present certificate, and two thirds of its life are over.

    Or it is dated ahead, made while the clock was: no site would take it until then.

    Raises:
        HeatpoolError: it cannot be read.
    """
    present = certificates.load(places.read(files.server), str(files.server))
    try:
        present.verify_directly_issued_by(ca.of_server.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    life = certificates.named(places.read(files.server))
    is_ahead = life.issued_ns > now_ns + _AHEAD_NS
    return is_ahead or now_ns >= certificates.renew_after_ns(life.issued_ns, life.expires_ns)


def context(cert: Path, key: Path) -> ssl.SSLContext:
    """What HTTPS is served with: TLS 1.2 or later, no client certificates.

    Raises:
        HeatpoolError: the files cannot be used together.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        raise HeatpoolError(
            f"{cert}, {key}: cannot be used together ({error}): they must be PEM and of one pair"
        ) from error
    return made


def mark(*paths: Path) -> Mark:
    """Changes when one of the files is replaced or written to; 0 where there is none."""
    marks: list[int] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            marks += (0, 0)
        else:
            marks += (found.st_ino, found.st_mtime_ns)
    return tuple(marks)
