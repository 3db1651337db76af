"""What no loop can show: every estimate refuses it or leaves a gap, and makes no figure of it.

The contract's own functions: tests/unit/contract/test_bound_functions.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import pytest

from heatpool.heat import heat_rate_w
from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core import complementary, estimate, loop_law
from heatpool_agent.core.estimate import LoopHeat, LoopInputs
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

PRIORS, _ = loop_priors("dlc")
MODEL = LoopModel()
GOOD = LoopSample(span_s=10.0, power_w=100_000.0, volume_flow_m3_h=8.0, hot_c=38.0, cold_c=30.0)
SECOND_NS = 1_000_000_000

NO_NUMBER = (math.nan, math.inf, -math.inf)
BAD: dict[str, tuple[float, ...]] = {
    "power_w": (*NO_NUMBER, -1.0),
    "volume_flow_m3_h": (*NO_NUMBER, -8.0, -1e-6),
    "hot_c": (*NO_NUMBER, 243.0, -10.0, -273.15, 6553.5),
    "cold_c": (*NO_NUMBER, 243.0, -10.0, -273.15, 6553.5),
}
one_bad_value = pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)


def changed(name: str, value: float | None) -> LoopSample:
    return replace(GOOD, **{name: value})  # type: ignore[arg-type]


def inputs_of(sample: LoopSample, fluid: str, side: str) -> LoopInputs:
    power_w = sample.power_w
    return LoopInputs(
        electric=None if power_w is None else power(power_w),
        volume_flow_m3_h=sample.volume_flow_m3_h,
        hot_c=sample.hot_c,
        cold_c=sample.cold_c,
        fluid=fluid,
        sensor_side=side,
    )


def power(value: float, u: float = 1_000.0) -> Estimate:
    return Estimate(value=value, u=u, quality=QualityClass.B, provenance=Provenance.ELECTRIC)


def by_static_fusion(samples: Sequence[LoopSample], fluid: str, side: str) -> list[Any]:
    found = []
    for sample in samples:
        inputs = inputs_of(sample, fluid, side)
        electric = estimate.electric_heat(inputs.electric, PRIORS)
        computed = estimate.computed_heat(inputs, PRIORS)
        fused = estimate.fused_heat(electric, computed)
        found.append(LoopHeat(electric=electric, computed=computed, fused=fused))
    return found


def by_complementary_filter(samples: Sequence[LoopSample], fluid: str, side: str) -> list[Any]:
    state, found = complementary.ComplementaryState(), []
    for sample in samples:
        model = replace(MODEL, fluid=fluid, sensor_side=side)
        figure, state = complementary.complementary_step(state, sample, model)
        found.append((figure, state))
    return found


def by_the_runner(samples: Sequence[LoopSample], fluid: str, side: str) -> list[Any]:
    runner = LoopEstimator(replace(MODEL, fluid=fluid, sensor_side=side))
    return [
        runner.observe(sample, event_ns=number * 10 * SECOND_NS)
        for number, sample in enumerate(samples)
    ]


Estimator = Callable[[Sequence[LoopSample], str, str], list[Any]]
ESTIMATORS: list[Estimator] = [by_static_fusion, by_complementary_filter, by_the_runner]
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)


@each_estimator
@one_bad_value
def test_a_value_that_cannot_be_is_as_good_as_absent(
    estimator: Estimator, name: str, value: float
) -> None:
    def seen(shown: float | None) -> list[Any]:
        trace = [GOOD] * 9 + [changed(name, shown)] * 3 + [GOOD] * 9
        return estimator(trace, "water", "cold")

    assert seen(value) == seen(None)


@each_estimator
def test_absent_values_do_matter(estimator: Estimator) -> None:
    # Else the test above would pass for an estimator that says nothing.
    whole = estimator([GOOD] * 12, "water", "cold")
    for name in BAD:
        assert estimator([changed(name, None)] * 12, "water", "cold") != whole


@each_estimator
def test_nothing_but_bad_values_give_no_figure(estimator: Estimator) -> None:
    bad = LoopSample(span_s=10.0, power_w=-5.0, volume_flow_m3_h=-1.0, hot_c=243.0, cold_c=math.nan)
    for found in estimator([bad] * 20, "water", "hot"):
        figures = (
            (found.electric, found.computed, found.fused)
            if isinstance(found, LoopHeat)
            else found[:1]
        )
        assert set(figures) == {None}


@each_estimator
@pytest.mark.parametrize(
    ("fluid", "side", "word"),
    [("oil", "cold", "fluid"), ("water16", "hot", "fluid"), ("water", "supply", "sensor_side")],
)
def test_an_unknown_fluid_or_side_is_a_stated_error(
    estimator: Estimator, fluid: str, side: str, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        estimator([GOOD] * 3, fluid, side)


@pytest.mark.parametrize("side", ["hot", "cold"])
def test_hot_below_cold_is_the_signed_figure_with_the_swap_flag(side: str) -> None:
    swapped = replace(GOOD, hot_c=30.0, cold_c=38.0)
    for shown in (
        by_static_fusion([swapped], "water", side)[0],
        by_the_runner([swapped], "water", side)[0],
    ):
        assert shown.computed.value == heat_rate_w(8.0, 30.0, 38.0, side) < 0 < shown.computed.u
        assert shown.computed.flags == ("swapped_sensors",)
        assert "swapped_sensors" in shown.fused.flags
    figure, _ = by_complementary_filter([replace(swapped, power_w=None)], "water", side)[0]
    assert figure.value_w == heat_rate_w(8.0, 30.0, 38.0, side)


@pytest.mark.parametrize("value", BAD["power_w"])
def test_power_that_cannot_be_makes_no_electric_heat(value: float) -> None:
    assert estimate.electric_heat(power(value), PRIORS) is None
    # A doubt that is none is no doubt known.
    assert estimate.electric_heat(power(1_000.0, u=min(value, -1.0)), PRIORS) is None


ELECTRIC: dict[str, float] = {
    "power_w": 100_000.0,
    "capture_frac": 0.75,
    "loss_w_k": 150.0,
    "loop_c": 38.0,
    "room_c": 25.0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ELECTRIC for value in NO_NUMBER),
        ("power_w", -1.0),
        ("capture_frac", -0.01),
        ("capture_frac", 1.01),
        ("loss_w_k", -1.0),
        ("loop_c", 243.0),
        ("loop_c", -10.0),
        ("room_c", 243.0),
        ("room_c", -273.15),
    ],
)
def test_electric_heat_of_what_cannot_be_is_no_number(name: str, value: float) -> None:
    assert math.isnan(loop_law.electric_heat_w(**{**ELECTRIC, name: value}))


@pytest.mark.parametrize("law", [loop_law.loop_step, loop_law.first_order_mean])
@pytest.mark.parametrize(
    "bad",
    [
        *({name: math.nan} for name in ("value", "target", "dt_s", "tau_s")),
        {"dt_s": -1.0},
        {"tau_s": -1.0},
    ],
)
def test_a_step_of_what_cannot_be_is_no_number(
    law: Callable[..., float], bad: dict[str, float]
) -> None:
    good = {"value": 10.0, "target": 50.0, "dt_s": 10.0, "tau_s": 60.0}
    assert math.isnan(law(**{**good, **bad}))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_figures_that_are_no_numbers_are_not_said_to_differ(bad: float) -> None:
    assert not estimate.differs(math.nan, 1.0, 5.0, 1.0)
    assert not estimate.differs(1.0, bad, 50.0, 1.0)


@one_bad_value
def test_calorimetry_of_what_cannot_be_is_absent(name: str, value: float) -> None:
    if name != "power_w":
        assert complementary.computed_w(changed(name, value), MODEL) is None


def test_the_state_of_the_filter_stays_made_of_numbers() -> None:
    samples = [changed(name, value) for name in BAD for value in BAD[name]]
    *_, (_, state) = by_complementary_filter(samples * 5, "water", "cold")
    numbers = [v for v in asdict(state).values() if isinstance(v, float)]
    assert all(math.isfinite(number) for number in numbers)
