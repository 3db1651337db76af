"""The estimator of record: honest on hidden loops, never at a loss."""

import json
import math
import sys
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool_agent import config
from heatpool_agent.core import kalman
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

sys.path.append(str(Path(__file__).parents[3] / "bench"))

import loop_plant

MODEL = LoopModel()
STEADY = LoopSample(
    span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=39.0, cold_c=31.0, ambient_c=25.0
)


def ran(state: kalman.State, sample: LoopSample, times: int, model: LoopModel) -> kalman.State:
    for _ in range(times):
        state = kalman.advance(state, sample, model)
    return state


def heat(state: kalman.State) -> kalman.Figure:
    found = kalman.heat(state)
    assert found is not None
    return found


def energy(state: kalman.State, name: str) -> kalman.EnergyFigure:
    found = kalman.energy(state, name)
    assert found is not None
    return found


def test_nothing_seen_is_no_figure() -> None:
    state = kalman.with_energy(kalman.begin(MODEL), "day")
    state = kalman.advance(state, LoopSample(span_s=10.0, hot_c=40.0), MODEL)
    assert kalman.phase(state) == "starting"
    found = (kalman.heat(state), kalman.energy(state, "day"), kalman.capture(state))
    assert found == (None, None, None)


@pytest.mark.parametrize(("fluid", "side"), [("oil", "cold"), ("water", "left")])
def test_an_unknown_fluid_or_side_is_refused(fluid: str, side: str) -> None:
    with pytest.raises(ValueError, match=r"heat|fluid"):
        kalman.begin(replace(MODEL, fluid=fluid, sensor_side=side))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2], ids=["100 W", "100 kW", "10 MW"])
@pytest.mark.parametrize("fluid", ["water", "pg25_vol"])
@pytest.mark.parametrize("side", ["cold", "unknown"])
def test_the_first_sample_gives_a_first_figure(scale: float, fluid: str, side: str) -> None:
    model = replace(MODEL, fluid=fluid, sensor_side=side)
    sample = replace(STEADY, span_s=0.0, power_w=100e3 * scale, volume_flow_m3_h=8.0 * scale)
    first = heat(kalman.advance(kalman.begin(model), sample, model))
    assert first.value == pytest.approx(74e3 * scale, rel=0.06)
    assert 0.01 < first.value_u / first.value < 0.05


def test_power_alone_gives_the_captured_share_after_the_loss() -> None:
    sample = LoopSample(span_s=10.0, power_w=4e3)
    state = ran(kalman.begin(MODEL), sample, 100, MODEL)
    share = kalman.capture(state)
    assert share is not None
    assert kalman.phase(state) == "electric"
    assert heat(state).value == pytest.approx(4e3 * 0.75 * 0.98, rel=1e-2)
    assert heat(state).value_u / heat(state).value == pytest.approx(0.032, rel=0.1)
    assert share.value == pytest.approx(0.75 * 0.98, rel=1e-2)


def test_air_carries_all_power() -> None:
    model = replace(MODEL, capture_frac=1.0, gain_u_frac=0.0, loss_frac=0.0, loss_frac_u=0.0)
    state = kalman.with_energy(kalman.begin(model), "day")
    state = ran(state, LoopSample(span_s=10.0, power_w=500.0), 360, model)
    assert heat(state).value == pytest.approx(500.0)
    assert energy(state, "day").heat_wh == pytest.approx(500.0)
    assert energy(state, "day").heat_wh_u < 5.0


def test_water_alone_gives_flow_times_difference() -> None:
    state = ran(kalman.begin(MODEL), replace(STEADY, power_w=None), 60, MODEL)
    assert kalman.phase(state) == "calorimetric"
    assert kalman.capture(state) is None
    assert heat(state).value == pytest.approx(74.0e3, rel=5e-3)
    # Biases alone leave 1.37 %; noise of flow and the wander over the delay come on top.
    assert 0.0137 < heat(state).value_u / heat(state).value < 0.02


def test_both_together_are_surer_than_either_and_track() -> None:
    both = ran(kalman.begin(MODEL), STEADY, 360, MODEL)
    alone = ran(kalman.begin(MODEL), replace(STEADY, power_w=None), 360, MODEL)
    assert kalman.phase(both) == "tracking"
    assert heat(both).value_u < heat(alone).value_u


def test_meters_that_contradict_each_other_beyond_their_priors_leave_more_doubt() -> None:
    agreed = heat(ran(kalman.begin(MODEL), STEADY, 180, MODEL))
    for power_w in (70e3, 130e3):
        torn = heat(ran(kalman.begin(MODEL), replace(STEADY, power_w=power_w), 180, MODEL))
        assert torn.value_u / torn.value > 2.5 * agreed.value_u / agreed.value


