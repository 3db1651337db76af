"""The energy ledger on disk: one commit with the rows, nothing lost by a kill, old files grow."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from heatpool.errors import StoreError
from heatpool.sample import Channel, Row, SpoolKind
from heatpool_agent.core.clock_steps import ClockStep, Instant
from heatpool_agent.core.ledger import Account, GapCause, GapRecord, Page, merged
from heatpool_agent.core.ledger import Ledger as Ledger
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.recent_power import RecentPower
from heatpool_agent.core.totals import Total
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool import ledger as spool_room
from heatpool_agent.spool_files import FILES, SCHEMA_VERSION, schema_version
from heatpool_agent.spool_schema import migrate

S = 1_000_000_000
ZONE = "powercap/intel-rapl:0"
UNIT_UJ = 61
COUNTS = 2**32
RANGE_UJ = (COUNTS - 1) * UNIT_UJ
HEAT = Channel("rack", "heat_rate_w", -1)
ROW = Row(event_ns=S, cells={HEAT: 1.0})


class StillClock:
    def event_ns(self) -> int:
        return 10**18

    def boot_ns(self) -> int:
        return 10**18


@contextmanager
def spool_in(folder: Path) -> Iterator[SqliteSpool]:
    if schema_version(folder / FILES[SpoolKind.TELEMETRY]) < SCHEMA_VERSION:
        migrate(folder)
    with closing(
        SqliteSpool(folder, clock=StillClock(), rows_per_frame=6, max_bytes=10**9, keep_s=86_400)
    ) as spool:
        yield spool


def account(number: int = 0, **changes: object) -> Account:
    total = Total(
        channel=f"{ZONE}:{number}",
        raw=2**64 + number,
        boot_ns=5 * S,
        event_ns=10**18,
        generation="boot-a",
        quantity="energy_j",
        exponent=-6,
        total_j=2**70,
        total_uj=999_999,
    )
    recent = RecentPower(now_w=120.5, low_w=20.25, high_w=180.0, seen_s=3600.0)
    whole = Account(sensor="cpu", total=total, boot_id="boot-a", recent=recent, gaps_count=2)
    return replace(whole, gaps_j=1e6, gaps_j_u=2e5, **changes)  # type: ignore[arg-type]


def gap(number: int = 1, energy_j: float | None = 12.5) -> GapRecord:
    start = Instant(boot_id="boot-a", boot_ns=5 * S, event_ns=10**18)
    return GapRecord(
        sensor="cpu",
        channel=ZONE,
        number=number,
        cause=GapCause.REBOOT,
        start=start,
        end=replace(start, boot_id="boot-b", boot_ns=3 * S),
        energy_j=energy_j,
        energy_j_u=None,
    )


CLOCK = Instant(boot_id="boot-b", boot_ns=7, event_ns=8)
STEP = ClockStep(boot_id="boot-a", boot_ns=6 * S, step_ns=-(10**18))
ESTIMATOR = SavedEstimator(
    loop_id="rack", part="fusion", at=replace(CLOCK, boot_ns=1), state='{"version": 1}'
)
PAGE = Page(accounts=(account(),), gaps=(gap(),), steps=(STEP,), clock=CLOCK)


def test_a_page_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger == Page()
        spool.append(ROW, PAGE)
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger == replace(PAGE, gaps=())
        assert spool.gaps(10) == [gap()]


def test_a_clock_without_a_boot_id_comes_back(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.save(Page(clock=replace(CLOCK, boot_id="")))
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger.clock == replace(CLOCK, boot_id="")


def test_the_newest_of_an_account_and_a_gap_stands(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.save(PAGE)
        spool.save(Page(accounts=(account(boot_id="boot-b"),), gaps=(gap(energy_j=None), gap(2))))
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger.accounts == (account(boot_id="boot-b"),)
        assert spool.saved_ledger.clock == CLOCK
        assert spool.gaps(10) == [gap(energy_j=None), gap(2)]
        assert spool.gaps(1) == [gap(2)]


def test_a_row_and_its_page_are_on_disk_together_or_not_at_all(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        db = spool._db[SpoolKind.TELEMETRY]
        db.execute(
            "CREATE TRIGGER t BEFORE INSERT ON clock_steps BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(StoreError):
            spool.append(ROW, PAGE)
        with pytest.raises(StoreError):
            spool.save(PAGE)
        for table in ("open_rows", "ledger", "ledger_gaps", "clock_steps"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_only_the_newest_gaps_and_steps_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_room, "GAPS_KEPT", 3)
    monkeypatch.setattr(spool_room, "STEPS_KEPT", 2)
    with spool_in(tmp_path) as spool:
        steps = tuple(replace(STEP, boot_ns=at) for at in range(5))
        spool.save(Page(gaps=tuple(gap(number) for number in range(1, 9)), steps=steps))
    with spool_in(tmp_path) as spool:
        assert [told.number for told in spool.gaps(100)] == [6, 7, 8]
        assert spool.saved_ledger.steps == steps[-2:]


def test_gaps_are_forgotten_while_the_agent_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_room, "GAPS_KEPT", 3)
    with spool_in(tmp_path) as spool:
        for number in range(1, 9):
            spool.append(replace(ROW, event_ns=ROW.event_ns + number), Page(gaps=(gap(number),)))
            spool.close_frame()
        assert [told.number for told in spool.gaps(100)] == [6, 7, 8]


def test_a_disk_without_room_to_forget_still_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_room, "GAPS_KEPT", 1)
    with spool_in(tmp_path) as spool:
        spool.save(Page(gaps=(gap(1), gap(2), gap(3))))
        spool._db[SpoolKind.TELEMETRY].execute(
            "CREATE TRIGGER t BEFORE DELETE ON ledger_gaps BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with spool_in(tmp_path) as spool:
        assert [told.number for told in spool.gaps(100)] == [1, 2, 3]


def test_a_new_life_of_the_queue_keeps_the_ledger(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.save(PAGE)
        spool.begin_anew(SpoolKind.TELEMETRY)
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger.accounts == PAGE.accounts


# The tables as version 1 made them.
VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE frames (seq INTEGER PRIMARY KEY, start_ns INTEGER, end_ns INTEGER, payload BLOB);
PRAGMA user_version = 1;
"""
TELEMETRY_1 = """
CREATE TABLE open_rows (event_ns INTEGER PRIMARY KEY, cells BLOB);
CREATE TABLE schemas (schema_id INTEGER PRIMARY KEY, channels BLOB);
CREATE TABLE losses (first_seq INTEGER PRIMARY KEY, last_seq INTEGER, reason INTEGER,
    start_ns INTEGER, end_ns INTEGER);
INSERT INTO meta VALUES ('boot_id', '0123456789abcdef'), ('next_seq', '8'), ('durable_seq', '6');
INSERT INTO frames VALUES (7, 1, 2, x'00');
"""


