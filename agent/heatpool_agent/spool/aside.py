"""A spool whose site takes another name: its files go aside, so that no row is sent under the new.

Two names never share a boot id or a number: the next run makes both files anew.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from heatpool.errors import StoreError
from heatpool.sample import SpoolKind
from heatpool_agent.spool.state import look
from heatpool_agent.spool_files import FILES, TAILS, exclusive, mark_closed, read_only, refusal

_OWNER = "spooled_as"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps agents out of a spool while its site's name changes.

    Raises:
        StoreError: an agent runs here.
    """
    lock = exclusive(folder)
    try:
        yield
        if not any((folder / name).exists() for name in FILES.values()):
            mark_closed(lock)
    finally:
        lock.close()


def waiting(folder: Path) -> list[str]:
    """What the other end does not have for good, in words; empty: nothing.

    Raises:
        StoreError: a file cannot be read.
    """
    found = []
    for kind in SpoolKind:
        if (stat := look(folder, kind)) is None:
            continue
        rows_count = stat.backlog_rows_count + _open_count(folder, kind)
        if rows_count:
            found.append(f"{rows_count:,} {kind.name.lower()} rows")
        if stat.untold_count:
            found.append(f"{stat.untold_count:,} losses of {kind.name.lower()} rows")
    return found


def move(folder: Path, site_id: str, *, at_ns: int) -> list[Path]:
    """Renames both files with what SQLite keeps beside them; where they lie now.

    Raises:
        StoreError: the disk did not let them go.
    """
    when = datetime.fromtimestamp(at_ns // 10**9, UTC)
    mark = f".of-{site_id}-{when:%Y%m%dT%H%M%SZ}"
    moved = []
    for path in (folder / name for name in FILES.values()):
        if not path.exists():
            continue
        aside = path.with_name(path.name + mark)
        try:
            for tail in (*TAILS, ""):
                beside = path.with_name(path.name + tail)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + tail))
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; look at the disk and the owner") from error
        moved.append(aside)
    return moved


def owner(folder: Path) -> str:
    """Whose rows a spool holds whose site has left; empty: nobody's else than who joins."""
    try:
        return (folder / _OWNER).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{folder / _OWNER}: {error}; look at the disk and the owner") from error


def note_owner(folder: Path, site_id: str) -> None:
    """Keeps the name of a site that leaves beside its rows; empty: it is known elsewhere again.

    Raises:
        StoreError: it cannot be kept.
    """
    path = folder / _OWNER
    try:
        path.unlink(missing_ok=True)
        if site_id:
            path.write_text(f"{site_id}\n", encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; look at the disk and the owner") from error


def _open_count(folder: Path, kind: SpoolKind) -> int:
    if kind is not SpoolKind.TELEMETRY:
        return 0
    path = folder / FILES[kind]
    try:
        with closing(read_only(path)) as db:
            count: int = db.execute("SELECT count(*) FROM open_rows").fetchone()[0]
            return count
    except sqlite3.Error as error:
        raise refusal(path.name, error) from error
