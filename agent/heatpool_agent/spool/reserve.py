"""Two megabytes that nobody uses, freed on a full disk so that billing still writes."""

import contextlib
import os
from pathlib import Path

SIZE_BYTES = 2_000_000
# Made anew only with room to spare: else it would take what was just freed.
SPARE_BYTES = 2 * SIZE_BYTES


class Reserve:
    """The file that holds them."""

    def __init__(self, folder: Path, size_bytes: int = SIZE_BYTES) -> None:
        self._path = folder / "reserve"
        self._size_bytes = size_bytes

    @property
    def is_held(self) -> bool:
        """Whether the room is still kept."""
        try:
            return self._path.stat().st_size >= self._size_bytes
        except OSError:
            return False

    @property
    def is_needed(self) -> bool:
        """Whether what is left of the disk is all that billing has."""
        return not self.keep() and free_bytes(self._path.parent) < self._size_bytes

    def free(self) -> bool:
        """Gives the room back; False: it was not there."""
        is_there = self._path.exists()
        with contextlib.suppress(OSError):
            self._path.unlink()
        return is_there and not self._path.exists()

    def keep(self) -> bool:
        """Takes the room if there is enough of it; whether it is held now."""
        if self.is_held:
            return True
        if free_bytes(self._path.parent) < self._size_bytes + SPARE_BYTES:
            return False
        try:
            with open(self._path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._size_bytes)
        except OSError:
            self.free()
        return self.is_held


def free_bytes(folder: Path) -> int:
    """Room left on the disk for this user, bytes."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def disk_bytes(folder: Path) -> int:
    """Size of the disk, bytes."""
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize
