"""The complementary filter: electric heat for the moment, calorimetry for the level."""

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.heat import heat_rate_w
from heatpool_agent.core.complementary import (
    ComplementaryState,
    HeatRate,
    complementary_step,
)
from heatpool_agent.core.loop_law import first_order_mean, loop_step
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

MODEL = LoopModel(loss_frac=0.0, loss_frac_u=0.0)
HOUR_S = 3600.0


def sample(
    power_w: float | None = 100_000.0, flow_m3_h: float | None = 8.0, span_s: float = 10.0
) -> LoopSample:
    return LoopSample(
        span_s=span_s, power_w=power_w, volume_flow_m3_h=flow_m3_h, hot_c=38.0, cold_c=30.0
    )


def calorimetric_w(one: LoopSample) -> float:
    assert one.volume_flow_m3_h is not None
    assert one.hot_c is not None
    assert one.cold_c is not None
    return heat_rate_w(one.volume_flow_m3_h, one.hot_c, one.cold_c, "cold")


def run(
    samples: Iterable[LoopSample], state: ComplementaryState | None = None
) -> tuple[HeatRate, ComplementaryState]:
    found: HeatRate | None = None
    state = state or ComplementaryState()
    for one in samples:
        found, state = complementary_step(state, one, MODEL)
    assert found is not None
    return found, state


def test_without_calorimetry_it_is_electric_heat() -> None:
    found, _ = run([sample(flow_m3_h=None)] * 100)
    assert found.value_w == pytest.approx(75_000.0)
    assert found.value_w_u / found.value_w == pytest.approx(math.hypot(0.025, 0.018))


def test_without_power_it_is_calorimetry() -> None:
    one = sample(power_w=None)
    found, state = run([one] * 100)
    assert found.value_w == pytest.approx(calorimetric_w(one))
    assert 0.015 < found.value_w_u / found.value_w < 0.04
    assert state == ComplementaryState()


def test_the_level_moves_as_far_as_both_doubts_say() -> None:
    # physics.md 7.7 by hand: an hour of calorimetry 3 % above electric heat, all held.
    flow_m3_h = 8.0 * 1.03 * 75_000.0 / calorimetric_w(sample())
    found, state = run([sample(flow_m3_h=flow_m3_h)] * 360)
    electric, other = 0.025**2, 0.012**2 + (0.05 / 8.0) ** 2
    weight = electric / (electric + other + 0.025**2 * 60.0 / state.seen_s)
    assert found.value_w == pytest.approx(75_000.0 * (1.0 + 0.03 * weight), rel=1e-6)
    assert 3000.0 < state.seen_s < HOUR_S


def test_doubt_falls_to_the_limit_of_the_biases_and_no_further() -> None:
    first, _ = run([sample()] * 30)
    hours, _ = run([sample()] * 3600)
    # 7.4: of two biases, plus what a moment adds; held inputs leave no misfit.
    limit = 75_000.0 * (0.025**-2 + (0.012**2 + (0.05 / 8.0) ** 2) ** -1) ** -0.5
    assert limit < hours.value_w_u < 1.3 * limit < first.value_w_u


@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=40), st.floats(0.1, 10.0))
def test_scaling_power_and_flow_scales_the_heat(loads: list[float], scale: float) -> None:
    def trace(by: float) -> list[LoopSample]:
        return [sample(by * 50_000.0 * load, by * 4.0 * load) for load in loads]

    once, _ = run(trace(1.0))
    scaled, _ = run(trace(scale))
    assert scaled.value_w == pytest.approx(scale * once.value_w, rel=1e-9)
    assert scaled.value_w_u == pytest.approx(scale * once.value_w_u, rel=1e-6)


@given(st.lists(st.floats(0.1, 400.0), min_size=1, max_size=30))
def test_energy_of_a_jump_does_not_depend_on_how_time_is_cut(spans: list[float]) -> None:
    def energy_ws(cuts: list[float]) -> float:
        _, state = run([sample(50_000.0, None, 0.0)])
        total_ws = 0.0
        for span_s in cuts:
            found, state = run([sample(100_000.0, None, span_s)], state)
            total_ws += found.value_w * span_s
        return total_ws

    assert energy_ws(spans) == pytest.approx(energy_ws([math.fsum(spans)]), rel=1e-9)


