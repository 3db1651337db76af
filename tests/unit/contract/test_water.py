"""Fluids: the published table, the oracles' table, and the edges of the valid range."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.water import FLUIDS, density_kg_m3, heat_capacity_j_kg_k

ORACLE = Path(__file__).parents[2] / "data" / "fluids.csv"

# physics.md 4.2: density / heat capacity at 3 bar, one column per fluid.
COLUMNS = "water pg25_vol pg30_vol pg25_mass pg30_mass eg25_mass eg30_mass eg25_vol eg30_vol"
PUBLISHED = """
20 998.30/4183.4 1023.87/3912.9 1028.35/3847.9 1019.28/3920.5 1023.78/3857.0 1031.05/3810.7 1038.05/3718.3 1037.63/3731.1 1045.25/3645.4
30 995.74/4179.3 1019.43/3937.6 1023.64/3875.4 1014.90/3944.6 1018.89/3883.9 1027.10/3834.3 1033.70/3747.2 1033.78/3756.8 1041.26/3673.8
40 992.30/4178.9 1014.47/3962.2 1018.42/3902.8 1009.91/3968.6 1013.43/3910.4 1022.55/3857.4 1028.80/3775.4 1029.45/3782.5 1036.78/3702.1
50 988.12/4180.9 1009.01/3986.9 1012.69/3930.3 1004.38/3992.4 1007.49/3936.6 1017.43/3880.1 1023.38/3802.5 1024.64/3808.2 1031.82/3730.5
60 983.28/4184.5 1003.05/4011.6 1006.45/3957.8 998.40/4015.7 1001.15/3962.3 1011.77/3902.1 1017.46/3828.7 1019.33/3833.9 1026.37/3758.8
"""  # noqa: E501 - a published table keeps its lines


def published_cells() -> list[tuple[str, float, float, float]]:
    rows = [line.split() for line in PUBLISHED.strip().splitlines()]
    return [
        (fluid, float(temp), *map(float, cell.split("/")))  # type: ignore[misc]
        for temp, *cells in rows
        for fluid, cell in zip(COLUMNS.split(), cells, strict=True)
    ]


def oracle_rows() -> list[tuple[str, float, float, float]]:
    with ORACLE.open() as file:
        return [
            (
                row["fluid"],
                float(row["temp_c"]),
                float(row["density_kg_m3"]),
                float(row["heat_capacity_j_kg_k"]),
            )
            for row in csv.DictReader(file)
            if row["fluid"] != "water16"
        ]


@pytest.mark.parametrize(("fluid", "temp_c", "density", "capacity"), published_cells())
def test_properties_meet_the_published_table(
    fluid: str, temp_c: float, density: float, capacity: float
) -> None:
    # Half a printed digit, and for water the fit's own 1.5e-4 of heat capacity.
    slack = 1.5e-4 * 4180 if fluid == "water" else 1e-3
    assert density_kg_m3(temp_c, fluid) == pytest.approx(density, abs=0.0051 + 2e-5 * 1000)
    assert heat_capacity_j_kg_k(temp_c, fluid) == pytest.approx(capacity, abs=0.051 + slack)


@pytest.mark.parametrize(("fluid", "temp_c", "density", "capacity"), oracle_rows())
def test_properties_follow_the_oracles_as_promised(
    fluid: str, temp_c: float, density: float, capacity: float
) -> None:
    # Glycols 5e-8, and 1e-8 for the nine digits of the table.
    density_frac, capacity_frac = (2e-5, 1.5e-4) if fluid == "water" else (6e-8, 6e-8)
    assert density_kg_m3(temp_c, fluid) == pytest.approx(density, rel=density_frac)
    assert heat_capacity_j_kg_k(temp_c, fluid) == pytest.approx(capacity, rel=capacity_frac)


def test_the_oracles_cover_every_fluid() -> None:
    assert {row[0] for row in oracle_rows()} == set(FLUIDS)


@pytest.mark.parametrize("fluid", sorted(FLUIDS))
@given(temp_c=st.floats(-5, 130) | st.just(math.nan))
def test_numpy_and_scalar_agree(fluid: str, temp_c: float) -> None:
    column_c = np.array([temp_c, temp_c])
    for function in (density_kg_m3, heat_capacity_j_kg_k):
        scalar, column = function(temp_c, fluid), function(column_c, fluid)
        assert isinstance(scalar, float)
        np.testing.assert_array_equal(column, [scalar, scalar])


@pytest.mark.parametrize(
    ("fluid", "inside", "outside"),
    [
        ("water", [0.0, 130.0], [-0.001, 130.001, math.inf, -math.inf, math.nan, 243.0]),
        ("pg25_vol", [-5.0, 100.0], [-5.001, 100.001, math.inf, math.nan]),
    ],
)
def test_outside_the_range_is_absent_never_extrapolated(
    fluid: str, inside: list[float], outside: list[float]
) -> None:
    for function in (density_kg_m3, heat_capacity_j_kg_k):
        assert all(math.isfinite(function(temp_c, fluid)) for temp_c in inside)
        assert all(math.isnan(function(temp_c, fluid)) for temp_c in outside)
        found = function(np.array(inside + outside), fluid)
        assert np.isnan(found).tolist() == [False] * len(inside) + [True] * len(outside)


def test_whole_degrees_are_taken_as_they_are() -> None:
    assert density_kg_m3(20) == density_kg_m3(20.0)
    assert density_kg_m3(np.array([20])).tolist() == [density_kg_m3(20.0)]


@pytest.mark.parametrize("fluid", ["water16", "pg25", "oil", ""])
def test_an_unknown_fluid_is_refused(fluid: str) -> None:
    with pytest.raises(ValueError, match="fluid"):
        density_kg_m3(20.0, fluid)
    with pytest.raises(ValueError, match="fluid"):
        heat_capacity_j_kg_k(20.0, fluid)
