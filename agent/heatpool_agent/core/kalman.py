"""The estimator of record: heat of one loop with its honest doubt, from whatever is measured.

An extended Kalman filter on the sensors' clock, which lags behind by the loop's delay; the heat
of now is foretold from there (`loop_forecast`). Source: physics.md 7.8.
"""

from dataclasses import dataclass, replace
from math import exp, log, sqrt

from heatpool_agent.core import loop_forecast, loop_matrix, loop_past, loop_start, loop_update
from heatpool_agent.core.loop_forecast import Rate
from heatpool_agent.core.loop_matrix import Belief, Total
from heatpool_agent.core.loop_physics import (
    COLD,
    DELAY,
    GAIN,
    LOSS,
    MEAN,
    METER,
    SHARE,
    STATES,
    STREAM,
    WARMTH,
)
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.loop_start import Seen
from heatpool_agent.core.loop_state import NEVER_S, State, restored, saved

__all__ = [
    "EnergyFigure",
    "Figure",
    "State",
    "advance",
    "begin",
    "capture",
    "energy",
    "heat",
    "phase",
    "restored",
    "saved",
    "with_energy",
    "without_energy",
]

_WH_J = 3600.0
# With neither power nor water seen for so long, nobody knows.
_BLIND_S = 900.0
# Water gone for longer: where it stands now is no news about the time between.
_STRANGE_S = 1800.0
_SETTLING_S = 1800.0
_RECENT_S = 60.0
# A span this many times the usual one is a gap, then a sample.
_GAP = 3.0
# Flow below this share of its own level is none; for so long with power on, the meter is dead.
_STILL_FRAC = 0.02
_STILL_S = 600.0
_STILL_U_FRAC = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A heat rate in W, or a share, and its standard uncertainty."""

    value: float
    value_u: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyFigure:
    """Heat since an accumulator's start, Wh, and its standard uncertainty."""

    heat_wh: float
    heat_wh_u: float


def begin(model: LoopModel) -> State:
    """A loop of which nothing was seen yet; fluid and side of `model` hold from here on.

    Raises: ValueError for an unknown fluid or sensor side.
    """
    loop_start.check(model)
    return State()


def advance(state: State, sample: LoopSample, model: LoopModel) -> State:
    """What is known of the loop once the sample was taken in; any span, anything absent.

    What is not finite or not possible counts as absent. A span far longer than those before is
    a gap and then a sample. Without power and water for 15 min the loop is blind, and energy
    stands still until one of them is back.
    """
    now = loop_start.seen(sample, model, state.coefficient_wh_m3_k)
    usual_s, span_s = state.period_s, now.span_s
    if span_s <= 0.0 and state.present is not None:
        # Seen twice at one time is no news.
        return state
    if span_s > 0.0:
        moved_s = usual_s + 0.3 * (span_s - usual_s) if usual_s > 0.0 else span_s
        state = replace(state, period_s=moved_s)
    if state.belief is not None and span_s > _GAP * usual_s > 0.0:
        gap = Seen(
            span_s=span_s - usual_s,
            room_c=now.room_c,
            coefficient_wh_m3_k=state.coefficient_wh_m3_k,
        )
        state = _advance(state, gap, model)
        now = replace(now, span_s=usual_s)
    return _advance(state, now, model)


def _advance(state: State, now: Seen, model: LoopModel) -> State:
    shown, (now, is_still) = now.stream_ln, _stillness(state, now)
    is_meter_dead = shown is not None and now.stream_ln is None
    state = replace(state, is_meter_dead=is_meter_dead)
    if _is_new(state, now) and not is_still and (now.has_water or now.power_w is not None):
        return _placed(state, now, model)
    state = _timed(state, now, is_still=is_still)
    if is_still:
        return _stood(state, now)
    if state.belief is None:
        return state
    if min(state.without_power_s, state.without_water_s) >= _BLIND_S:
        return _blinded(state, now)
    return _stepped(state, now, model)


def _stillness(state: State, now: Seen) -> tuple[Seen, bool]:
    """Whether the pump stands still; with power on for long, the flow meter is dead instead."""
    level_ln = None
    if state.belief is not None and not state.is_gauge:
        mean = state.belief.mean
        level_ln = mean[STREAM] + mean[METER] + log(_STILL_FRAC)
    is_still = now.stream_ln is not None and (
        now.is_still or (level_ln is not None and now.stream_ln < level_ln)
    )
    if is_still and now.power_w and (state.is_meter_dead or state.still_s >= _STILL_S):
        return replace(now, stream_ln=None), False
    return now, is_still


