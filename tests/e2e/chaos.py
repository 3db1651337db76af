"""What a machine does to a real program: disks that fill up or refuse, clocks that are off."""

import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("chaos.c")
READ_ONLY, BROKEN, FULL = errno.EROFS, errno.EIO, errno.ENOSPC
_NS = 1_000_000_000


def compiled(folder: Path) -> Path:
    """The library to be preloaded; skips where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here to make the library that shifts clocks and refuses writes")
    library = folder / "chaos.so"
    options = ["-Wall", "-Werror", "-shared", "-fPIC", "-O1"]
    subprocess.run(["gcc", *options, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


@dataclass(frozen=True, slots=True)
class Weather:
    """What each program of a rig meets; changed while it runs."""

    folder: Path
    library: Path

    def environ(self, name: str) -> Mapping[str, str]:
        """The environment of the aggregator or of a site."""
        self.be(name)
        return {
            "LD_PRELOAD": str(self.library),
            "HEATPOOL_CHAOS": str(self._wish(name)),
            "HEATPOOL_CHAOS_FOLDER": f"{self.folder / name}/",
        }

    def be(self, name: str, *, clock_s: float = 0.0, refusal: int = 0) -> None:
        """From now on the clock is so far ahead, and each write ends so (0: as the disk says)."""
        wish = self._wish(name)
        # Mapped by the program: the file is written in place, never made anew.
        with open(wish, "r+b" if wish.exists() else "wb") as file:
            file.write(struct.pack("=qq", round(clock_s * _NS), refusal))

    def _wish(self, name: str) -> Path:
        return self.folder / f"{name}.chaos"


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[None]:
    """A disk of its own at this folder; skips where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "heatpool-chaos", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Takes all that is left of the disk, to the last byte."""
    with open(path, "wb", buffering=0) as file:
        for size_bytes in (65_536, 4_096, 1):
            try:
                while file.write(b"\0" * size_bytes) == size_bytes:
                    pass
            except OSError:
                continue
        os.fsync(file.fileno())
