"""The Bayesian limit of a loop: an extended Kalman filter that knows the plant's structure.

States as physics.md 7.8, all runs at once: what the plant draws has here its true prior, and
every span that is judged has an energy state of its own. Its posterior is the limit; its own
errors say whether that posterior is honest.
"""

from dataclasses import dataclass

import numpy as np
from loop_plant import (
    CAPTURE_FRAC,
    COLD_WANDER_K,
    COLD_WANDER_S,
    CONDUCTANCE_W_K,
    FLOW_NOISE_FRAC,
    FLOW_WANDER_FRAC,
    FLOW_WANDER_S,
    LOSS_U_FRAC,
    LOSS_W_K,
    MASS_U_FRAC,
    OFFSETS_W,
    POWER_NOISE_FRAC,
    POWER_W,
    ROOM_C,
    SAMPLE_S,
    SENSOR_LAG_S,
    TAU_S,
    TEMP_NOISE_K,
    WANDER_S,
    WANDER_W,
    Array,
    Case,
    Traces,
    conductance_w_k,
)
from loop_scores import WH_PER_SPAN, Estimates, Span

# Logarithms of power P, conductance G, their means and the thermal mass; the loss relative.
P, T, COLD, G, GAIN, METER, PAIR, MEAN_G, MEAN_COLD, MASS, LOSS = range(11)
HOT_END, COLD_END, HOT_SHOWN, COLD_SHOWN, TAPS = 11, 12, 13, 14, 15
START_U, START_U_K = 0.3, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Where taps and energies lie: taps of hot are span means, newest first."""

    taps: int
    energies: int

    @property
    def hot(self) -> range:
        return range(TAPS, TAPS + self.taps)

    @property
    def cold(self) -> range:
        """Taps behind COLD, which is the newest itself."""
        return range(TAPS + self.taps, TAPS + 2 * self.taps - 1)

    @property
    def energy(self) -> range:
        return range(TAPS + 2 * self.taps - 1, self.size)

    @property
    def size(self) -> int:
        return TAPS + 2 * self.taps - 1 + self.energies


def _linear_step(shape: _Shape) -> Array:
    """What moves by itself over one span: walks, delays, sensors."""
    step = np.eye(shape.size)
    for state, mean, time_s in ((COLD, MEAN_COLD, COLD_WANDER_S), (G, MEAN_G, FLOW_WANDER_S)):
        keep = np.exp(-SAMPLE_S / time_s)
        step[state, state], step[state, mean] = keep, 1.0 - keep
    for newest, taps in ((None, shape.hot), (COLD, shape.cold)):
        for before, tap in zip([newest, *taps], taps, strict=False):
            step[tap] = 0.0
            # The newest hot tap is filled by the loop's own step.
            step[tap, tap if before is None else before] = 1.0
    keep = np.exp(-SAMPLE_S / SENSOR_LAG_S)
    shown = SENSOR_LAG_S / SAMPLE_S * (1.0 - keep)
    cold_last = shape.cold[-1] if len(shape.cold) else COLD
    ends = ((HOT_END, HOT_SHOWN, shape.hot[-1]), (COLD_END, COLD_SHOWN, cold_last))
    for end, mean, tap in ends:
        step[end] = step[mean] = 0.0
        step[end, end], step[end, tap] = keep, 1.0 - keep
        step[mean, end], step[mean, tap] = shown, 1.0 - shown
    return step


def _walk_noise(case: Case, size: int) -> Array:
    """Variance that each span adds to the walks; jumps as the variance they have on average."""
    noise = np.zeros(size)
    jump_w2 = 2.0 * np.var(OFFSETS_W) * case.jumps_per_h * SAMPLE_S / 3600.0
    noise[P] = (2.0 * WANDER_W**2 * SAMPLE_S / WANDER_S + jump_w2) / POWER_W**2
    noise[COLD] = COLD_WANDER_K**2 * (1.0 - np.exp(-2.0 * SAMPLE_S / COLD_WANDER_S))
    noise[G] = FLOW_WANDER_FRAC**2 * (1.0 - np.exp(-2.0 * SAMPLE_S / FLOW_WANDER_S))
    return noise


def _seen_log(traces: Traces) -> tuple[Array, Array]:
    """Logarithms of measured power and measured conductance, W and W/K."""
    conductance = conductance_w_k(traces.volume_flow_m3_h, traces.hot_c, traces.cold_c)
    return np.log(traces.power_w), np.log(conductance)


def _start(case: Case, traces: Traces, shape: _Shape) -> tuple[Array, Array]:
    """Means and covariance before the first sample: its readings, hardly trusted."""
    runs = len(traces.power_w)
    mean, cov = np.zeros((runs, shape.size)), np.zeros((shape.size, shape.size))
    seen_p, seen_g = _seen_log(traces)
    mean[:, P], mean[:, LOSS] = seen_p[:, 0], 1.0
    mean[:, [G, MEAN_G]] = seen_g[:, :1]
    hot, cold = [T, HOT_END, HOT_SHOWN, *shape.hot], [COLD, COLD_END, COLD_SHOWN, *shape.cold]
    mean[:, hot], mean[:, [*cold, MEAN_COLD]] = traces.hot_c[:, :1], traces.cold_c[:, :1]
    cov[np.ix_(hot, hot)] += START_U_K**2
    cov[np.ix_([*cold, MEAN_COLD], [*cold, MEAN_COLD])] += START_U_K**2
    cov[np.ix_([G, MEAN_G], [G, MEAN_G])] += START_U**2
    own = {P: START_U, G: FLOW_WANDER_FRAC, MASS: MASS_U_FRAC, LOSS: LOSS_U_FRAC}
    own |= {GAIN: case.gain_u_frac, METER: case.flow_u_frac, PAIR: case.delta_k_u}
    own |= dict.fromkeys([*hot, *cold], COLD_WANDER_K)
    for state, u in own.items():
        cov[state, state] += u**2
    return mean, np.repeat(cov[None], runs, axis=0)


def _loop_step(mean: Array, shape: _Shape) -> Array:
    """Moves the loop over one span, in place; gives the derivatives, (runs, size, size).

    Inputs are held over the span, the step is exact (physics.md 6.2).
    """
    power_w, conductance = CAPTURE_FRAC * np.exp(mean[:, P]), np.exp(mean[:, G])
    mass, loss = TAU_S * CONDUCTANCE_W_K * np.exp(mean[:, MASS]), LOSS_W_K * mean[:, LOSS]
    both = conductance + loss
    rate = both / mass
    settled_c = (power_w + conductance * mean[:, COLD] + loss * ROOM_C) / both
    keep = np.exp(-rate * SAMPLE_S)
    share = (1.0 - keep) / (rate * SAMPLE_S)
    apart_k = mean[:, T] - settled_c
    # By state: how the settled temperature and the rate answer.
    answers: dict[int, tuple[Array | float, Array | float]] = {
        P: (power_w / both, 0.0),
        COLD: (conductance / both, 0.0),
        G: (conductance * (mean[:, COLD] - settled_c) / both, conductance / mass),
        LOSS: (LOSS_W_K * (ROOM_C - settled_c) / both, LOSS_W_K / mass),
        MASS: (0.0, -rate),
    }
    step = np.repeat(np.eye(shape.size)[None], len(mean), axis=0)
    tap = shape.hot[0]
    step[:, tap] = 0.0
    step[:, T, T], step[:, tap, T] = keep, share
    for state, (settled, quicker) in answers.items():
        step[:, T, state] = (1.0 - keep) * settled - apart_k * SAMPLE_S * keep * quicker
        step[:, tap, state] = (1.0 - share) * settled + apart_k * (keep - share) / rate * quicker
    mean[:, T], mean[:, tap] = settled_c + apart_k * keep, settled_c + apart_k * share
    heat_w, slope = _heat(mean, shape)
    # Energy answers through the mean temperature of the span, the flow and the cold side.
    energy = slope[:, :, None] * step[:, [tap, G, COLD]]
    for state in shape.energy:
        mean[:, state] += heat_w * WH_PER_SPAN
        step[:, state] += energy.sum(axis=1) * WH_PER_SPAN
    return step


def _heat(mean: Array, shape: _Shape) -> tuple[Array, Array]:
    """Heat of this span, W, and its slopes by hot tap, G and COLD."""
    conductance = np.exp(mean[:, G])
    heat_w = conductance * (mean[:, shape.hot[0]] - mean[:, COLD])
    return heat_w, np.stack([conductance, heat_w, -conductance], axis=1)


def _update(mean: Array, cov: Array, seen: list[tuple[dict[int, float], Array, float]]) -> None:
    """Takes in readings one after another, in place."""
    for row, value, u in seen:
        states, weights = list(row), np.asarray(list(row.values()))
        towards = cov[:, :, states] @ weights
        expected = mean[:, states] @ weights
        spread = towards[:, states] @ weights + u**2
        gain = towards / spread[:, None]
        mean += gain * (value - expected)[:, None]
        cov -= gain[:, :, None] * towards[:, None, :]


def reference(case: Case, traces: Traces, spans: list[Span]) -> Estimates:
    """Heat and energies as well as they can be known from these readings, with their doubts."""
    shape = _Shape(taps=round(case.delay_s / SAMPLE_S), energies=len(spans))
    linear, noise = _linear_step(shape), np.diag(_walk_noise(case, shape.size))
    mean, cov = _start(case, traces, shape)
    seen_p, seen_g = _seen_log(traces)
    heat_w, heat_w_u = np.empty_like(seen_p), np.empty_like(seen_p)
    energy = {span.name: np.empty((len(mean), span.count)) for span in spans}
    energy_u = {span.name: np.empty((len(mean), span.count)) for span in spans}
    for index in range(seen_p.shape[1]):
        places = [span.place(index) for span in spans]
        for state, (_, place) in zip(shape.energy, places, strict=True):
            fresh = place == 0
            mean[fresh, state] = cov[fresh, state, :] = cov[fresh, :, state] = 0.0
        if index:
            mean = mean @ linear.T
            cov = linear @ cov @ linear.T + noise
            step = _loop_step(mean, shape)
            cov = step @ cov @ step.transpose(0, 2, 1)
        seen = [
            ({P: 1.0, GAIN: 1.0}, seen_p[:, index], POWER_NOISE_FRAC),
            ({G: 1.0, METER: 1.0}, seen_g[:, index], FLOW_NOISE_FRAC),
            ({HOT_SHOWN: 1.0, PAIR: 0.5}, traces.hot_c[:, index], TEMP_NOISE_K),
            ({COLD_SHOWN: 1.0, PAIR: -0.5}, traces.cold_c[:, index], TEMP_NOISE_K),
        ]
        _update(mean, cov, seen)
        heat_w[:, index], slope = _heat(mean, shape)
        parts = cov[:, [shape.hot[0], G, COLD]][:, :, [shape.hot[0], G, COLD]]
        heat_w_u[:, index] = np.sqrt(np.einsum("ri,rij,rj->r", slope, parts, slope))
        for span, state, (number, place) in zip(spans, shape.energy, places, strict=True):
            done = np.flatnonzero((place == span.length - 1) & (number >= 0))
            energy[span.name][done, number[done]] = mean[done, state]
            energy_u[span.name][done, number[done]] = np.sqrt(cov[done, state, state])
    return Estimates(heat_w=heat_w, heat_w_u=heat_w_u, energy_wh=energy, energy_wh_u=energy_u)
