"""A disk that is full or may not be written: billing goes on, the rest waits, nothing is silent."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from ports.spool_rig import HEAT, START_S, B, StillClock, T, account, held, register, row, spans

from heatpool.sample import GapReason, SiteId, SpoolKind
from heatpool_agent.board import Board
from heatpool_agent.http.seen import look, unready
from heatpool_agent.loops import spooling as loop
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate

TESTS = Path(__file__).parents[1]
SIZE_MB = 40


def opened(folder: Path) -> tuple[SqliteSpool, Spooling, Board]:
    migrate(folder)
    spool = SqliteSpool(
        folder, clock=StillClock(), rows_per_frame=1, max_bytes=10**9, keep_s=86_400
    )
    board = Board(site_id=SiteId("s1"))
    return spool, Spooling(spool, board), board


async def on_a_full_disk(folder: Path) -> dict[str, object]:
    """The story of a disk that others fill, and that somebody frees again."""
    told: dict[str, object] = {}
    spool, spooling, board = await asyncio.to_thread(opened, folder / "spool")
    for second in range(50):
        await spooling.append(row(START_S + second, heat=1.0))
    await spooling.append_registers((register(START_S, 0),))
    await asyncio.to_thread(fill, folder / "others")
    for second in range(50, 400):
        await spooling.append(row(START_S + second, heat=1.0))
        await spooling.append_registers((register(START_S + second, second),))
    told["billing_next_seq"] = spool.mark(B).next_seq
    told["error_when_full"] = board.spool_error
    told["reserve_when_full"] = spool._reserve.is_held
    (folder / "others").unlink()
    await spooling.append(row(START_S + 400, heat=1.0))
    told["error_after"] = board.spool_error
    told["reserve_after"] = spool._reserve.is_held
    told["rows"] = spool.mark(T).next_seq - 1
    for kind in SpoolKind:
        account(spool, kind)
    told["reasons"] = sorted({one.reason.name for one in spool.losses()})
    told["seconds"] = sum(span_s for _, _, span_s in spans(spool, HEAT, row_s=1.0))
    told["billed"] = len(held(spool, B))
    await spooling.close()
    return told


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        for size_bytes in (65_536, 4_096, 1):
            try:
                while file.write(b"\0" * size_bytes) == size_bytes:
                    pass
            except OSError:
                continue


SMALL_DISK = """
import asyncio, json, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
folder = Path(sys.argv[2])
size = f"size={sys.argv[3]}m"
subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True)
from integration.test_spool_disk import on_a_full_disk
print(json.dumps(asyncio.run(on_a_full_disk(folder))))
"""


def test_a_full_disk_holds_up_no_billing_and_heals_when_it_is_freed(tmp_path: Path) -> None:
    args = [sys.executable, "-c", SMALL_DISK, str(TESTS), str(tmp_path), str(SIZE_MB)]
    try:
        child = subprocess.run(
            ["unshare", "--mount", "--map-root-user", *args],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    except OSError as error:
        pytest.skip(f"no unshare here: {error}")
    if "unshare" in child.stderr or "mount" in child.stderr:
        pytest.skip(f"no small disk can be mounted here: {child.stderr.strip()[-200:]}")
    assert child.returncode == 0, child.stderr
    told = json.loads(child.stdout.splitlines()[-1])
    # Each of the registers has a frame of its own, on disk before the disk was freed.
    assert told["billing_next_seq"] == 352
    assert told["billed"] == 351
    assert "disk" in told["error_when_full"]
    assert not told["reserve_when_full"]
    assert told["error_after"] == ""
    assert told["reserve_after"]
    # Rows waited in memory, where all of them had room; older ones may have lost detail.
    assert told["seconds"] == told["rows"] == 401
    assert set(told["reasons"]) <= {"ROLLED_UP"}


def reasons(board: Board) -> Iterable[str]:
    return list(unready(look(board, StillClock(), period_s=1.0)))


async def test_a_disk_that_is_read_only_keeps_the_newest_and_says_what_it_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "ROWS_KEPT", 5)
    monkeypatch.setattr(loop, "REGISTERS_KEPT", 2)
    spool, spooling, board = await asyncio.to_thread(opened, tmp_path)
    await spooling.append(row(START_S, heat=1.0))
    for db in spool._db.values():
        await spooling.call(db.execute, "PRAGMA query_only = 1")
    for second in range(1, 12):
        await spooling.append(row(START_S + second, heat=1.0))
        await spooling.append_registers((register(START_S + second, second),))
    assert "readonly" in board.spool_error
    assert "dropped so far" in board.spool_error
    assert any("takes no rows" in reason for reason in reasons(board))
    for db in spool._db.values():
        await spooling.call(db.execute, "PRAGMA query_only = 0")
    await spooling.append(row(START_S + 12, heat=1.0))
    assert board.spool_error == ""
    assert not any("takes no rows" in reason for reason in reasons(board))
    found = await spooling.call(spool.losses)
    assert {(one.kind, one.reason) for one in found} == {
        (T, GapReason.DROPPED),
        (B, GapReason.DROPPED),
    }
    (of_rows,) = [one for one in found if one.kind is T]
    assert of_rows.start_ns == row(START_S + 1).event_ns
    assert of_rows.end_ns == row(START_S + 7).event_ns
    # One before, a number for what was dropped, then the five newest.
    assert await spooling.call(held, spool) == [1, 3, 4, 5, 6, 7]
    await spooling.call(account, spool)
    await spooling.call(account, spool, B)
    await spooling.close()


async def test_a_file_that_breaks_under_the_agent_is_healed_and_goes_on(tmp_path: Path) -> None:
    spool, spooling, board = await asyncio.to_thread(opened, tmp_path)
    for second in range(2_000):
        await spooling.append(row(START_S + second, heat=float(second)))
    boot_id = spool.mark(T).boot_id
    await spooling.call(spool._db[T].execute, "PRAGMA wal_checkpoint(TRUNCATE)")
    await asyncio.to_thread(spoil, tmp_path / "telemetry.db")
    await spooling.call(spool._db[T].execute, "PRAGMA shrink_memory")
    assert await spooling.call(spool.read, T, spool.mark(T).durable_seq, 10**6)
    await spooling.append(row(START_S + 2_000, heat=1.0))
    assert (board.spool_error, spool.mark(T).boot_id) == ("", boot_id)
    assert spool.mark(T).next_seq == 2_002
    await spooling.call(account, spool)
    assert {one.reason for one in await spooling.call(spool.losses)} == {GapReason.DAMAGED}
    await spooling.close()


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    at = len(data) // 4096 * 3 // 4 * 4096
    data[at : at + 4096] = b"\xa5" * 4096
    path.write_bytes(bytes(data))
