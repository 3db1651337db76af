"""One runner of a loop's estimators: ticks of any period, gaps, restarts, quarrels, accounts."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import Channel, Estimate, Provenance, QualityClass
from heatpool_agent.board import LoopView
from heatpool_agent.core.air_heat import AIR_NEGATIVE, air_heat
from heatpool_agent.core.estimate import LoopHeat
from heatpool_agent.core.loop_estimator import PHASES, LoopEstimator
from heatpool_agent.core.loop_gather import Gather
from heatpool_agent.core.loop_quarrel import PERSISTS_S, Quarrel, quarrelled, stretch
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.rows import Mean, cells_of, spans_s

S = 1_000_000_000
RIGHT = LoopSample(span_s=1.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0)
MODEL = LoopModel()


def fed(
    estimator: LoopEstimator, sample: LoopSample, ticks: int, *, since: int = 0
) -> Iterator[LoopHeat]:
    for tick in range(since + 1, since + ticks + 1):
        span_s = sample.span_s if tick > 1 else 0.0
        event_ns = round(tick * sample.span_s * S)
        yield estimator.observe(replace(sample, span_s=span_s), event_ns=event_ns)


def run(estimator: LoopEstimator, sample: LoopSample, ticks: int, *, since: int = 0) -> LoopHeat:
    return list(fed(estimator, sample, ticks, since=since))[-1]


def cell(quantity: str) -> Channel:
    return Channel("rack", quantity, -1)


def value(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value


# Gathering


def test_heat_of_a_span_is_the_mean_of_its_products() -> None:
    # Flow and difference move against each other: the product of plain means would be 24.
    gather = Gather()
    for flow_m3_h, delta_k in ((2.0, 8.0), (6.0, 4.0)):
        sample = replace(RIGHT, volume_flow_m3_h=flow_m3_h, hot_c=40.0 + delta_k)
        gather.add(sample, None)
    sample, _ = gather.taken()
    assert sample.volume_flow_m3_h and sample.hot_c and sample.cold_c
    assert sample.volume_flow_m3_h * (sample.hot_c - sample.cold_c) == pytest.approx(20.0)
    assert sample.span_s == 2.0


@given(st.lists(st.floats(0.1, 30.0), min_size=1, max_size=9))
def test_a_mean_is_by_time_and_an_absent_value_is_left_out(spans: list[float]) -> None:
    gather = Gather()
    gather.add(replace(RIGHT, span_s=7.0, power_w=None, hot_c=None), None)
    for number, span_s in enumerate(spans):
        gather.add(replace(RIGHT, span_s=span_s, power_w=float(number)), None)
    sample, _ = gather.taken()
    mean_w = sum(number * span_s for number, span_s in enumerate(spans)) / sum(spans)
    assert sample.power_w == pytest.approx(mean_w)
    assert sample.hot_c == pytest.approx(48.2)
    assert sample.span_s == pytest.approx(7.0 + sum(spans))
    assert gather.is_empty


def test_the_worst_meter_and_its_mean_doubt_stand_for_a_span() -> None:
    gather = Gather()
    for u, quality in ((10.0, QualityClass.B), (30.0, QualityClass.D)):
        power = Estimate(value=1e3, u=u, quality=quality, provenance=Provenance.ELECTRIC)
        gather.add(replace(RIGHT, power_w=1e3), power)
    _, found = gather.taken()
    assert found is not None and (found.u, found.quality) == (20.0, QualityClass.D)


# Updates


def test_the_first_tick_gives_a_figure_and_the_tenth_second_the_next() -> None:
    estimator, new = LoopEstimator(MODEL), []
    for tick, heat in enumerate(fed(estimator, RIGHT, 31), 1):
        assert heat.fused is not None
        if estimator.fused_s is not None:
            new.append((tick, estimator.fused_s))
    assert new == [(1, 0.0), (11, 10.0), (21, 10.0), (31, 10.0)]


def test_slower_inputs_pass_straight_through() -> None:
    estimator = LoopEstimator(MODEL)
    for _ in fed(estimator, replace(RIGHT, span_s=60.0), 5):
        assert estimator.fused_s is not None


def test_a_row_s_heat_is_the_mean_over_that_very_span() -> None:
    # Power alone, a loop without calorimetry: the fused heat is the mean electric heat itself.
    estimator, mean, rows = LoopEstimator(MODEL), Mean(), []
    ramp = [LoopSample(span_s=1.0 if t else 0.0, power_w=1e3 * t) for t in range(46)]
    for tick, sample in enumerate(ramp):
        heat = estimator.observe(sample, event_ns=tick * S, is_due=tick % 15 == 0)
        view = LoopView(
            loop_id="rack",
            electric=heat.electric,
            fused=heat.fused,
            fused_s=estimator.fused_s,
        )
        mean.add(cells_of(None, [view]), spans_s([view]))
        if tick % 15 == 0:
            rows.append(mean.taken())
    for row in rows[1:]:
        told, power = (
            row[Channel("rack", name, -1)] for name in ("heat_rate_w", "electric_heat_w")
        )
        assert told == pytest.approx(power)


def test_what_comes_later_than_the_first_tick_gives_a_figure_at_once() -> None:
    estimator = LoopEstimator(MODEL)
    assert run(estimator, LoopSample(span_s=1.0), 3).fused is None
    assert estimator.phase == "starting"
    assert run(estimator, RIGHT, 1, since=3).fused is not None


def test_neither_power_nor_calorimetry_is_no_figure() -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, RIGHT, 100)
    assert run(estimator, LoopSample(span_s=1.0), 20, since=100).fused is None


@pytest.mark.parametrize(
    ("lost", "provenance"),
    [
        ({"power_w": None}, Provenance.COMPUTED),
        ({"volume_flow_m3_h": None}, Provenance.ELECTRIC),
        ({"hot_c": None}, Provenance.ELECTRIC),
        ({}, Provenance.FUSED),
    ],
)
def test_a_lost_input_leaves_the_other_one(lost: dict[str, Any], provenance: Provenance) -> None:
    estimator = LoopEstimator(MODEL)
    before_w = value(run(estimator, RIGHT, 600).fused)
    after = run(estimator, replace(RIGHT, **lost), 60, since=600)
    assert after.fused is not None and after.fused.provenance is provenance
    assert after.fused.value == pytest.approx(before_w, rel=0.03)
    assert estimator.phase in PHASES


# Lives


def test_a_restart_goes_on_where_it_stood() -> None:
    estimator = LoopEstimator(MODEL)
    estimator.start_energy("day")
    first, last = run(estimator, RIGHT, 1), run(estimator, RIGHT, 3600, since=1)
    text = json.dumps(estimator.saved())
    again = LoopEstimator(MODEL, json.loads(text))
    assert again.is_restored
    again.skip(5.0, event_ns=3606 * S)
    heat = run(again, RIGHT, 1, since=3606)
    assert first.fused and last.fused and heat.fused
    assert heat.fused.u < 0.5 * (first.fused.u + last.fused.u)
    assert heat.fused.value == pytest.approx(last.fused.value, rel=5e-3)
    assert again.energy("day").heat_wh >= estimator.energy("day").heat_wh


@pytest.mark.parametrize(
    "saved",
    [None, 7, [], {}, {"fusion": None}, {"fusion": {"version": 1, "place": ["water", "cold"]}}],
)
def test_what_is_damaged_begins_anew(saved: object) -> None:
    estimator = LoopEstimator(MODEL, saved)
    assert not estimator.is_restored
    assert run(estimator, RIGHT, 1).fused is not None


def test_any_part_that_is_missing_or_odd_begins_anew() -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, RIGHT, 60)
    whole = json.loads(json.dumps(estimator.saved()))
    fusion = whole["fusion"]
    for name in fusion:
        lacking = {k: v for k, v in fusion.items() if k != name}
        # Of what a loop usually carries older states know nothing; all else is theirs still.
        is_whole = name == "usual"
        assert LoopEstimator(MODEL, {**whole, "fusion": lacking}).is_restored is is_whole
        assert not LoopEstimator(MODEL, {**whole, "fusion": {**fusion, name: "?"}}).is_restored
    assert LoopEstimator(MODEL, whole).is_restored
    assert LoopEstimator(MODEL, {"fusion": fusion, "watch": "?"}).is_restored


@pytest.mark.parametrize("other", [{"fluid": "pg25_vol"}, {"sensor_side": "hot"}])
def test_another_fluid_or_side_begins_anew(other: dict[str, str]) -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, RIGHT, 60)
    assert not LoopEstimator(replace(MODEL, **other), estimator.saved()).is_restored  # type: ignore[arg-type]


# Accounts


def test_energy_is_power_times_time_with_a_doubt_that_stays() -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, RIGHT, 3600)
    estimator.start_energy("hour")
    heat = run(estimator, RIGHT, 3600, since=3600)
    energy = estimator.energy("hour")
    assert heat.fused is not None
    assert energy.heat_wh == pytest.approx(heat.fused.value, rel=0.01)
    assert 0.005 < energy.heat_wh_u / energy.heat_wh < 0.03
    estimator.drop_energy("hour")
    with pytest.raises(KeyError):
        estimator.energy("hour")


def test_an_account_outlives_the_filter() -> None:
    estimator = LoopEstimator(MODEL)
    estimator.start_energy("all")
    run(estimator, RIGHT, 1801)
    half = estimator.energy("all")
    estimator.begin_anew()
    assert estimator.energy("all") == half
    run(estimator, RIGHT, 1800, since=1801)
    assert estimator.energy("all").heat_wh == pytest.approx(2 * half.heat_wh, rel=0.02)


# Quarrels


def figure(value_w: float, u_w: float = 1e3) -> Estimate:
    return Estimate(value=value_w, u=u_w, quality=QualityClass.B, provenance=Provenance.ELECTRIC)


def quarrel(apart_w: float, seconds: int) -> float:
    found = Quarrel()
    for _ in range(seconds // 10):
        found = quarrelled(found, 50e3 + apart_w, figure(50e3), figure(50e3), span_s=10.0)
    return stretch(found)


def test_a_quarrel_widens_the_doubt_when_it_lasts_and_no_bias_explains_it() -> None:
    beyond_w = 4.0 * 2.0**0.5 * 1e3
    assert quarrel(beyond_w, 300) == 1.0
    assert quarrel(beyond_w, round(2 * PERSISTS_S)) == pytest.approx(4.0)
    # Within three times both doubts the biases that the priors allow explain it.
    assert quarrel(beyond_w / 1.4, round(4 * PERSISTS_S)) == 1.0


def test_a_quarrel_that_ends_costs_nothing_any_more() -> None:
    found = Quarrel(ratio=-4.0, lasts_s=2 * PERSISTS_S)
    assert stretch(found) == 4.0
    for _ in range(60):
        found = quarrelled(found, 50e3, figure(50e3), figure(50e3), span_s=10.0)
    assert stretch(found) == 1.0


def test_a_lasting_quarrel_of_the_estimator_s_inputs_reaches_the_fused_doubt() -> None:
    calm, torn = LoopEstimator(MODEL), LoopEstimator(MODEL)
    honest = run(calm, RIGHT, 3600).fused
    odd = run(torn, replace(RIGHT, power_w=130e3), 3600).fused
    assert honest and odd and odd.u > 2.0 * honest.u


# Air


def test_air_takes_what_the_coolant_leaves_and_less_than_nothing_is_flagged() -> None:
    air = air_heat(figure(10e3, 300.0), figure(7e3, 400.0))
    assert air is not None and (air.value, air.u, air.flags) == (3e3, 500.0, ())
    under = air_heat(figure(7e3), figure(10e3))
    assert under is not None and (under.value, under.flags) == (-3e3, (AIR_NEGATIVE,))
    assert air_heat(None, figure(1.0)) is air_heat(figure(1.0), None) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("power_w", -1.0),
        ("power_w", float("inf")),
        ("volume_flow_m3_h", -0.5),
        ("volume_flow_m3_h", float("inf")),
        ("hot_c", 243.0),
        ("hot_c", float("nan")),
        ("cold_c", -273.0),
    ],
)
def test_what_cannot_be_leaves_the_mean_of_the_other_ticks(name: str, value: float) -> None:
    found = []
    for odd in (value, None):
        gather = Gather()
        changed: dict[str, Any] = {name: odd}
        for sample in (RIGHT, replace(RIGHT, **changed), RIGHT):
            gather.add(sample, None)
        found.append(gather.taken())
    assert found[0] == found[1]
    assert getattr(found[0][0], name) == pytest.approx(getattr(RIGHT, name))


# Heats that no bias explains


SWAPPED = replace(RIGHT, hot_c=RIGHT.cold_c, cold_c=RIGHT.hot_c)
LITRES = replace(RIGHT, volume_flow_m3_h=8.0 * 60.0 / 1000.0)
TRUE_W = 75e3


@pytest.mark.parametrize("wrong", [SWAPPED, LITRES])
@pytest.mark.parametrize("ticks", [1, 30, 300, 3600])
def test_a_fused_heat_of_heats_far_apart_is_as_unsure_as_they_are(
    wrong: LoopSample, ticks: int
) -> None:
    fused = run(LoopEstimator(MODEL), wrong, ticks).fused
    assert fused is not None
    assert abs(fused.value - TRUE_W) < 2.0 * fused.u < 300e3


def test_a_slip_of_units_under_way_spoils_no_doubt() -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, RIGHT, 7200)
    estimator.start_energy("hour")
    for tick, heat in enumerate(fed(estimator, LITRES, 3600, since=7200)):
        if tick > 60:
            assert heat.fused and abs(heat.fused.value - TRUE_W) < 2.0 * heat.fused.u
    hour = estimator.energy("hour")
    assert abs(hour.heat_wh - TRUE_W) < 2.0 * hour.heat_wh_u < 300e3
    # What the slip taught went with the trust in it: the prior stands again.
    assert estimator.capture and estimator.capture.frac == pytest.approx(0.75, abs=0.05)


def test_one_account_of_a_quarrel_begins_at_no_doubt() -> None:
    estimator = LoopEstimator(MODEL)
    run(estimator, LITRES, 600)
    estimator.start_energy("new")
    assert estimator.energy("new").heat_wh_u == 0.0


def test_a_trickle_is_as_doubtful_to_the_filter_as_to_the_plain_fusion() -> None:
    model = replace(MODEL, flow_u_m3_h=0.0035, gain_u_frac=0.07)
    trickle = replace(RIGHT, volume_flow_m3_h=0.09, power_w=0.09 / 8.0 * 100e3)
    heat = run(LoopEstimator(model), trickle, 3600)
    assert heat.fused and heat.computed
    u_frac = heat.fused.u / heat.fused.value
    assert 0.03 < u_frac < 1.1 * heat.computed.u / heat.computed.value
