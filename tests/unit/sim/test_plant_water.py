"""The simulator's own property table against the oracle's rows."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest

from heatpool_sim.plant import water

_FLUIDS = Path(__file__).parents[2] / "data" / "fluids.csv"
_ROWS = [
    (float(row["temp_c"]), float(row["density_kg_m3"]), float(row["h_j_kg"]))
    for row in csv.DictReader(_FLUIDS.read_text(encoding="utf-8").splitlines())
    if row["fluid"] == "water" and float(row["temp_c"]) <= 100.0
]


@pytest.mark.parametrize(("temp_c", "density_kg_m3", "_h_j_kg"), _ROWS)
def test_density_is_that_of_the_standard(
    temp_c: float, density_kg_m3: float, _h_j_kg: float
) -> None:
    assert water.density_kg_m3(temp_c) == pytest.approx(density_kg_m3, rel=3e-4)


@pytest.mark.parametrize(("low", "high"), list(pairwise(_ROWS)))
def test_a_rise_of_enthalpy_is_that_of_the_standard(
    low: tuple[float, float, float], high: tuple[float, float, float]
) -> None:
    rise_j_kg = water.enthalpy_j_kg(high[0]) - water.enthalpy_j_kg(low[0])
    assert rise_j_kg == pytest.approx(high[2] - low[2], rel=2.5e-3, abs=30.0)