def _is_new(state: State, now: Seen) -> bool:
    """Whether the loop has to be placed anew: at first, after an absence, a stop, or a gauge."""
    if state.belief is None or state.present is None or state.still_s > 0.0:
        return True
    return now.has_water and (state.is_gauge or state.without_water_s >= _STRANGE_S)


def _timed(state: State, now: Seen, *, is_still: bool) -> State:
    has_power = now.power_w is not None
    still_s = state.still_s + max(now.span_s, 1e-3) if is_still else 0.0
    return replace(
        state,
        age_s=state.age_s + now.span_s,
        without_power_s=0.0 if has_power else state.without_power_s + now.span_s,
        without_water_s=0.0 if now.has_water else state.without_water_s + now.span_s,
        still_s=still_s,
        coefficient_wh_m3_k=now.coefficient_wh_m3_k,
        around=state.around if state.is_gauge else replace(state.around, room_c=now.room_c),
    )


def _settled(state: State) -> State:
    """Totals up to now: what is still under way to the sensors is counted as foretold."""
    if state.belief is None or state.present is None:
        return state
    belief, delay_s = state.belief.copied(), state.belief.mean[DELAY]
    for name, total in state.belief.totals.items():
        counted = _counted(belief, total, state.present[1], total.lag_s - total.wait_s)
        belief.totals[name] = replace(counted, lag_s=delay_s, wait_s=delay_s)
    return replace(state, belief=belief, present=None)


def _counted(belief: Belief, total: Total, rate: Rate, span_s: float) -> Total:
    """A total with a rate held over a span on top, at once."""
    lone = Belief(mean=belief.mean, cov=belief.cov, totals={"": replace(total, wait_s=0.0)})
    loop_matrix.integrate(lone, rate.partials, rate=rate.value_w, span_s=span_s)
    done = lone.totals[""]
    variance = done.variance + span_s * span_s * rate.noise_w2
    return replace(done, variance=variance, lag_s=total.lag_s, wait_s=total.wait_s)


def _placed(state: State, now: Seen, model: LoopModel) -> State:
    """The loop placed by a sample, which is compared once, over no time, and counted."""
    state = loop_start.started(_settled(state), now, model)
    if state.belief is None:
        return state
    state = _stepped(_timed(state, now, is_still=False), replace(now, span_s=0.0), model)
    assert state.belief is not None and state.present is not None
    belief = state.belief.copied()
    for name, total in belief.totals.items():
        belief.totals[name] = _counted(belief, total, state.present[0], now.span_s)
    return replace(state, belief=belief)


def _blinded(state: State, now: Seen) -> State:
    state = _settled(state)
    if state.belief is None:
        return state
    belief = state.belief.copied()
    loop_update.age(belief, state, now.span_s)
    return replace(state, belief=belief)


def _stood(state: State, now: Seen) -> State:
    """No flow, no heat; of its level a small share may pass the meter unseen."""
    level_w = 0.0
    if state.belief is not None:
        mean = state.belief.mean
        level_w = exp(mean[STREAM]) * abs(mean[MEAN] - mean[COLD])
    elif now.power_w is not None:
        level_w = now.power_w
    rate = Rate(noise_w2=(_STILL_U_FRAC * level_w) ** 2)
    if state.belief is not None:
        if state.still_s <= max(now.span_s, 1e-3):
            state = _settled(state)
        assert state.belief is not None
        belief = state.belief.copied()
        totals, belief.totals = belief.totals, {}
        loop_update.age(belief, state, now.span_s)
        for name, total in totals.items():
            variance = total.variance + now.span_s**2 * rate.noise_w2
            belief.totals[name] = replace(total, variance=variance, lag_s=0.0, wait_s=0.0)
        state = replace(state, belief=belief)
    return replace(state, present=(rate, rate))