def test_a_file_of_version_1_grows_the_ledger_and_keeps_its_rows(tmp_path: Path) -> None:
    for kind, name in FILES.items():
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.executescript(VERSION_1 + (TELEMETRY_1 if kind is SpoolKind.TELEMETRY else ""))
    with spool_in(tmp_path) as spool:
        mark = spool.mark(SpoolKind.TELEMETRY)
        assert (mark.boot_id, mark.first_seq, mark.next_seq) == ("0123456789abcdef", 7, 8)
        (frame,) = spool.read(SpoolKind.TELEMETRY, Seq(0), 10)
        assert frame.payload == b"\0"
        assert spool.saved_ledger == Page()
        spool.save(PAGE)
    assert {schema_version(tmp_path / name) for name in FILES.values()} == {SCHEMA_VERSION}
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger.accounts == PAGE.accounts


# What version 2 had of the ledger; its rows need not be full.
TELEMETRY_2 = """
CREATE TABLE ledger (sensor TEXT, channel TEXT, quantity TEXT, exponent INTEGER, raw TEXT,
    generation TEXT, boot_id TEXT, boot_ns INTEGER, event_ns INTEGER, total_j TEXT,
    total_uj INTEGER, now_w FLOAT, low_w FLOAT, high_w FLOAT, seen_s FLOAT, gaps_count INTEGER,
    gaps_j FLOAT, gaps_j_u FLOAT, PRIMARY KEY (sensor, channel));
CREATE TABLE ledger_gaps (sensor TEXT, channel TEXT, number INTEGER, cause TEXT,
    start_boot_id TEXT, start_boot_ns INTEGER, start_event_ns INTEGER, end_boot_id TEXT,
    end_boot_ns INTEGER, end_event_ns INTEGER, energy_j FLOAT, energy_j_u FLOAT,
    PRIMARY KEY (sensor, channel, number));
CREATE TABLE clock_steps (boot_id TEXT, boot_ns INTEGER, step_ns INTEGER,
    PRIMARY KEY (boot_id, boot_ns));
INSERT INTO clock_steps VALUES ('boot-a', 6000000000, -1000000000000000000);
PRAGMA user_version = 2;
"""


def test_a_file_of_version_2_grows_the_estimators_and_keeps_its_ledger(tmp_path: Path) -> None:
    for kind, name in FILES.items():
        both = VERSION_1 + (TELEMETRY_1 + TELEMETRY_2 if kind is SpoolKind.TELEMETRY else "")
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.executescript(both)
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger == Page(steps=(STEP,))
        spool.save(Page(estimators=(ESTIMATOR,)))
    assert {schema_version(tmp_path / name) for name in FILES.values()} == {SCHEMA_VERSION}
    with spool_in(tmp_path) as spool:
        assert spool.saved_ledger == Page(steps=(STEP,), estimators=(ESTIMATOR,))


# The losses of version 3 were of the present life alone.
LOSS_3 = """
INSERT INTO losses VALUES (3, 6, 2, 11, 22);
PRAGMA user_version = 3;
"""


