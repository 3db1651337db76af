"""Where the loop filter begins, or begins anew after an absence: no nominal values are needed."""

from dataclasses import dataclass, replace
from math import exp, isfinite, log

from heatpool.heat import heat_coefficient_kwh_m3_k
from heatpool_agent.core import loop_matrix, loop_past
from heatpool_agent.core.loop_forecast import Surroundings
from heatpool_agent.core.loop_matrix import Belief, Total
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
    SHARE,
    STATES,
    STREAM,
    WARMTH,
)
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.loop_state import State

_ROOM_C = 25.0
# A flow meter that shows nothing: small against any loop, and its logarithm exists.
_NO_FLOW_W_K = 1e-3
# A gauge stands at this temperature, with this difference at the first power seen.
_GAUGE_C, _GAUGE_K = 30.0, 10.0
# Half the difference between both sensor sides, uniform (loop_priors.toml: unknown_side).
_SIDE_U_FRAC = 0.003
# Load rarely moved further within the loop's time constant before anybody watched.
_RECENT_U_FRAC = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sample of which everything implausible was left out; flow as ln of conductance in W/K."""

    span_s: float
    power_w: float | None = None
    stream_ln: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    room_c: float = _ROOM_C
    coefficient_wh_m3_k: float

    @property
    def has_water(self) -> bool:
        """Whether the sample alone gives a computed heat."""
        return None not in (self.stream_ln, self.hot_c, self.cold_c) and not self.is_still

    @property
    def is_still(self) -> bool:
        """Whether the flow meter shows no flow at all."""
        return self.stream_ln is not None and self.stream_ln <= log(_NO_FLOW_W_K)


def check(model: LoopModel) -> None:
    """Raises: ValueError for an unknown fluid or sensor side."""
    _coefficient(_GAUGE_C + _GAUGE_K, _GAUGE_C, model)


def seen(sample: LoopSample, model: LoopModel, coefficient_wh_m3_k: float) -> Seen:
    """What of a sample can be used; what is not finite or not possible counts as absent."""
    hot_c, cold_c = _within(sample.hot_c, -20.0, 180.0), _within(sample.cold_c, -20.0, 180.0)
    if hot_c is not None and cold_c is not None:
        found = _coefficient(hot_c, cold_c, model)
        if isfinite(found):
            coefficient_wh_m3_k = found
        else:
            hot_c = cold_c = None
    flow_m3_h = _within(sample.volume_flow_m3_h, 0.0, 1e6)
    flow_w_k = None if flow_m3_h is None else max(coefficient_wh_m3_k * flow_m3_h, _NO_FLOW_W_K)
    room_c = _within(sample.ambient_c, -60.0, 80.0)
    return Seen(
        span_s=_within(sample.span_s, 0.0, 1e9) or 0.0,
        power_w=_within(sample.power_w, 0.0, 1e12),
        stream_ln=None if flow_w_k is None else log(flow_w_k),
        hot_c=hot_c,
        cold_c=cold_c,
        room_c=_ROOM_C if room_c is None else room_c,
        coefficient_wh_m3_k=coefficient_wh_m3_k,
    )


def _within(value: float | None, least: float, most: float) -> float | None:
    if value is None or not isfinite(value) or not least <= value <= most:
        return None
    return float(value)


def _coefficient(hot_c: float, cold_c: float, model: LoopModel) -> float:
    sides = ("hot", "cold") if model.sensor_side == "unknown" else (model.sensor_side,)
    found = [heat_coefficient_kwh_m3_k(hot_c, cold_c, side, model.fluid) for side in sides]
    return 1000.0 * sum(found) / len(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """The loop as the first sample shows it."""

    stream_ln: float
    cold_c: float
    hot_c: float
    warmth_w: float


def started(state: State, now: Seen, model: LoopModel) -> State:
    """The loop as one sample with water or power shows it; what was learnt of its constants stays.

    Without either, the state as it was.
    """
    if not now.has_water and now.power_w is None:
        return state
    place = _place(state, now, model)
    is_gauge = state.is_gauge and not now.has_water
    fresh = state.belief is None or (state.is_gauge and not is_gauge)
    belief = _new_belief(state, model) if state.belief is None else state.belief.copied()
    if fresh:
        room_c = place.cold_c if is_gauge else now.room_c
        state = _with_priors(state, belief, place, model=model, room_c=room_c)
    _put(
        belief, place, state.around, is_known=is_gauge or (not now.has_water and not state.is_gauge)
    )
    return replace(
        state,
        belief=belief,
        past=loop_past.added((), (max(now.span_s, 1.0), now.power_w, now.stream_ln)),
        coefficient_wh_m3_k=now.coefficient_wh_m3_k,
        is_gauge=is_gauge,
        age_s=0.0,
        still_s=0.0,
        waiting=(),
    )


def _place(state: State, now: Seen, model: LoopModel) -> _Place:
    old = None if state.belief is None else state.belief.mean
    gain_ln, meter_ln = (
        (log(model.capture_frac), 0.0) if old is None else (old[GAIN] + old[SHARE], old[METER])
    )
    warmth_w = None if now.power_w is None else exp(gain_ln) * now.power_w
    if now.has_water:
        assert now.stream_ln is not None and now.hot_c is not None and now.cold_c is not None
        stream_ln, cold_c, hot_c = now.stream_ln - meter_ln, now.cold_c, now.hot_c
        if warmth_w is None:
            warmth_w = exp(stream_ln) * (hot_c - cold_c)
        return _Place(stream_ln=stream_ln, cold_c=cold_c, hot_c=hot_c, warmth_w=warmth_w)
    assert warmth_w is not None
    if old is None:
        stream_ln, cold_c = log(max(warmth_w, 1.0) / _GAUGE_K), _GAUGE_C
    else:
        stream_ln, cold_c = old[STREAM], old[COLD]
    hot_c = cold_c + warmth_w * exp(-stream_ln)
    return _Place(stream_ln=stream_ln, cold_c=cold_c, hot_c=hot_c, warmth_w=warmth_w)


def _new_belief(state: State, model: LoopModel) -> Belief:
    mean = [0.0] * STATES
    mean[GAIN] = log(model.capture_frac)
    mean[DELAY] = model.delay_s
    totals = {
        name: Total(row=[0.0] * STATES, lag_s=model.delay_s, wait_s=model.delay_s)
        for name in state.waiting
    }
    return Belief(mean=mean, cov=[[0.0] * STATES for _ in range(STATES)], totals=totals)


def _with_priors(
    state: State, belief: Belief, place: _Place, *, model: LoopModel, room_c: float
) -> State:
    """Priors of what the place scales: mass and loss; of all constants where none was learnt."""
    above_k = max(abs(place.hot_c - room_c), 5.0)
    loss_scale = max(abs(place.hot_c - place.cold_c), 0.1) / above_k
    side_u = _SIDE_U_FRAC if model.sensor_side == "unknown" else 0.0
    floor_u = model.flow_u_m3_h * state.coefficient_wh_m3_k / exp(place.stream_ln)
    prior_u2 = (
        model.gain_u_frac**2,
        model.flow_u_frac**2 + min(floor_u, 1.0) ** 2 + side_u**2,
        model.delta_k_u**2,
        model.tau_ln_u**2,
        (model.loss_frac_u * loss_scale) ** 2,
        model.delay_s_u**2,
    )
    for index, u2 in zip(BIASES, prior_u2, strict=True):
        if state.belief is None or index in (MASS, LOSS):
            loop_matrix.forget(belief, index, u2)
    belief.mean[MASS] = place.stream_ln + log(model.tau_s)
    belief.mean[LOSS] = model.loss_frac * loss_scale
    around = Surroundings(room_c=room_c, loss_w_k=exp(place.stream_ln))
    return replace(state, prior_u2=prior_u2, around=around)


def _put(belief: Belief, place: _Place, around: Surroundings, *, is_known: bool) -> None:
    """Set what moves; `is_known`: flow and cold are as they are held to be, nothing was seen."""
    flow_w_k, lost_w_k = exp(place.stream_ln), belief.mean[LOSS] * around.loss_w_k
    drive_w = place.warmth_w + flow_w_k * place.cold_c + lost_w_k * around.room_c
    steady_c = drive_w / max(flow_w_k + lost_w_k, 0.1 * flow_w_k)
    recent_k = _RECENT_U_FRAC * abs(place.hot_c - place.cold_c)
    hot_k2 = recent_k**2 + (place.hot_c - steady_c) ** 2 + 0.01
    put = {
        HOT: (steady_c, recent_k**2 if is_known else hot_k2),
        WARMTH: (place.warmth_w, (_RECENT_U_FRAC * place.warmth_w) ** 2),
    }
    if not is_known or belief.mean[STREAM] != place.stream_ln or belief.mean[COLD] != place.cold_c:
        put[COLD] = (place.cold_c, 0.0 if is_known else 100.0)
        put[STREAM] = (place.stream_ln, 0.0 if is_known else 0.25)
    for index, (value, u2) in put.items():
        belief.mean[index] = value
        loop_matrix.forget(belief, index, u2)
    for index, source in ((MEAN, HOT), (HOT_SHOWN, HOT), (COLD_SHOWN, COLD)):
        belief.mean[index] = belief.mean[source]
        loop_matrix.carry(belief, {index: {source: 1.0}})
