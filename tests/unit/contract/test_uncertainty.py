"""Uncertainty: laws of fusion and of the permissible error, then the standard's figures."""

import datetime
import math
import tomllib
from importlib.resources import files
from types import UnionType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool import uncertainty
from heatpool.uncertainty import delta_k_u, fuse, meter_mpe_frac, product_u_frac

channels = st.lists(
    st.tuples(st.floats(-1e9, 1e9) | st.just(math.nan), st.floats(1e-6, 1e9)), min_size=1
)


@given(channels)
def test_a_fused_value_lies_inside_the_hull_and_is_no_less_certain_than_the_best(
    pairs: list[tuple[float, float]],
) -> None:
    fused = fuse([value for value, _ in pairs], [u for _, u in pairs])
    known = [(value, u) for value, u in pairs if not math.isnan(value)]
    if not known:
        assert math.isnan(fused.value)
        assert fused.u == math.inf
        return
    assert min(value for value, _ in known) <= fused.value <= max(value for value, _ in known)
    assert 0 < fused.u <= min(u for _, u in known)


@given(channels)
def test_numpy_and_lists_fuse_alike(pairs: list[tuple[float, float]]) -> None:
    values, us = [value for value, _ in pairs], [u for _, u in pairs]
    listed = fuse(values, us)
    for fused in (fuse(np.array(values), np.array(us)), fuse(np.array(values), us)):
        np.testing.assert_allclose(fused.value, listed.value, rtol=1e-12, atol=1e-6)
        np.testing.assert_allclose(fused.u, listed.u, rtol=1e-12)


def test_fusion_weighs_by_the_inverse_variance() -> None:
    fused = fuse([100.0, 110.0], [1.0, 2.0])
    assert fused.value == pytest.approx((100 + 110 / 4) / 1.25)
    assert fused.u == pytest.approx(1.25**-0.5)


def test_a_fleet_is_fused_site_by_site_along_the_first_axis() -> None:
    values = np.array([[100.0, math.nan, 7.0, math.nan], [110.0, 5.0, math.nan, math.nan]])
    fused = fuse(values, [1.0, 2.0])
    np.testing.assert_allclose(fused.value, [102.0, 5.0, 7.0, math.nan])
    np.testing.assert_allclose(fused.u, [1.25**-0.5, 2.0, 1.0, math.inf])
    by_channel = fuse([values[0], values[1]], [np.ones(4), 2.0])
    np.testing.assert_array_equal(by_channel.value, fused.value)


@pytest.mark.parametrize("absent", [([], []), ([math.nan], [1.0]), ([5.0], [math.nan])])
def test_nothing_known_is_absent_and_infinitely_uncertain(
    absent: tuple[list[float], list[float]],
) -> None:
    for fused in (fuse(*absent), fuse(np.array(absent[0]), np.array(absent[1]))):
        assert math.isnan(fused.value)
        assert fused.u == math.inf


@pytest.mark.parametrize("u", [0.0, -1.0])
def test_a_u_that_is_not_positive_is_refused(u: float) -> None:
    with pytest.raises(ValueError, match="not positive"):
        fuse([1.0, 2.0], [1.0, u])
    with pytest.raises(ValueError, match="not positive"):
        fuse(np.array([1.0, 2.0]), np.array([1.0, u]))


def test_every_channel_needs_its_own_u() -> None:
    with pytest.raises(ValueError, match="one u per channel"):
        fuse([1.0, 2.0], [1.0])


def test_factors_combine_as_a_root_of_squares() -> None:
    assert product_u_frac(0.02, 0.03, 0.06) == pytest.approx(0.07)
    np.testing.assert_allclose(product_u_frac(0.0, np.array([0.03, 0.0]), 0.04), [0.05, 0.04])


# Squares of what is far below any kelvin of ours leave the range of floats.
@given(u_k=st.just(0.0) | st.floats(1e-9, 5), correlation=st.floats(-1, 1))
def test_a_matched_pair_shares_its_error(u_k: float, correlation: float) -> None:
    assert 0 <= delta_k_u(u_k, u_k, correlation) <= 2 * u_k * (1 + 1e-12)
    assert delta_k_u(u_k, u_k, 1.0) == 0.0
    assert delta_k_u(u_k, u_k) == pytest.approx(math.sqrt(2) * u_k)


classes = st.sampled_from([1, 2, 3])


@given(classes, st.floats(0.5, 250), st.floats(0.1, 100), st.floats(1.001, 3))
def test_the_permissible_error_falls_with_the_difference(
    accuracy_class: int, flow_ratio: float, delta_k: float, more: float
) -> None:
    wide = meter_mpe_frac(accuracy_class, flow_ratio, delta_k * more, 3.0)
    assert wide < meter_mpe_frac(accuracy_class, flow_ratio, delta_k, 3.0)


@given(classes, st.floats(0.5, 250), st.floats(1, 10), st.floats(0.1, 100))
def test_the_permissible_error_rises_as_the_flow_falls(
    accuracy_class: int, flow_ratio: float, more: float, delta_k: float
) -> None:
    slow = meter_mpe_frac(accuracy_class, flow_ratio * more, delta_k, 3.0)
    assert slow >= meter_mpe_frac(accuracy_class, flow_ratio, delta_k, 3.0)


