"""Files that a command leaves: there whole, or not at all, and the file before them untouched.

A disk that is full half way, or a kill, must not leave half a table that looks like one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from heatpool.errors import StoreError


@contextmanager
def written(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name once all is in it; a device or a pipe takes it at once.

    Raises:
        StoreError: it cannot be made, or the disk refused its end; in between, see `refused`.
    """
    goal = path.resolve()
    is_plain = goal.is_file() or not goal.exists()
    aside = goal.with_name(f".{goal.name}.part") if is_plain else goal
    try:
        out = aside.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise refused(path, error) from error
    try:
        yield out
        _end(out, aside, goal, path)
    except BaseException:
        with suppress(OSError):
            out.close()
        if is_plain:
            aside.unlink(missing_ok=True)
        raise


def refused(path: Path, error: OSError) -> StoreError:
    """The error that names the file, and what to do."""
    return StoreError(f"{path}: {error.strerror}; look at the disk, and at the folder's owner")


def _end(out: TextIO, aside: Path, goal: Path, path: Path) -> None:
    try:
        out.close()
        if aside != goal:
            if goal.exists():
                aside.chmod(goal.stat().st_mode & 0o777)
            os.replace(aside, goal)
    except OSError as error:
        raise refused(path, error) from error