MISFITS = {1.0: 1e-9, 10.0: 0.0005, 60.0: 0.010, 300.0: 0.011}


@pytest.mark.parametrize("span_s", MISFITS)
def test_jumps_that_the_model_explains_teach_no_gain(span_s: float) -> None:
    # A loop with just this thermal mass, delay and lag: both heats tell the same, late.
    mass_w = shown_w = 75_000.0
    step_s, state, per_w = 1.0, ComplementaryState(), 8.0 / calorimetric_w(sample())
    pipe = [75_000.0] * round(MODEL.delay_s)
    for number in range(round(2 * HOUR_S / span_s)):
        power_w = 100_000.0 if (number * span_s) % 1800 < 900 else 60_000.0
        seen_w = 0.0
        for _ in range(round(span_s)):
            target_w, tau_s = 0.75 * power_w, MODEL.tau_s
            pipe.append(first_order_mean(mass_w, target_w, dt_s=step_s, tau_s=tau_s))
            mass_w = loop_step(mass_w, target_w, dt_s=step_s, tau_s=tau_s)
            late_w = pipe.pop(0)
            lag_s = MODEL.sensor_lag_s
            seen_w += first_order_mean(shown_w, late_w, dt_s=step_s, tau_s=lag_s)
            shown_w = loop_step(shown_w, late_w, dt_s=step_s, tau_s=lag_s)
        one = sample(power_w, per_w * seen_w / span_s, span_s)
        _, state = complementary_step(state, one, MODEL)
    assert state.product / state.square == pytest.approx(0.0, abs=0.003)
    # Delay and lag are where the loop has them; a span is not resolved further.
    assert math.sqrt(state.misfit / state.square) < MISFITS[span_s]


def test_the_sensors_own_noise_is_no_doubt_of_the_filter() -> None:
    by_frac = (1.0 - MODEL.flow_noise_frac, 1.0 + MODEL.flow_noise_frac)
    noisy, _ = run([sample(flow_m3_h=8.0 * by_frac[number % 2]) for number in range(3600)])
    calm, _ = run([sample()] * 3600)
    assert noisy.value_w_u == pytest.approx(calm.value_w_u, rel=0.02)


def test_a_loop_that_moves_otherwise_than_assumed_is_doubted_more() -> None:
    # Twice the flow noise: what is left over is the filter's own.
    by_frac = (1.0 - 2 * MODEL.flow_noise_frac, 1.0 + 2 * MODEL.flow_noise_frac)
    restless, _ = run([sample(flow_m3_h=8.0 * by_frac[number % 2]) for number in range(3600)])
    calm, _ = run([sample()] * 3600)
    assert restless.value_w_u > 1.8 * calm.value_w_u


def test_without_a_difference_the_pair_is_still_in_doubt() -> None:
    level = replace(sample(power_w=None), hot_c=30.0)
    found, _ = run([level])
    assert found.value_w == 0.0
    assert found.value_w_u == pytest.approx(heat_rate_w(8.0, 30.0575, 30.0, "cold"), rel=1e-2)


def test_a_mean_over_an_hour_is_surer_than_one_over_a_moment() -> None:
    for power_w, flow_m3_h in ((100_000.0, None), (None, 8.0)):
        moment, _ = run([sample(power_w, flow_m3_h, 10.0)])
        hour, _ = run([sample(power_w, flow_m3_h, HOUR_S)])
        assert hour.value_w == pytest.approx(moment.value_w)
        assert hour.value_w_u < 0.95 * moment.value_w_u


