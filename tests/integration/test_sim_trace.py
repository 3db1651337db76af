"""`heatpool-sim trace`: files as promised, nothing of the truth among what is shown, and fast."""

import csv
import json
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import pytest
from click.testing import CliRunner

from heatpool.errors import ConfigError
from heatpool_sim.commands.spans import planned, seconds
from heatpool_sim.commands.trace import command

SHOWN = ["time", "power_w", "volume_flow_m3_h", "hot_c", "cold_c", "ambient_c"]


def traced(folder: Path, *more: str, hours: float = 1.0, site: str = "s02") -> dict[str, Any]:
    """The summary; the log is `trace.csv`, the truth `truth.csv`."""
    files = ["--out", str(folder / "trace.csv"), "--truth", str(folder / "truth.csv")]
    asked = ["--fleet", "demo", "--site", site, "--hours", str(hours), "--json", *files, *more]
    ended = CliRunner().invoke(command, asked, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def test_a_row_each_period_with_the_columns_that_estimate_reads(tmp_path: Path) -> None:
    summary = traced(tmp_path, "--period", "30s", "--start", "2026-03-01T06:00:00Z")
    rows = read(tmp_path / "trace.csv")
    assert list(rows[0]) == SHOWN
    assert len(rows) == summary["rows"] == 120
    assert [rows[0]["time"], rows[-1]["time"]] == ["2026-03-01T06:00:30Z", "2026-03-01T07:00:00Z"]
    assert summary["end_ns"] - summary["start_ns"] == 3600 * 10**9


def test_the_truth_is_in_the_second_file_and_nowhere_else(tmp_path: Path) -> None:
    summary = traced(tmp_path)
    assert not [key for key in summary if "heat" in key or key.endswith(("_w", "_wh"))]
    truth = read(tmp_path / "truth.csv")
    assert len(truth) == 360
    assert not set(truth[0]) & {"power_w", "ambient_c"}
    total_wh = sum(column(truth, "heat_rate_w")) * 10.0 / 3600.0
    assert column(truth, "energy_wh")[-1] == pytest.approx(total_wh, rel=1e-6)


def test_no_joule_is_lost_in_any_row(tmp_path: Path) -> None:
    summary = traced(tmp_path, "--fault", "air_in_loop@10min:20min", "--fault", "wrong_fluid@40min")
    assert summary["balance_residual_frac"] < 1e-9
    for row in read(tmp_path / "truth.csv"):
        parts_w = sum(float(row[name]) for name in ("heat_rate_w", "lost_w", "stored_w"))
        assert parts_w == pytest.approx(float(row["liquid_w"]), abs=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_another_site(tmp_path: Path) -> None:
    logs = []
    for seed in ("3", "3", "4"):
        traced(tmp_path, "--seed", seed, hours=0.2)
        logs.append((tmp_path / "trace.csv").read_bytes())
    assert logs[0] == logs[1] != logs[2]


def test_a_fault_is_played_when_planned_and_told_only_by_the_truth(tmp_path: Path) -> None:
    summary = traced(tmp_path, "--fault", "sensor_swap@20min:10min")
    assert summary["faults"] == [
        {"id": "sensor_swap", "at_s": 1200.0, "length_s": 600.0, "size": 0.0, "pipe": None}
    ]
    rows = read(tmp_path / "trace.csv")
    swapped = [row["time"] for row in rows if float(row["hot_c"]) < float(row["cold_c"])]
    told = [row["time"] for row in read(tmp_path / "truth.csv") if row["faults"]]
    assert swapped == told
    assert (len(told), told[0]) == (60, "2026-01-01T00:20:10Z")


@pytest.mark.parametrize(
    ("fault", "shift_frac"),
    [
        ("air_in_loop", -0.15),
        ("power_meter_low", 0.11),
        ("flow_unit", 15.7),
        ("sensor_swap", -2.0),
        ("wrong_fluid", 0.03),
        ("pair_offset", 0.035),
        ("fouling::0.3", -0.3),
    ],
)
def test_the_residual_shifts_as_physics_says(tmp_path: Path, fault: str, shift_frac: float) -> None:
    name, _, size = fault.partition("::")
    planned_text = f"{name}@2h" + (f"::{size}" if size else "")
    traced(tmp_path, "--period", "60s", "--fault", planned_text, hours=12)
    rows = read(tmp_path / "trace.csv")

    def share(part: list[dict[str, str]]) -> float:
        carried = fmean(
            float(row["volume_flow_m3_h"]) * (float(row["hot_c"]) - float(row["cold_c"]))
            for row in part
        )
        return carried / fmean(column(part, "power_w"))

    shift = share(rows[-200:]) / share(rows[10:110]) - 1.0
    assert shift == pytest.approx(shift_frac, abs=0.01 * max(1.0, abs(shift_frac)))


def test_air_makes_the_flow_restless_from_sample_to_sample(tmp_path: Path) -> None:
    variances = []
    for more in ((), ("--fault", "air_in_loop@0")):
        traced(tmp_path, *more, hours=12)
        flow_m3_h = column(read(tmp_path / "trace.csv"), "volume_flow_m3_h")
        variances.append(pvariance([log(b / a) for a, b in pairwise(flow_m3_h)]))
    assert 3.0 < variances[1] / variances[0] < 10.0


def test_a_stuck_sensor_is_stuck_in_the_log_too(tmp_path: Path) -> None:
    traced(tmp_path, "--fault", "temperature_stuck/cold@15min")
    cold_c = column(read(tmp_path / "trace.csv"), "cold_c")
    assert len(set(cold_c[90:])) == 1
    assert len(set(cold_c[:90])) > 20


def test_what_a_file_plans_is_played_and_what_devices_say_is_not(tmp_path: Path) -> None:
    fleet = tmp_path / "mine.toml"
    fleet.write_text(
        'name = "t"\nseed = 1\n[[virtual_source]]\nid = "gh"\nkind = "greenhouse"\nhot_c = 45\n'
        'cold_c = 35\nprice_eur_mwh = "30"\n[[site]]\nid = "a"\nvirtual_source = "gh"\n'
        'it_w = 20000\n[[fault]]\nid = "pair_offset"\nsite = "a"\nat_s = 60\nlength_s = 60\n'
        'size = 2.5\npipe = "cold"\n[[fault]]\nid = "busy"\nsite = "a"\nat_s = 0\nlength_s = 9\n',
        encoding="utf-8",
    )
    asked = ["--fleet", str(fleet), "--hours", "0.1", "--out", str(tmp_path / "o.csv"), "--json"]
    ended = CliRunner().invoke(command, asked, catch_exceptions=False)
    (fault,) = json.loads(ended.stdout)["faults"]
    assert (fault["id"], fault["size"], fault["pipe"]) == ("pair_offset", 2.5, "cold")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fault", "gremlin@1h"], "unknown"),
        (["--fault", "busy@1h"], "speech"),
        (["--fault", "air_in_loop@1h::0.9"], "outside"),
        (["--start", "soon"], "--start"),
        (["--start", "9999-12-31T23:00:00Z"], "1970 to 2200"),
        (["--site", "s99"], "s99"),
    ],
)
def test_what_cannot_be_played_is_refused_before_a_file_is_written(
    tmp_path: Path, more: list[str], said: str
) -> None:
    out = tmp_path / "trace.csv"
    asked = ["--fleet", "demo", "--site", "s02", "--out", str(out), *more]
    with pytest.raises(ConfigError, match=said):
        CliRunner().invoke(command, asked, catch_exceptions=False)
    assert not out.exists()


