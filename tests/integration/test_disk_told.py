"""A disk that refuses is on the board until it does not; one that is damaged ends the gateway."""

import sqlite3
from collections import deque
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from heatpool.errors import LogDamaged, LogError, StoreError
from heatpool.sample import BootId, SiteId
from heatpool_aggregator.board import Board
from heatpool_aggregator.loops import gateway as door
from heatpool_aggregator.loops.gateway import Gateway
from heatpool_aggregator.ports import Frame, FrameKind, Position
from heatpool_aggregator.stores import open_store
from heatpool_aggregator.stores.files import SqliteFile

FRAME = Frame(SiteId("e1"), BootId("b"), FrameKind.HELLO, 0, 1, b"")


class StillClock:
    def now_ns(self) -> int:
        return 1

    def boot_ns(self) -> int:
        return 1


class Refusing:
    """A log whose disk refuses some times; `seen` is what the board said at each try."""

    def __init__(self, board: Board, *errors: LogError) -> None:
        self._board, self._errors = board, list(errors)
        self.seen: list[dict[str, str]] = []

    async def append(self, frames: Sequence[Frame]) -> Position:
        self.seen.append(dict(self._board.disk_errors))
        if self._errors:
            raise self._errors.pop(0)
        return Position(1)

    def partition(self, number: int) -> None:
        raise NotImplementedError


def gateway(board: Board, log: Refusing) -> Gateway:
    found = Gateway(log=log, clock=StillClock(), board=board, refusals=deque())  # type: ignore[arg-type]
    found.stage(FRAME, None)
    return found


async def test_a_log_that_refuses_is_on_the_board_until_it_takes_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "RETRY_S", 0.0)
    board = Board()
    log = Refusing(board, LogError("disk is full"), LogError("disk is full"))
    await gateway(board, log).step()
    assert log.seen == [{}, {"log": "disk is full"}, {"log": "disk is full"}]
    assert board.disk_errors == {}


async def test_a_damaged_log_ends_the_gateway() -> None:
    board = Board()
    with pytest.raises(LogDamaged):
        await gateway(board, Refusing(board, LogDamaged("crc32"))).step()


async def test_a_store_is_new_until_it_is_flushed(tmp_path: Path) -> None:
    async with open_store("sqlite:", tmp_path) as store:
        assert await store.is_new()
        await store.flush()
        assert not await store.is_new()
    async with open_store("sqlite:", tmp_path) as store:
        assert not await store.is_new()


async def test_a_damaged_store_says_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database at all " * 400)
    with pytest.raises(StoreError, match=r"store\.db.*move it aside"):
        async with open_store("sqlite:", tmp_path):
            pass


async def test_a_transaction_that_the_disk_ended_tells_its_own_error(tmp_path: Path) -> None:
    """SQLite rolls back by itself on a full disk: our own roll-back must not hide why."""
    path = tmp_path / "small.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE t (value BLOB)")
        db.execute("PRAGMA user_version = 1")
    file = SqliteFile(path, version=1, synchronous="FULL")
    await file.start(lambda: None)
    try:
        await file.rows("PRAGMA cache_size = 4")
        await file.rows("PRAGMA max_page_count = 8")
        with pytest.raises(StoreError, match="disk is full"):
            await file.write([("INSERT INTO t VALUES (zeroblob(?))", [(4096,)] * 64)])
        await file.write([("INSERT INTO t VALUES (?)", [(b"",)])])
    finally:
        await file.close()
