"""One small file of the kernel, held open and read again from its start.

Opening costs more than reading: 292 against 115 us for a tick of all power counters. What a
number means is said by the driver that holds the file.
"""

import errno
import os
from pathlib import Path

# A number of sysfs fits in far less; /proc/stat's first line does too.
_READ_BYTES = 512


class KernelFile:
    """A file of sysfs or procfs; opening it may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def text(self) -> str | None:
        """The content now; None where the kernel has no value at this moment.

        Raises:
            OSError: ENODEV, the device behind it was removed.
        """
        try:
            return os.pread(self._fd, _READ_BYTES, 0).decode("ascii", "replace").strip()
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise
            return None

    def count(self) -> int | None:
        """The content as a whole number; None if it is none."""
        return whole_number(self.text())

    def close(self) -> None:
        """Frees the descriptor; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def whole_number(text: str | None) -> int | None:
    """The decimal number that the text is; None if it is something else or empty."""
    try:
        return int(text) if text else None
    except ValueError:
        return None


def read_text(path: Path) -> str | None:
    """The content of a file that is read once; None where it is missing or unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def kernel_boot(proc: Path) -> str:
    """The id of this life of the kernel; empty where it is not shown."""
    return read_text(proc / "sys/kernel/random/boot_id") or ""
