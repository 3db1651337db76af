"""Where keys and certificates lie, and how they are written: whole, and for their owner alone."""

import os
from dataclasses import dataclass
from pathlib import Path

from heatpool.errors import HeatpoolError

FOLDER_MODE, SECRET_MODE, OPEN_MODE = 0o700, 0o600, 0o644


@dataclass(frozen=True, slots=True)
class Places:
    """The files of STATE/identity/."""

    folder: Path

    @property
    def ca(self) -> Path:
        """The CA's certificate, PEM; while it is exchanged, the old one behind the new."""
        return self.folder / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The CA's key, PEM: who has it can make anybody's certificate."""
        return self.folder / "ca.key"

    @property
    def old_ca(self) -> Path:
        """The certificate of the CA that is given up, while servers' certificates are still its."""
        return self.folder / "old-ca.pem"

    @property
    def old_ca_key(self) -> Path:
        """The key of that one."""
        return self.folder / "old-ca.key"

    @property
    def server(self) -> Path:
        """The server's certificate and what stands between it and the CA, PEM."""
        return self.folder / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's key, PEM."""
        return self.folder / "server.key"

    @property
    def admin(self) -> Path:
        """Key, certificate and CA of the first admin in one PEM file."""
        return self.folder / "admin.pem"


def places(state_dir: Path) -> Places:
    """The places of an aggregator with this state folder."""
    return Places(state_dir / "identity")


def make_folder(folder: Path) -> None:
    """Makes the folder, or closes it to others.

    Raises:
        HeatpoolError: it cannot be.
    """
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        folder.chmod(FOLDER_MODE)
    except OSError as error:
        raise _refused(folder, error) from error


def write(path: Path, data: bytes, *, mode: int = SECRET_MODE) -> None:
    """Replaces a file as a whole: after a power cut the old one is there, or the new one.

    Raises:
        HeatpoolError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.unlink(missing_ok=True)
        # Made with its mode: a key is not open to others for a moment either.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(aside, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _refused(path, error) from error


def remove(path: Path) -> None:
    """Takes a file away, if it is there.

    Raises:
        HeatpoolError: it cannot be.
    """
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        HeatpoolError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise HeatpoolError(
            f"{path}: cannot be read ({error.strerror}): run `heatpool-aggregator init`, as the "
            "user who runs the service"
        ) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(path: Path, error: OSError) -> HeatpoolError:
    return HeatpoolError(f"{path}: cannot be written ({error.strerror}): look at owner and disk")
