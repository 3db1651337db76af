"""A write-ahead file that somebody removed after a kill: what was in it is not lost silently."""

import subprocess
import sys
from pathlib import Path

import pytest
from ports.spool_rig import START_S, B, StillClock, T, register, row

from heatpool.sample import GapReason, SpoolKind
from heatpool_agent.spool import SqliteSpool, heal_folder
from heatpool_agent.spool.state import look
from heatpool_agent.spool_files import FILES

PROGRAM = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ports.spool_rig import START_S, StillClock, register, row
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate
folder = Path(sys.argv[2])
migrate(folder)
spool = SqliteSpool(
    folder, clock=StillClock(), rows_per_frame=1, max_bytes=10**9, keep_s=86_400
)
for second in range(5):
    spool.append(row(START_S + second, heat=1.0))
    spool.append_registers([register(START_S + second, second)])
if sys.argv[3] == "closed":
    spool.close()
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_behind(folder: Path, how: str) -> None:
    """The files of an agent that was killed."""
    tests = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", PROGRAM, tests, str(folder), how], check=False)


def opened(folder: Path) -> SqliteSpool:
    return SqliteSpool(folder, clock=StillClock(), rows_per_frame=1, max_bytes=10**9, keep_s=86_400)


@pytest.mark.parametrize("kind", [T, B])
def test_a_file_without_its_write_ahead_file_is_healed_and_tells_its_numbers(
    tmp_path: Path, kind: SpoolKind
) -> None:
    left_behind(tmp_path, "open")
    found = look(tmp_path, kind)
    assert found is not None
    old = found.mark
    (tmp_path / f"{FILES[kind]}-wal").unlink()
    assert heal_folder(tmp_path, at_ns=5) == [kind]
    assert heal_folder(tmp_path, at_ns=5) == [], "once is enough"
    spool = opened(tmp_path)
    lost = [one for one in spool.losses() if one.kind is kind]
    assert {one.reason for one in lost} == {GapReason.DAMAGED}
    numbers = {
        seq
        for one in lost
        if one.boot_id == old.boot_id
        for seq in range(one.first_seq, one.last_seq + 1)
    }
    assert numbers == set(range(1, old.next_seq))
    assert spool.mark(kind).boot_id != old.boot_id
    spool.append(row(START_S + 9, heat=1.0))
    spool.append_registers([register(START_S + 9, 9)])
    spool.close()


@pytest.mark.parametrize("how", ["open", "closed"])
def test_files_as_a_kill_or_a_stop_left_them_are_sound(tmp_path: Path, how: str) -> None:
    left_behind(tmp_path, how)
    assert heal_folder(tmp_path, at_ns=5) == []
    assert heal_folder(tmp_path, at_ns=5) == []
    spool = opened(tmp_path)
    assert [spool.mark(kind).next_seq for kind in (T, B)] == [6, 6]
    assert list(spool.losses()) == []
    spool.close()
