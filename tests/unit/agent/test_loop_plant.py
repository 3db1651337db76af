"""The estimators' bench is itself right: energy is kept, nothing leaks, the limit is honest."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from heatpool.heat import heat_rate_w
from heatpool.water import density_kg_m3, heat_capacity_j_kg_k

sys.path.append(str(Path(__file__).parents[3] / "bench"))

import loop_plant
import loop_scores
from loop_plant import CAPTURE_FRAC, CASES, SAMPLE_S, Array, Hidden, Traces, draw
from loop_reference import reference
from loop_scores import GATE, HEAT, Score

ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@pytest.fixture(scope="module")
def traces() -> Traces:
    return draw(CASES["base"], 7, runs=40, hours=3)


@ALL_CASES
def test_no_span_of_the_plant_loses_energy(case: loop_plant.Case) -> None:
    truth = draw(case, 1, runs=3, hours=0.5).truth
    drawn_j = CAPTURE_FRAC * truth.power_w * SAMPLE_S
    left_j = (truth.heat_w + truth.loss_w) * SAMPLE_S + truth.stored_j
    assert np.abs(drawn_j / left_j - 1.0).max() < 1e-9


def test_the_plants_own_water_agrees_with_the_contracts() -> None:
    temp_c = np.linspace(15.0, 70.0, 56)
    assert loop_plant.water_density_kg_m3(temp_c) == pytest.approx(density_kg_m3(temp_c), rel=2e-4)
    capacity = loop_plant.water_heat_capacity_j_kg_k(temp_c)
    assert capacity == pytest.approx(heat_capacity_j_kg_k(temp_c), rel=5e-4)


def test_without_biases_flow_and_temperatures_give_the_true_energy() -> None:
    blank = replace(CASES["base"], gain_u_frac=0.0, flow_u_frac=0.0, delta_k_u=0.0)
    seen = draw(blank, 3, runs=4, hours=6)
    shown_w = heat_rate_w(seen.volume_flow_m3_h, seen.hot_c, seen.cold_c, "cold", "water")
    assert shown_w.mean(axis=1) == pytest.approx(seen.truth.heat_w.mean(axis=1), rel=3e-3)


def test_sensors_show_the_water_late() -> None:
    # Heat moves with the hot side; 60 s of delay and 8 s of lag later the sensor does, too.
    late = draw(CASES["delay60"], 3, runs=20, hours=3)
    alike = {spans: _alike(late.hot_c, late.truth.heat_w, spans) for spans in (1, 7, 15)}
    assert alike[7] > alike[1] and alike[7] > alike[15]


def _alike(shown_c: Array, heat_w: Array, late_spans: int) -> float:
    """Mean correlation over the runs of what is shown and what was so many spans before."""
    pairs = zip(shown_c[:, late_spans:], heat_w[:, :-late_spans], strict=True)
    return float(np.mean([np.corrcoef(shown, before)[0, 1] for shown, before in pairs]))


def test_every_run_has_nominals_of_its_own_and_a_candidate_sees_none(traces: Traces) -> None:
    for name in Hidden.__dataclass_fields__:
        assert len(np.unique(getattr(traces.truth.hidden, name))) == 40
    again = draw(CASES["base"], 8, runs=40, hours=1)
    assert not np.isin(again.truth.hidden.gain_frac, traces.truth.hidden.gain_frac).any()
    assert set(traces.sample(0, 1).__dataclass_fields__) == {
        "span_s", "power_w", "volume_flow_m3_h", "hot_c", "cold_c", "ambient_c",
    }  # fmt: skip
    assert traces.sample(0, 1).ambient_c is None


def test_biases_fill_their_spread_evenly() -> None:
    hidden = draw(CASES["base"], 2, runs=300, hours=0.1).truth.hidden
    biases = np.hstack([hidden.gain_frac / 0.025, hidden.flow_frac / 0.012, hidden.delta_k / 0.05])
    assert np.cov(biases.T, bias=True) == pytest.approx(np.eye(3), abs=1e-9)
    assert (np.abs(biases) < 1.96).mean() == pytest.approx(0.95, abs=0.01)


def test_a_share_of_the_runs_has_their_biases() -> None:
    whole = draw(CASES["base"], 2, runs=50, hours=0.1)
    part = draw(CASES["base"], 2, runs=50, hours=0.1, share=slice(25, 50))
    assert (part.truth.hidden.gain_frac == whole.truth.hidden.gain_frac[25:]).all()
    assert part.power_w.shape == (25, 36)


def test_spans_lie_after_the_warmup_and_both_ways_to_find_them_agree(traces: Traces) -> None:
    for span in loop_scores.spans_of(traces, 7):
        ends = span.first + span.length * span.count
        assert span.first.min() >= 180 and ends.max() <= traces.power_w.shape[1]
        for index in range(0, 1080, 7):
            numbers, places = span.place(index)
            for run in (0, 39):
                number, place = span.place_in(run, index)
                assert number == numbers[run]
                assert number < 0 or place == places[run]
        sums = loop_scores.span_sums(np.ones_like(traces.power_w), span)
        assert (sums == span.length).all()


def test_the_limit_is_where_physics_has_it_and_is_honest(traces: Traces) -> None:
    spans = loop_scores.spans_of(traces, 7)
    found = loop_scores.scores(reference(CASES["base"], traces, spans), traces, spans)
    assert found[HEAT].claimed_frac == pytest.approx(0.0161, abs=0.0008)
    for score in found.values():
        assert 0.8 < score.nees < 1.3
        assert score.coverage_frac >= GATE.coverage_frac[0]


def test_errors_below_one_percent_are_called_a_leak() -> None:
    score = Score(
        rms_frac=0.006, claimed_frac=0.006, nees=1.0, coverage_frac=0.95, mean_frac=0, count=1
    )
    case, found = CASES["base"], {"5.5 h": score}
    faults = loop_scores.verdicts(case, found, found, found, bounds=GATE)
    assert len(faults) == 1 and "leak" in faults[0]


def test_a_missing_figure_never_passes() -> None:
    fine = Score(
        rms_frac=0.012, claimed_frac=0.012, nees=1.0, coverage_frac=0.95, mean_frac=0, count=1
    )
    gone = replace(fine, rms_frac=float("nan"), nees=float("nan"), coverage_frac=float("nan"))
    for case in CASES.values():
        assert loop_scores.verdicts(case, {HEAT: gone}, {HEAT: fine}, {HEAT: fine}, bounds=GATE)
