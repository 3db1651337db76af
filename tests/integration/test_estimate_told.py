"""What the summary of `heatpool-agent estimate` says to people of what it could not know."""

from pathlib import Path

import pytest
from integration.bench_site import ran
from integration.test_estimate_command import steady


@pytest.mark.parametrize(
    ("until", "word"),
    [("5", "nothing learnt before 1970-01-01 00:00:05Z"), ("9000", "no row from 1970-01-01 02:30")],
)
async def test_a_time_that_teaches_or_checks_nothing_is_told(
    tmp_path: Path, until: str, word: str
) -> None:
    path = steady(tmp_path / "t.csv", "power_w,heat_rate_w", "1000,800", rows=100)
    done = await ran("estimate", str(path), "--fit-until", until, folder=tmp_path)
    assert done.code == 0
    assert word in done.out


async def test_water_alone_is_told_to_people_as_heat_in_the_coolant(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "volume_flow_m3_h,hot_c,cold_c", "10,40,30")
    done = await ran("estimate", str(path), folder=tmp_path)
    assert "computed, the heat in this coolant" in done.out
    assert "this is not all heat of the IT" in done.out


async def test_a_summary_is_for_people(tmp_path: Path) -> None:
    path = steady(tmp_path / "t.csv", "power_w", "1000", rows=30, step_s=3600)
    done = await ran("estimate", str(path), folder=tmp_path)
    assert done.code == 0
    assert "29 ± 1.7 kWh (95 %" in done.out
    assert "... and 5 more" in done.out
    assert "faults: none found" in done.out


@pytest.mark.parametrize(("power_w", "told"), [("1", "1 Wh"), ("2e4", "20 kWh"), ("3e7", "30 MWh")])
async def test_periods_are_told_in_a_unit_that_fits(
    tmp_path: Path, power_w: str, told: str
) -> None:
    path = steady(tmp_path / "t.csv", "power_w", power_w, rows=3, step_s=3600)
    done = await ran("estimate", str(path), folder=tmp_path)
    line = next(line for line in done.out.splitlines() if line.startswith("1970-01-01 01"))
    assert line.split("  ", 1)[1].strip().startswith(told)
