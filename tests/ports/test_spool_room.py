"""Under pressure: what is durable goes first, then detail, then the oldest; all of it is told."""

import random
from pathlib import Path

import pytest
from ports.spool_rig import (
    HEAT,
    SECOND_NS,
    START_S,
    B,
    StillClock,
    T,
    account,
    energies_j,
    held,
    lost,
    register,
    row,
    spans,
    spool_in,
)

from heatpool.sample import Channel, GapReason, Row
from heatpool_agent.ports import Seq
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool import room as room_file

BOUND = 90_000


def fill(spool: SqliteSpool, rows_count: int, *, step_s: int = 1, first: int = 0) -> float:
    """Rows of a heat that moves; their energy, J."""
    dice = random.Random(rows_count + first)
    total = 0.0
    for number in range(first, first + rows_count):
        value = round(40_000 + 500 * dice.random(), 1)
        spool.append(row(START_S + number * step_s, heat=value))
        total += value * step_s
    spool.close_frame()
    return total


def reasons(spool: SqliteSpool) -> set[GapReason]:
    return {loss.reason for loss in spool.losses()}


def test_what_is_durable_goes_before_any_detail(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 2_000)
        durable_seq = Seq(spool.mark(T).next_seq - 1)
        spool.forget(T, durable_seq)
        before = held(spool)
        fill(spool, 1_500, first=2_000)
        assert held(spool)[0] > before[0]
        assert [seq for seq in held(spool) if seq > durable_seq] == list(
            range(durable_seq + 1, spool.mark(T).next_seq)
        )
        assert spool.losses() == []


