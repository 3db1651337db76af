"""Files with meters, money and names are their owner's alone, those of older versions too."""

import errno
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from integration.test_identity_commands import mode

from heatpool_aggregator.app import SystemClock
from heatpool_aggregator.closed_file import close_to_others
from heatpool_aggregator.logs import open_log
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.stores.audit import open_audit
from heatpool_aggregator.stores.identities import open_identities

FILES = ("audit.db", "identity.db", "ledger.db", "log.db", "store.db")


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.iterdir() if ".db" in path.name}


async def modes(folder: Path) -> dict[str, int]:
    """Of every database file while all are open."""
    async with AsyncExitStack() as stack:
        for door in (
            open_log("sqlite:", folder),
            open_store("sqlite:", folder),
            open_identities(folder, trust_domain="heatpool", clock=SystemClock()),
            open_audit(folder),
        ):
            await stack.enter_async_context(door)
        return modes_in(folder)


async def test_new_files_are_closed_to_others(tmp_path: Path) -> None:
    found = await modes(tmp_path)
    assert set(FILES) <= found.keys()
    assert set(found.values()) == {0o600}, found


async def test_files_that_an_older_version_left_open_are_closed(tmp_path: Path) -> None:
    await modes(tmp_path)
    for name in FILES:
        (tmp_path / name).chmod(0o644)
    found = await modes(tmp_path)
    assert {name: found[name] for name in FILES} == dict.fromkeys(FILES, 0o600)


def test_what_sqlite_left_beside_a_file_is_closed_too(tmp_path: Path) -> None:
    for name in ("a.db", "a.db-wal", "a.db-shm", "b.db"):
        (tmp_path / name).write_bytes(b"rows")
        (tmp_path / name).chmod(0o664)
    close_to_others(tmp_path / "a.db")
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {
        "a.db": 0o600,
        "a.db-wal": 0o600,
        "a.db-shm": 0o600,
        "b.db": 0o664,
    }
    assert (tmp_path / "a.db").read_bytes() == b"rows"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EROFS])
def test_a_file_whose_mode_is_not_ours_to_change_is_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    file = tmp_path / "a.db"
    file.touch(0o644)

    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "chmod", refused)
    close_to_others(file)
    assert mode(file) == 0o644
