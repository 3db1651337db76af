"""What a clean loop's residual is like: learnt from its own windows, and its doubt at any load.

The residual `(Q_cal - Q_el) / Q_el` of a sound loop is no constant: a pair of sensors that differ
adds a share that grows as 1/ΔT, a loss to the room one that grows as 1/Q, and what is assumed of
its thermal mass errs as the load and the cold pipe move. Five figures are learnt, each from its
prior, and the doubt of a window says how little is known of its load: an idle loop, never seen
before, is no alarm. Source: physics.md 9.
"""

from dataclasses import asdict, dataclass, field
from math import hypot, log, sqrt
from typing import Any

from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.loop_window import WINDOW_S, Means

TRAINED_S = 3 * 86_400.0
# Rooms and coolant get warmer and colder over the year: the level follows so slowly.
FOLLOW_S = 14 * 86_400.0
# Until its own windows tell: relative spread of one window, and how many windows that counts for.
NOISE_FRAC = 0.02
NOISE_COUNT = 36.0
LEAST_NOISE_FRAC = 0.008
# Before it the five figures are still being found.
NOISE_AFTER_S = 6 * 3600.0
# Residuals wander for hours: so many windows tell as much as one that is independent.
CORRELATED_COUNT = 10.0
# Below it the pair says nothing.
LEAST_DELTA_K = 0.3
# Resolution and noise of a mean of the pair.
DELTA_NOISE_K = 0.03
# Nothing is learnt of a window further off than this, in its own doubt.
CLIP_SIGMA = 4.0
# Rises beyond this are no rises but another load.
MOST_RISE = 0.5
# What thermal mass may still hide of a window of a load that moves, of all that it could.
MOVED_SHARE = 0.15
# Of the flow at a load: spread until learnt.
FLOW_SPREAD = 0.03

