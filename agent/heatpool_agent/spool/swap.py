"""Puts a healed file into the place of a damaged one; a kill at any moment loses neither."""

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from heatpool_agent.spool_files import TAILS, connect

ASIDE_KEPT = 2


def new_of(path: Path) -> Path:
    """Where the file that is to replace this one is made."""
    return path.with_name(path.name + ".new")


def unlink(path: Path) -> None:
    """Removes a file with all that SQLite keeps beside it."""
    for tail in ("", "-journal", *TAILS):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a new file was finished: its one transaction is there."""
    if not path.exists():
        return False
    try:
        with closing(connect(path)) as db:
            return bool(db.execute("SELECT 1 FROM meta WHERE name = 'sure'").fetchone())
    except sqlite3.Error:
        return False


def swap(path: Path) -> Path:
    """Moves the damaged file aside and the new one into its place; again after a kill."""
    aside = path.with_suffix(f".damaged-{os.urandom(4).hex()}")
    # The write-ahead file holds the newest commits: it goes along for rescue.
    for tail in ("", *TAILS):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + tail).rename(aside.with_name(aside.name + tail))
    new_of(path).rename(path)
    _forget_old(path)
    return aside


def _forget_old(path: Path) -> None:
    """Only the newest wrecks stay: a dying disk must not fill itself."""
    wrecks = [
        one for one in path.parent.glob(f"{path.stem}.damaged-*") if not one.name.endswith(TAILS)
    ]
    for one in sorted(wrecks, key=lambda wreck: wreck.stat().st_mtime_ns)[:-ASIDE_KEPT]:
        unlink(one)