def test_the_lag_is_begun_anew_after_calorimetry_was_away() -> None:
    _, state = run([sample()] * 100)
    assert state.lagged_w == pytest.approx(75_000.0)
    _, state = run([sample(power_w=50_000.0, flow_m3_h=None)] * 60, state)
    _, state = run([sample(power_w=50_000.0)], state)
    assert state.lagged_w == pytest.approx(37_500.0, rel=0.01)


def test_swapped_sensors_teach_nothing() -> None:
    swapped = replace(sample(), hot_c=30.0, cold_c=38.0)
    found, state = run([swapped] * 400)
    assert found.value_w == pytest.approx(75_000.0)
    assert state.seen_s == 0.0


def test_swapped_sensors_alone_show_their_signed_heat() -> None:
    found, _ = run([replace(sample(None), hot_c=30.0, cold_c=38.0)])
    assert found.value_w == pytest.approx(heat_rate_w(8.0, 30.0, 38.0, "cold"))
    assert found.value_w < 0 < found.value_w_u


def test_what_was_learnt_outlives_a_gap_and_fades_in_days() -> None:
    found, state = run([sample(flow_m3_h=9.0)] * 720)
    after_hour, _ = run([sample(flow_m3_h=None)] * 360, state)
    after_days, _ = run([sample(flow_m3_h=None, span_s=HOUR_S)] * 72, state)
    assert after_hour.value_w == pytest.approx(found.value_w, rel=1e-3)
    assert after_days.value_w == pytest.approx(75_000.0, rel=1e-3)
    assert after_hour.value_w_u < after_days.value_w_u


def test_without_anything_nothing_is_said() -> None:
    _, state = run([sample()] * 100)
    found, state = complementary_step(state, LoopSample(span_s=HOUR_S), MODEL)
    assert found is None
    assert state.heat_w is None
    assert state.seen_s > 0


def test_a_blink_of_the_power_meter_keeps_the_warmth_of_the_loop() -> None:
    _, state = run([sample(power_w=100_000.0)] * 100)
    shown, blink = run([sample(power_w=None)], state)
    assert shown.value_w == pytest.approx(calorimetric_w(sample()))
    after, _ = run([sample(power_w=50_000.0)], blink)
    forgotten, _ = run([sample(power_w=50_000.0)], run([sample(power_w=None)] * 20, state)[1])
    assert after.value_w > 65_000.0
    assert forgotten.value_w == pytest.approx(37_500.0, rel=0.1)


def test_an_unknown_side_is_the_mean_of_both() -> None:
    one = sample(power_w=None)
    sides_w = [heat_rate_w(8.0, 38.0, 30.0, side) for side in ("hot", "cold")]
    found, _ = complementary_step(ComplementaryState(), one, replace(MODEL, sensor_side="unknown"))
    assert found is not None
    assert found.value_w == pytest.approx(sum(sides_w) / 2)


@pytest.mark.parametrize("span_s", [-1.0, math.nan, math.inf])
def test_a_span_that_cannot_be_is_refused(span_s: float) -> None:
    with pytest.raises(ValueError, match="span_s"):
        complementary_step(ComplementaryState(), sample(span_s=span_s), MODEL)


@given(
    st.lists(
        st.builds(
            LoopSample,
            span_s=st.floats(0, 1e6),
            power_w=st.none() | st.floats(),
            volume_flow_m3_h=st.none() | st.floats(),
            hot_c=st.none() | st.floats(-20, 200) | st.floats(),
            cold_c=st.none() | st.floats(-20, 200) | st.floats(),
        ),
        max_size=20,
    )
)
def test_whatever_is_read_a_figure_is_a_number_with_its_doubt(samples: list[LoopSample]) -> None:
    state = ComplementaryState()
    for one in samples:
        found, state = complementary_step(state, one, MODEL)
        assert found is None or (math.isfinite(found.value_w) and 0 <= found.value_w_u < math.inf)
    assert sum(span_s for span_s, _ in state.recent) < math.inf


def test_the_delay_is_remembered_and_no_more() -> None:
    _, state = run([sample(span_s=1.0)] * 5000)
    assert len(state.recent) == MODEL.delay_s + 1
