"""What the filter doubts and holds: a share that wanders, stored heat, offsets; and its saves."""

import json
import math
from dataclasses import fields, replace

import pytest

from heatpool_agent.core import kalman, loop_filter, loop_fusion, loop_matrix, loop_update
from heatpool_agent.core.estimate import LoopHeat
from heatpool_agent.core.kalman import EnergyFigure, State
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_fusion import Fusion
from heatpool_agent.core.loop_physics import GAIN, LOSS, METER, PAIR, SHARE, WARMTH
from heatpool_agent.core.loop_quarrel import Quarrel
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

S = 1_000_000_000
HOUR_S = 3600.0
MODEL = LoopModel()
STEADY = LoopSample(
    span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=39.0, cold_c=31.0, ambient_c=25.0
)


def ran(state: State, sample: LoopSample, times: int, model: LoopModel = MODEL) -> State:
    for _ in range(times):
        state = kalman.advance(state, sample, model)
    return state


def settled(model: LoopModel = MODEL) -> State:
    return ran(kalman.with_energy(kalman.begin(model), "day"), STEADY, 180, model)


# The captured share


@pytest.mark.parametrize(
    ("gain_u_frac", "wander"), [(0.07, 0.01), (0.025, 0.01), (0.01, 0.004), (0.0, 0.0)]
)
def test_the_share_wanders_by_a_hundredth_and_never_by_more_than_it_is_unknown(
    gain_u_frac: float, wander: float
) -> None:
    state = settled(replace(MODEL, gain_u_frac=gain_u_frac))
    assert state.belief is not None
    belief = state.belief.copied()
    loop_matrix.forget(belief, SHARE, 0.0)
    loop_update.age(belief, state, 50 * HOUR_S)
    assert math.sqrt(belief.cov[SHARE][SHARE]) == pytest.approx(wander, abs=1e-9)


def test_within_an_hour_a_share_that_wandered_is_two_thirds_on_its_way_back() -> None:
    state = settled()
    assert state.belief is not None
    belief = state.belief.copied()
    belief.mean[SHARE] = 0.01
    loop_update.age(belief, state, HOUR_S)
    assert belief.mean[SHARE] == pytest.approx(0.01 * math.exp(-1.0))


def test_of_what_was_learnt_of_the_share_power_alone_keeps_all_but_its_wander() -> None:
    state = ran(settled(), STEADY, 720)
    alone = replace(STEADY, volume_flow_m3_h=None, hot_c=None, cold_c=None)
    before, after = kalman.capture(state), kalman.capture(ran(state, alone, 1080))
    assert before is not None and after is not None
    grown = math.sqrt(after.value_u**2 - before.value_u**2) / after.value
    assert grown == pytest.approx(0.01, rel=0.1)


# Heat on its way


def test_heat_of_a_load_that_just_moved_is_doubted_for_two_minutes_and_no_longer() -> None:
    state, doubts = settled(), []
    for _ in range(40):
        state = kalman.advance(state, replace(STEADY, power_w=120e3), MODEL)
        assert state.belief is not None
        doubts.append(math.sqrt(state.belief.cov[WARMTH][WARMTH]))
    moved_w = 0.75 * 20e3
    # Servers may still store all of it; two minutes after the delay nobody has to think so.
    assert max(doubts[1:8]) > moved_w
    assert max(doubts[25:]) < 0.2 * moved_w


# Offsets


@pytest.mark.parametrize(("hours", "is_held"), [(11.0, False), (13.0, True)])
def test_offsets_are_learnt_for_half_a_day_and_then_held(hours: float, *, is_held: bool) -> None:
    state = replace(settled(), learnt_s=hours * HOUR_S)
    odd = replace(STEADY, volume_flow_m3_h=8.2, hot_c=39.3)
    later = ran(state, odd, 60)
    assert state.belief is not None and later.belief is not None
    for index in (METER, PAIR, LOSS):
        moved = abs(later.belief.mean[index] - state.belief.mean[index])
        assert (moved == 0.0) is is_held, index
        grown = later.belief.cov[index][index] - state.belief.cov[index][index]
        assert not is_held or grown >= 0.0
    assert later.belief.mean[GAIN] != state.belief.mean[GAIN]


@pytest.mark.parametrize(
    ("absent", "learnt_s"),
    [((), 100.0), (("power_w",), 0.0), (("hot_c",), 0.0), (("volume_flow_m3_h",), 0.0)],
)
def test_only_time_with_power_and_water_counts_as_learnt(
    absent: tuple[str, ...], learnt_s: float
) -> None:
    state = settled()
    sample = replace(STEADY, **dict.fromkeys(absent))  # type: ignore[arg-type]
    assert ran(state, sample, 10).learnt_s - state.learnt_s == pytest.approx(learnt_s)


