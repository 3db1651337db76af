"""`heatpool-agent estimate` as an engineer with a log meets it: the real program, hidden truths."""

import asyncio
import json
from math import hypot, sqrt
from pathlib import Path
from typing import Any

import pytest
from integration.bench_site import Done, ran
from integration.trace_site import HEAD, START, Cells, site

from heatpool_agent.commands.estimate import asked_of
from heatpool_agent.core import trace as traces
from heatpool_agent.core.trace_estimate import TraceEstimate
from heatpool_agent.core.trace_inputs import inputs

START_NS = round(START.timestamp()) * 10**9
HOUR_NS = 3600 * 10**9


async def estimated(path: Path, *arguments: str, **environ: str) -> Done:
    """The command on a log, as JSON."""
    return await ran("estimate", str(path), "--json", *arguments, folder=path.parent, **environ)


def log(path: Path, head: str, *rows: str) -> Path:
    """A small log of its own."""
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def steady(path: Path, head: str, cells: str, *, rows: int = 361, step_s: int = 10) -> Path:
    """A log that shows the same in every row."""
    return log(path, f"time,{head}", *(f"{step_s * index},{cells}" for index in range(rows)))


def faults(document: dict[str, Any]) -> set[str]:
    return {fault["fault"] for fault in document["faults"]}


async def test_both_inputs_give_one_document(tmp_path: Path) -> None:
    seen = site(1)
    path = await asyncio.to_thread(seen.write, tmp_path / "t.csv")
    done = await estimated(path, "--cooling", "dlc", "--sensor-side", "cold")
    found = done.document
    assert done.code == 0
    assert found["schema"] == "heatpool.estimate/1"
    assert found["method"] == "fused"
    assert len(found["rows"]) == len(seen.rows)
    for row in found["rows"]:
        assert row["lo95_w"] < row["heat_rate_w"] < row["hi95_w"]
        assert row["quality_class"] == "B"
    total, periods = found["total"], found["periods"]
    assert [period["start_ns"] for period in periods] == [START_NS + i * HOUR_NS for i in range(3)]
    assert sum(period["heat_wh"] for period in periods) == pytest.approx(total["heat_wh"])
    assert total["lo95_wh"] < seen.heat_wh < total["hi95_wh"]
    # Gain errors are common to all periods.
    assert total["heat_wh_u"] > 1.2 * hypot(*(period["heat_wh_u"] for period in periods))
    assert found["faults"] == []
    assert found["check"] is None
    share = sum(seen.heat_rate_w) / sum(float(cells[1]) for cells in seen.rows)
    assert found["capture"]["frac"] == pytest.approx(share, abs=3 * found["capture"]["frac_u"])
    assert found["inputs"]["columns"]["hot_c"]["is_used"]


def total_z(seed: int, *, is_fused: bool) -> float:
    """Error of a hidden site's total in its own doubt."""
    seen = site(seed, hours=2.0)
    columns = HEAD if is_fused else HEAD[:2]
    places = [HEAD.index(name) for name in columns]
    rows = [",".join(cells[place] for place in places) + "\n" for cells in seen.rows]
    trace = traces.read([",".join(columns) + "\n", *rows])
    found = inputs(trace, asked_of(fluid="water", cooling="dlc", sensor_side="cold"))
    done = TraceEstimate(trace, found, period_s=3600)
    assert sum(row.heat is not None for row in done.rows()) == len(rows)
    assert done.total.heat_wh is not None
    assert done.total.heat_wh_u is not None
    return (done.total.heat_wh - seen.heat_wh) / done.total.heat_wh_u


@pytest.mark.parametrize("is_fused", [True, False])
def test_the_doubt_of_hidden_sites_is_honest(*, is_fused: bool) -> None:
    found = [total_z(100 + seed, is_fused=is_fused) for seed in range(24)]
    # 24 draws of a normal doubt: one in a thousand suites is outside of these.
    assert sum(abs(z) <= 1.96 for z in found) >= 20
    assert 0.35 < sqrt(sum(z * z for z in found) / len(found)) < 1.5