def test_a_file_of_version_3_keeps_its_frames_and_losses(tmp_path: Path) -> None:
    for kind, name in FILES.items():
        both = VERSION_1 + (TELEMETRY_1 + LOSS_3 if kind is SpoolKind.TELEMETRY else "")
        with closing(sqlite3.connect(tmp_path / name)) as db:
            db.executescript(both)
    migrate(tmp_path)
    migrate(tmp_path)
    with spool_in(tmp_path) as spool:
        (loss,) = spool.losses()
        assert (loss.boot_id, loss.first_seq, loss.last_seq) == ("0123456789abcdef", 3, 6)
        assert (loss.start_ns, loss.end_ns) == (11, 22)
        assert spool.read(SpoolKind.TELEMETRY, Seq(0), 10)[0].payload == b"\0"
        spool.append(ROW)
        spool.close_frame()
        assert [frame.seq for frame in spool.read(SpoolKind.TELEMETRY, Seq(0), 10)] == [7, 8]


def test_the_newest_state_of_each_estimator_stands(tmp_path: Path) -> None:
    watch, newer = replace(ESTIMATOR, part="watch"), replace(ESTIMATOR, state="{}", at=CLOCK)
    both = merged(Page(estimators=(ESTIMATOR, watch)), Page(estimators=(newer,)), most_count=9)
    assert both.estimators == (newer, watch)
    with spool_in(tmp_path) as spool:
        spool.save(Page(estimators=(ESTIMATOR, watch)))
        spool.append(ROW, Page(estimators=(newer,)))
    with spool_in(tmp_path) as spool:
        assert {one.part: one for one in spool.saved_ledger.estimators} == {
            "fusion": newer,
            "watch": watch,
        }


def test_a_hundred_counters_are_saved_in_one_go(tmp_path: Path) -> None:
    accounts = tuple(account(number) for number in range(100))
    pages = {count: Page(accounts=accounts[:count], clock=CLOCK) for count in (1, 100)}
    taken_s: dict[int, list[float]] = {1: [], 100: []}
    with spool_in(tmp_path) as spool:
        for second in range(40):
            for count, page in pages.items():
                row = Row(event_ns=2 * second + count // 100, cells={HEAT: 1.0})
                before_s = time.thread_time()
                spool.append(row, page)
                taken_s[count].append(time.thread_time() - before_s)
    # The best of them: what it costs, whatever else this machine does. One by one they would cost
    # a hundred times what one costs.
    assert min(taken_s[100]) < 50 * min(taken_s[1])


def zone(counts: int, boot_s: float) -> Reading:
    raw = counts % COUNTS * UNIT_UJ
    return Reading(
        sensor="cpu",
        channel=ZONE,
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=raw / 1e6,
        event_ns=round(boot_s * S) + 10**18,
        boot_ns=round(boot_s * S),
        node=Node.PACKAGE,
        raw=raw,
        exponent=-6,
        modulus=RANGE_UJ,
        generation="boot-a",
    )


# Reads what the kernel shows line by line, and saves at every third.
READER = """
import sys
from pathlib import Path
from tests_ledger import HEAT, Ledger, Row, spool_in, zone
with spool_in(Path(sys.argv[1])) as spool:
    ledger = Ledger(spool.saved_ledger, boot_id="boot-a")
    for number, line in enumerate(sys.stdin):
        counts, second = map(int, line.split())
        ledger.take("cpu", [zone(counts, second)])
        if number % 3 == 0:
            spool.append(Row(event_ns=second, cells={HEAT: 1.0}), ledger.page())
        print(second, flush=True)
    spool.save(ledger.page())
"""


def reader(folder: Path) -> "subprocess.Popen[str]":
    (folder / "tests_ledger.py").write_text(Path(__file__).read_text())
    (folder / "reader.py").write_text(textwrap.dedent(READER))
    return subprocess.Popen(
        [sys.executable, str(folder / "reader.py"), str(folder / "spool")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


def told(child: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    assert child.stdin is not None and child.stdout is not None
    return child.stdin, child.stdout


KILLS = int(os.environ.get("HEATPOOL_KILLS", "3"))


@pytest.mark.parametrize("seed", range(2))
def test_energy_is_exact_over_any_kill(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    start = counts = COUNTS - dice.randrange(10**9)
    shown, second = start, 1_000
    for life in range(KILLS + 1):
        child = reader(tmp_path)
        asked, answered = told(child)
        for _ in range(20):
            asked.write(f"{counts} {second}\n")
            shown = counts
            # Up to 900 W for 10 s, so that a life wraps now and then and never twice unseen.
            counts += dice.randrange(900 * 10 * 10**6 // UNIT_UJ)
            second += 10
        if life == KILLS:
            asked.close()
            answered.read()
        else:
            asked.flush()
            for _ in range(dice.randint(1, 20)):
                answered.readline()
            child.send_signal(signal.SIGKILL)
        child.wait()
        answered.close()
        if life < KILLS:
            asked.close()
    with spool_in(tmp_path / "spool") as spool:
        (saved,) = spool.saved_ledger.accounts
        assert spool.gaps(10) == []
    wraps_count = shown // COUNTS - start // COUNTS
    truth_uj = (shown - start - wraps_count) * UNIT_UJ
    assert wraps_count >= 1
    assert saved.total.total_j * 10**6 + saved.total.total_uj == truth_uj
