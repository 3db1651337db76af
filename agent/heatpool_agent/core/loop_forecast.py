"""From the water that reaches the sensors now to the water that leaves the IT now.

The filter's clock is the sensors': late by the loop's delay. Power and flow of that delay are
known already; only the cold temperature has to be guessed.
"""

from dataclasses import dataclass, field
from math import exp

from heatpool_agent.core.loop_matrix import Belief, Partials, Row, variance
from heatpool_agent.core.loop_past import Past, pieces
from heatpool_agent.core.loop_physics import (
    COLD,
    DELAY,
    GAIN,
    HOT,
    LOSS,
    MASS,
    MEAN,
    METER,
    SHARE,
    STREAM,
    WARMTH,
)

# A delay below this is none: the span of a sample is longer.
_NO_DELAY_S = 0.5
# Noise of power is that of means over so long.
_POWER_SPAN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A heat rate, W, with its derivatives by state and the variance that no state explains."""

    value_w: float = 0.0
    partials: Partials = field(default_factory=dict)
    noise_w2: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wander:
    """How fast things change that nobody measures, variance per second; noise of one sample."""

    cold_k2_s: float
    stream_per_s: float
    warmth_w2_s: float
    stream_noise: float
    warmth_noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a loop loses its heat to: room temperature, and loss at LOSS = 1."""

    room_c: float = 25.0
    loss_w_k: float = 0.0


def shown_rate(mean: Row) -> Rate:
    """Mean heat rate of the span that the sensors show now, W."""
    conductance_w_k = exp(mean[STREAM])
    rate_w = conductance_w_k * (mean[MEAN] - mean[COLD])
    partials = {MEAN: conductance_w_k, COLD: -conductance_w_k, STREAM: rate_w}
    return Rate(value_w=rate_w, partials=partials)


def blended(one: Rate, other: Rate, share: float) -> Rate:
    """`share` of one rate and the rest of another, W."""
    rest = 1.0 - share
    partials = {index: share * value for index, value in one.partials.items()}
    for index, value in other.partials.items():
        partials[index] = partials.get(index, 0.0) + rest * value
    return Rate(
        value_w=share * one.value_w + rest * other.value_w,
        partials=partials,
        noise_w2=share * share * one.noise_w2 + rest * rest * other.noise_w2,
    )


@dataclass(slots=True, kw_only=True)
class _Way:
    """What happens to the loop from the sensors' clock to now, piece by piece."""

    hot_c: float
    # Smoothed flow against the filter's own, ln; share of the filter's that is left, and noise.
    shift: float = 0.0
    kept: float = 1.0
    noise: float = 0.0
    warmth_j: float = 0.0
    powered_s: float = 0.0
    all_j: float = 0.0
    last_j: float = 0.0


def present_rates(
    belief: Belief, past: tuple[Past, ...], wander: Wander, *, around: Surroundings, span_s: float
) -> tuple[Rate, Rate]:
    """Mean heat rate over the last `span_s` of the delay, and over all of the delay, W."""
    delay_s = belief.mean[DELAY]
    if delay_s < _NO_DELAY_S:
        now = shown_rate(belief.mean)
        return now, now
    last_s = min(span_s, delay_s) if span_s > 0.0 else delay_s
    way = _Way(hot_c=belief.mean[HOT])
    known = variance(belief, {STREAM: 1.0, METER: 1.0})
    level = belief.mean[STREAM] + belief.mean[METER]
    left_s = delay_s
    for length_s, (whole_s, power_w, stream_ln) in reversed(list(pieces(past, delay_s, 0.0))):
        way.noise += wander.stream_per_s * length_s
        if stream_ln is not None and length_s >= 0.5 * whole_s:
            known = _smooth(way, stream_ln - level, known, wander.stream_noise)
        left_s -= length_s
        _pass(way, belief.mean, power_w, around=around, length_s=length_s, last_s=last_s - left_s)
    last = _rate(belief.mean, way, wander, around=around, ahead_s=delay_s - 0.5 * last_s)
    whole = _rate(belief.mean, way, wander, around=around, ahead_s=0.5 * delay_s)
    return (
        Rate(value_w=way.last_j / last_s, partials=last.partials, noise_w2=last.noise_w2),
        Rate(value_w=way.all_j / delay_s, partials=whole.partials, noise_w2=whole.noise_w2),
    )


