"""Spoiled files under real programs: each goes on by itself or says what to do; no loss is silent.

Numbers present at the aggregator and losses told to it are together all numbers that were given.
"""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e.rig import PATIENCE_S, Rig, rig
from e2e.storm import account, calm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WAITING = 3
FILES = ("telemetry.db", "billing.db")
SEED = 51

Numbers = Mapping[str, tuple[str, int]]  # by file: boot id, numbers given


def flipped(path: Path) -> None:
    """Some bytes of each page are others, but for the page that says how long the file is."""
    chance = random.Random(SEED)
    for one in (path, path.with_name(f"{path.name}-wal")):
        if not one.exists():
            continue
        with one.open("r+b") as file:
            size = one.stat().st_size
            for start in range(4096, size, 4096):
                file.seek(min(size - 1, start + chance.randrange(3800)))
                file.write(chance.randbytes(200))


def cut(path: Path) -> None:
    """A third of the file is gone."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)


def without_wal(path: Path) -> None:
    """What was not yet in the file itself is gone."""
    for tail in ("-wal", "-shm"):
        path.with_name(f"{path.name}{tail}").unlink(missing_ok=True)


def given(folder: Path) -> Numbers:
    """Who each queue is and how many numbers it has given."""
    found = {}
    for name in FILES:
        with closing(sqlite3.connect(f"file:{folder / name}?mode=ro", uri=True)) as db:
            notes = dict(db.execute("SELECT name, value FROM meta"))
        found[name] = (str(notes["boot_id"]), int(notes["next_seq"]) - 1)
    return found


def present(store: Path, site_id: str, boot_id: str) -> set[int]:
    """Numbers of one life of a queue that the store holds."""
    sql = "SELECT seq FROM {} WHERE site_id = ? AND boot_id = ?"
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        return {
            seq
            for table in ("chunks", "registers")
            for (seq,) in db.execute(sql.format(table), (site_id, boot_id))
        }


async def told_gaps(running: Rig) -> list[dict[str, Any]]:
    """What `heatpool gaps` shows."""
    command = [sys.executable, "-m", "heatpool_aggregator.client", "gaps", "--json"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--address", running.grpc],
        capture_output=True,
        text=True,
        check=True,
    )
    gaps: list[dict[str, Any]] = json.loads(done.stdout)["gaps"]
    return gaps


async def backlog(running: Rig, site_id: str) -> None:
    """Waits until frames of both queues wait here."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            spool = (await running.agent_status(site_id))["spool"]
            if min(spool[kind]["unacked"] for kind in ("telemetry", "billing")) >= WAITING:
                return
            await asyncio.sleep(0.2)


async def spoil_stopped(
    running: Rig,
    site_id: str,
    spoil: Callable[[Path], None],
    *,
    is_killed: bool,
    names: Sequence[str] = FILES,
) -> Numbers:
    """Spoils files of an agent that does not run, and starts it; what it had given."""
    program, folder = running.agents[site_id], running.folder / site_id
    if is_killed:
        await program.kill()
    else:
        assert await program.stop() == 0, program.log_tail()
    before = await asyncio.to_thread(given, folder)
    for name in names:
        await asyncio.to_thread(spoil, folder / name)
    await program.start()
    return before


async def spoil_running(running: Rig, site_id: str, spoil: Callable[[Path], None]) -> Numbers:
    """Spoils both files under a running agent; what it had given."""
    folder = running.folder / site_id
    before = await asyncio.to_thread(given, folder)
    for name in FILES:
        await asyncio.to_thread(spoil, folder / name)
    return before


def untold(
    store: Path, site_id: str, numbers: Numbers, gaps: list[dict[str, Any]]
) -> dict[str, set[int]]:
    """Numbers of one site that are neither present nor told as lost, by file and life."""
    found = {}
    for name, (boot_id, last) in numbers.items():
        lost = {
            seq
            for gap in gaps
            if (gap["site_id"], gap["boot_id"]) == (site_id, boot_id)
            for seq in range(gap["first_seq"], gap["last_seq"] + 1)
        }
        if missing := set(range(1, last + 1)) - present(store, site_id, boot_id) - lost:
            found[f"{site_id} {name} {boot_id}"] = missing
    return found


