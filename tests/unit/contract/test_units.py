"""Units: exact both ways, known by the names devices use, and equal to the vocabulary."""

import re
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.units import SUFFIXES, UNITLESS, UNITS, exact, scaled, whole_wh

VOCABULARY = Path(__file__).parents[3] / "docs" / "vocabulary.md"


@given(count=st.integers(-(10**15), 10**15), unit=st.sampled_from(sorted(UNITS)))
def test_no_unit_loses_anything_of_a_count(count: int, unit: str) -> None:
    assert exact(count, unit) / UNITS[unit].factor == count


@pytest.mark.parametrize(
    ("value", "unit", "suffix", "expected"),
    [
        (1, "kWh", "_wh", Fraction(1000)),
        (1, "MWh", "_wh", Fraction(10**6)),
        (9, "GJ", "_wh", Fraction(2_500_000)),
        (36, "MJ", "_wh", Fraction(10_000)),
        (3600, "J", "_wh", Fraction(1)),
        (36, "GJ/h", "_w", Fraction(10**7)),
        (Decimal("41.2"), "L/min", "_m3_h", Fraction("2.472")),
        (1500, "L/h", "_m3_h", Fraction("1.5")),
        (2, "m3/min", "_m3_h", Fraction(120)),
        (1, "m3/s", "_m3_h", Fraction(3600)),
        (250, "kPa", "_bar", Fraction("2.5")),
        (45, "%", "_frac", Fraction("0.45")),
        (7200, "kg/h", "_kg_s", Fraction(2)),
    ],
)
def test_a_device_unit_is_told_in_the_unit_of_its_suffix(
    value: int | Decimal, unit: str, suffix: str, expected: Fraction
) -> None:
    assert UNITS[unit].suffix == suffix
    assert exact(value, unit) == expected


def test_every_device_unit_ends_in_an_allowed_suffix() -> None:
    assert {unit.suffix for unit in UNITS.values()} <= set(SUFFIXES)


@given(value=st.floats(-1e9, 1e9), unit=st.sampled_from(sorted(UNITS)))
def test_floats_and_arrays_scale_alike_and_near_the_exact_value(value: float, unit: str) -> None:
    result = scaled(value, unit)
    assert result == pytest.approx(float(exact(Fraction(value), unit)), rel=4e-16, abs=5e-324)
    assert scaled(np.array([value]), unit)[0] == result


def test_a_register_in_gigajoule_loses_less_than_a_watt_hour() -> None:
    # 0.001 GJ is 277.78 Wh: rounding each step down instead of the register would lose 0.78.
    assert whole_wh(1, "GJ", exponent=-3) == 277
    assert whole_wh(9, "GJ", exponent=-3) == 2500


@given(raws=st.lists(st.integers(0, 10**9), min_size=2), unit=st.sampled_from(["GJ", "MJ", "kWh"]))
def test_a_register_in_whole_watt_hours_stays_monotone(raws: list[int], unit: str) -> None:
    registers_wh = [whole_wh(raw, unit, exponent=-3) for raw in sorted(raws)]
    assert registers_wh == sorted(registers_wh)


def test_a_unit_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="kwh"):
        exact(1, "kwh")


def test_a_register_that_holds_no_energy_is_refused() -> None:
    with pytest.raises(ValueError, match="m3"):
        whole_wh(1, "m3")


def test_the_suffixes_are_those_of_the_vocabulary() -> None:
    section = VOCABULARY.read_text().split("## 3. Unit suffixes")[1].split("\n## ")[0]
    assert set(SUFFIXES) == set(re.findall(r"`(_[a-z0-9_]+)`", section))
    assert len(SUFFIXES) == len(set(SUFFIXES))
    unitless = re.search(r"((?:`[a-z]+`(?:, )?)+) \| need no unit", section)
    assert unitless is not None
    assert set(UNITLESS) == set(re.findall(r"`([a-z]+)`", unitless.group(1)))


def test_the_arithmetic_runs_where_numpy_is_absent() -> None:
    # The agent's machine has no numpy: None in sys.modules makes its import fail.
    code = """
import sys
sys.modules["numpy"] = None
from heatpool import counter, heat, period, uncertainty, units, water
assert 1159 < heat.energy_wh(1.0, 21.0, 20.0, "cold") < 1165
assert counter.advance(90, 5, 100).delta == 15
assert uncertainty.fuse([1.0, 3.0], [1.0, 1.0]).value == 2.0
assert uncertainty.meter_mpe_frac(2, 1.0, 8.0, 3.0) < 0.05
assert water.density_kg_m3(200.0) != water.density_kg_m3(200.0)
assert period.period_containing(0, 900).end_ns == 900 * units.NS_PER_S
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