def _stepped(state: State, now: Seen, model: LoopModel) -> State:
    assert state.belief is not None
    belief, span_s = state.belief.copied(), now.span_s
    wander = loop_update.wander_of(state, model)
    state = replace(
        state,
        belief=belief,
        past=loop_past.added(state.past, (span_s, now.power_w, now.stream_ln)),
    )
    if span_s > 0.0:
        loop_update.age(belief, state, span_s)
        loop_update.warm(belief, state, wander, span_s)
        loop_update.move(belief, state.around, span_s)
    # A gauge of convenience shows nothing that could be compared.
    if not state.is_gauge:
        is_both = now.has_water and now.power_w is not None
        state = replace(
            state,
            restless=loop_update.compare(state, now, wander, model),
            learnt_s=state.learnt_s + (span_s if is_both else 0.0),
        )
    loop_matrix.mend(belief)
    shown = loop_forecast.shown_rate(belief.mean)
    loop_matrix.integrate(belief, shown.partials, rate=shown.value_w, span_s=span_s)
    last, whole = loop_forecast.present_rates(
        belief, state.past, loop_update.wander_of(state, model), around=state.around, span_s=span_s
    )
    if span_s > belief.mean[DELAY]:
        last = loop_forecast.blended(last, shown, belief.mean[DELAY] / span_s)
    stretch = loop_update.stretch_of(belief, state, model)
    return replace(state, present=(last, whole), stretch=stretch)


def heat(state: State) -> Figure | None:
    """Mean heat rate into the coolant over the last span, W; None before the first and if blind."""
    if state.present is None:
        return None
    last = state.present[0]
    u2 = last.noise_w2
    if state.belief is not None:
        u2 += loop_matrix.variance(state.belief, last.partials)
    return Figure(value=last.value_w, value_u=state.stretch * sqrt(u2))


def with_energy(state: State, name: str) -> State:
    """The state with an accumulator of heat that starts now at 0."""
    if state.belief is None:
        waiting = (*(one for one in state.waiting if one != name), name)
        return replace(state, waiting=waiting)
    belief = state.belief.copied()
    lag_s = 0.0 if state.still_s > 0.0 else belief.mean[DELAY]
    belief.totals[name] = Total(row=[0.0] * STATES, lag_s=lag_s, wait_s=lag_s)
    return replace(state, belief=belief)


def without_energy(state: State, name: str) -> State:
    """The state without that accumulator."""
    waiting = tuple(one for one in state.waiting if one != name)
    if state.belief is None or name not in state.belief.totals:
        return replace(state, waiting=waiting)
    belief = state.belief.copied()
    del belief.totals[name]
    return replace(state, belief=belief, waiting=waiting)


def energy(state: State, name: str) -> EnergyFigure | None:
    """Heat into the coolant since the accumulator began, Wh; None if there is none, or no sample.

    Spans share their constants' errors: the doubt of a sum is not the root of summed squares.
    """
    if state.belief is None or name not in state.belief.totals:
        return None
    total = state.belief.totals[name]
    ahead_s = total.lag_s - total.wait_s
    heat_j, u2 = total.value, total.variance
    if state.present is not None and ahead_s > 0.0:
        rate = state.present[1]
        own_w2 = rate.noise_w2 + loop_matrix.variance(state.belief, rate.partials)
        u2 += ahead_s * (2.0 * loop_matrix.covariance(total, rate.partials) + ahead_s * own_w2)
        heat_j += ahead_s * rate.value_w
    heat_j_u = state.stretch * sqrt(max(0.0, u2))
    return EnergyFigure(heat_wh=heat_j / _WH_J, heat_wh_u=heat_j_u / _WH_J)


def capture(state: State) -> Figure | None:
    """Share of the measured electric power that leaves with the coolant; None if not known."""
    if state.belief is None or state.without_power_s >= NEVER_S:
        return None
    mean = state.belief.mean
    gain = exp(mean[GAIN] + mean[SHARE])
    above_w = state.around.loss_w_k * (mean[MEAN] - state.around.room_c)
    # At a load that hardly warms the loop the share of the loss says nothing.
    lost = above_w / mean[WARMTH] if mean[WARMTH] > 0.01 * abs(above_w) else 0.0
    value = gain * (1.0 - mean[LOSS] * lost)
    if value <= 0.0:
        # What the loop loses is not known at all then.
        return None
    u2 = loop_matrix.variance(state.belief, {GAIN: value, SHARE: value, LOSS: -gain * lost})
    return Figure(value=value, value_u=state.stretch * sqrt(u2))


def phase(state: State) -> str:
    """One word for what the figure rests on."""
    if state.belief is None:
        return "starting"
    if state.present is None:
        return "blind"
    recent_s = max(_RECENT_S, 2.0 * state.period_s)
    has_power = state.without_power_s <= recent_s
    has_water = state.without_water_s <= recent_s or state.still_s > 0.0
    if has_power and has_water:
        return "settling" if state.age_s < _SETTLING_S else "tracking"
    if has_power or has_water:
        return "electric" if has_power else "calorimetric"
    return "blind"
