"""kill -9 while detail goes: each number once, each joule once."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports.spool_rig import HEAT, SECOND_NS, START_S, B, T, account, held, spans, spool_in

from heatpool.codec import registers_from_bytes
from heatpool.sample import GapReason
from heatpool_agent.ports import Seq

BOUND = 80_000
LIVES = int(os.environ.get("HEATPOOL_KILLS", "3"))

# Writes rows for ever into a spool that is always too big, and dies where it is told to.
WRITER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ports.spool_rig import B, START_S, T, register, row, spool_in
from ports.test_spool_kill import BOUND, heat, next_second
from heatpool_agent.spool import room

left = [int(sys.argv[4])]

def dying(act):
    def acts(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*args, **kwargs)
    return acts

name = sys.argv[3]
if name == "put_frame":
    room.put_frame = dying(room.put_frame)
elif name:
    setattr(room.Room, name, dying(getattr(room.Room, name)))
with spool_in(Path(sys.argv[2]), rows_per_frame=10, max_bytes=BOUND) as spool:
    second = next_second(spool)
    while True:
        spool.append(row(START_S + second, heat=heat(second)))
        if second % 10 == 0:
            spool.append_registers([register(START_S + second, second)])
        print(second, flush=True)
        second += 1
"""


def heat(second: int) -> float:
    return float(10_000 + second * 7919 % 500)


def next_second(spool: object) -> int:
    db = spool._db[T]  # type: ignore[attr-defined]
    found = db.execute(
        "SELECT max(ns) FROM (SELECT max(end_ns) ns FROM frames"
        " UNION SELECT max(event_ns) FROM open_rows)"
    ).fetchone()[0]
    return 0 if found is None else found // SECOND_NS - START_S + 1


@pytest.mark.parametrize("where", ["put_frame", "_replace", "_roll_up", ""])
def test_no_kill_loses_or_doubles_a_joule_or_a_number(tmp_path: Path, where: str) -> None:
    dice = random.Random(where)
    tests, folder = str(Path(__file__).parents[1]), tmp_path / "spool"
    told = -1
    for _ in range(LIVES):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, tests, str(folder), where, str(dice.randint(1, 6))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        for _ in range(dice.randint(500, 3_000)):
            if not (line := child.stdout.readline()):
                break
            told = int(line)
        child.send_signal(signal.SIGKILL)
        told = max([told, *(int(line) for line in child.stdout.read().split())])
        child.wait()
        child.stdout.close()
    with spool_in(folder, rows_per_frame=10) as spool:
        seconds = next_second(spool)
        spool.close_frame()
        assert seconds > told
        account(spool)
        account(spool, B)
        assert {loss.reason for loss in spool.losses()} == {GapReason.ROLLED_UP}
        rows = list(spans(spool, HEAT, row_s=1.0))
        assert sum(span_s for _, _, span_s in rows) == seconds
        energy_j = sum(value * span_s for _, value, span_s in rows if value is not None)
        truth_j = sum(map(heat, range(seconds)))
        assert energy_j == pytest.approx(truth_j, abs=3 * 0.05 * seconds)
        billed = spool.read(B, Seq(0), 10**6)
        raws = [one.raw for frame in billed for one in registers_from_bytes(frame.payload)]
        assert raws == sorted(set(raws)) and held(spool, B) == list(range(1, len(raws) + 1))