async def test_a_spoiled_spool_starts_by_itself_and_tells_what_it_lost(tmp_path: Path) -> None:
    async with rig(tmp_path, sites=4) as running:
        await running.begun()
        await running.aggregator.kill()
        await asyncio.gather(*(backlog(running, name) for name in running.agents))
        befores = dict(
            zip(
                running.agents,
                await asyncio.gather(
                    spoil_stopped(running, "e1", flipped, is_killed=False),
                    spoil_running(running, "e2", flipped),
                    spoil_stopped(running, "e3", cut, is_killed=False),
                    spoil_stopped(running, "e4", without_wal, is_killed=True, names=FILES[1:]),
                ),
                strict=True,
            )
        )
        await running.aggregator.start()
        await running.eventually("/v1/sources", _all_fresh)
        await asyncio.sleep(2)
        gaps = await told_gaps(running)
        await calm(running)
        for program in running.agents.values():
            assert "Traceback" not in program.log_tail()
    store = tmp_path / "aggregator" / "store.db"
    missing: dict[str, set[int]] = {}
    for site_id, before in befores.items():
        after = await asyncio.to_thread(given, tmp_path / site_id)
        missing |= untold(store, site_id, after, gaps)
        # Where both files lost who they were, a new life begins with a loss of unknown extent.
        if site_id == "e3":
            assert all(begins_lost(life, gaps) for life in after.values())
        else:
            missing |= untold(store, site_id, before, gaps)
    assert missing == {}
    assert {gap["site_id"] for gap in gaps if gap["reason"] == "damaged"} >= {"e1", "e3", "e4"}


def begins_lost(life: tuple[str, int], gaps: list[dict[str, Any]]) -> bool:
    """Whether the first number of this life says that something before it is lost."""
    starts = {gap["boot_id"] for gap in gaps if gap["first_seq"] == 1}
    return life[0] in starts


def _all_fresh(answer: dict[str, Any]) -> bool:
    (source,) = answer["virtual_sources"]
    return bool(source["fresh_count"] == source["members_count"])


async def fails_to_start(running: Rig) -> str:
    """Last words of the aggregator, which cannot start."""
    with pytest.raises(AssertionError):
        await running.aggregator.start()
    assert running.aggregator.child is not None
    assert running.aggregator.child.wait() == 1
    words = running.aggregator.log_tail()
    assert "Traceback" not in words
    return words.splitlines()[-1]


def aside(path: Path) -> None:
    """Moves a file aside with what lies beside it, as its last words ask for."""
    for tail in ("", "-wal", "-shm"):
        one = path.with_name(f"{path.name}{tail}")
        if one.exists():
            one.rename(one.with_name(f"aside-{one.name}"))


def no_database(path: Path) -> None:
    """Nothing of the file is what it was."""
    without_wal(path)
    path.write_bytes(random.Random(SEED).randbytes(64 * 1024))


async def test_spoiled_files_of_the_aggregator_are_named_and_filled_again_by_the_sites(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as running:
        await running.begun()
        for name in ("log.db", "store.db"):
            # In order: all is in a snapshot then, which a new store must not be taken for.
            assert await running.aggregator.stop() == 0
            file = tmp_path / "aggregator" / name
            await asyncio.to_thread(no_database, file)
            words = await fails_to_start(running)
            assert str(file) in words
            assert "restore a backup" in words
            assert "aside" in words
            await asyncio.to_thread(aside, file)
            await running.aggregator.start()
        energies_wh = await calm(running)
    for site_id, energy_wh in energies_wh.items():
        found = await asyncio.to_thread(account, tmp_path, site_id)
        assert found.mistakes() == []
        assert energy_wh == found.moved_wh