def test_detail_goes_before_any_row_and_no_energy_with_it(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        energy_j = fill(spool, 12_000)
        assert spool.size_bytes() <= BOUND + 8_192
        assert reasons(spool) == {GapReason.ROLLED_UP}
        account(spool)
        # A mean is exact to half a cell, 0.05 W, whatever it was rolled up through.
        assert energies_j(spool) == pytest.approx(energy_j, abs=3 * 0.05 * 12_000)


def test_the_newest_rows_keep_their_detail(tmp_path: Path) -> None:
    clock = StillClock(START_S + 12_000)
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND, clock=clock) as spool:
        fill(spool, 12_000)
        steps = [span_s for _, _, span_s in spans(spool, HEAT, row_s=1.0)]
        assert steps[-1] == 1.0
        assert max(steps[: len(steps) // 4]) > max(steps[-10:])


def test_only_when_no_detail_is_left_the_oldest_goes(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=1, max_bytes=BOUND) as spool:
        # Rows a quarter of an hour apart have no detail to lose.
        fill(spool, 3_000, step_s=900)
        spool.append_registers([register(START_S, 1)])
        assert spool.size_bytes() <= BOUND + 8_192
        assert GapReason.DROPPED in reasons(spool)
        first = min(loss.first_seq for loss in spool.losses() if loss.reason is GapReason.DROPPED)
        assert first == 1
        account(spool)
        account(spool, B)
        assert held(spool, B) == [1]


def test_what_is_dropped_takes_along_what_was_rolled_up_into_it(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 12_000)
        spool._room._drop_oldest()
        (loss, *_) = [one for one in spool.losses() if one.reason is GapReason.DROPPED]
        assert (loss.first_seq, loss.last_seq) == (1, held(spool)[0] - 1)
        account(spool)


def test_what_was_read_is_never_changed(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 200)
        before = spool.read(T, Seq(4), 10)
        fill(spool, 20_000, first=200)
        assert spool.read(T, Seq(4), 10) == before
        account(spool)
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 5_000, first=20_200)
        assert spool.read(T, Seq(4), 10) == before
        account(spool)


def test_absent_cells_stay_absent_and_their_time_is_not_counted(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        total_j = 0.0
        for second in range(8_000):
            cells = {"hot": 45.5} if second % 7 else {"hot": 45.5, "heat": 7_000.0}
            spool.append(row(START_S + second, **cells))
            total_j += cells.get("heat", 0.0)
        spool.close_frame()
        assert GapReason.ROLLED_UP in reasons(spool)
        assert energies_j(spool) == pytest.approx(total_j)


def test_a_full_disk_rolls_up_rather_than_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spool_in(tmp_path, rows_per_frame=10) as spool:
        fill(spool, 3_000)
        size_bytes = spool.size_bytes()
        monkeypatch.setattr(room_file, "free_bytes", lambda folder: 0)
        fill(spool, 9_000, first=3_000)
        assert spool.size_bytes() <= size_bytes
        assert reasons(spool) == {GapReason.ROLLED_UP}
        account(spool)


def test_a_spoiled_frame_becomes_a_loss_and_the_others_are_rolled_up(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 100)
        spool._db[T].execute("UPDATE frames SET payload = x'ff' WHERE seq = 4")
        fill(spool, 6_000, first=100)
        damaged = [loss for loss in spool.losses() if loss.reason is GapReason.DAMAGED]
        assert [(loss.first_seq, loss.last_seq) for loss in damaged] == [(4, 4)]
        account(spool)


def test_a_clock_that_goes_back_loses_no_energy(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        energy_j = fill(spool, 3_000) + fill(spool, 3_000, first=-40_000)
        assert GapReason.ROLLED_UP in reasons(spool)
        assert energies_j(spool) == pytest.approx(energy_j, abs=3 * 0.05 * 6_000)


def test_more_channels_than_before_can_be_rolled_up_with_fewer(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 300)
        for second in range(300, 6_000):
            spool.append(row(START_S + second, heat=1.0, hot=45.0))
        spool.close_frame()
        account(spool)
        assert {len(schema.channels) for schema in spool.schemas()} <= {1, 2, 3}


def test_losses_come_until_they_are_known_at_the_other_end(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        fill(spool, 6_000)
        first = spool.losses()
        assert first
        assert spool.losses() == first
    with spool_in(tmp_path, rows_per_frame=10, max_bytes=BOUND) as spool:
        assert spool.losses() == first
        spool.forget(T, first[0].last_seq)
        assert spool.losses() == first
        spool.told(spool.mark(T).boot_id, Seq(1), first[0].last_seq)
        assert spool.losses() == first[1:]


def test_the_live_lane_is_durable_above_a_backlog(tmp_path: Path) -> None:
    clock = StillClock()
    with spool_in(tmp_path, clock=clock) as spool:
        for second in range(20):
            spool.append(Row(event_ns=second * SECOND_NS, cells={HEAT: 1.0}))
        spool.forget(T, Seq(20), after=Seq(15))
        assert spool.mark(T).durable_seq == 0
        assert spool.stat()[0].backlog_frames_count == 15
        spool.forget(T, Seq(15))
        assert spool.mark(T).durable_seq == 20
        assert lost(spool) == []


def test_below_a_bound_only_the_backlog_is_read(tmp_path: Path) -> None:
    with spool_in(tmp_path) as spool:
        for second in range(9):
            spool.append(row(second, heat=1.0))
        assert [f.seq for f in spool.read(T, Seq(2), 9, before=Seq(6))] == [3, 4, 5]
        assert [f.seq for f in spool.read(T, Seq(5), 9)] == [6, 7, 8, 9]


def test_frames_are_small_on_disk(tmp_path: Path) -> None:
    dice = random.Random(1)
    names = [("rack", name, -1) for name in ("electric_w", "heat_rate_w", "heat_rate_w_u")]
    channels = [Channel(*name) for name in names]
    with spool_in(tmp_path, rows_per_frame=60) as spool:
        empty = spool.size_bytes()
        for second in range(6_000):
            cells = {channel: 40_000 + 20 * dice.gauss(0, 1) for channel in channels}
            spool.append(Row(event_ns=(START_S + second) * SECOND_NS, cells=cells))
        per_cell = (spool.size_bytes() - empty) / (6_000 * len(channels))
    assert per_cell < 3.0


def test_numbers_left_out_are_no_loss_and_what_was_one_stays_one(tmp_path: Path) -> None:
    with spool_in(tmp_path, rows_per_frame=10) as spool:
        fill(spool, 60)
        spool._db[T].execute("UPDATE frames SET payload = x'ff' WHERE seq = 4")
        spool.read(T, Seq(3), 1)
        assert spool.go_beyond(T, [(1, 2)])
        first = spool.read(T, Seq(0), 1)[0].seq
        assert [(one.first_seq, one.last_seq, one.reason) for one in spool.losses()] == [
            (3, 3, GapReason.UNUSED),
            (4, 4, GapReason.DAMAGED),
            (5, first - 1, GapReason.UNUSED),
        ]
