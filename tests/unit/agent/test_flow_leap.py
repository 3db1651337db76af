"""A flow that leaps for one reading counts as absent; one that stays is followed."""

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from heatpool.heat import heat_rate_w
from heatpool_agent.core.flow_leap import LASTS_S, FlowLeap
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

S = 1_000_000_000
MODEL = LoopModel()


def believed(flows_m3_h: Sequence[float | None], span_s: float = 10.0) -> list[bool]:
    leap, found = FlowLeap(), []
    for flow_m3_h in flows_m3_h:
        found.append(leap.is_believed(flow_m3_h, span_s))
    return found


@pytest.mark.parametrize(
    ("flows_m3_h", "wanted"),
    [
        ([8.0, 8.1, 800.0, 8.0], [True, True, False, True]),
        ([8.0, 8.1, 800.0, None, 8.0], [True, True, False, True, True]),
        # One reading stands for two ticks, and the next one bears it out.
        ([8.0, 8.1, 80.0, 80.0, 81.0, 80.0], [True, True, False, False, True, True]),
        # Two readings that do not agree bear each other out in nothing.
        ([8.0, 8.1, 80.0, 800.0, 80.0, 8.0], [True, True, False, False, False, True]),
        # Pumps stop, start again, and run at a third of their speed.
        ([8.0, 8.1, 0.0, 0.0, 8.0, 2.7, 8.0], [True] * 7),
        # What is no flow is for others to judge.
        ([8.0, float("nan"), float("inf"), -800.0, 8.0], [True] * 5),
    ],
)
def test_a_flow_far_above_all_before_needs_a_second_reading(
    flows_m3_h: list[float | None], wanted: list[bool]
) -> None:
    assert believed(flows_m3_h) == wanted


def test_a_meter_of_few_digits_is_believed_for_its_patience() -> None:
    found = believed([8.0, 8.0, *[80.0] * 20])
    doubted = found.count(False)
    assert found == [True, True, *[False] * doubted, *[True] * (20 - doubted)]
    assert doubted == LASTS_S / 10


def energy(period_s: float, factors: dict[int, float], *, count: int) -> tuple[float, float]:
    """Heat of a loop at rest over its truth, and its u; factors on the flow of some samples."""
    normal, estimator = Random(3).gauss, LoopEstimator(MODEL)
    estimator.start_energy("all")
    delta_k = 75e3 / heat_rate_w(8.0, 38.0, 37.0, "cold")
    for number in range(count):
        flow_m3_h = 8.0 * (1.0 + normal(0, 0.01)) * factors.get(number, 1.0)
        sample = LoopSample(
            span_s=period_s if number else 0.0,
            power_w=100e3 * (1.0 + normal(0, 0.005)),
            volume_flow_m3_h=flow_m3_h,
            hot_c=30.0 + delta_k + normal(0, 0.01),
            cold_c=30.0 + normal(0, 0.01),
        )
        estimator.observe(sample, event_ns=round(number * period_s * S))
    found, truth_wh = estimator.energy("all"), 75e3 * (count - 1) * period_s / 3600
    return found.heat_wh / truth_wh, found.heat_wh_u / truth_wh


@pytest.mark.parametrize("at", [0, 1, 150])
@pytest.mark.parametrize("factor", [10.0, 100.0, 1e4])
@pytest.mark.parametrize("period_s", [10.0, 300.0])
def test_one_absurd_flow_leaves_the_energy_as_it_is(
    period_s: float, factor: float, at: int
) -> None:
    clean, clean_u = energy(period_s, {}, count=300)
    share, share_u = energy(period_s, {at: factor}, count=300)
    assert share == pytest.approx(clean, abs=0.005)
    assert share_u < 1.2 * clean_u


def test_a_reading_of_a_slow_meter_that_leaps_stands_for_many_ticks_and_counts_for_none() -> None:
    clean, _ = energy(1.0, {}, count=1800)
    estimator, leaps = LoopEstimator(MODEL), {}
    for tick in range(1800):
        # One reading in a minute, read at every tick.
        flow_m3_h = 800.0 if 900 <= tick < 960 else 8.0 + tick // 60 % 2 / 100
        sample = LoopSample(
            span_s=float(tick > 0), power_w=100e3, volume_flow_m3_h=flow_m3_h, hot_c=38.1, cold_c=30
        )
        heat = estimator.observe(sample, event_ns=tick * S)
        leaps[tick] = heat.fused.value if heat.fused is not None else 0.0
    assert clean == pytest.approx(1.0, abs=0.03)
    assert max(leaps.values()) < 1.05 * min(leaps.values())


def test_the_flow_that_a_loop_is_known_by_outlives_a_restart() -> None:
    sample = LoopSample(span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=38.1, cold_c=30.0)
    before = LoopEstimator(MODEL)
    for number in range(60):
        heat = before.observe(sample, event_ns=number * 10 * S)
    after = LoopEstimator(MODEL, json.loads(json.dumps(before.saved())))
    leapt = after.observe(replace(sample, volume_flow_m3_h=800.0), event_ns=600 * S)
    assert heat.fused is not None and leapt.fused is not None
    assert leapt.fused.value == pytest.approx(heat.fused.value, rel=0.02)
