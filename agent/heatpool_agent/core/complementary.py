"""Heat of one loop by a complementary filter: electric heat for the moment, flow for the level.

The yardstick of the estimator of record, and what is left when that fails. Electric heat follows
each jump at once but its share in the coolant is a guess; heat from flow and temperatures lags and
is noisy but has another bias. Source: physics.md 7.7.
"""

from dataclasses import dataclass, replace
from math import exp, hypot, inf, sqrt

from heatpool.heat import heat_coefficient_kwh_m3_k, heat_rate_w
from heatpool_agent.core.loop_law import first_order_mean, loop_step
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

# What is learnt of the gain fades over four hours: capture wanders with the load's make-up.
MEMORY_S = 4 * 3600.0
# How far one minute of calorimetry may be off while the load moves, relative; it averages out.
RIPPLE_FRAC = 0.025
RIPPLE_S = 60.0
# The same of the filter's own output until its misfit tells: measured with the loop of physics.md
# 7.4, where it stays alike for about 150 s and then averages out.
MOMENT_FRAC = 0.018
MOMENT_S = 150.0
# For so long the first misfits count no more than that figure.
TRUSTED_AFTER_S = 900.0

# More than any site; larger figures are errors, and their squares no numbers.
LARGEST_W = 1e10

# Length of a span and its mean electric heat, W; None while power was not seen.
_Span = tuple[float, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComplementaryState:
    """What one span leaves for the next; None and 0: nothing known yet.

    `heat_w` is electric heat after the loop's thermal mass, `lagged_w` the same as the sensors
    show it, `delta_k` hot - cold when they were last compared. Sums over time that fade: `product`
    and `square` make the gain, `misfit` is what it leaves, `seen_s` the time. `recent` is the
    delay: the newest spans.
    """

    heat_w: float | None = None
    lagged_w: float | None = None
    product: float = 0.0
    square: float = 0.0
    misfit: float = 0.0
    seen_s: float = 0.0
    delta_k: float = 0.0
    recent: tuple[_Span, ...] = ()


@dataclass(frozen=True, slots=True)
class HeatRate:
    """Mean heat into the coolant over a span, W, with its standard uncertainty."""

    value_w: float
    value_w_u: float


def complementary_step(
    state: ComplementaryState, sample: LoopSample, model: LoopModel
) -> tuple[HeatRate | None, ComplementaryState]:
    """Heat into the coolant over the span that ends now, W, and the state for the next span.

    A value that cannot be (no number, negative power or flow, a temperature outside the fluid's
    range) is taken as absent. Without calorimetry it is electric heat, without power it is
    calorimetry as the sensors show it, late; without both it is None.
    Raises: ValueError for a span below 0 or an unknown fluid or sensor side.
    Source: physics.md 7.7.
    """
    span_s = sample.span_s
    if not 0 <= span_s < inf:
        raise ValueError(f"complementary: span_s is {span_s}; spans last 0 s or longer")
    calorimetric_w = computed_w(sample, model)
    state = _faded(state, span_s)
    electric_w = _electric_w(sample, model)
    if electric_w is None:
        state = _coasted(state, span_s, model)
        return _calorimetric(sample, calorimetric_w, model), state
    state, mean_w = _driven(state, electric_w, span_s, model)
    if calorimetric_w is None:
        state = replace(state, lagged_w=None)
    elif span_s > 0:
        state = _taught(state, sample, calorimetric_w, model)
    return _blended(state, mean_w, model, span_s), state


def computed_w(sample: LoopSample, model: LoopModel) -> float | None:
    """Heat from flow and both temperatures as the sensors show it, W; None where one is absent.

    A `sensor_side` that is "unknown" takes the mean of both. Raises: ValueError as the contract's
    `heat_rate_w`. Source: physics.md 3.1.
    """
    flow_m3_h, hot_c, cold_c = sample.volume_flow_m3_h, sample.hot_c, sample.cold_c
    sides = ("hot", "cold") if model.sensor_side == "unknown" else (model.sensor_side,)
    if flow_m3_h is None or hot_c is None or cold_c is None:
        return None
    found_w = sum(heat_rate_w(flow_m3_h, hot_c, cold_c, side, model.fluid) for side in sides)
    return found_w / len(sides) if abs(found_w) <= LARGEST_W else None


def _electric_w(sample: LoopSample, model: LoopModel) -> float | None:
    power_w = sample.power_w
    if power_w is None or not 0 <= power_w <= LARGEST_W:
        return None
    return model.capture_frac * (1.0 - model.loss_frac) * power_w


def _faded(state: ComplementaryState, span_s: float) -> ComplementaryState:
    keep = exp(-span_s / MEMORY_S)
    return replace(
        state,
        product=keep * state.product,
        square=keep * state.square,
        misfit=keep * state.misfit,
        seen_s=keep * state.seen_s,
    )


def _coasted(state: ComplementaryState, span_s: float, model: LoopModel) -> ComplementaryState:
    """Without power the loop keeps its heat for a moment; after the delay nobody knows."""
    recent = _kept(state.recent, span_s, None, model)
    unseen_s = sum(one_s for one_s, mean_w in recent if mean_w is None)
    if state.heat_w is None or unseen_s >= model.delay_s:
        return replace(state, heat_w=None, lagged_w=None, recent=())
    return replace(state, recent=recent)


def _driven(
    state: ComplementaryState, electric_w: float, span_s: float, model: LoopModel
) -> tuple[ComplementaryState, float]:
    """The state at the span's end, and its mean electric heat, W."""
    before_w = electric_w if state.heat_w is None else state.heat_w
    mean_w = first_order_mean(before_w, electric_w, dt_s=span_s, tau_s=model.tau_s)
    after_w = loop_step(before_w, electric_w, dt_s=span_s, tau_s=model.tau_s)
    recent = _kept(state.recent, span_s, mean_w, model)
    return replace(state, heat_w=after_w, recent=recent), mean_w


def _kept(
    recent: tuple[_Span, ...], span_s: float, mean_w: float | None, model: LoopModel
) -> tuple[_Span, ...]:
    """The newest spans, as many as the delay reaches back from this span's start."""
    if span_s <= 0:
        return recent
    need_s, first = model.delay_s + span_s, len(recent)
    covered_s = span_s
    while first > 0 and covered_s < need_s:
        first -= 1
        covered_s += recent[first][0]
    return (*recent[first:], (span_s, mean_w))


def _late_w(state: ComplementaryState, span_s: float, delay_s: float) -> float | None:
    """Mean electric heat over the span that reaches the sensors now, W; None if not all seen."""
    age_s, sum_ws = 0.0, 0.0
    for one_s, mean_w in reversed(state.recent):
        overlap_s = min(age_s + one_s, delay_s + span_s) - max(age_s, delay_s)
        if overlap_s > 0:
            if mean_w is None:
                return None
            sum_ws += overlap_s * mean_w
        age_s += one_s
    is_covered = age_s >= (delay_s + span_s) * (1.0 - 1e-9)
    return sum_ws / span_s if is_covered else None


def _taught(
    state: ComplementaryState, sample: LoopSample, calorimetric_w: float, model: LoopModel
) -> ComplementaryState:
    span_s = sample.span_s
    late_w = _late_w(state, span_s, model.delay_s)
    if late_w is None:
        return replace(state, lagged_w=None)
    before_w = late_w if state.lagged_w is None else state.lagged_w
    lag_s = model.sensor_lag_s
    shown_w = first_order_mean(before_w, late_w, dt_s=span_s, tau_s=lag_s)
    state = replace(state, lagged_w=loop_step(before_w, late_w, dt_s=span_s, tau_s=lag_s))
    assert sample.hot_c is not None and sample.cold_c is not None
    # Swapped sensors and standing water teach nothing of the gain.
    if calorimetric_w <= 0 or shown_w <= 0:
        return state
    apart_w = calorimetric_w - shown_w
    rest_w = apart_w - _gain(state) * shown_w
    return replace(
        state,
        product=state.product + apart_w * shown_w * span_s,
        square=state.square + shown_w * shown_w * span_s,
        misfit=state.misfit + rest_w * rest_w * span_s,
        seen_s=state.seen_s + span_s,
        delta_k=sample.hot_c - sample.cold_c,
    )


def _gain(state: ComplementaryState) -> float:
    """By how much calorimetry shows more than electric heat, relative."""
    return state.product / state.square if state.square > 0 else 0.0


def _blended(state: ComplementaryState, mean_w: float, model: LoopModel, span_s: float) -> HeatRate:
    """Electric heat at the level that calorimetry teaches, as far as its doubt allows."""
    electric_u_frac = hypot(model.gain_u_frac, model.loss_frac_u)
    weight, level_u_frac = 0.0, electric_u_frac
    if state.seen_s > 0:
        other = _level_variance(state, model)
        weight = electric_u_frac**2 / (electric_u_frac**2 + other)
        level_u_frac = electric_u_frac * sqrt(1.0 - weight)
    value_w = mean_w * (1.0 + weight * _gain(state))
    u_frac = hypot(level_u_frac, _moment_u_frac(state, model, span_s))
    return HeatRate(value_w, abs(value_w) * u_frac)


def _level_variance(state: ComplementaryState, model: LoopModel) -> float:
    """Relative variance of the level that calorimetry has shown so far."""
    pair_u_frac = model.delta_k_u / state.delta_k
    ripple = RIPPLE_FRAC * RIPPLE_FRAC * RIPPLE_S / state.seen_s
    return model.flow_u_frac**2 + pair_u_frac * pair_u_frac + ripple


def _moment_u_frac(state: ComplementaryState, model: LoopModel, span_s: float) -> float:
    """Relative doubt of one span: the filter's misfit without the noise of flow and temperature."""
    prior = MOMENT_FRAC * MOMENT_FRAC * min(1.0, MOMENT_S / max(span_s, 1.0))
    if state.square <= 0:
        return sqrt(prior)
    temp_noise_frac = model.temp_noise_k / state.delta_k
    noise = model.flow_noise_frac**2 + 2.0 * temp_noise_frac * temp_noise_frac
    learnt = max(0.0, state.misfit / state.square - noise)
    share = state.seen_s / (state.seen_s + TRUSTED_AFTER_S)
    return sqrt(share * learnt + (1.0 - share) * prior)


def _calorimetric(
    sample: LoopSample, calorimetric_w: float | None, model: LoopModel
) -> HeatRate | None:
    """Calorimetry alone, with the doubt of both sensors and of what moved since."""
    flow_m3_h, hot_c, cold_c = sample.volume_flow_m3_h, sample.hot_c, sample.cold_c
    if calorimetric_w is None or flow_m3_h is None or hot_c is None or cold_c is None:
        return None
    side = "cold" if model.sensor_side == "unknown" else model.sensor_side
    k_kwh_m3_k = heat_coefficient_kwh_m3_k(hot_c, cold_c, side, model.fluid)
    pair_u_k = hypot(model.delta_k_u, sqrt(2.0) * model.temp_noise_k)
    pair_w = 1000.0 * k_kwh_m3_k * flow_m3_h * pair_u_k
    moment_frac = MOMENT_FRAC * sqrt(min(1.0, MOMENT_S / max(sample.span_s, 1.0)))
    u_frac = hypot(model.flow_u_frac, model.flow_noise_frac, moment_frac)
    return HeatRate(calorimetric_w, hypot(pair_w, abs(calorimetric_w) * u_frac))
