"""Files of a recording, which a stranger may have made: none but real ones in its own folder.

A link would lead the reader to files of this machine, a pipe would let it wait for ever, and a
line without end would take all of its memory.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from heatpool.errors import ConfigError

MAPS = "maps"
# A manifest has some kB, a map less, and a line one answer: a large Redfish document has 2 MB.
MOST_FILE_BYTES = 4_000_000
MOST_LINE_BYTES = 32_000_000


def opened(path: Path) -> BinaryIO:
    """The file, for reading; blocking.

    Raises:
        OSError: it is missing, or a link, a pipe or a device.
    """
    # Without blocking: opening a pipe waits for whoever writes into it.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "is no plain file")
    return os.fdopen(fd, "rb")


def content(path: Path) -> bytes:
    """All of a small file; blocking.

    Raises:
        OSError: the same, or it is too large.
    """
    with opened(path) as file:
        data = file.read(MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        raise OSError(0, f"is larger than {MOST_FILE_BYTES} bytes")
    return data


def lines(path: Path) -> Iterator[bytes]:
    """Line by line; blocking.

    Raises:
        OSError: as `opened`.
        ValueError: a line is too long.
    """
    with opened(path) as file:
        while line := file.readline(MOST_LINE_BYTES + 1):
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"a line has more than {MOST_LINE_BYTES} bytes")
            yield line


def with_map(block: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A sensor's block, in which a map that came along is found in the recording; blocking.

    Raises:
        ConfigError: the map lies elsewhere, or is no plain file.
    """
    told = str(block.get("map", ""))
    if not told.endswith(".toml"):
        if "/" in told or "\0" in told:
            raise ConfigError([_elsewhere(told)], file=str(folder))
        return dict(block)
    path = folder / told
    if PurePosixPath(told).parts[:-1] != (MAPS,) or (folder / MAPS).is_symlink():
        raise ConfigError([_elsewhere(told)], file=str(folder))
    try:
        opened(path).close()
    except OSError as error:
        raise ConfigError([f"cannot be read: {error.strerror}"], file=str(path)) from error
    return {**block, "map": str(path)}


def _elsewhere(told: str) -> str:
    return f"map: is {told!r}, must be a map of heatpool or lie in the recording, {MAPS}/ID.toml"