# physics.md 3.5, dmin = 3 K: percent at q = q_p and at q = q_p/50.
TABLE = [
    (2, 5, 5.42, 6.40),
    (2, 8, 4.52, 5.50),
    (2, 10, 4.22, 5.20),
    (2, 25, 3.50, 4.48),
    (2, 40, 3.32, 4.30),
    (1, 8, 3.51, 4.00),
    (1, 10, 3.21, 3.70),
    (3, 8, 5.55, 7.50),
    (3, 10, 5.25, 7.20),
]


@pytest.mark.parametrize(("accuracy_class", "delta_k", "full", "slow"), TABLE)
def test_the_permissible_error_meets_the_printed_table(
    accuracy_class: int, delta_k: float, full: float, slow: float
) -> None:
    assert meter_mpe_frac(accuracy_class, 1.0, delta_k, 3.0) * 100 == pytest.approx(full, abs=1e-9)
    assert meter_mpe_frac(accuracy_class, 50.0, delta_k, 3.0) * 100 == pytest.approx(slow, abs=1e-9)
    pair = meter_mpe_frac(accuracy_class, np.array([1.0, 50.0]), delta_k, 3.0)
    np.testing.assert_allclose(pair * 100, [full, slow], atol=1e-9)


def test_the_flow_sensors_part_has_a_cap() -> None:
    # 2 + 0.02 · 1000 would be 22 %: the cap leaves 5 + 1 + 4 · 3/12.
    assert meter_mpe_frac(2, 1000.0, 12.0, 3.0) == pytest.approx(0.07)
    assert meter_mpe_frac(2, math.inf, 12.0, 3.0) == pytest.approx(0.07)


def test_no_difference_has_no_permissible_error() -> None:
    assert math.isnan(meter_mpe_frac(2, 1.0, 0.0, 3.0))
    assert math.isnan(meter_mpe_frac(2, 1.0, math.nan, 3.0))
    assert math.isnan(meter_mpe_frac(2, math.nan, 8.0, 3.0))
    found = meter_mpe_frac(2, 1.0, np.array([-1.0, 0.0, math.nan, 8.0]), 3.0)
    np.testing.assert_allclose(found, [math.nan, math.nan, math.nan, 0.0452])
    assert math.isnan(meter_mpe_frac(2, np.array([1.0]), -1.0, 3.0)[0])


def test_a_flow_ratio_passed_upside_down_is_refused() -> None:
    with pytest.raises(ValueError, match="q_p/q"):
        meter_mpe_frac(2, 0.49, 8.0, 3.0)
    with pytest.raises(ValueError, match="q_p/q"):
        meter_mpe_frac(2, np.array([1.0, 0.02]), 8.0, 3.0)
    assert meter_mpe_frac(2, 0.5, 8.0, 3.0) == pytest.approx(0.0451)


@pytest.mark.parametrize("accuracy_class", [0, 4, "2"])
def test_an_unknown_accuracy_class_is_refused(accuracy_class: int) -> None:
    with pytest.raises(ValueError, match="accuracy_class"):
        meter_mpe_frac(accuracy_class, 1.0, 8.0, 3.0)


ORIGIN: dict[str, type | UnionType] = {
    "value": float | list,
    "unit": str,
    "source": str,
    "valid_from": datetime.date,
    "verified": bool,
}


def meter_classes() -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads((files("heatpool") / "data" / "meter_classes.toml").read_text("utf-8"))


def incomplete(entries: dict[str, dict[str, Any]]) -> list[str]:
    return [
        name
        for name, entry in entries.items()
        if entry.keys() != ORIGIN.keys()
        or not all(isinstance(entry[key], kind) for key, kind in ORIGIN.items())
    ]


def test_every_figure_of_the_data_file_has_its_origin() -> None:
    assert all(incomplete(group) == [] for group in meter_classes().values())


@pytest.mark.parametrize("key", ["value", "unit", "source", "valid_from", "verified"])
def test_a_figure_without_its_origin_is_refused(key: str) -> None:
    entry = dict(meter_classes()["class_2"]["flow_sensor_base"])
    del entry[key]
    assert incomplete({"flow_sensor_base": entry}) == ["flow_sensor_base"]


def test_the_constants_are_those_of_the_data_file() -> None:
    data = meter_classes()
    for name in ("flow_sensor_cap", "pair_base", "pair_slope", "calculator_base"):
        assert getattr(uncertainty, f"{name.upper()}_FRAC") == data["all"][name]["value"]
    assert data["all"]["calculator_slope"]["value"] == uncertainty.CALCULATOR_SLOPE_FRAC
    for number in (1, 2, 3):
        entries = data[f"class_{number}"]
        assert entries["flow_sensor_base"]["value"] == uncertainty.FLOW_SENSOR_BASE_FRAC[number]
        slope = uncertainty.FLOW_SENSOR_SLOPE_FRAC[number]
        assert entries["flow_sensor_slope"]["value"] == slope