async def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    seen = site(2)

    def change(index: int, cells: Cells) -> Cells | None:
        return None if 360 <= index < 900 else cells

    whole = await asyncio.to_thread(seen.write, tmp_path / "whole.csv")
    path = await asyncio.to_thread(lambda: seen.write(tmp_path / "t.csv", change=change))
    found = (await estimated(path, "--cooling", "dlc")).document
    full = (await estimated(whole, "--cooling", "dlc")).document
    covered = [period["coverage_frac"] for period in found["periods"]]
    assert covered == pytest.approx([3590 / 3600, 0.0, 1790 / 3600], abs=1e-6)
    assert found["periods"][1]["heat_wh"] is None
    assert found["periods"][1]["quality_class"] is None
    told = found["total"]
    assert told["coverage_frac"] == pytest.approx((3590 + 1790) / (3 * 3600 - 10), abs=1e-6)
    expected_wh = (sum(seen.heat_rate_w[1:360]) + sum(seen.heat_rate_w[901:])) / 360
    assert told["lo95_wh"] < expected_wh < told["hi95_wh"]
    assert told["heat_wh"] < 0.6 * full["total"]["heat_wh"]
    (after,) = [row for row in found["rows"] if "gap_before" in row["flags"]]
    assert after["event_ns"] == START_NS + 9000 * 10**9


async def test_swapped_sensors_are_a_fault_and_never_the_heat(tmp_path: Path) -> None:
    seen = site(3)

    def change(index: int, cells: Cells) -> Cells:
        return [*cells[:3], cells[4], cells[3]] if 400 <= index < 700 else cells

    path = await asyncio.to_thread(lambda: seen.write(tmp_path / "t.csv", change=change))
    found = (await estimated(path, "--cooling", "dlc")).document
    assert faults(found) == {"swapped_sensors"}
    (fault,) = found["faults"]
    assert fault["start_ns"] == pytest.approx(START_NS + 4000 * 10**9, abs=60 * 10**9)
    assert fault["end_ns"] == pytest.approx(START_NS + 7000 * 10**9, abs=600 * 10**9)
    assert "degC" in fault["evidence"]
    assert "swapped_sensors" in found["rows"][500]["flags"]
    assert "electric_only" in found["rows"][500]["flags"]
    assert min(row["heat_rate_w"] for row in found["rows"]) > 0
    assert found["total"]["lo95_wh"] < seen.heat_wh < found["total"]["hi95_wh"]


async def test_pipes_swapped_all_along_give_the_signed_figure_without_power(
    tmp_path: Path,
) -> None:
    path = steady(tmp_path / "t.csv", "volume_flow_m3_h,hot_c,cold_c", "10,30,40")
    found = (await estimated(path)).document
    assert found["method"] == "computed"
    assert found["total"]["heat_wh"] == pytest.approx(-115_500, rel=0.01)
    assert faults(found) == {"swapped_sensors"}
    assert "swapped_sensors" in found["rows"][-1]["flags"]


async def test_cells_that_no_sensor_can_show_are_absent(tmp_path: Path) -> None:
    seen = site(4)

    def change(index: int, cells: Cells) -> Cells:
        odd = {5: "243", 6: "N/A", 7: "", 8: "-999", 9: "Bad"}
        return [*cells[:3], odd.get(index % 50, cells[3]), cells[4]]

    path = await asyncio.to_thread(lambda: seen.write(tmp_path / "t.csv", change=change))
    found = (await estimated(path, "--cooling", "dlc")).document
    absent = found["inputs"]["columns"]["hot_c"]["absent"]
    assert absent == {"sentinel": 44, "empty": 44, "not_a_number": 22}
    assert found["total"]["lo95_wh"] < seen.heat_wh < found["total"]["hi95_wh"]
    assert found["total"]["coverage_frac"] == 1.0


async def test_a_log_out_of_order_and_doubled_is_the_same_log(tmp_path: Path) -> None:
    seen = site(5, hours=1.0)
    path = await asyncio.to_thread(seen.write, tmp_path / "t.csv")
    lines = await asyncio.to_thread(path.read_text)
    head, *rows = lines.splitlines()
    other = log(tmp_path / "o.csv", head, *reversed(rows), *rows[:50])
    tidy, untidy = await estimated(path), await estimated(other)
    assert untidy.document["total"]["heat_wh"] == tidy.document["total"]["heat_wh"]
    assert {"unsorted_rows", "duplicate_times"} <= set(untidy.document["flags"])


