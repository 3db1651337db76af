"""Files that hold meters, money or who is who: for their owner alone."""

import os
import stat
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = 0o600
_OTHERS = 0o077
# SQLite gives what it lays beside a file the mode of that file, when it makes them.
_BESIDE = ("", "-wal", "-shm")


def close_to_others(path: Path) -> None:
    """Makes the file where there is none, and takes from others what they may do with it.

    A file whose mode is not ours to change, or a disk without modes, stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    with suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(path, flags, OWNER_ONLY))
    for beside in _BESIDE:
        file = path.with_name(path.name + beside)
        with suppress(OSError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & _OTHERS:
                file.chmod(mode & ~_OTHERS)
