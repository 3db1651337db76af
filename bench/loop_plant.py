"""The true loop of physics.md 7.4 and its sensors, many runs at once; every nominal is hidden.

An independent witness: water is its own formula, the step is its own, and what a candidate may
know of a run leaves this room only by `Traces.sample` and `model_of`.
"""

from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatpool_agent.core.loop_sample import LoopModel, LoopSample

Array = NDArray[np.float64]

SAMPLE_S = 10
STEP_S = 1.0
SETTLE_S = 900

POWER_W = 100e3
WANDER_W, WANDER_S = 8e3, 600.0
OFFSETS_W = (-25e3, 0.0, 15e3)
CAPTURE_FRAC = 0.75
CONDUCTANCE_W_K = 75e3 / 8.0
TAU_S = 90.0
LOSS_W_K, LOSS_U_FRAC = 150.0, 0.5
ROOM_C = 25.0
COLD_C, COLD_U_K = 30.0, 3.0
COLD_WANDER_K, COLD_WANDER_S = 0.5, 1800.0
FLOW_U_FRAC = 0.2
FLOW_WANDER_FRAC, FLOW_WANDER_S = 0.02, 900.0
MASS_U_FRAC = 0.2
SENSOR_LAG_S = 8.0
_EVEN_FROM = 40
POWER_NOISE_FRAC, FLOW_NOISE_FRAC, TEMP_NOISE_K = 0.01, 0.015, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One of the cases of physics.md 7.4: how far constants wander from run to run."""

    name: str
    number: int
    jumps_per_h: float = 1.0
    delay_s: float = 20.0
    gain_u_frac: float = 0.025
    flow_u_frac: float = 0.012
    delta_k_u: float = 0.05
    mismatched: bool = False


CASES = {
    case.name: case
    for case in (
        Case(name="base", number=0),
        Case(name="smooth", number=1, jumps_per_h=0.0),
        Case(name="delay60", number=2, delay_s=60.0),
        Case(name="rapl", number=3, gain_u_frac=0.06),
        Case(name="poor", number=4, flow_u_frac=0.03, delta_k_u=0.15),
        Case(name="mismatch", number=5, mismatched=True),
    )
}
# Sizes of the biases where the filter's assumptions are wrong: relative, relative, K.
MISMATCH_GAIN_FRAC, MISMATCH_FLOW_FRAC, MISMATCH_DELTA_K = 0.02, 0.015, 0.08
MISMATCH_MASS, MISMATCH_LOSS = 1.15, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What was drawn for each run, shape (runs, 1); no candidate sees any of it."""

    volume_flow_m3_h: Array
    cold_c: Array
    heat_capacity_j_k: Array
    loss_w_k: Array
    gain_frac: Array
    flow_frac: Array
    delta_k: Array

    def of(self, share: slice) -> "Hidden":
        """The same of some of the runs."""
        return Hidden(**{field.name: getattr(self, field.name)[share] for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the water really carried: means over each span, shape (runs, samples)."""

    heat_w: Array
    power_w: Array
    loss_w: Array
    stored_j: Array
    hidden: Hidden

    def energy_wh(self) -> Array:
        """Energy since the start at the end of each span, Wh."""
        return np.cumsum(self.heat_w, axis=1) * (SAMPLE_S / 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What the sensors showed, shape (runs, samples), and the truth apart from it."""

    power_w: Array
    volume_flow_m3_h: Array
    hot_c: Array
    cold_c: Array
    truth: Truth

    def sample(self, run: int, index: int) -> LoopSample:
        """What a candidate gets to see of one span."""
        return LoopSample(
            span_s=float(SAMPLE_S) if index else 0.0,
            power_w=float(self.power_w[run, index]),
            volume_flow_m3_h=float(self.volume_flow_m3_h[run, index]),
            hot_c=float(self.hot_c[run, index]),
            cold_c=float(self.cold_c[run, index]),
        )


def model_of(case: Case, *, delay_s: float | None = None) -> LoopModel:
    """What the candidate is told: the widths of the case's biases, and nothing of its nominals.

    Time constant, loss, lag and delay stay the defaults of any loop; `delay_s` tells another delay.
    """
    told: dict[str, Any] = {} if delay_s is None else {"delay_s": delay_s}
    return LoopModel(
        capture_frac=CAPTURE_FRAC,
        gain_u_frac=case.gain_u_frac,
        power_noise_frac=POWER_NOISE_FRAC,
        flow_u_frac=case.flow_u_frac,
        flow_noise_frac=FLOW_NOISE_FRAC,
        delta_k_u=case.delta_k_u,
        temp_noise_k=TEMP_NOISE_K,
        **told,
    )


def water_density_kg_m3(temp_c: Any) -> Any:
    """Density of water, kg/m3, 0..150 degC.

    Source: C. O. Popiel and J. Wojtkowiak, Heat Transfer Engineering 19(3), 87 (1998).
    """
    rise = 0.068317355 * temp_c - 0.010740248 * temp_c**2
    return 999.79684 + rise + 0.00082140905 * temp_c**2.5 - 2.3030988e-5 * temp_c**3


def water_heat_capacity_j_kg_k(temp_c: Any) -> Any:
    """Heat capacity of water, J/(kg K), 0..150 degC. Source: as the density."""
    rise = -5.6181625 * temp_c + 1.2992528 * temp_c**1.5
    return 4217.4356 + rise - 0.11535353 * temp_c**2 + 4.14964e-3 * temp_c**2.5


def conductance_w_k(volume_flow_m3_h: Any, hot_c: Any, cold_c: Any) -> Any:
    """Heat per kelvin of a volume flow metered on the cold side, W/K."""
    middle_c = (hot_c + cold_c) / 2.0
    mass_kg_h = volume_flow_m3_h * water_density_kg_m3(cold_c)
    return mass_kg_h * water_heat_capacity_j_kg_k(middle_c) / 3600.0


def _even_normals(random: np.random.Generator, runs: int, kinds: int) -> list[Array]:
    """Normal numbers that fill their range evenly over the runs and are free of correlation.

    Biases last a whole run: plainly drawn, 300 of them would leave a coverage of 95 % uncertain by
    1.3 %. Latin hypercube, then the sample covariance is made one. Each run alone is as random as
    before.
    """
    strata = random.permuted(np.tile(np.arange(runs), (kinds, 1)), axis=1)
    shares = (strata + random.random((kinds, runs))) / runs
    normal = np.vectorize(NormalDist().inv_cdf)(shares)
    if runs >= _EVEN_FROM:
        normal -= normal.mean(axis=1, keepdims=True)
        normal = np.linalg.solve(np.linalg.cholesky(normal @ normal.T / runs), normal)
    return [row[:, None] for row in normal]


def draw_hidden(case: Case, random: np.random.Generator, runs: int) -> Hidden:
    """Every nominal and every bias of each run, drawn anew."""
    normal = _even_normals(random, runs, 7)
    middle_c = COLD_C + POWER_W * CAPTURE_FRAC / CONDUCTANCE_W_K
    flow_m3_h = CONDUCTANCE_W_K / conductance_w_k(1.0, middle_c, COLD_C)
    loss_w_k = LOSS_W_K * np.maximum(0.0, 1.0 + LOSS_U_FRAC * normal[3])
    heat_capacity_j_k = TAU_S * CONDUCTANCE_W_K * np.exp(MASS_U_FRAC * normal[2])
    biases = [case.gain_u_frac, case.flow_u_frac, case.delta_k_u]
    if case.mismatched:
        normal[4:] = [np.sign(value) for value in normal[4:]]
        biases = [MISMATCH_GAIN_FRAC, MISMATCH_FLOW_FRAC, MISMATCH_DELTA_K]
        loss_w_k = np.full((runs, 1), LOSS_W_K * MISMATCH_LOSS)
        heat_capacity_j_k = np.full((runs, 1), TAU_S * CONDUCTANCE_W_K * MISMATCH_MASS)
    return Hidden(
        volume_flow_m3_h=flow_m3_h * np.exp(FLOW_U_FRAC * normal[0]),
        cold_c=COLD_C + COLD_U_K * normal[1],
        heat_capacity_j_k=heat_capacity_j_k,
        loss_w_k=loss_w_k,
        gain_frac=biases[0] * normal[4],
        flow_frac=biases[1] * normal[5],
        delta_k=biases[2] * normal[6],
    )


def wander(
    random: np.random.Generator, shape: tuple[int, int], *, size: float, time_s: float
) -> Array:
    """An Ornstein-Uhlenbeck walk at STEP_S, in its long-run spread from the start."""
    keep = np.exp(-STEP_S / time_s)
    walk = random.standard_normal(shape) * size
    walk[:, 1:] *= np.sqrt(1.0 - keep**2)
    for step in range(1, shape[1]):
        walk[:, step] += keep * walk[:, step - 1]
    return walk


def jumps(random: np.random.Generator, shape: tuple[int, int], per_h: float) -> Array:
    """Offsets of power that hold until the next jump, W."""
    hits = random.random(shape) < per_h * STEP_S / 3600.0
    hits[:, 0] = per_h > 0
    choices = np.asarray(OFFSETS_W)[random.integers(0, len(OFFSETS_W), shape)]
    latest = np.maximum.accumulate(np.where(hits, np.arange(shape[1]), 0), axis=1)
    return np.take_along_axis(choices, latest, axis=1) * (per_h > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Water:
    """The loop at every second, shape (runs, seconds)."""

    power_w: Array
    volume_flow_m3_h: Array
    cold_c: Array
    hot_c: Array
    heat_w: Array
    loss_w: Array
    stored_j: Array


def _run_loop(case: Case, random: np.random.Generator, hidden: Hidden, seconds: int) -> _Water:
    shape = (len(hidden.cold_c), seconds)
    power_w = POWER_W + wander(random, shape, size=WANDER_W, time_s=WANDER_S)
    power_w += jumps(random, shape, case.jumps_per_h)
    cold_c = hidden.cold_c + wander(random, shape, size=COLD_WANDER_K, time_s=COLD_WANDER_S)
    sway = wander(random, shape, size=FLOW_WANDER_FRAC, time_s=FLOW_WANDER_S)
    flow_m3_h = hidden.volume_flow_m3_h * (1.0 + sway)
    mass, loss = hidden.heat_capacity_j_k[:, 0], hidden.loss_w_k[:, 0]
    conductance = conductance_w_k(flow_m3_h[:, 0], cold_c[:, 0] + 8.0, cold_c[:, 0])
    temp_c = cold_c[:, 0] + CAPTURE_FRAC * power_w[:, 0] / conductance
    mean_c, heat_w, stored_j = np.empty(shape), np.empty(shape), np.empty(shape)
    # Inputs are held over one second: the step and its mean are exact (physics.md 6.2).
    for step in range(seconds):
        conductance = conductance_w_k(flow_m3_h[:, step], temp_c, cold_c[:, step])
        rate = (conductance + loss) / mass
        drive = CAPTURE_FRAC * power_w[:, step] + conductance * cold_c[:, step] + loss * ROOM_C
        settled_c = drive / (conductance + loss)
        keep = np.exp(-rate * STEP_S)
        mean_c[:, step] = settled_c + (temp_c - settled_c) * (1.0 - keep) / (rate * STEP_S)
        before_c, temp_c = temp_c, settled_c + (temp_c - settled_c) * keep
        heat_w[:, step] = conductance * (mean_c[:, step] - cold_c[:, step])
        stored_j[:, step] = mass * (temp_c - before_c)
    return _Water(
        power_w=power_w,
        volume_flow_m3_h=flow_m3_h,
        cold_c=cold_c,
        hot_c=mean_c,
        heat_w=heat_w,
        loss_w=loss[:, None] * (mean_c - ROOM_C),
        stored_j=stored_j,
    )


def _sensed(temp_c: Array, delay_s: float) -> Array:
    """What a slow sensor far down the pipe shows, second by second."""
    steps = round(delay_s / STEP_S)
    late_c = np.concatenate([np.repeat(temp_c[:, :1], steps, axis=1), temp_c], axis=1)
    late_c = late_c[:, : temp_c.shape[1]]
    keep = np.exp(-STEP_S / SENSOR_LAG_S)
    shown_c = late_c.copy()
    for step in range(1, shown_c.shape[1]):
        shown_c[:, step] = late_c[:, step] + (shown_c[:, step - 1] - late_c[:, step]) * keep
    return shown_c


def _means(values: Array) -> Array:
    """Means over each span once the loop has settled."""
    kept = values[:, round(SETTLE_S / STEP_S) :]
    spans: Array = kept.reshape(len(kept), -1, round(SAMPLE_S / STEP_S)).mean(axis=2)
    return spans


def draw(case: Case, seed: int, *, runs: int, hours: float, share: slice | None = None) -> Traces:
    """What the sensors of `runs` loops showed over `hours`, and the truth behind it.

    One seed gives one set of runs; `share` gives some of them, with the biases that they have
    among all, and weather of their own.
    """
    hidden = draw_hidden(case, np.random.default_rng([seed, case.number]), runs)
    first = 0
    if share is not None:
        hidden, first = hidden.of(share), share.indices(runs)[0]
    runs = len(hidden.cold_c)
    random = np.random.default_rng([seed, case.number, 1 + first])
    samples = round(hours * 3600 / SAMPLE_S)
    seconds = round((SETTLE_S + samples * SAMPLE_S) / STEP_S)
    water = _run_loop(case, random, hidden, seconds)
    truth = Truth(
        heat_w=_means(water.heat_w),
        power_w=_means(water.power_w),
        loss_w=_means(water.loss_w),
        stored_j=_means(water.stored_j) * SAMPLE_S / STEP_S,
        hidden=hidden,
    )
    shape = (runs, samples)
    power_noise, flow_noise, hot_noise, cold_noise = (
        random.standard_normal(shape) for _ in range(4)
    )
    hot_c = _means(_sensed(water.hot_c, case.delay_s)) + TEMP_NOISE_K * hot_noise
    cold_c = _means(_sensed(water.cold_c, case.delay_s)) + TEMP_NOISE_K * cold_noise
    flow_m3_h = _means(water.volume_flow_m3_h) * (1.0 + hidden.flow_frac)
    return Traces(
        power_w=truth.power_w * (1.0 + hidden.gain_frac) * (1.0 + POWER_NOISE_FRAC * power_noise),
        volume_flow_m3_h=flow_m3_h * (1.0 + FLOW_NOISE_FRAC * flow_noise),
        hot_c=hot_c + hidden.delta_k / 2.0,
        cold_c=cold_c - hidden.delta_k / 2.0,
        truth=truth,
    )