@pytest.mark.parametrize(
    ("head", "cells", "arguments", "heat_wh", "u_frac", "quality"),
    [
        ("power_w", "1000", (), 1000, 0.03, "B"),
        ("power_w", "1000", ("--cooling", "dlc"), 750, 0.073, "B"),
        ("it_w,facility_w", "1000,1400", (), 1000, 0.03, "B"),
        ("facility_w", "1000", (), 700, 0.174, "D"),
        ("cpu_w", "200", (), 306, 0.15, "D"),
        ("cpu_w,gpu_w", "200,800", (), 1296, 0.15, "D"),
        ("gpu_w", "620", (), 1000, 0.40, "E"),
    ],
)
async def test_power_alone_is_told_by_what_it_is(
    tmp_path: Path,
    head: str,
    cells: str,
    arguments: tuple[str, ...],
    heat_wh: float,
    u_frac: float,
    quality: str,
) -> None:  # fmt: skip
    found = (await estimated(steady(tmp_path / "t.csv", head, cells), *arguments)).document
    total = found["total"]
    assert found["method"] == "electric"
    assert total["heat_wh"] == pytest.approx(heat_wh, rel=0.01)
    assert total["heat_wh_u"] == pytest.approx(u_frac * heat_wh, rel=0.05)
    assert total["quality_class"] == quality


async def test_water_alone_is_computed(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "volume_flow_m3_h,hot_c,cold_c", "10,40,30")
    found = (await estimated(path, "--sensor-side", "cold")).document
    assert found["method"] == "computed"
    assert found["total"]["heat_wh"] == pytest.approx(115_551, rel=2e-4)


async def test_what_the_coolant_carries_is_not_all_heat_unless_asked(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "power_w,volume_flow_m3_h,hot_c,cold_c", "154000,10,40,30")
    everything = (await estimated(path)).document
    share = (await estimated(path, "--cooling", "dlc")).document
    assert everything["method"] == "electric"
    assert everything["total"]["heat_wh"] == pytest.approx(154_000, rel=1e-3)
    assert "coolant_part:0.75" in everything["flags"]
    assert share["total"]["heat_wh"] == pytest.approx(115_400, rel=0.01)


async def test_a_factor_between_units_is_a_fault_and_power_is_kept(tmp_path: Path) -> None:
    # Litres a minute, said to be m3/h.
    path = steady(tmp_path / "t.csv", "power_w,volume_flow_m3_h,hot_c,cold_c", "116000,166.7,40,30")
    found = (await estimated(path)).document
    assert "unit_error" in faults(found)
    assert found["method"] == "electric"
    mended = await estimated(path, "--column", "volume_flow_m3_h=volume_flow_m3_h*0.06")
    assert mended.document["faults"] == []
    assert mended.document["method"] == "fused"


async def test_periods_are_cut_from_rows_and_add_up(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "power_w", "1000", rows=25, step_s=3600)
    hours = (await estimated(path)).document
    quarters = (await estimated(path, "--period", "15min")).document
    days = (await estimated(path, "--period", "1d")).document
    assert [len(one["periods"]) for one in (hours, quarters, days)] == [24, 96, 1]
    for one in (hours, quarters, days):
        assert one["total"]["heat_wh"] == pytest.approx(24_000)
        assert {period["coverage_frac"] for period in one["periods"]} == {1.0}


