"""The spool on disk, looked at without changing a byte: sound, and closed to others."""

import os
import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from heatpool_agent.doctor.place import Place, user_name
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.spool_files import FILES

_FOR_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSeen:
    """One file or folder of the spool; `check` is SQLite's own word, empty for a folder."""

    path: str
    mode: int
    is_ours: bool = True
    check: str = ""


def families(place: Place) -> Sequence[Verdict]:
    """Everything of this room; blocking."""
    files = [place.folder / name for name in FILES.values()]
    found = [_file(path) for path in files if path.exists()]
    folder = [_file(place.folder)] if found else []
    return (sound(found), modes([*folder, *found], user=user_name()))


def sound(files: Sequence[FileSeen]) -> Verdict:
    """Whether SQLite finds the queues whole."""
    if not files:
        return skip("spool", "no spool yet; the first run makes it")
    broken = [one for one in files if one.check not in ("ok", "")]
    if not broken:
        return ok("spool", f"{len(files)} files, SQLite's quick_check says ok")
    one = broken[0]
    if "lock" in one.check or "busy" in one.check:
        return warn(
            "spool",
            f"{one.path}: {one.check}",
            why="it could not be looked at now",
            fix="run doctor again, or stop the agent first: systemctl stop heatpool-agent",
        )
    return fail(
        "spool",
        f"{one.path}: {one.check}",
        why="rows in it that were not sent may be lost; a start of the agent sets it aside",
        fix=f"sqlite3 {one.path} .recover > rescued.sql with the agent stopped, keep both files, "
        "then start the agent; and look at the disk: smartctl -a",
    )


def modes(files: Sequence[FileSeen], *, user: str) -> Verdict:
    """Whether the spool belongs to us and to nobody else."""
    if not files:
        return skip("spool_modes", "no spool yet")
    folder = files[0].path
    foreign = [one for one in files if not one.is_ours]
    if foreign and os.geteuid() != 0:
        return fail(
            "spool_modes",
            f"{foreign[0].path} belongs to another user",
            why="the agent cannot keep rows there",
            fix=f"chown -R {user} {folder} (as root), or run this as the service's user: "
            "runuser -u heatpool -- heatpool-agent doctor",
        )
    open_ones = [one for one in files if one.mode & _FOR_OTHERS]
    if open_ones:
        shown = ", ".join(f"{one.path} {one.mode:04o}" for one in open_ones[:2])
        return warn(
            "spool_modes",
            shown,
            why="others on this machine can read this site's figures",
            fix=f"chmod -R go= {folder}",
        )
    return ok("spool_modes", f"{folder} is closed to others")


def _file(path: Path) -> FileSeen:
    seen = path.stat()
    return FileSeen(
        path=str(path),
        mode=stat.S_IMODE(seen.st_mode),
        is_ours=seen.st_uid == os.geteuid(),
        check=_quick_check(path) if path.is_file() else "",
    )


def _quick_check(path: Path) -> str:
    # Without both of its files beside it SQLite would make them anew; `immutable` makes none.
    beside = [path.with_name(path.name + tail) for tail in ("-wal", "-shm")]
    way = "mode=ro" if all(one.exists() for one in beside) else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{path}?{way}", uri=True, timeout=1.0)) as db:
            return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