Vector = tuple[float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Residual:
    """One window's residual against what was expected, relative to electric heat.

    `excess` is what is unexpected, `u` its standard doubt with that of what was learnt,
    `spread` without it. `is_calm`: nothing moved that the loop's thermal mass could have hidden.
    """

    value: float
    excess: float
    u: float
    spread: float
    is_calm: bool
    x: Vector
    flow_excess_frac: float | None
    noise_ratio: float | None


@dataclass(slots=True)
class Mean:
    """A mean and a variance that settle as they are fed."""

    value: float = 0.0
    square: float = 0.0
    count: float = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.count += 1.0
        off = value - self.value
        self.value += off / self.count
        self.square += off * (value - self.value)

    @property
    def variance(self) -> float:
        """Variance of the values; 0 for fewer than two."""
        return self.square / (self.count - 1.0) if self.count > 1 else 0.0


@dataclass(slots=True)
class Baseline:
    """What was learnt of one loop; `mean` and `cov` belong to 1, 1/ΔT, Q_top/Q, and to
    the rises of Q and of the cold pipe over the window, relative."""

    prior_u: list[float]
    mean: list[float] = field(default_factory=lambda: [0.0] * 5)
    cov: list[list[float]] = field(default_factory=list)
    top_w: float = 0.0
    clean_s: float = 0.0
    squares: float = NOISE_FRAC * NOISE_FRAC * NOISE_COUNT
    count: float = NOISE_COUNT
    # Flow against load: mean and slope of ln V over ln(Q/Q_top), by their own sums.
    curve: list[float] = field(default_factory=lambda: [0.0] * 5)
    flow_left: Mean = field(default_factory=Mean)
    flow_noise: Mean = field(default_factory=Mean)
    sway: Mean = field(default_factory=Mean)
    delta: Mean = field(default_factory=Mean)
    disturbed: float = 0.0

    @property
    def is_trained(self) -> bool:
        """Whether three clean days were seen."""
        return self.clean_s >= TRAINED_S

    @property
    def share(self) -> float:
        """How much of the clean time needed was seen."""
        return min(1.0, self.clean_s / TRAINED_S)

    @property
    def noise(self) -> float:
        """Spread of one window, relative."""
        return max(LEAST_NOISE_FRAC, sqrt(self.squares / self.count))

    @property
    def flow_spread_frac(self) -> float:
        """Spread of the logarithm of flow about what its load lets expect."""
        if self.flow_left.count < 12:
            return FLOW_SPREAD
        return max(0.003, sqrt(self.flow_left.variance))

    def level(self) -> tuple[float, float]:
        """The residual at the loop's usual state, and the doubt of it that the priors allow."""
        inverse_k = 1.0 / max(self.delta.value, LEAST_DELTA_K)
        x = (1.0, inverse_k, 1.0, 0.0, 0.0)
        value = sum(m * xi for m, xi in zip(self.mean, x, strict=True))
        return value, hypot(*(u * xi for u, xi in zip(self.prior_u, x, strict=True)))

    def judged(self, means: Means, model: LoopModel) -> Residual | None:
        """The window's residual; None where it has none: no heat, no difference, no reading."""
        q_w, found_w, delta_k = means.electric_w, means.computed_w, means.delta_k
        if q_w is None or found_w is None or delta_k is None or q_w <= 0:
            return None
        if delta_k < LEAST_DELTA_K:
            return None
        self._rescale(q_w)
        pace = residual_pace(means)
        x = (
            1.0,
            1.0 / delta_k,
            min(self.top_w / q_w, 100.0),
            min(max(means.sway_w / q_w * pace, -MOST_RISE), MOST_RISE),
            min(max(means.cold_sway_k / delta_k * pace, -MOST_RISE), MOST_RISE),
        )
        value = (found_w - q_w) / q_w
        excess = value - sum(m * xi for m, xi in zip(self.mean, x, strict=True))
        moved = self._moved(means, q_w, model)
        spread = hypot(self.noise, moved, DELTA_NOISE_K / delta_k)
        doubt = self._variance(x)
        return Residual(
            value=value,
            excess=excess,
            u=sqrt(spread * spread + doubt),
            spread=spread,
            is_calm=moved < self.noise,
            x=x,
            flow_excess_frac=self._flow_excess(means, q_w),
            noise_ratio=self._noise_ratio(means),
        )

    def learn(self, means: Means, found: Residual) -> None:
        """Takes a clean window in; once trained, the level follows the seasons alone."""
        if self.is_trained:
            step = min(max(found.excess, -found.spread), found.spread)
            self.mean[0] += step * means.span_s / FOLLOW_S
            return
        assert means.electric_w is not None and means.delta_k is not None
        self.clean_s += means.span_s
        self.sway.add(min(abs(means.sway_w) / means.electric_w, 1.0))
        self._learn_flow(means, means.electric_w, found)
        if not found.is_calm:
            return
        self.delta.add(means.delta_k)
        limit = CLIP_SIGMA * found.u
        excess = min(max(found.excess, -limit), limit)
        doubt = self._variance(found.x)
        if self.clean_s >= NOISE_AFTER_S:
            self.squares += max(excess * excess - doubt, 0.0)
            self.count += 1.0
        self._turn(found.x, excess, CORRELATED_COUNT * found.spread * found.spread + doubt)

    def _rescale(self, q_w: float) -> None:
        """Keeps the third figure what it means when more heat than ever is seen."""
        if q_w <= self.top_w:
            return
        share = self.top_w / q_w if self.top_w else 1.0
        self.mean[2] *= share
        for i in range(5):
            self.cov[2][i] *= share
            self.cov[i][2] *= share
        self.cov[2][2] = max(self.cov[2][2], (self.prior_u[2] * (1.0 - share)) ** 2)
        # The slope of flow is against the same load.
        self.top_w = q_w

    def _variance(self, x: Vector) -> float:
        cov = self.cov
        rows = (sum(c * xi for c, xi in zip(row, x, strict=True)) for row in cov)
        return max(0.0, sum(xi * row for xi, row in zip(x, rows, strict=True)))

    def _turn(self, x: Vector, excess: float, variance: float) -> None:
        """One step of recursive least squares; `variance` is that of the innovation."""
        px = [sum(c * xi for c, xi in zip(row, x, strict=True)) for row in self.cov]
        for i in range(5):
            self.mean[i] += px[i] / variance * excess
        for i in range(5):
            for j in range(5):
                self.cov[i][j] -= px[i] * px[j] / variance

    def _moved(self, means: Means, q_w: float, model: LoopModel) -> float:
        """What thermal mass may hide of this window, relative, beyond what is usual."""
        tau_s = model.tau_s * (1.0 + model.tau_ln_u) + model.delay_s + model.sensor_lag_s
        share = min(1.0, tau_s / means.span_s)
        delta_k = max(means.delta_k or 0.0, LEAST_DELTA_K)
        now = abs(means.sway_w) / q_w + abs(means.cold_sway_k) / delta_k
        kept = self.disturbed * 0.5 ** (means.span_s / (2.0 * tau_s))
        self.disturbed = min(1.0, max(now, kept))
        usual = 2.0 * self.sway.value if self.sway.count > 12 else 0.10
        return MOVED_SHARE * share * sqrt(max(0.0, self.disturbed**2 - usual**2))

    def _flow_excess(self, means: Means, q_w: float) -> float | None:
        v_m3_h, (n, sx, sy, sxx, sxy) = means.volume_flow_m3_h, self.curve
        if v_m3_h is None or v_m3_h <= 0 or n < 12:
            return None
        x, y = log(q_w / 1e3), log(v_m3_h)
        # A load that never moved teaches no slope: the prior of the slope is 0 +- 1.
        var = sxx - sx * sx / n + 0.01 * n
        slope = (sxy - sx * sy / n) / var
        return y - (sy / n + slope * (x - sx / n))

    def _learn_flow(self, means: Means, q_w: float, found: Residual) -> None:
        v_m3_h = means.volume_flow_m3_h
        if v_m3_h is None or v_m3_h <= 0:
            return
        x, y = log(q_w / 1e3), log(v_m3_h)
        for i, part in enumerate((1.0, x, y, x * x, x * y)):
            self.curve[i] += part
        if found.flow_excess_frac is not None:
            self.flow_left.add(min(max(found.flow_excess_frac, -0.3), 0.3))
        if means.flow_variance_frac:
            self.flow_noise.add(log(means.flow_variance_frac))

    def _noise_ratio(self, means: Means) -> float | None:
        """Logarithm of the variance of flow over the usual one."""
        if not means.flow_variance_frac or self.flow_noise.count < 12:
            return None
        return log(means.flow_variance_frac) - self.flow_noise.value

    def saved(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def residual_pace(means: Means) -> float:
    """What a rise within this window counts over a window of five minutes."""
    return WINDOW_S / max(means.span_s, 1.0)


def begun(model: LoopModel) -> Baseline:
    """What is assumed of a loop of which no window was seen."""
    gain_u = hypot(model.gain_u_frac, model.flow_u_frac, model.loss_frac_u)
    # Thermal mass may be off by its own size, over a window.
    share = min(1.0, (model.tau_s * model.tau_ln_u + model.delay_s_u) / WINDOW_S)
    prior_u = [gain_u, model.delta_k_u, model.loss_frac_u, share, share]
    cov = [[prior_u[i] ** 2 if i == j else 0.0 for j in range(5)] for i in range(5)]
    return Baseline(prior_u=prior_u, cov=cov)


def restored(saved: dict[str, Any]) -> Baseline:
    """The baseline that was saved. Raises: KeyError, TypeError if it is damaged."""
    names = ("flow_left", "flow_noise", "sway", "delta")
    return Baseline(**{**saved, **{name: Mean(**saved[name]) for name in names}})