def test_energy_is_the_heat_of_its_span_and_its_doubt_is_no_sum_of_squares() -> None:
    state = ran(kalman.begin(MODEL), STEADY, 180, MODEL)
    state = kalman.with_energy(state, "span")
    summed_wh = summed_wh_u2 = 0.0
    for number in range(360):
        power_w = 80e3 + 40e3 * (number // 60 % 2)
        state = kalman.advance(state, replace(STEADY, power_w=power_w), MODEL)
        summed_wh += heat(state).value / 360.0
        summed_wh_u2 += (heat(state).value_u / 360.0) ** 2
    found = energy(state, "span")
    assert found.heat_wh == pytest.approx(summed_wh, rel=5e-3)
    assert found.heat_wh_u > 5.0 * math.sqrt(summed_wh_u2)
    assert found.heat_wh_u / found.heat_wh == pytest.approx(0.0118, rel=0.25)


def test_an_energy_starts_at_nothing_ends_and_changes_no_heat() -> None:
    state = ran(kalman.begin(MODEL), STEADY, 60, MODEL)
    watched = kalman.with_energy(state, "span")
    assert energy(watched, "span") == kalman.EnergyFigure(heat_wh=0.0, heat_wh_u=0.0)
    watched = ran(watched, STEADY, 20, MODEL)
    assert heat(watched) == heat(ran(state, STEADY, 20, MODEL))
    assert kalman.energy(kalman.without_energy(watched, "span"), "span") is None


def test_without_both_doubt_grows_until_nobody_knows() -> None:
    state = ran(kalman.with_energy(kalman.begin(MODEL), "day"), STEADY, 180, MODEL)
    doubts = []
    for _ in range(89):
        state = kalman.advance(state, LoopSample(span_s=10.0), MODEL)
        doubts.append(heat(state).value_u)
    assert doubts == sorted(doubts)
    assert doubts[-1] > 5.0 * doubts[0]
    state = kalman.advance(state, LoopSample(span_s=10.0), MODEL)
    assert kalman.heat(state) is None
    assert kalman.phase(state) == "blind"
    before = energy(state, "day")
    state = ran(state, LoopSample(span_s=3600.0), 20, MODEL)
    assert energy(state, "day").heat_wh == pytest.approx(before.heat_wh, rel=1e-9)


@pytest.mark.parametrize(
    "back", [STEADY, replace(STEADY, power_w=None), replace(STEADY, hot_c=None)]
)
def test_after_a_gap_of_days_the_first_sample_is_a_figure_again(back: LoopSample) -> None:
    state = ran(kalman.with_energy(kalman.begin(MODEL), "day"), STEADY, 180, MODEL)
    before = energy(state, "day").heat_wh
    state = kalman.advance(state, replace(back, span_s=3 * 86400.0), MODEL)
    assert heat(state).value == pytest.approx(74e3, rel=0.02)
    assert heat(state).value_u < 0.16 * heat(state).value
    # The gap itself stays a gap; the sample after it counts.
    assert energy(state, "day").heat_wh - before == pytest.approx(74e3 / 360.0, rel=0.2)


def test_a_restart_goes_on_where_it_stopped() -> None:
    state = ran(kalman.with_energy(kalman.begin(MODEL), "day"), STEADY, 200, MODEL)
    document = json.loads(json.dumps(kalman.saved(state)))
    again = kalman.restored(document)
    assert again is not None
    one = ran(state, replace(STEADY, power_w=110e3), 30, MODEL)
    other = ran(again, replace(STEADY, power_w=110e3), 30, MODEL)
    assert kalman.saved(one) == kalman.saved(other)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"mean": [1.0]},
        {"cov": None},
        {"clocks": ["x"] * 7},
        {"restless": [1.0, 1.0, math.nan]},
        {"present": [[1.0]]},
        {"past": [[1.0]]},
        {"totals": {"day": [1.0]}},
    ],
)
def test_a_damaged_document_is_none(change: dict[str, Any]) -> None:
    state = ran(kalman.with_energy(kalman.begin(MODEL), "day"), STEADY, 5, MODEL)
    assert kalman.restored({**kalman.saved(state), **change}) is None
    assert kalman.restored([]) is None
    assert kalman.restored({}) is None


def test_a_pump_that_stops_carries_no_heat_and_one_that_starts_does_at_once() -> None:
    state = ran(kalman.with_energy(kalman.begin(MODEL), "day"), STEADY, 180, MODEL)
    stopped = ran(state, replace(STEADY, volume_flow_m3_h=0.0), 30, MODEL)
    assert heat(stopped).value == 0.0
    assert 0.0 < heat(stopped).value_u < 3e3
    assert energy(stopped, "day").heat_wh == pytest.approx(energy(state, "day").heat_wh)
    assert heat(kalman.advance(stopped, STEADY, MODEL)).value == pytest.approx(74e3, rel=0.02)


def test_a_flow_meter_that_shows_nothing_for_long_is_dead_and_not_the_loop() -> None:
    state = ran(kalman.begin(MODEL), STEADY, 180, MODEL)
    state = ran(state, replace(STEADY, volume_flow_m3_h=0.0), 200, MODEL)
    assert kalman.phase(state) == "electric"
    assert heat(state).value == pytest.approx(74e3, rel=0.03)
    assert heat(kalman.advance(state, STEADY, MODEL)).value == pytest.approx(74e3, rel=0.02)


