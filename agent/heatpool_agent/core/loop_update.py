"""One span of the loop filter: what changed unseen, what moved, and what was compared."""

from collections.abc import Sequence
from math import exp, log, sqrt

from heatpool_agent.core import loop_matrix, loop_past, loop_physics
from heatpool_agent.core.loop_forecast import Surroundings, Wander
from heatpool_agent.core.loop_matrix import Belief, Partials
from heatpool_agent.core.loop_physics import (
    BIASES,
    COLD,
    COLD_SHOWN,
    DELAY,
    GAIN,
    HOT,
    HOT_SHOWN,
    LOSS,
    MASS,
    MEAN,
    METER,
    PAIR,
    SHARE,
    STREAM,
    WARMTH,
)
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.loop_start import Seen
from heatpool_agent.core.loop_state import State

# Constants of a site drift within their priors: recalibration, dirt, a refilled loop.
_BIAS_LIFE_S = 30 * 86400.0
_LONGEST_DELAY_S = 300.0
# Longer spans say nothing of the delay.
_DELAY_SPAN_S = 30.0
# Squared misfit, in standard deviations, at which something jumped that wander does not explain.
_JUMP = 25.0
# Wander of flow (2 %, 900 s), cold (0.5 K, 1,800 s) and unseen heat (1.5 % in 10 s), until learnt.
# Source: physics.md 7.4.
_FLOW_WANDER_S = 2.0 * 0.02**2 / 900.0
_COLD_WANDER_K2_S = 2.0 * 0.5**2 / 1800.0
_WARMTH_WANDER_S = 0.015**2 / 10.0
_MOST_COLD_K2, _MOST_FLOW, _MOST_WARMTH = 100.0, 0.25, 1.0
# No sensor is free of noise, and no covariance survives one that is.
_LEAST_NOISE_FRAC, _LEAST_NOISE_K = 1e-4, 1e-3
# What level and doubt of power tell of the sensors' offsets is learnt within an hour. Half a day
# on, only the shape of quick moves would move them, which no real loop has quite as modelled: held.
_LEARNT_S = 12 * 3600.0
_OFFSETS = (METER, PAIR, LOSS)
# Per sample: what restlessness learns from one misfit, and what it forgets of the heat's.
_FORGET = 0.002
# The captured share itself wanders by 1 % (physics.md 9), and never by more than it is unknown.
_SHARE_U, _SHARE_S, _SHARE_OF_GAIN = 0.01, 3600.0, 0.16
# Heat of a load that just moved lies in servers and plates for a while, in pumps' answers too: so
# much of its distance from the mean of the minutes before is not known to come. Without it the
# quick moves alone teach a wrong slope, and an offset that makes up for it: 4 % of the heat.
_STORED, _STORED_S = 2.0, 120.0
_LEARN, _LEAST_RESTLESS, _MOST_RESTLESS = 0.01, 0.05, 100.0


def wander_of(state: State, model: LoopModel) -> Wander:
    """How fast flow, cold and heat may change unseen by now, variance per second."""
    assert state.belief is not None
    stream, cold, warmth = state.restless
    level_w = abs(state.belief.mean[WARMTH])
    return Wander(
        cold_k2_s=cold * _COLD_WANDER_K2_S,
        stream_per_s=stream * _FLOW_WANDER_S,
        warmth_w2_s=level_w * level_w * _WARMTH_WANDER_S,
        stream_noise=max(model.flow_noise_frac, _LEAST_NOISE_FRAC) ** 2,
        warmth_noise=warmth * max(model.power_noise_frac, _LEAST_NOISE_FRAC) ** 2,
    )


def age(belief: Belief, state: State, span_s: float) -> None:
    """What may have changed unseen: wander of cold and flow, slow drift of the constants."""
    cov = belief.cov
    kept, share_u2 = exp(-span_s / _SHARE_S), min(_SHARE_U**2, _SHARE_OF_GAIN * state.prior_u2[0])
    belief.mean[SHARE] *= kept
    loop_matrix.carry(belief, {SHARE: {SHARE: kept}})
    cov[SHARE][SHARE] += (1.0 - kept * kept) * share_u2
    if not state.is_gauge:
        stream, cold, _ = state.restless
        for index, rate, most in (
            (COLD, cold * _COLD_WANDER_K2_S, _MOST_COLD_K2),
            (STREAM, stream * _FLOW_WANDER_S, _MOST_FLOW),
        ):
            cov[index][index] += max(0.0, min(rate * span_s, most - cov[index][index]))
    back = min(1.0, 2.0 * span_s / _BIAS_LIFE_S)
    for index, u2 in zip(BIASES, state.prior_u2, strict=True):
        cov[index][index] += back * max(0.0, u2 - cov[index][index])


def warm(belief: Belief, state: State, wander: Wander, span_s: float) -> None:
    """Heat into the loop over the span the sensors show now: power of then, or a guess."""
    mean, cov, past = belief.mean, belief.cov, state.past
    delay_s = mean[DELAY]
    power_w = loop_past.power_between(past, delay_s + span_s, delay_s)
    if power_w is None:
        most = _MOST_WARMTH * mean[WARMTH] ** 2
        more = min(wander.warmth_w2_s * span_s, most - cov[WARMTH][WARMTH])
        cov[WARMTH][WARMTH] += max(0.0, more)
        return
    gain = exp(mean[GAIN] + mean[SHARE])
    old_w = loop_past.power_at(past, delay_s + span_s)
    new_w = loop_past.power_at(past, delay_s)
    moved_w = 0.0 if old_w is None or new_w is None else gain * (old_w - new_w)
    is_telling = not state.is_gauge and span_s <= _DELAY_SPAN_S
    mean[WARMTH] = gain * power_w
    by = {GAIN: mean[WARMTH], SHARE: mean[WARMTH], DELAY: moved_w / span_s if is_telling else 0.0}
    loop_matrix.carry(belief, {WARMTH: by})
    # When within the span power moved is unknown: it matters once the loop is as quick.
    quick = (span_s * exp(mean[STREAM] - mean[MASS])) ** 2
    within_w2 = moved_w * moved_w * quick / (12.0 * (1.0 + quick))
    before_w = loop_past.power_between(past, delay_s + span_s + _STORED_S, delay_s + span_s)
    stored_w = 0.0 if before_w is None else _STORED * gain * (power_w - before_w)
    noise_w2 = mean[WARMTH] ** 2 * wander.warmth_noise
    cov[WARMTH][WARMTH] += noise_w2 + within_w2 + stored_w * stored_w


