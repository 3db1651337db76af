"""What checks outside this repository call: names, order, kinds, and NaN for NaN."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heatpool.counter import advance
from heatpool.heat import energy_wh, heat_coefficient_kwh_m3_k, heat_rate_w
from heatpool.uncertainty import delta_k_u, fuse, meter_mpe_frac, product_u_frac
from heatpool.water import density_kg_m3, heat_capacity_j_kg_k

Function = Callable[..., Any]

SIGNATURES = [
    (density_kg_m3, "temp_c, fluid='water'"),
    (heat_capacity_j_kg_k, "temp_c, fluid='water'"),
    (heat_coefficient_kwh_m3_k, "hot_c, cold_c, sensor_side, fluid='water'"),
    (energy_wh, "volume_m3, hot_c, cold_c, sensor_side, fluid='water'"),
    (heat_rate_w, "volume_flow_m3_h, hot_c, cold_c, sensor_side, fluid='water'"),
    (advance, "previous, current, modulus, *, max_step=None"),
    (fuse, "values, uncertainties"),
    (meter_mpe_frac, "accuracy_class, flow_ratio, delta_k, delta_min_k"),
    (product_u_frac, "u_k_frac, u_volume_frac, u_delta_frac"),
]
# A function of numbers alone, and numbers that it takes.
CASES: list[tuple[str, Function, tuple[float, ...]]] = [
    ("density", density_kg_m3, (20.0,)),
    ("capacity", heat_capacity_j_kg_k, (20.0,)),
    ("glycol", lambda c: density_kg_m3(c, "pg25_vol"), (20.0,)),
    ("coefficient", lambda h, c: heat_coefficient_kwh_m3_k(h, c, "hot"), (40.0, 30.0)),
    ("energy", lambda v, h, c: energy_wh(v, h, c, "cold"), (2.0, 40.0, 30.0)),
    ("rate", lambda v, h, c: heat_rate_w(v, h, c, "hot", "eg30_vol"), (2.0, 40.0, 30.0)),
    ("limit", lambda r, d, m: meter_mpe_frac(2, r, d, m), (1.0, 8.0, 3.0)),
    ("product", product_u_frac, (1.0, 2.0, 2.0)),
    ("pair", delta_k_u, (3.0, 4.0, 0.0)),
]
of_numbers = pytest.mark.parametrize(
    ("function", "numbers"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)


@pytest.mark.parametrize(
    ("function", "expected"), SIGNATURES, ids=[f.__name__ for f, _ in SIGNATURES]
)
def test_names_and_order_of_arguments_stay(function: Function, expected: str) -> None:
    parameters = inspect.signature(function).parameters.values()
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    assert str(inspect.Signature(bare)) == f"({expected})"


@of_numbers
def test_floats_give_a_float_and_whole_numbers_the_same(
    function: Function, numbers: tuple[float, ...]
) -> None:
    found = function(*numbers)
    assert type(found) is float
    assert function(*map(int, numbers)) == found


@of_numbers
@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int8])
def test_columns_give_a_column_of_doubles(
    function: Function, numbers: tuple[float, ...], dtype: type
) -> None:
    found = function(*(np.full((2, 3), number, dtype=dtype) for number in numbers))
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, function(*numbers), rtol=1e-15)


@of_numbers
def test_one_column_among_floats_is_enough(function: Function, numbers: tuple[float, ...]) -> None:
    for place, number in enumerate(numbers):
        mixed = (*numbers[:place], np.array([number, number]), *numbers[place + 1 :])
        np.testing.assert_array_equal(function(*mixed), [function(*numbers)] * 2)


@of_numbers
def test_rows_and_columns_span_a_grid(function: Function, numbers: tuple[float, ...]) -> None:
    first, *others = numbers
    found = function(np.full((2, 1), first), *(np.full(3, other) for other in others))
    assert found.shape == ((2, 3) if others else (2, 1))


@of_numbers
def test_an_empty_column_stays_empty(function: Function, numbers: tuple[float, ...]) -> None:
    found = function(*(np.full(0, number) for number in numbers))
    assert found.shape == (0,)
    assert found.dtype == np.float64


@of_numbers
def test_an_array_without_axes_is_a_number(function: Function, numbers: tuple[float, ...]) -> None:
    found = function(*map(np.array, numbers))
    assert np.ndim(found) == 0
    assert float(found) == function(*numbers)


@of_numbers
def test_nan_in_any_place_gives_nan_there_alone(
    function: Function, numbers: tuple[float, ...]
) -> None:
    for place, number in enumerate(numbers):
        before, after = numbers[:place], numbers[place + 1 :]
        assert math.isnan(function(*before, math.nan, *after))
        found = function(*before, np.array([math.nan, number]), *after)
        np.testing.assert_array_equal(found, [math.nan, function(*numbers)])


@pytest.mark.parametrize("side", ["hot", "cold"])
@pytest.mark.parametrize("volume_m3", [-1.0, -1e-9, -math.inf, math.inf])
def test_backward_or_boundless_flow_carries_no_figure(volume_m3: float, side: str) -> None:
    assert math.isnan(energy_wh(volume_m3, 40.0, 30.0, side))
    assert math.isnan(heat_rate_w(volume_m3, 30.0, 40.0, side))
    found = heat_rate_w(np.array([volume_m3, 0.0, -0.0]), 40.0, 30.0, side)
    np.testing.assert_array_equal(found, [math.nan, 0.0, 0.0])


@pytest.mark.parametrize("temp_c", [243.0, -10.0, 150.1, math.inf, -math.inf])
def test_a_temperature_that_no_loop_has_gives_no_figure(temp_c: float) -> None:
    for function in (density_kg_m3, heat_capacity_j_kg_k):
        assert math.isnan(function(temp_c))
        assert math.isnan(function(np.array([temp_c]), "eg25_mass")[0])
    for hot_c, cold_c in ((temp_c, 30.0), (30.0, temp_c)):
        assert math.isnan(energy_wh(1.0, hot_c, cold_c, "cold"))
        found = heat_rate_w(1.0, np.array([hot_c, 40.0]), cold_c, "hot")
        assert np.isnan(found).tolist() == [True, not -5 < cold_c < 150]


@pytest.mark.parametrize(("correlation", "delta_min_k"), [(1.01, -3.0), (-2.0, -1e-9)])
def test_a_doubt_that_cannot_be_is_absent(correlation: float, delta_min_k: float) -> None:
    assert math.isnan(delta_k_u(1.0, 1.0, correlation))
    assert math.isnan(delta_k_u(np.array([1.0]), 1.0, correlation)[0])
    assert math.isnan(meter_mpe_frac(2, 1.0, 8.0, delta_min_k))
    assert math.isnan(meter_mpe_frac(2, np.array([1.0]), 8.0, delta_min_k)[0])
