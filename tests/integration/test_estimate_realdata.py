"""Power logs of real machines through `estimate`, read in place; skipped where they are absent."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from heatpool_agent.commands.estimate import asked_of
from heatpool_agent.core import trace as traces
from heatpool_agent.core.attribution import FULL_PER_CPU_W, IDLE_PER_CPU_W
from heatpool_agent.core.trace_columns import mapped
from heatpool_agent.core.trace_estimate import Row, TraceEstimate
from heatpool_agent.core.trace_inputs import inputs

pytestmark = pytest.mark.realdata


def estimated(lines: list[str], *columns: str) -> tuple[TraceEstimate, list[Row], traces.Trace]:
    trace = traces.read(lines, [mapped(column) for column in columns])
    found = inputs(trace, asked_of(fluid="water", cooling=None, sensor_side="unknown"))
    assert found.reason is None
    done = TraceEstimate(trace, found, period_s=3600)
    return done, list(done.rows()), trace


def metered(path: Path) -> Iterator[tuple[str, list[float]]]:
    """The stamp of each line of a power analyser, and its watts: the total, then phases."""
    for cells in csv.reader(path.read_text(encoding="utf-8").splitlines()):
        if cells and cells[0] == "Time":
            watts = [i + 1 for i, cell in enumerate(cells[:-1]) if cell == "Watts"]
            yield cells[1], [float(cells[i]) for i in watts]


def test_phases_beside_their_total_are_not_added(realdata: Path) -> None:
    (path,) = (realdata / "05_traces" / "mlperf_v4.1" / "NVIDIA").rglob("spl.txt")
    told = list(metered(path))
    for _, (total_w, *phases_w) in told:
        assert total_w == pytest.approx(sum(phases_w), abs=0.5)
    rows = [f"{stamp},{','.join(f'{w:g}' for w in watts)}\n" for stamp, watts in told]
    done, found, trace = estimated(["time,all,ch1,ch2,ch3\n", *rows], "it_w=all")
    mean_w = sum(watts[0] for _, watts in told) / len(told)
    assert trace.flags["zone_assumed"] == len(told)
    assert trace.time_kind is not None
    assert trace.time_kind.name == "month_first"
    assert done.total.heat_wh is not None
    hours = (found[-1].event_ns - found[0].event_ns) / 3.6e12
    assert done.total.heat_wh == pytest.approx(mean_w * hours, rel=0.02)


def test_every_log_of_the_analyser_is_read_whole(realdata: Path) -> None:
    paths = sorted((realdata / "05_traces" / "mlperf_v4.1").rglob("spl.txt"))
    assert paths
    for path in paths:
        told = list(metered(path))
        rows = [f"{stamp},{watts[0]:g}\n" for stamp, watts in told]
        done, found, trace = estimated(["time,power_w\n", *rows])
        assert len(found) == len(told) - trace.flags["duplicate_times"]
        assert all(row.heat is not None for row in found)
        assert done.total.coverage_frac > 0.98


@pytest.mark.parametrize("number", [1, 6, 12])
def test_a_day_of_a_coolant_unit_keeps_its_energy(realdata: Path, number: int) -> None:
    path = realdata / "05_traces" / "frontier_cdu" / "power_15s.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    done, found, trace = estimated(lines, f"it_w=power[{number}]")
    watts = [float(row[f"power[{number}]"]) for row in csv.DictReader(lines)]
    assert len(found) == len(watts)
    assert trace.flags["time_from_zero"]
    assert len(done.periods) == 24
    assert done.total.heat_wh == pytest.approx(sum(watts[1:]) * 15 / 3600, rel=2e-3)
    assert done.total.heat_wh_u == pytest.approx(0.03 * (done.total.heat_wh or 0.0), rel=1e-2)
    # The loop's mass smooths: heat never leaves the range of the power.
    heats = [row.heat.value for row in found if row.heat]
    assert min(watts) <= min(heats)
    assert max(heats) <= max(watts)


def test_accelerators_alone_are_doubted_by_what_their_servers_add(realdata: Path) -> None:
    path = realdata / "05_traces" / "zeus" / "summary_power_v100.csv"
    jobs = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    rows = [f"{60 * i},{float(job['average_power']):.1f}\n" for i, job in enumerate(jobs)]
    done, found, _ = estimated(["time,gpu_w\n", *rows])
    assert done.method == "electric"
    for row, job in zip(found, jobs, strict=True):
        assert row.heat is not None
        assert row.heat.value - 1.96 * row.heat.u < float(job["average_power"]) < 1e3
        assert row.heat.quality.name == "E"


def test_idle_and_full_per_thread_lie_within_a_thousand_servers(realdata: Path) -> None:
    (path,) = (realdata / "05_traces" / "specpower").glob("*.csv")
    told = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    pairs = [
        (float(one["avg. watts @ active idle"]), float(one["avg. watts @ 100%"])) for one in told
    ]
    ratios = sorted(idle_w / full_w for idle_w, full_w in pairs if full_w > 0)
    low, high = ratios[len(ratios) // 20], ratios[-len(ratios) // 20]
    assert low < IDLE_PER_CPU_W / FULL_PER_CPU_W < high