def move(belief: Belief, around: Surroundings, span_s: float) -> None:
    """The loop over the span, with the heat of it held."""
    mean = belief.mean
    done = loop_physics.step(mean, span_s=span_s, room_c=around.room_c, loss_w_k=around.loss_w_k)
    loop_matrix.carry(belief, {HOT: done.end, MEAN: done.mean})
    mean[HOT], mean[MEAN] = done.end_c, done.mean_c


def compare(
    state: State, now: Seen, wander: Wander, model: LoopModel
) -> tuple[float, float, float]:
    """Take in flow and temperatures; returns how restless each turned out to be."""
    belief, span_s = state.belief, now.span_s
    assert belief is not None
    stream, cold, warmth = state.restless
    delay_s, noise_k2 = belief.mean[DELAY], max(model.temp_noise_k, _LEAST_NOISE_K) ** 2
    held = _OFFSETS if state.learnt_s >= _LEARNT_S else ()
    passed = loop_past.flow_between(state.past, delay_s + max(span_s, 1e-3), delay_s)
    if passed is not None:
        by = {STREAM: 1.0, METER: 1.0}
        noise = wander.stream_noise / passed[1]
        odd = _take(belief, by, passed[0], noise=noise, opens=(STREAM,), held=held)
        stream = _learnt(stream, odd, wander.stream_per_s * span_s)
    keep, share = _sensor(span_s, model.sensor_lag_s)
    if now.cold_c is not None:
        by = {COLD: 1.0 - share, COLD_SHOWN: share, PAIR: -0.5}
        odd = _take(belief, by, now.cold_c, noise=noise_k2, opens=(COLD, COLD_SHOWN), held=held)
        cold = _learnt(cold, odd, (1.0 - share) ** 2 * wander.cold_k2_s * span_s)
    if now.hot_c is not None:
        by = {MEAN: 1.0 - share, HOT_SHOWN: share, PAIR: 0.5}
        odd = _take(belief, by, now.hot_c, noise=noise_k2, opens=(HOT, MEAN, HOT_SHOWN), held=held)
        # Where noise of power hardly shows in the water, it cannot be learnt from it.
        warmth = _learnt(warmth, odd, 0.0) / warmth**_FORGET
    for shown, source in ((HOT_SHOWN, MEAN), (COLD_SHOWN, COLD)):
        mean = belief.mean
        mean[shown] = mean[source] + (mean[shown] - mean[source]) * keep
        loop_matrix.carry(belief, {shown: {source: 1.0 - keep, shown: keep}})
    belief.mean[DELAY] = min(_LONGEST_DELAY_S, max(0.0, belief.mean[DELAY]))
    return stream, cold, warmth


def stretch_of(belief: Belief, state: State, model: LoopModel) -> float:
    """How much larger than claimed every doubt is: 1, or half of how many u the priors are off.

    The Birge ratio from two standard deviations on: contradicting meters are one too sure, and
    nobody knows which. Source: R. T. Birge, Phys. Rev. 40, 207 (1932).
    """
    mean, (gain_u2, meter_u2, pair_u2, *_) = belief.mean, state.prior_u2
    off = (
        (mean[GAIN] - log(model.capture_frac), gain_u2),
        (mean[METER], meter_u2),
        (mean[PAIR], pair_u2),
    )
    return max(1.0, 0.5 * sqrt(sum([miss * miss / u2 for miss, u2 in off if u2 > 0.0])))


def _sensor(span_s: float, lag_s: float) -> tuple[float, float]:
    """What a slow sensor keeps of its state after a span, and of it in the mean over the span."""
    if span_s <= 0.0:
        return 1.0, 0.0
    if lag_s <= 0.0:
        return 0.0, 0.0
    keep = exp(-span_s / lag_s)
    return keep, (1.0 - keep) * lag_s / span_s


def _take(
    belief: Belief,
    by: Partials,
    value: float,
    *,
    noise: float,
    opens: Sequence[int],
    held: tuple[int, ...],
) -> tuple[float, float]:
    """Take in a measured figure; returns its squared misfit and the variance expected of it."""
    miss = value - sum([weight * belief.mean[index] for index, weight in by.items()])
    spread = noise + loop_matrix.variance(belief, by)
    if miss * miss > _JUMP * spread:
        for one in opens:
            for other in opens:
                belief.cov[one][other] += miss * miss
    loop_matrix.observe(belief, by, miss=miss, noise=noise, held=held)
    return miss * miss, spread


def _learnt(factor: float, odd: tuple[float, float], wander: float) -> float:
    """The factor on a wander's variance, drawn towards what one misfit says."""
    # Means over a span show but two thirds of the variance of a walk's steps.
    expected = max(odd[1] - wander / 3.0, 1e-30)
    pull = _LEARN * (min(odd[0] / expected, 9.0) - 1.0)
    return min(_MOST_RESTLESS, max(_LEAST_RESTLESS, factor * exp(pull)))
