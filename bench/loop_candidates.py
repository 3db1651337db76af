"""The estimators that are measured side by side, each on the same readings of many loops."""

from collections.abc import Callable

import numpy as np
from loop_plant import Case, Traces, model_of
from loop_reference import reference
from loop_scores import Estimates, Span, summed

from heatpool.heat import heat_rate_w
from heatpool.uncertainty import fuse
from heatpool_agent.core import kalman
from heatpool_agent.core.complementary import ComplementaryState, complementary_step
from heatpool_agent.core.loop_sample import LoopModel

Candidate = Callable[[Traces, LoopModel, list[Span]], Estimates]

REFERENCE, STATIC, RECORD, UNTOLD = "reference", "inverse variance", "kalman", "kalman, not told"


def electric(traces: Traces, model: LoopModel, spans: list[Span]) -> Estimates:
    """The captured share of electric power, no dynamics."""
    heat_w = model.capture_frac * (1.0 - model.loss_frac) * traces.power_w
    u_frac = np.hypot(model.gain_u_frac, model.loss_frac_u)
    return summed(heat_w, u_frac * heat_w, spans, noise_w_u=model.power_noise_frac * heat_w)


def calorimetric(traces: Traces, model: LoopModel, spans: list[Span]) -> Estimates:
    """Flow and both temperatures as the sensors show them."""
    hot_c, cold_c = traces.hot_c, traces.cold_c
    heat_w = heat_rate_w(traces.volume_flow_m3_h, hot_c, cold_c, model.sensor_side, model.fluid)
    delta_k = hot_c - cold_c
    bias_u_frac = np.hypot(model.flow_u_frac, model.delta_k_u / delta_k)
    noise_frac = np.hypot(model.flow_noise_frac, np.sqrt(2.0) * model.temp_noise_k / delta_k)
    return summed(heat_w, bias_u_frac * heat_w, spans, noise_w_u=noise_frac * heat_w)


def static(traces: Traces, model: LoopModel, spans: list[Span]) -> Estimates:
    """Both by inverse variance of their biases, no dynamics (physics.md 7.1)."""
    parts = [electric(traces, model, []), calorimetric(traces, model, [])]
    bias_u_frac = np.hypot(model.flow_u_frac, model.delta_k_u / (traces.hot_c - traces.cold_c))
    biases_w = [
        np.hypot(model.gain_u_frac, model.loss_frac_u) * parts[0].heat_w,
        bias_u_frac * parts[1].heat_w,
    ]
    fused = fuse([part.heat_w for part in parts], biases_w)
    weights = [(fused.u / bias_w) ** 2 for bias_w in biases_w]
    noises_w = [
        np.sqrt(part.heat_w_u**2 - bias_w**2) for part, bias_w in zip(parts, biases_w, strict=True)
    ]
    noise_w = np.hypot(weights[0] * noises_w[0], weights[1] * noises_w[1])
    return summed(fused.value, fused.u, spans, noise_w_u=noise_w)


def complementary(traces: Traces, model: LoopModel, spans: list[Span]) -> Estimates:
    """The agent's fallback (physics.md 7.7)."""
    heat_w = np.full_like(traces.power_w, np.nan)
    heat_w_u = np.full_like(heat_w, np.nan)
    for run in range(len(heat_w)):
        state = ComplementaryState()
        for index in range(heat_w.shape[1]):
            rate, state = complementary_step(state, traces.sample(run, index), model)
            if rate is not None:
                heat_w[run, index], heat_w_u[run, index] = rate.value_w, rate.value_w_u
    # It has no accumulators: its energy is no better than its level (physics.md 7.4).
    electric_u_frac = np.hypot(model.gain_u_frac, model.loss_frac_u)
    pair_u_frac = model.delta_k_u / (traces.hot_c - traces.cold_c)
    weight = 1.0 / electric_u_frac**2 + 1.0 / (model.flow_u_frac**2 + pair_u_frac**2)
    level_w_u = np.minimum(heat_w / np.sqrt(weight), heat_w_u)
    noise_w = np.sqrt(heat_w_u**2 - level_w_u**2)
    return summed(heat_w, level_w_u, spans, noise_w_u=noise_w)


def record(traces: Traces, model: LoopModel, spans: list[Span]) -> Estimates:
    """The estimator of record, with its own accumulators for every span."""
    heat_w = np.full_like(traces.power_w, np.nan)
    heat_w_u = np.full_like(heat_w, np.nan)
    shape = {span.name: (len(heat_w), span.count) for span in spans}
    energy_wh = {name: np.full(size, np.nan) for name, size in shape.items()}
    energy_wh_u = {name: np.full(size, np.nan) for name, size in shape.items()}
    for run in range(len(heat_w)):
        state = kalman.begin(model)
        for index in range(heat_w.shape[1]):
            places = [(span, *span.place_in(run, index)) for span in spans]
            for span, number, place in places:
                if number >= 0 and place == 0:
                    state = kalman.with_energy(state, span.name)
            state = kalman.advance(state, traces.sample(run, index), model)
            figure = kalman.heat(state)
            if figure is not None:
                heat_w[run, index], heat_w_u[run, index] = figure.value, figure.value_u
            for span, number, place in places:
                if number >= 0 and place == span.length - 1:
                    energy = kalman.energy(state, span.name)
                    state = kalman.without_energy(state, span.name)
                    if energy is not None:
                        energy_wh[span.name][run, number] = energy.heat_wh
                        energy_wh_u[span.name][run, number] = energy.heat_wh_u
    return Estimates(heat_w=heat_w, heat_w_u=heat_w_u, energy_wh=energy_wh, energy_wh_u=energy_wh_u)


CANDIDATES: dict[str, Candidate] = {
    "electric": electric,
    "calorimetric": calorimetric,
    STATIC: static,
    "complementary": complementary,
    RECORD: record,
}


def names_of(case: Case, asked: list[str]) -> list[str]:
    """Who is measured in a case: an unusual delay is also kept from the estimator of record."""
    untold = [UNTOLD] if RECORD in asked and case.delay_s != LoopModel().delay_s else []
    return [REFERENCE, *(name for name in CANDIDATES if name in {*asked, STATIC}), *untold]


def estimates(name: str, case: Case, traces: Traces, spans: list[Span]) -> Estimates:
    """What one candidate says of every run."""
    if name == REFERENCE:
        return reference(case, traces, spans)
    if name == UNTOLD:
        return record(traces, model_of(case), spans)
    return CANDIDATES[name](traces, model_of(case, delay_s=case.delay_s), spans)