def test_an_account_ages_by_the_time_that_it_counts() -> None:
    state = settled()
    before = state.belief.totals["day"].age_s if state.belief else math.nan
    state = ran(state, STEADY, 90)
    assert state.belief is not None
    assert state.belief.totals["day"].age_s - before == pytest.approx(900.0)


# What outlives a restart


def odd_state() -> State:
    """A state of which no field is as a new one's."""
    state = replace(
        kalman.advance(settled(), replace(STEADY, span_s=12.0, power_w=110e3), MODEL),
        restless=(1.5, 0.5, 2.0),
        stretch=1.4,
        without_power_s=30.0,
        without_water_s=40.0,
        still_s=50.0,
        is_gauge=False,
        is_meter_dead=True,
        waiting=("week",),
    )
    new = State()
    same = [one.name for one in fields(State) if getattr(state, one.name) == getattr(new, one.name)]
    assert same == []
    return state


def test_no_part_of_a_state_is_lost_by_a_restart() -> None:
    state = odd_state()
    again = kalman.restored(json.loads(json.dumps(kalman.saved(state))))
    assert again is not None
    for one in fields(State):
        if one.name != "present":
            assert getattr(again, one.name) == getattr(state, one.name), one.name
    # Its partial derivatives of 0 need not be kept.
    assert kalman.heat(again) == kalman.heat(state)
    assert kalman.energy(again, "day") == kalman.energy(state, "day")


def test_no_part_of_a_guarded_filter_is_lost_by_a_restart() -> None:
    old = loop_filter.LoopFilter(MODEL)
    old.start_energy("day")
    for _ in range(60):
        old.advance(STEADY, MODEL)
        old.compare(70e3, 1e3, span_s=10.0)
    old.begin_anew(MODEL)
    for _ in range(60):
        old.advance(STEADY, MODEL)
        old.compare(70e3, 1e3, span_s=10.0)
    old.advance(STEADY, replace(MODEL, gain_u_frac=0.2))
    document = json.loads(json.dumps(old.saved()))
    watch = document["watch"]
    assert min(watch["changed_s"], watch["age_s"], abs(watch["apart_u"])) > 0
    again = loop_filter.restored(document)
    assert again is not None
    assert again.saved() == old.saved()
    assert again.energy("day") == old.energy("day")


def test_a_quarrel_and_the_accounts_beside_the_filter_outlive_a_restart() -> None:
    estimator = LoopEstimator(MODEL)
    estimator.start_energy("day")
    torn = replace(STEADY, power_w=150e3)
    for number in range(400):
        estimator.observe(torn, event_ns=number * 10 * S)
    told = json.loads(json.dumps(estimator.saved_fusion()))
    assert told["quarrel"]["lasts_s"] > 600.0
    again = loop_fusion.restored(told)
    assert again is not None
    assert json.loads(json.dumps(again.saved())) == {key: told[key] for key in again.saved()}
    assert again.energy("day") == estimator.energy("day")


def test_what_a_quarrel_adds_to_the_doubt_is_the_account_s_and_the_share_s_too() -> None:
    calm, torn = LoopEstimator(MODEL), LoopEstimator(MODEL)
    figures: list[tuple[LoopHeat, EnergyFigure, float]] = []
    for estimator, power_w in ((calm, 100e3), (torn, 150e3)):
        heat = LoopHeat(electric=None, computed=None, fused=None)
        for number in range(720):
            if number == 360:
                estimator.start_energy("hour")
            sample = replace(STEADY, power_w=power_w)
            heat = estimator.observe(sample, event_ns=number * 10 * S)
        assert estimator.capture is not None
        figures.append((heat, estimator.energy("hour"), estimator.capture.frac_u))
    (_, _, calm_u), (heat, hour, torn_u) = figures
    assert heat.fused is not None
    assert hour.heat_wh_u == pytest.approx(heat.fused.u, rel=0.1)
    assert torn_u > 2.0 * calm_u


def test_a_share_is_as_doubtful_as_the_quarrel_that_it_is_part_of() -> None:
    estimator = LoopEstimator(MODEL)
    for number in range(60):
        estimator.observe(STEADY, event_ns=number * 10 * S)
    fusion: Fusion = estimator._fusion
    calm = fusion.capture
    fusion._quarrel = Quarrel(ratio=-4.0, lasts_s=3600.0)
    torn = fusion.capture
    assert calm is not None and torn is not None
    assert torn.value == calm.value
    assert torn.value_u == pytest.approx(4.0 * calm.value_u)
