"""What `spool stat` and `doctor` tell of a spool, beside a running agent too."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from ports.spool_rig import START_S, B, StillClock, T, register, row, spool_in
from told_page import telling

from heatpool.errors import StoreError
from heatpool.sample import BootId, GapReason, SpoolKind
from heatpool_agent.assembly import open_spool
from heatpool_agent.commands.spool import command, document
from heatpool_agent.commands.spool_text import lines, size, span
from heatpool_agent.config import Config, Http, Site
from heatpool_agent.doctor import spool_state
from heatpool_agent.doctor.verdict import Status
from heatpool_agent.ports import QueueStat, Seq, SpoolMark
from heatpool_agent.spool_files import FILES

NOW_NS = (START_S + 100) * 10**9
BACKLOG = {
    "frames_count": 30,
    "rows_count": 180,
    "size_bytes": 4_000,
    "start_frames_count": 120,
    "done_frac": 0.75,
    "frames_s": 10.0,
    "left_s": 3.0,
}


def config(folder: Path, listen: str = "") -> Config:
    return Config(site=Site(id="s1", state_dir=str(folder)), http=Http(listen=listen))


def test_beside_a_running_agent_both_queues_and_the_drain_are_told(tmp_path: Path) -> None:
    told = {"uplink": {"state": "connected", "detail": "", "backlog": BACKLOG}}
    with (
        spool_in(tmp_path, rows_per_frame=3) as spool,
        telling(json.dumps(told).encode()) as at,
    ):
        for second in range(30):
            spool.append(row(START_S + second, heat=1.0))
        spool.append_registers([register(START_S, 1)])
        spool.forget(T, Seq(4))
        found = document(config(tmp_path, at), tmp_path, now_ns=NOW_NS)
        text = "\n".join(lines(found))
        of_rows, of_registers = found["queues"]
        assert found["is_running"]
        assert of_rows["boot_id"] == spool.mark(T).boot_id
        assert (of_rows["durable_seq"], of_rows["next_seq"]) == (4, 11)
        assert of_rows["backlog"]["frames_count"] == 6
        assert of_rows["backlog"]["rows_count"] == 18
        assert of_rows["backlog"]["age_s"] == pytest.approx(88.0)
        assert of_registers["backlog"]["frames_count"] == 1
        assert spool.mark(B).next_seq == 2
    assert "75.0 % of 120 batches" in text
    assert "3 s left at 10.0 batches/s" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"done_frac": 1.0, "frames_s": None, "left_s": 0.0}, "drained    the backlog of 120 b"),
        ({"done_frac": 1.0, "frames_s": 0.1, "left_s": 0.0}, "drained    the backlog of 120 b"),
        ({"frames_s": None, "left_s": None}, "75.0 % of 120"),
    ],
)
def test_a_backlog_without_a_rate_is_told_without_one(
    tmp_path: Path, change: dict[str, float | None], told: str
) -> None:
    found = document(config(tmp_path), tmp_path, now_ns=NOW_NS)
    line = {"state": "connected", "detail": "", "backlog": BACKLOG | change}
    text = "\n".join(lines({**found, "line": line}))
    assert told in text
    assert "batches/s" not in text


def test_a_backlog_without_a_line_has_no_rate(tmp_path: Path) -> None:
    found = document(config(tmp_path), tmp_path, now_ns=NOW_NS)
    line = {"state": "waiting", "detail": "nobody answers", "backlog": BACKLOG}
    text = "\n".join(lines({**found, "line": line}))
    assert "75.0 % of 120 batches\n           goes on when the line is back" in text
    assert "batches/s" not in text


@pytest.mark.parametrize(
    ("next_try", "told"),
    [
        ({"next_try_s": 42.4, "next_try_ns": 86_399 * 10**9}, "next try   in 42 s, 23:59:59 UTC"),
        ({"next_try_s": 0.0, "next_try_ns": 10**9}, "next try   now"),
        ({}, "line       waiting: nobody answers"),
    ],
)
def test_a_line_that_is_down_says_why_and_when_it_is_tried_again(
    tmp_path: Path, next_try: dict[str, float], told: str
) -> None:
    page = {"uplink": {"state": "waiting", "detail": "nobody answers", **next_try}}
    with spool_in(tmp_path), telling(json.dumps(page).encode()) as at:
        text = "\n".join(lines(document(config(tmp_path, at), tmp_path, now_ns=NOW_NS)))
    assert told in text
    assert ("next try" in text) == bool(next_try)


@pytest.mark.parametrize("told", [b"", b"[]", b"{", b'{"uplink": 3}', b"\xff" * 100])
def test_an_agent_that_answers_nonsense_is_told_from_its_files(tmp_path: Path, told: bytes) -> None:
    with spool_in(tmp_path), telling(told) as at:
        found = document(config(tmp_path, at), tmp_path, now_ns=NOW_NS)
        assert found["line"] is None
        assert len(found["queues"]) == 2
    assert "line       unknown: the agent's page cannot be asked" in "\n".join(lines(found))


def test_one_batch_is_no_batches_and_a_stopped_agent_has_no_line(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.append(row(START_S, heat=1.0))
    found = document(config(tmp_path), tmp_path, now_ns=NOW_NS) | {"is_running": False}
    text = "\n".join(lines(found))
    assert "waiting    1 batch, 1 row, " in text
    assert "line  " not in text


def test_looking_changes_no_byte(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool.append(row(START_S, heat=1.0))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    document(config(tmp_path), tmp_path, now_ns=NOW_NS)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_command_speaks_both_ways(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'[site]\nid = "s1"\nstate_dir = "{tmp_path / "state"}"\n')
    text = CliRunner().invoke(command, ["stat", "--config", str(path)])
    assert "no spool yet" in text.output
    with spool_in(tmp_path / "state") as spool:
        spool.append(row(START_S, heat=1.0))
    told = CliRunner().invoke(command, ["stat", "--json", "--config", str(path)])
    assert json.loads(told.output)["queues"][0]["next_seq"] == 2


@pytest.mark.parametrize(
    ("version", "told"),
    [(1, "has version 1, .* the first start of this agent brings it up"), (9, "a newer agent")],
)
def test_a_file_of_another_version_says_what_to_do(tmp_path: Path, version: int, told: str) -> None:
    with closing(sqlite3.connect(tmp_path / FILES[T])) as db:
        db.execute("CREATE TABLE frames (seq INTEGER)")
        db.execute(f"PRAGMA user_version = {version}")
    with pytest.raises(StoreError, match=told):
        document(config(tmp_path), tmp_path, now_ns=NOW_NS)


def test_a_file_that_is_no_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / FILES[T]).write_bytes(b"nothing of the kind" * 500)
    with pytest.raises(StoreError, match=r"telemetry\.db"):
        document(config(tmp_path), tmp_path, now_ns=NOW_NS)


def test_a_spool_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        spool._db[B].execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer"):
        open_spool(config(tmp_path), tmp_path, StillClock())


def test_a_damaged_spool_opens_all_the_same(tmp_path: Path) -> None:
    with spool_in(tmp_path):
        pass
    (tmp_path / FILES[B]).write_bytes(os.urandom(9_000))
    spool = open_spool(config(tmp_path), tmp_path, StillClock())
    assert {loss.reason for loss in spool.losses()} == {GapReason.DAMAGED}
    spool.close()


QUEUE = QueueStat(
    mark=SpoolMark(
        kind=SpoolKind.TELEMETRY,
        boot_id=BootId("b"),
        first_seq=Seq(1),
        next_seq=Seq(9),
        durable_seq=Seq(8),
    ),
    frames_count=8,
    backlog_frames_count=0,
    backlog_rows_count=0,
    backlog_bytes=0,
    backlog_start_ns=None,
    size_bytes=1_000,
    lost_frames_count={},
    untold_count=0,
    rows_by_step_s={0: 8},
)
WAITING = replace(QUEUE, backlog_frames_count=3, backlog_start_ns=NOW_NS - 3_600 * 10**9)


@pytest.mark.parametrize(
    ("queues", "is_sending", "status"),
    [
        ([], True, Status.SKIP),
        ([WAITING], False, Status.SKIP),
        ([QUEUE], True, Status.OK),
        ([WAITING], True, Status.OK),
        ([replace(WAITING, backlog_start_ns=NOW_NS - 90_000 * 10**9)], True, Status.WARN),
        ([replace(WAITING, size_bytes=9_000)], True, Status.WARN),
    ],
)
def test_doctor_on_what_waits(
    queues: list[QueueStat],
    is_sending: bool,  # noqa: FBT001  # a column of the table
    status: Status,
) -> None:
    found = spool_state.backlog(queues, now_ns=NOW_NS, max_bytes=10_000, is_sending=is_sending)
    assert found.status is status


@pytest.mark.parametrize(
    ("lost", "status"),
    [
        ({}, Status.OK),
        ({GapReason.ROLLED_UP: 5}, Status.OK),
        ({GapReason.UNUSED: 1_000}, Status.OK),
        ({GapReason.DROPPED: 5}, Status.WARN),
        ({GapReason.DAMAGED: 1}, Status.WARN),
    ],
)
def test_doctor_on_what_is_lost(lost: dict[GapReason, int], status: Status) -> None:
    assert spool_state.losses([replace(QUEUE, lost_frames_count=lost)]).status is status
    assert spool_state.losses([]).status is Status.SKIP


@pytest.mark.parametrize(
    ("count_bytes", "text"), [(12, "12 B"), (1_500, "1.5 kB"), (2e6, "2.0 MB"), (3e10, "30.0 GB")]
)
def test_sizes_for_people(count_bytes: float, text: str) -> None:
    assert size(count_bytes) == text


@pytest.mark.parametrize(
    ("length_s", "text"),
    [(1, "1 s"), (600, "10.0 min"), (9_000, "2.5 h"), (864_000, "10.0 d"), (-9_000, "-2.5 h")],
)
def test_spans_for_people(length_s: float, text: str) -> None:
    assert span(length_s) == text
