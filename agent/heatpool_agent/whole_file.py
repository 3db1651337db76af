"""One file of the state folder, replaced whole: after a power cut it is the old one or the new."""

import contextlib
import os
from pathlib import Path

FILE_MODE = 0o600


def put(path: Path, content: bytes) -> None:
    """Replaces a file, for its owner alone; with its folder on the disk when this returns.

    Several may do so at once: one of them is whole, and last.

    Raises:
        OSError: the disk refused; the old one is as it was.
    """
    aside = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(aside, flags, FILE_MODE), "wb") as file:
            _hand_over(file.fileno(), path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _hand_over(descriptor: int, folder: Path) -> None:
    """What root writes is of no use where the agent, whose folder it is, may not read it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