@pytest.mark.parametrize(
    ("head", "row", "word"),
    [
        ("stamp,power_w", "0,1", "time=stamp"),
        ("time,kilowatts", "0,1", "--column"),
        ("time,power_w", "0,N/A", "usable"),
        ("time,hot_c,cold_c", "0,40,30", "volume_flow_m3_h"),
        ("time,power_w", "soon,1", "soon"),
        ("time,heat_rate_w", "0,1", "no column of power"),
    ],
)
async def test_a_file_of_no_use_is_told_and_ends_with_4(
    tmp_path: Path, head: str, row: str, word: str
) -> None:
    done = await estimated(log(tmp_path / "t.csv", head, row))
    assert done.code == 4
    assert word in done.document["inputs"]["reason"]
    assert done.document["total"] is None
    assert done.document["rows"] == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--column", "it_w=Nowhere"), "Nowhere"),
        (("--column", "it_kw=power_w"), "it_kw"),
        (("--column", "it_w=power_w", "--column", "it_w=power_w"), "twice"),
        (("--period", "0"), "period"),
        (("--period", "fortnight"), "fortnight"),
        (("--fluid", "beer"), "beer"),
        (("--cooling", "wishful"), "wishful"),
        (("--sensor-side", "left"), "left"),
        (("--plot", "picture.gif"), "picture.gif"),
        (("--plot", "nowhere/picture.png"), "nowhere"),
        (("--rows", "nowhere/rows.csv"), "nowhere"),
        (("--fit-until", "soon"), "soon"),
        (("--fit-until", "100"), "heat_rate_w"),
    ],
)
async def test_a_mistake_on_the_command_line_ends_with_2(
    tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    done = await estimated(steady(tmp_path / "t.csv", "power_w", "1000", rows=5), *arguments)
    assert done.code == 2
    assert word in done.err
    assert done.out == ""


async def test_a_file_that_is_not_there_ends_with_2(tmp_path: Path) -> None:
    assert (await estimated(tmp_path / "no.csv")).code == 2


async def test_another_meter_is_compared_and_never_used(tmp_path: Path) -> None:
    rows = [f"{10 * index},100000,{80000 + index % 7}" for index in range(721)]
    path = log(tmp_path / "t.csv", "time,power_w,heat_rate_w", *rows)
    plain = (await estimated(path, "--cooling", "dlc")).document
    assert plain["total"]["heat_wh"] == pytest.approx(150_000, rel=1e-3)
    assert plain["check"]["rows_count"] == 721
    assert plain["check"]["bias_frac"] == pytest.approx(-0.0625, abs=1e-3)
    assert not plain["inputs"]["columns"]["heat_rate_w"]["is_used"]
    learnt = (await estimated(path, "--cooling", "dlc", "--fit-until", "3600")).document
    assert learnt["check"]["rows_count"] == 361
    assert learnt["check"]["bias_frac"] == pytest.approx(0.0, abs=1e-3)
    assert learnt["check"]["band_coverage_frac"] == 1.0
    assert learnt["check"]["fit"]["electric"]["value"] == pytest.approx(80003 / 75000, rel=1e-3)
    assert learnt["total"]["heat_wh_u"] < 0.5 * plain["total"]["heat_wh_u"]


async def test_a_stamp_without_zone_is_flagged(tmp_path: Path) -> None:
    rows = [f"2026-03-01 00:{minute:02d}:00;1,5" for minute in range(60)]
    path = log(tmp_path / "t.csv", "Time;IT kW", *rows)
    found = (await estimated(path, "--column", "it_w=IT kW*1000")).document
    assert "zone_assumed" in found["flags"]
    assert found["rows"][0]["event_ns"] == START_NS
    assert found["total"]["heat_wh"] == pytest.approx(1500 * 59 / 60)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
async def test_a_log_in_the_hand_of_any_office_is_read(tmp_path: Path, encoding: str) -> None:
    rows = [f"01.03.2026 00:{minute:02d};1,5;40,0;32,0;0,1" for minute in range(30)]
    text = "\r\n".join(
        ["Anlage 3;;;;", "Zeit;Fluß m³/h;Warm °C;Kalt °C;x", *rows, "31.03.2026;;;;"]
    )
    path = tmp_path / "t.csv"
    await asyncio.to_thread(path.write_bytes, text.encode(encoding))
    named = ("time=Zeit", "volume_flow_m3_h=Fluß m³/h", "hot_c=Warm °C", "cold_c=Kalt °C")
    done = await estimated(path, *(part for one in named for part in ("--column", one)))
    found = done.document
    assert found["rows"][0]["event_ns"] == START_NS
    assert found["total"]["heat_wh"] == pytest.approx(13_850 * 29 / 60, rel=5e-3)


async def test_learning_from_another_meter_mends_power_and_flow(tmp_path: Path) -> None:
    seen = site(7)
    true_w = seen.heat_rate_w
    rows = [
        ",".join([*cells[:2], f"{1.08 * float(cells[2]):.5f}", *cells[3:], f"{true_w[index]:.0f}"])
        for index, cells in enumerate(seen.rows)
    ]
    path = log(tmp_path / "t.csv", ",".join([*HEAD, "heat_rate_w"]), *rows)
    until = "2026-03-01T01:30:00Z"
    plain = (await estimated(path, "--cooling", "dlc")).document
    learnt = (await estimated(path, "--cooling", "dlc", "--fit-until", until)).document
    assert abs(learnt["check"]["bias_frac"]) < 0.01 < abs(plain["check"]["bias_frac"])
    assert learnt["check"]["rows_count"] == len(rows) // 2
    assert learnt["check"]["fit"]["computed"]["value"] == pytest.approx(1 / 1.08, abs=0.05)
    assert learnt["total"]["heat_wh"] == pytest.approx(seen.heat_wh, rel=0.01)
    assert learnt["total"]["lo95_wh"] < seen.heat_wh < learnt["total"]["hi95_wh"]


async def test_one_row_has_a_heat_rate_and_no_energy(tmp_path: Path) -> None:
    found = (await estimated(log(tmp_path / "t.csv", "time,power_w", "0,1000"))).document
    assert found["rows"][0]["heat_rate_w"] == 1000
    assert found["total"]["heat_wh"] is None


async def test_rows_go_to_a_file_of_their_own(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "power_w", "1000", rows=5)
    done = await ran("estimate", str(path), "--rows", "rows.csv", folder=tmp_path)
    lines = await asyncio.to_thread((tmp_path / "rows.csv").read_text)
    assert done.code == 0
    assert lines.splitlines()[0].startswith("event_ns,heat_rate_w,heat_rate_w_u,lo95_w,hi95_w")
    assert len(lines.splitlines()) == 6


@pytest.mark.parametrize(("name", "begin"), [("p.png", b"\x89PNG"), ("p.svg", b"<?xml")])
async def test_a_picture_is_drawn(tmp_path: Path, name: str, begin: bytes) -> None:
    path = await asyncio.to_thread(site(6, hours=0.5).write, tmp_path / "t.csv")
    done = await estimated(path, "--cooling", "dlc", "--plot", name)
    content = await asyncio.to_thread((tmp_path / name).read_bytes)
    assert done.code == 0
    assert json.loads(done.out)["method"] == "fused"
    assert content.startswith(begin)
    assert len(content) > 10_000


async def test_a_fault_that_lasts_is_drawn_to_the_end(tmp_path: Path) -> None:
    path = await asyncio.to_thread(site(6, hours=1.0).write, tmp_path / "t.csv")
    text = await asyncio.to_thread(path.read_text)
    swapped = text.replace("hot_c", "x", 1).replace("cold_c", "hot_c", 1).replace("x", "cold_c", 1)
    await asyncio.to_thread(path.write_text, swapped)
    done = await estimated(path, "--cooling", "dlc", "--plot", "p.png")
    assert done.code == 0
    assert [(one["fault"], one["end_ns"]) for one in done.document["faults"]] == [
        ("swapped_sensors", None)
    ]


async def test_without_matplotlib_the_line_that_installs_it_is_told_at_once(
    tmp_path: Path,
) -> None:
    hidden = tmp_path / "hidden"
    await asyncio.to_thread(hidden.mkdir)
    text = 'import sys\nsys.modules["matplotlib"] = None\n'
    await asyncio.to_thread((hidden / "sitecustomize.py").write_text, text)
    path = steady(tmp_path / "t.csv", "power_w", "1000", rows=5)
    done = await estimated(path, "--plot", "p.png", PYTHONPATH=str(hidden))
    assert done.code == 2
    assert "pip install 'heatpool[plot]'" in done.err
    assert done.out == ""
