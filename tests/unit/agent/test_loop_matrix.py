"""The filter's algebra and physics against closed forms, dense matrices and finite differences."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from heatpool_agent.core import loop_forecast, loop_matrix, loop_physics
from heatpool_agent.core.loop_forecast import Surroundings, Wander
from heatpool_agent.core.loop_law import loop_step
from heatpool_agent.core.loop_matrix import Belief, Total

# A loop in which every constant differs from its prior.
MEAN = [
    39.0,
    38.9,
    31.0,
    math.log(9e3),
    74e3,
    -0.3,
    0.01,
    0.03,
    math.log(8e5),
    0.02,
    25.0,
    38.8,
    31,
    0.004,
]
AROUND = Surroundings(room_c=24.0, loss_w_k=9e3)


def belief_of(numbers: np.random.Generator, size: int) -> Belief:
    root = numbers.standard_normal((size, size))
    cov: list[list[float]] = (root @ root.T).tolist()
    return Belief(mean=numbers.standard_normal(size).tolist(), cov=cov)


def with_total(belief: Belief, numbers: np.random.Generator) -> Belief:
    """The last state of a belief told as a total."""
    cov = belief.cov
    total = Total(
        value=belief.mean[-1], variance=cov[-1][-1], row=cov[-1][:-1], lag_s=0.0, wait_s=0.0
    )
    inner = [row[:-1] for row in cov[:-1]]
    return Belief(mean=belief.mean[:-1], cov=inner, totals={"all": total})


def test_a_random_walk_settles_where_the_riccati_equation_says() -> None:
    q, r = 0.3, 2.0
    belief = Belief(mean=[0.0], cov=[[10.0]])
    for _ in range(200):
        belief.cov[0][0] += q
        before = belief.cov[0][0]
        loop_matrix.observe(belief, {0: 1.0}, miss=0.0, noise=r)
    assert before == pytest.approx((q + math.sqrt(q * q + 4 * q * r)) / 2)
    assert belief.cov[0][0] == pytest.approx((1 - before / (before + r)) * before)


@pytest.mark.parametrize("seed", range(5))
def test_a_measurement_moves_states_and_totals_as_the_joseph_form_does(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    belief = belief_of(numbers, 5)
    cov, by, noise, miss = np.array(belief.cov), np.array([0.5, 0, -2.0, 0, 0]), 0.7, 1.3
    gain = cov @ by / (by @ cov @ by + noise)
    rest = np.eye(5) - np.outer(gain, by)
    wanted = rest @ cov @ rest.T + noise * np.outer(gain, gain)
    mean = np.array(belief.mean) + gain * miss
    told = with_total(belief, numbers)
    loop_matrix.observe(told, {0: 0.5, 2: -2.0}, miss=miss, noise=noise)
    total = told.totals["all"]
    assert np.allclose(told.cov, wanted[:4, :4], atol=1e-12)
    assert np.allclose([*told.mean, total.value], mean, atol=1e-12)
    assert np.allclose([*total.row, total.variance], wanted[4], atol=1e-12)


def test_states_that_move_take_their_covariance_along() -> None:
    numbers = np.random.default_rng(3)
    belief = belief_of(numbers, 5)
    moved = np.eye(5)
    moved[0], moved[2] = [0.5, 0.1, 0, 2, 0], [0, 0, -0.3, 1, 0]
    wanted = moved @ np.array(belief.cov) @ moved.T
    told = with_total(belief, numbers)
    loop_matrix.carry(told, {0: {0: 0.5, 1: 0.1, 3: 2.0}, 2: {2: -0.3, 3: 1.0}})
    assert np.allclose(told.cov, wanted[:4, :4])
    assert np.allclose(told.totals["all"].row, wanted[4, :4])


def test_a_total_is_an_integral_with_its_own_variance() -> None:
    numbers = np.random.default_rng(4)
    belief = belief_of(numbers, 5)
    summed = np.eye(5)
    summed[4] = [6.0, 0, -3.0, 0, 1.0]
    wanted = summed @ np.array(belief.cov) @ summed.T
    told = with_total(belief, numbers)
    loop_matrix.integrate(told, {0: 2.0, 2: -1.0}, rate=7.0, span_s=3.0)
    total = told.totals["all"]
    assert total.value == pytest.approx(belief.mean[4] + 21.0)
    assert np.allclose([*total.row, total.variance], wanted[4])


@pytest.mark.parametrize("span_s", [1.0, 10.0, 300.0])
@pytest.mark.parametrize("which", ["end", "mean"])
def test_derivatives_of_a_step_are_those_of_its_values(span_s: float, which: str) -> None:
    done = loop_physics.step(MEAN, span_s=span_s, room_c=24.0, loss_w_k=9e3)
    for index, slope in getattr(done, which).items():
        size = 1e-5 * max(1.0, abs(MEAN[index]))
        sides = []
        for move in (-size, size):
            mean = MEAN[:]
            mean[index] += move
            moved = loop_physics.step(mean, span_s=span_s, room_c=24.0, loss_w_k=9e3)
            sides.append(getattr(moved, which + "_c"))
        assert slope == pytest.approx((sides[1] - sides[0]) / (2 * size), rel=1e-4, abs=1e-9)


def test_a_step_is_the_exact_one_and_loses_no_energy() -> None:
    done = loop_physics.step(MEAN, span_s=40.0, room_c=24.0, loss_w_k=9e3)
    flow_w_k, lost_w_k, mass_j_k = 9e3, 0.02 * 9e3, 8e5
    settled_c = (74e3 + flow_w_k * 31.0 + lost_w_k * 24.0) / (flow_w_k + lost_w_k)
    tau_s = mass_j_k / (flow_w_k + lost_w_k)
    assert done.end_c == pytest.approx(loop_step(39.0, settled_c, dt_s=40.0, tau_s=tau_s))
    left_w = flow_w_k * (done.mean_c - 31.0) + lost_w_k * (done.mean_c - 24.0)
    assert 40.0 * 74e3 == pytest.approx(40.0 * left_w + mass_j_k * (done.end_c - 39.0), rel=1e-9)


def foretold(mean: list[float], past: tuple[Any, ...]) -> tuple[float, loop_forecast.Rate]:
    belief = Belief(mean=mean, cov=[[0.0] * len(mean) for _ in mean])
    wander = Wander(
        cold_k2_s=0.0, stream_per_s=0.0, warmth_w2_s=0.0, stream_noise=1e-4, warmth_noise=0.0
    )
    last, _ = loop_forecast.present_rates(belief, past, wander, around=AROUND, span_s=0.01)
    return last.value_w, last


def test_the_heat_of_now_is_the_loop_stepped_over_its_delay() -> None:
    gain = math.exp(MEAN[5] + MEAN[13])
    powers = (99e3, 120e3, 90e3)
    value_w, _ = foretold(MEAN, tuple((10.0, power_w, None) for power_w in powers))
    mean = MEAN[:]
    for power_w, span_s in zip(powers, (5.0, 10.0, 10.0), strict=True):
        mean[4] = gain * power_w
        done = loop_physics.step(mean, span_s=span_s, room_c=24.0, loss_w_k=9e3)
        mean[0] = done.end_c
    assert value_w == pytest.approx(9e3 * (mean[0] - 31.0), rel=1e-4)


def test_derivatives_of_the_heat_of_now_are_those_of_its_value() -> None:
    past = tuple((10.0, 110e3, None) for _ in range(4))
    _, rate = foretold(MEAN, past)
    for index, slope in rate.partials.items():
        size = 1e-4 * max(1.0, abs(MEAN[index]))
        sides = []
        for move in (-size, size):
            mean = MEAN[:]
            mean[index] += move
            sides.append(foretold(mean, past)[0])
        wanted = (sides[1] - sides[0]) / (2 * size)
        assert slope == pytest.approx(wanted, rel=2e-3, abs=1.0), loop_physics.Of(index).name


def test_held_states_are_considered_and_never_moved() -> None:
    numbers = np.random.default_rng(5)
    belief = belief_of(numbers, 5)
    mean, cov = np.array(belief.mean), np.array(belief.cov)
    by = np.array([1.0, 0.0, -0.5, 2.0, 0.3])
    lean = cov @ by
    spread = 0.7 + by @ lean
    gain = lean / spread
    gain[[1, 3]] = 0.0
    loop_matrix.observe(
        belief, dict(enumerate(by.tolist())), miss=0.4, noise=0.7, held=(1, 3)
    )  # fmt: skip
    # Joseph's form holds for any gain, and so for one that is 0 for some.
    rest = np.eye(5) - np.outer(gain, by)
    assert np.allclose(belief.cov, rest @ cov @ rest.T + 0.7 * np.outer(gain, gain))
    assert np.allclose(belief.mean, mean + 0.4 * gain)


def test_an_old_account_keeps_its_figure_where_states_are_held() -> None:
    numbers = np.random.default_rng(6)
    belief = with_total(belief_of(numbers, 5), numbers)
    before = belief.totals["all"]
    belief.totals["all"] = replace(before, age_s=7200.0)
    loop_matrix.observe(belief, {0: 1.0, 2: 0.5}, miss=3.0, noise=0.5, held=(3,))
    after = belief.totals["all"]
    assert (after.value, after.variance) == (before.value, before.variance)
    assert after.row[3] == before.row[3] and after.row[0] != before.row[0]
