"""The spool on disk, looked at without changing a byte: sound, closed to others, draining."""

import os
import sqlite3
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.sample import GapReason, SpoolKind
from heatpool_agent.doctor.place import Place, user_name
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.enrol.files import load
from heatpool_agent.ports import QueueStat
from heatpool_agent.spool.state import look
from heatpool_agent.spool_files import FILES, read_only

_FOR_OTHERS = 0o077
_FULL_FRAC = 0.8
_OLD_S = 86_400.0
_NS = 1_000_000_000


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
    queues = _queues(place.folder)
    return (
        sound(found),
        modes([*folder, *found], user=user_name()),
        backlog(
            queues,
            now_ns=place.clock.event_ns(),
            max_bytes=place.config.spool.max_bytes,
            is_sending=_is_sending(place),
        ),
        losses(queues),
    )


def _is_sending(place: Place) -> bool:
    """Whether somebody is named to send to; an identity that cannot be read names somebody."""
    if place.config.aggregator.url:
        return True
    try:
        return load(place.folder) is not None
    except StoreError:
        return True


def _queues(folder: Path) -> Sequence[QueueStat]:
    """What the files hold; one that cannot be read is told by `spool`."""
    with suppress(StoreError, ValueError):
        return [found for kind in SpoolKind if (found := look(folder, kind)) is not None]
    return ()


def backlog(
    queues: Sequence[QueueStat], *, now_ns: int, max_bytes: int, is_sending: bool
) -> Verdict:
    """Whether what waits on this disk gets through, and how much room is left for it."""
    starts_ns = [one.backlog_start_ns for one in queues if one.backlog_start_ns is not None]
    if not queues:
        return skip("spool_backlog", "no spool yet")
    if not is_sending:
        return skip("spool_backlog", "sent nowhere: this site has not joined; all stays here")
    if not starts_ns:
        return ok("spool_backlog", "all that was written is durable at the aggregator")
    count = sum(one.backlog_frames_count for one in queues)
    age_s = (now_ns - min(starts_ns)) / _NS
    found = f"{count:,} batches wait, the oldest for {age_s / 3600:.1f} h"
    full_frac = max(one.size_bytes for one in queues) / max_bytes
    if full_frac > _FULL_FRAC:
        return warn(
            "spool_backlog",
            f"{found}; {full_frac:.0%} of spool.max_bytes is used",
            why="soon old rows lose detail: 1 s, then 10 s, 60 s and 15 min; billing rows never do",
            fix="bring the line back (see aggregator), or raise spool.max_bytes",
        )
    if age_s > _OLD_S:
        return warn(
            "spool_backlog",
            found,
            why="the aggregator has not heard of this site for long, or drains it slowly",
            fix="see aggregator; heatpool-agent spool stat shows whether it drains",
        )
    return ok("spool_backlog", found)


def losses(queues: Sequence[QueueStat]) -> Verdict:
    """What of this spool will never be sent."""
    if not queues:
        return skip("spool_losses", "no spool yet")
    lost: Counter[GapReason] = Counter()
    for one in queues:
        lost.update(one.lost_frames_count)
    del lost[GapReason.UNUSED]  # numbers without rows
    told = ", ".join(f"{count:,} {reason.name.lower()}" for reason, count in sorted(lost.items()))
    if lost[GapReason.DROPPED] + lost[GapReason.DAMAGED] == 0:
        return ok("spool_losses", f"batches lost: {told or 'none'}")
    return warn(
        "spool_losses",
        f"batches lost: {told}",
        why="these rows will never reach the aggregator, which is told so: heatpool gaps",
        fix="dropped: give the disk room or raise spool.max_bytes; damaged: smartctl -a",
    )


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
        why="rows in it that were not sent may be lost; the agent makes the file anew out of what "
        "it can read, tells the aggregator what is missing, and leaves the old one as .damaged-",
        fix="look at the disk: smartctl -a; for what the agent could not read: "
        f"sqlite3 {one.path} .recover > rescued.sql with the agent stopped",
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
    try:
        with closing(read_only(path)) as db:
            return str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)