@pytest.mark.parametrize("hours", ["nan", "inf", "0", "1e9"])
def test_no_log_is_endless(tmp_path: Path, hours: str) -> None:
    out = str(tmp_path / "trace.csv")
    asked = ["--fleet", "demo", "--site", "s02", "--hours", hours, "--out", out]
    ended = CliRunner().invoke(command, asked)
    assert ended.exit_code == 2
    assert "--hours" in ended.stderr


def test_the_truth_may_not_lie_over_the_log(tmp_path: Path) -> None:
    out = str(tmp_path / "trace.csv")
    ended = CliRunner().invoke(
        command, ["--fleet", "demo", "--site", "s02", "--out", out, "--truth", out]
    )
    assert ended.exit_code == 2


@pytest.mark.parametrize(
    ("text", "span_s"), [("10", 10.0), ("10s", 10.0), ("1.5h", 5400.0), ("2d", 172_800.0)]
)
def test_spans_are_read(text: str, span_s: float) -> None:
    assert seconds(text) == span_s


@pytest.mark.parametrize("text", ["leak", "leak@", "leak@1x", "pair_offset/mid@1h", "leak@1h:1h:x"])
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        planned(text)


def test_a_day_at_ten_seconds_is_traced_whole(tmp_path: Path) -> None:
    summary = traced(tmp_path, hours=24.0)
    assert summary["rows"] == 8640


def test_the_day_of_faults_plays_each_in_its_hour(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    asked = ["--fleet", "faults", "--site", "ill", "--period", "60s", "--json"]
    asked += ["--out", str(tmp_path / "trace.csv"), "--truth", str(truth)]
    ended = CliRunner().invoke(command, asked, catch_exceptions=False)
    names = [fault["id"] for fault in json.loads(ended.stdout)["faults"]]
    assert names == list(dict.fromkeys(row["faults"] for row in read(truth) if row["faults"]))
    assert len(names) == 8