def test_a_jump_of_flow_is_followed_within_a_minute() -> None:
    state = ran(kalman.begin(MODEL), STEADY, 180, MODEL)
    slow = replace(STEADY, volume_flow_m3_h=4.0, hot_c=47.0)
    found = heat(ran(state, slow, 9, MODEL))
    assert found.value == pytest.approx(74e3, rel=0.03)


def test_hot_below_cold_is_a_signed_figure() -> None:
    swapped = replace(STEADY, power_w=None, hot_c=31.0, cold_c=39.0)
    assert heat(ran(kalman.begin(MODEL), swapped, 60, MODEL)).value < -70e3


@pytest.mark.parametrize(
    "bad",
    [
        {"power_w": math.nan},
        {"power_w": -1.0},
        {"volume_flow_m3_h": math.nan},
        {"volume_flow_m3_h": -3.0},
        {"hot_c": math.inf},
        {"hot_c": 243.0},
        {"cold_c": -40.0},
        {"ambient_c": math.nan},
    ],
)
def test_what_cannot_be_counts_as_absent(bad: dict[str, float]) -> None:
    state = ran(kalman.begin(MODEL), STEADY, 50, MODEL)
    absent = replace(STEADY, **dict.fromkeys(bad))  # type: ignore[arg-type]
    other = kalman.advance(state, absent, MODEL)
    assert kalman.saved(kalman.advance(state, replace(STEADY, **bad), MODEL)) == kalman.saved(other)


def assert_sound(state: kalman.State) -> None:
    figures = [kalman.heat(state), kalman.capture(state)]
    for figure in figures:
        assert figure is None or (math.isfinite(figure.value) and 0.0 <= figure.value_u < math.inf)
    assert kalman.phase(state) in PHASES
    if state.belief is None:
        return
    found = energy(state, "day")
    assert math.isfinite(found.heat_wh)
    assert math.isfinite(found.heat_wh_u)
    cov = np.array(state.belief.cov)
    size = np.sqrt(np.maximum(np.diag(cov), 1e-300))
    assert np.array_equal(cov, cov.T)
    assert np.linalg.eigvalsh(cov / np.outer(size, size)).min() > -1e-6


PHASES = {"starting", "settling", "tracking", "electric", "calorimetric", "blind"}


def anything(least: float, most: float) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.floats(), st.floats(least, most))


SAMPLES = st.builds(
    LoopSample,
    span_s=st.one_of(st.sampled_from([0.0, 1.0, 10.0, 300.0, 1e5]), st.floats()),
    power_w=anything(0.0, 2e5),
    volume_flow_m3_h=anything(0.0, 20.0),
    hot_c=anything(0.0, 100.0),
    cold_c=anything(0.0, 100.0),
    ambient_c=anything(-20.0, 50.0),
)
RUNS = st.lists(st.tuples(SAMPLES, st.integers(1, 20)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=80)
@given(RUNS)
def test_no_sequence_of_samples_breaks_it(runs: list[tuple[LoopSample, int]]) -> None:
    state = kalman.with_energy(kalman.begin(MODEL), "day")
    for sample, times in runs:
        state = ran(state, sample, times, MODEL)
        assert_sound(state)
    assert kalman.saved(state) == kalman.saved(kalman.restored(kalman.saved(state)) or state)


@pytest.mark.parametrize(
    ("case", "told_s"), [("base", 20.0), ("delay60", 60.0), ("delay60", 20.0), ("poor", 20.0)]
)
def test_on_hidden_loops_the_doubt_is_honest_and_the_error_small(case: str, told_s: float) -> None:
    runs, settled = 8, 90
    traces = loop_plant.draw(loop_plant.CASES[case], 5, runs=runs, hours=1.0)
    model = loop_plant.model_of(loop_plant.CASES[case], delay_s=told_s)
    errors, chis = [], []
    for run in range(runs):
        state = kalman.begin(model)
        for index in range(traces.power_w.shape[1]):
            state = kalman.advance(state, traces.sample(run, index), model)
            if index >= settled:
                miss_w = heat(state).value - traces.truth.heat_w[run, index]
                errors.append(miss_w / traces.truth.heat_w[run].mean())
                chis.append((miss_w / heat(state).value_u) ** 2)
    # Eight loops have eight biases: the bench judges by 300.
    assert 0.3 < np.mean(chis) < 2.0
    assert 0.005 < np.sqrt(np.mean(np.square(errors))) < (0.04 if case == "poor" else 0.026)


def test_every_default_has_its_source() -> None:
    folder = Path(config.__file__).parent / "data"
    listed = tomllib.loads((folder / "loop_priors.toml").read_text(encoding="utf-8"))["filter"]
    # The floor of a flow is the priors' own, of every figure of a flow.
    told = {"fluid", "sensor_side", "capture_frac", "flow_u_m3_h"}
    assert {name: one["value"] for name, one in listed.items()} == {
        field.name: field.default for field in fields(LoopModel) if field.name not in told
    }
    assert all(one["source"] and one["unit"] for one in listed.values())