def _smooth(way: _Way, miss: float, known: float, noise: float) -> float:
    """Take in one flow that the filter has still to come to; returns its own variance left."""
    pull = (known + way.noise) / (known + way.noise + noise)
    rest = 1.0 - pull
    way.shift += pull * (miss - way.shift)
    way.noise = way.noise * rest * rest + pull * pull * noise
    way.kept *= rest
    return known * rest * rest


def _pass(
    way: _Way,
    mean: Row,
    power_w: float | None,
    *,
    around: Surroundings,
    length_s: float,
    last_s: float,
) -> None:
    """The loop over one piece; `last_s` at its end belong to the span asked for."""
    warmth_w = mean[WARMTH] if power_w is None else exp(mean[GAIN] + mean[SHARE]) * power_w
    way.powered_s += 0.0 if power_w is None else length_s
    way.warmth_j += warmth_w * length_s
    conductance_w_k, _, rate, settled_c = _balance(mean, way.shift, warmth_w, around)
    gap_k = way.hot_c - settled_c
    keep = exp(-rate * length_s)
    steady_w = conductance_w_k * (settled_c - mean[COLD])
    stored_j = conductance_w_k * gap_k / rate
    way.all_j += steady_w * length_s + stored_j * (1.0 - keep)
    late_s = min(length_s, max(0.0, last_s))
    way.last_j += steady_w * late_s + stored_j * (exp(-rate * (length_s - late_s)) - keep)
    way.hot_c = settled_c + gap_k * keep


def _balance(
    mean: Row, shift: float, warmth_w: float, around: Surroundings
) -> tuple[float, float, float, float]:
    """Conductance, the same with loss, rate and settled temperature of the loop."""
    conductance_w_k = exp(mean[STREAM] + shift)
    lost_w_k = mean[LOSS] * around.loss_w_k
    all_w_k = max(conductance_w_k + lost_w_k, 0.1 * conductance_w_k)
    settled_c = (warmth_w + conductance_w_k * mean[COLD] + lost_w_k * around.room_c) / all_w_k
    return conductance_w_k, all_w_k, all_w_k / exp(mean[MASS]), settled_c


def _rate(mean: Row, way: _Way, wander: Wander, *, around: Surroundings, ahead_s: float) -> Rate:
    """Derivatives and noise of the heat rate `ahead_s` from the sensors' clock.

    As if inputs were held over the way: the doubt of a doubt may be rough.
    """
    warmth_w = way.warmth_j / mean[DELAY]
    powered = way.powered_s / mean[DELAY]
    flow_w_k, all_w_k, rate, settled_c = _balance(mean, way.shift, warmth_w, around)
    gap_k = mean[HOT] - settled_c
    keep = exp(-rate * ahead_s)
    move = 1.0 - keep
    late_k = -rate * ahead_s * keep * gap_k
    heat_w = flow_w_k * (settled_c + gap_k * keep - mean[COLD])
    share = flow_w_k / all_w_k
    by_flow = heat_w + flow_w_k * share * (move * (mean[COLD] - settled_c) + late_k)
    by_loss = share * around.loss_w_k * (move * (around.room_c - settled_c) + late_k)
    noise_w2 = flow_w_k * flow_w_k * wander.cold_k2_s * (1.0 - keep * keep) / (2.0 * rate)
    noise_w2 += heat_w * heat_w * way.noise * keep
    quick = min(1.0, 0.5 * rate * _POWER_SPAN_S)
    noise_w2 += powered * warmth_w * warmth_w * wander.warmth_noise * quick * move
    noise_w2 += (1.0 - powered) * (share * move) ** 2 * wander.warmth_w2_s * ahead_s / 3.0
    partials = {
        HOT: flow_w_k * keep,
        COLD: flow_w_k * (move * share - 1.0),
        STREAM: way.kept * by_flow,
        METER: (way.kept - 1.0) * by_flow,
        GAIN: powered * share * move * warmth_w,
        SHARE: powered * share * move * warmth_w,
        WARMTH: (1.0 - powered) * share * move,
        MASS: -flow_w_k * late_k,
        LOSS: by_loss,
        DELAY: -flow_w_k * keep * rate * gap_k,
    }
    return Rate(value_w=heat_w, partials=partials, noise_w2=noise_w2)
