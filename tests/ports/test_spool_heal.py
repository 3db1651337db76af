"""A damaged file is made anew: what can be read is kept, what cannot is told, nobody is needed."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from ports.spool_rig import (
    START_S,
    B,
    T,
    account,
    held,
    lost,
    register,
    row,
    spool_in,
)

from heatpool.codec import columns_from_bytes, registers_from_bytes, unpack
from heatpool.errors import StoreError
from heatpool.sample import GapReason, SpoolKind
from heatpool_agent.core.ledger import Page
from heatpool_agent.ports import Seq
from heatpool_agent.spool import heal_folder
from heatpool_agent.spool_files import FILES, is_damage

PAGE = 4096
FRAMES = 400
SEEDS = range(int(os.environ.get("HEATPOOL_SEEDS", "10")))


def fill(folder: Path) -> None:
    """Some pages of both queues, all of it in the main files."""
    if not _FILLED:
        _FILLED.append(Path(tempfile.mkdtemp(dir=folder.parent)))
        _fill(_FILLED[0])
    shutil.copytree(_FILLED[0], folder, dirs_exist_ok=True)


# Made once: most of a test's time would go into it.
_FILLED: list[Path] = []


def _fill(folder: Path) -> None:
    with spool_in(folder, rows_per_frame=10) as spool:
        dice = random.Random(7)
        for second in range(FRAMES * 10):
            spool.append(row(START_S + second, heat=10_000 * dice.random(), hot=45.0))
        for count in range(60):
            spool.append_registers([register(START_S + count, count)])
        spool.forget(T, Seq(30))


def payloads(folder: Path, kind: SpoolKind) -> dict[int, bytes]:
    with spool_in(folder) as spool:
        return {frame.seq: frame.payload for frame in spool.read(kind, Seq(0), 10**6)}


def flip(path: Path, dice: random.Random, *, pages: int, sparing: int = 1) -> None:
    """Flips bits at random places, never in the first pages."""
    data = bytearray(path.read_bytes())
    for _ in range(pages):
        at = dice.randrange(sparing * PAGE, len(data) - 8)
        for offset in range(dice.choice((1, 8, 8, 200))):
            if at + offset < len(data):
                data[at + offset] ^= dice.randrange(1, 256)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("kind", [T, B], ids=["telemetry", "billing"])
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_bits_flip_each_number_is_there_as_it_was_or_is_told(
    tmp_path: Path, seed: int, kind: SpoolKind
) -> None:
    fill(tmp_path)
    before = payloads(tmp_path, kind)
    with spool_in(tmp_path) as spool:
        mark = spool.mark(kind)
        other = spool.mark(B if kind is T else T)
    dice = random.Random(seed)
    flip(tmp_path / FILES[kind], dice, pages=dice.choice((1, 1, 2, 5, 20)), sparing=seed % 2)
    heal_folder(tmp_path, at_ns=5)
    after = payloads(tmp_path, kind)  # reads every frame: what is spoiled is found
    with spool_in(tmp_path) as spool:
        now = spool.mark(kind)
        assert spool.mark(B if kind is T else T).boot_id == other.boot_id
        account(spool, kind)
        whole = {seq: payload for seq, payload in after.items() if payload}
        if now.boot_id == mark.boot_id:
            assert now.next_seq >= mark.next_seq
            assert whole.items() <= before.items()
        else:
            # A new life: what is kept is as it was, in its order, behind the loss.
            assert list(whole.values()) == [p for p in before.values() if p in whole.values()]
            assert lost(spool, kind)[0] == 1


def test_a_bit_in_a_frame_costs_that_frame_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    before = payloads(tmp_path, T)
    path = tmp_path / FILES[T]
    with closing(sqlite3.connect(path)) as db:
        (blob,) = db.execute("SELECT payload FROM frames WHERE seq = 222").fetchone()
    data = path.read_bytes()
    at = data.index(blob) + 9
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert heal_folder(tmp_path, at_ns=5) == []
    after = payloads(tmp_path, T)
    assert after == {**before, 222: b""}
    with spool_in(tmp_path) as spool:
        assert (lost(spool), 222 in held(spool)) == ([222], False)


def wreck(path: Path) -> None:
    """Spoils pages where frames lie, so that SQLite itself sees it."""
    data = bytearray(path.read_bytes())
    with closing(sqlite3.connect(path)) as db:
        (blob,) = db.execute("SELECT payload FROM frames ORDER BY seq LIMIT 1 OFFSET 40").fetchone()
    at = data.index(blob) // PAGE
    data[at * PAGE : (at + 1) * PAGE] = b"\xa5" * PAGE
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("kind", [T, B], ids=["telemetry", "billing"])
def test_a_file_that_breaks_while_in_use_goes_on_under_its_boot_id(
    tmp_path: Path, kind: SpoolKind
) -> None:
    fill(tmp_path)
    with spool_in(tmp_path) as spool:
        mark = spool.mark(kind)
        spool._db[kind].execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wreck(tmp_path / FILES[kind])
        with pytest.raises((StoreError, sqlite3.DatabaseError)) as caught:
            spool._db[kind].execute("PRAGMA shrink_memory")
            spool.read(kind, Seq(0), 10**6)
        assert is_damage(caught.value)
        assert spool.heal() == [kind]
        assert spool.mark(kind).boot_id == mark.boot_id
        assert spool.mark(kind).next_seq == mark.next_seq
        account(spool, kind)
        (loss,) = spool.losses()
        assert (loss.kind, loss.reason) == (kind, GapReason.DAMAGED)
        assert loss.start_ns is not None and loss.end_ns is not None
        spool.append(row(START_S + 9_999, heat=1.0))
        spool.append_registers([register(START_S + 9_999, 99)])
        assert spool.mark(kind).next_seq == mark.next_seq + 1


def test_the_chain_goes_on_over_a_healed_file(tmp_path: Path) -> None:
    fill(tmp_path)
    wreck(tmp_path / FILES[B])
    assert heal_folder(tmp_path, at_ns=5) == [B]
    with spool_in(tmp_path) as spool:
        newest = spool.read(B, Seq(0), 10**6)[-1]
        last = registers_from_bytes(newest.payload)[-1]
        assert spool.last_register(last.metering_point_id) is not None
        spool.append_registers([register(START_S + 100, 100)])
        assert spool._files[B].note("chain") != last.chain_sha256.hex()


def test_the_energy_ledger_and_open_rows_come_along(tmp_path: Path) -> None:
    fill(tmp_path)
    with spool_in(tmp_path, rows_per_frame=10) as spool:
        spool.append(row(START_S + 5_000, heat=7.0))
        spool._telemetry.open_rows = []  # as a kill would leave it
    wreck(tmp_path / FILES[T])
    assert heal_folder(tmp_path, at_ns=5) == [T]
    with spool_in(tmp_path, rows_per_frame=10) as spool:
        assert spool.saved_ledger == Page()
        spool.close_frame()
        frame = spool.read(T, Seq(0), 10**6)[-1]
        schemas = {schema.schema_id: schema for schema in spool.schemas()}
        columns = columns_from_bytes(frame.payload)
        assert unpack(columns, schemas[columns.schema_id].channels)[0] == [7.0]


@pytest.mark.parametrize("rubbish", [b"", b"this is no database" * 400], ids=["cut", "rubbish"])
@pytest.mark.parametrize("kind", [T, B], ids=["telemetry", "billing"])
def test_of_a_file_that_is_lost_whole_the_other_one_still_knows_the_numbers(
    tmp_path: Path, kind: SpoolKind, rubbish: bytes
) -> None:
    fill(tmp_path)
    with spool_in(tmp_path) as spool:
        old = spool.mark(kind)
    path = tmp_path / FILES[kind]
    path.write_bytes(rubbish or path.read_bytes()[:5_000])
    assert heal_folder(tmp_path, at_ns=77) == [kind]
    with spool_in(tmp_path) as spool:
        assert spool.mark(kind).boot_id != old.boot_id
        of_old, of_new = sorted(
            (one for one in spool.losses() if one.kind is kind),
            key=lambda one: one.boot_id != old.boot_id,
        )
        assert of_old.boot_id == old.boot_id
        assert of_old.last_seq == old.next_seq - 1
        assert (of_new.first_seq, of_new.last_seq, of_new.end_ns) == (1, 1, 77)
        spool.append(row(START_S, heat=1.0))
        account(spool, kind)


def test_a_number_that_meta_tells_wrongly_is_not_believed(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILES[T])) as db, db:
        db.execute("UPDATE meta SET value = '17' WHERE name = 'next_seq'")
    assert heal_folder(tmp_path, at_ns=5) == [T]
    with spool_in(tmp_path) as spool:
        assert len(held(spool)) == FRAMES
        account(spool)


def test_a_newer_file_is_left_alone_even_if_it_is_damaged(tmp_path: Path) -> None:
    fill(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILES[T])) as db, db:
        db.execute("PRAGMA user_version = 99")
    wreck(tmp_path / FILES[T])
    with pytest.raises(StoreError, match="newer"):
        heal_folder(tmp_path, at_ns=5)


def test_wrecks_do_not_fill_the_disk(tmp_path: Path) -> None:
    for _ in range(5):
        fill(tmp_path)
        wreck(tmp_path / FILES[T])
        heal_folder(tmp_path, at_ns=5)
    assert len(list(tmp_path.glob("telemetry.damaged-*"))) <= 2


@pytest.mark.parametrize("step", ["put_frame", "put_mark", "rename", "before", "swap"])
def test_a_kill_in_the_middle_of_healing_is_no_loss(tmp_path: Path, step: str) -> None:
    fill(tmp_path)
    wreck(tmp_path / FILES[T])
    for count in (1, 2, 3):
        child = subprocess.run(
            [sys.executable, "-c", KILLER, str(tmp_path), step, str(count)], check=False
        )
        assert child.returncode in (0, -signal.SIGKILL)
    heal_folder(tmp_path, at_ns=5)
    with spool_in(tmp_path) as spool:
        assert spool.mark(T).next_seq == FRAMES + 1
        assert len(held(spool)) > FRAMES // 2
        account(spool)
        assert {loss.reason for loss in spool.losses()} == {GapReason.DAMAGED}
        assert not list(tmp_path.glob("*.new*"))


KILLER = """
import os, signal, sys
from pathlib import Path
from heatpool_agent.spool import heal, healing, swap

folder, step, left = Path(sys.argv[1]), sys.argv[2], [int(sys.argv[3])]

def dying(act):
    def acts(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*args, **kwargs)
    return acts

if step == "rename":
    Path.rename = dying(Path.rename)
elif step == "before":
    heal.heal = dying(heal.heal)
elif step == "swap":
    swap.swap = dying(swap.swap)
else:
    setattr(healing, step, dying(getattr(healing, step)))
heal.heal_folder(folder, at_ns=5)
"""
