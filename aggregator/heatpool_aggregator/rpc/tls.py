"""What the server proves itself with; read again when the files change, at the next handshake."""

import itertools
import logging
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from heatpool.errors import ConfigError
from heatpool.process.journal import facts
from heatpool_aggregator.config import TlsFiles
from heatpool_aggregator.core.turned_away import TurnedAway

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int], ...]


class ServerTls:
    """Certificates of one server; every client must show one, too."""

    def __init__(self, files: TlsFiles, turned_away: TurnedAway) -> None:
        self._files, self._turned_away = files, turned_away
        self._signature: _Signature = ()
        self._count = itertools.count(1)  # handshakes come from several threads

    def credentials(self) -> grpc.ServerCredentials:
        """What the port is opened with.

        Raises:
            ConfigError: a file cannot be read, or they do not fit together.
        """
        self._signature = self._look()
        fetch: Any = self._fetch  # None means "as before", which the stubs do not know
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._files), fetch, require_client_authentication=True
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, in a thread of its own, before each handshake; None: as before."""
        self._turned_away.handshakes_begun = next(self._count)
        try:
            signature = self._look()
            if signature == self._signature:
                return None
            self._signature = signature
            fresh = _configuration(self._files)
        except (ConfigError, OSError) as error:
            logger.warning("tls.not_reloaded", extra=facts(reason=str(error)))
            return None
        logger.info("tls.reloaded", extra=facts(cert=str(self._files.cert)))
        return fresh

    def _look(self) -> _Signature:
        stats = [path.stat() for path in _paths(self._files)]
        return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)


def check_files(files: TlsFiles) -> None:
    """Whether a server could start with them.

    Raises:
        ConfigError: a file cannot be read, or they do not fit together.
    """
    _configuration(files)


def _paths(files: TlsFiles) -> tuple[Path, Path, Path]:
    return files.key, files.cert, files.ca


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    key, chain, ca = (_read(path) for path in _paths(files))
    try:
        own = x509.load_pem_x509_certificates(chain)[0]
        x509.load_pem_x509_certificates(ca)
        fits = load_pem_private_key(key, None).public_key() == own.public_key()
    except (ValueError, TypeError) as error:
        raise ConfigError([f"tls: one of {_named(files)} is no PEM file: {error}"]) from error
    if not fits:
        raise ConfigError([f"tls: {files.key} is not the key of {files.cert}"])
    return grpc.ssl_server_certificate_configuration([(key, chain)], ca)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError([f"tls: {path} cannot be read: {error.strerror}"]) from error


def _named(files: TlsFiles) -> str:
    return ", ".join(str(path) for path in _paths(files))
