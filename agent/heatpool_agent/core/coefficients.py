"""What was learnt of a host or a loop, and the power that follows from it with honest doubt.

A record of one subject: which figures it needs (`basis`), its coefficients with covariance, the
residual, when it was learnt of what, and the range in which it was seen to hold.
Source: physics.md 8; agent.md 6 D.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot, inf, log, sqrt

from heatpool_agent.core.least_squares import Matrix, Vector, quadratic

COMPONENTS = "components"
LOAD = "load"
LOOP = "loop"
# Which of the three, in the order of their coefficients.
NAMES: Mapping[str, tuple[str, ...]] = {
    COMPONENTS: ("base_w", "cpu_frac", "gpu_frac", "fan_full_w"),
    LOAD: ("idle_w", "span_w"),
    LOOP: ("capture_frac", "loss_w_k"),
}
# The inputs of each, in the order of a lesson's.
INPUTS: Mapping[str, tuple[str, ...]] = {
    COMPONENTS: ("cpu_w", "gpu_w", "fan_cube_frac"),
    LOAD: ("busy_frac",),
    LOOP: ("electric_w", "excess_k"),
}
EXPIRES_S = 90 * 86_400.0
# Lessons below that many are an anecdote.
LEAST_COUNT = 4
# Of what lies beyond the range that was seen, so much is doubted.
BEYOND_U_FRAC = 0.3
# A load's curve misses by so much of its residual one scatter off the centre, growing as a square.
BEND_U = 0.2
LEAST_SCATTER = 0.05
# More W than any site: no lesson leaves such a figure.
MOST = 1e12
# Regulators, fans and supply make no watt into two, and no coolant takes more than all.
MOST_FRAC = 2.0
# A clock that has not been set yet is off by more; what was learnt after now is no knowledge.
EARLY_S = 86_400.0
# What 64 bits of ns since 1970 hold, in the year 2262.
LAST_NS = 2**63
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Coefficients of one host or loop, with all that is needed to judge them.

    `quality` is the class of the meter that taught them, 1 (A) to 5 (E). `lows` and `highs` are
    the inputs' range. `before_mape_frac` and `after_mape_frac` are the mean absolute errors
    without and with what was learnt, each lesson predicted before it was learnt. The cube of the
    fans' speed is relative to `fan_full_rpm`. `centre` and `scatter` are of the first input.
    """

    kind: str
    subject: str
    values: Vector
    covariance: Matrix
    residual_u_frac: float
    count: int
    learned_ns: int
    reference: str
    reference_u_frac: float
    quality: int
    lows: Vector
    highs: Vector
    basis: tuple[str, ...] = ()
    exponent: float = 1.0
    exponent_u: float = 0.0
    before_mape_frac: float | None = None
    after_mape_frac: float | None = None
    fan_full_rpm: float | None = None
    centre: float = 0.0
    scatter: float = 0.0

    @property
    def expires_ns(self) -> int:
        """When they are too old to be believed, ns UTC."""
        return self.learned_ns + round(EXPIRES_S * _NS)

    def is_valid(self, at_ns: int) -> bool:
        """Whether they may be used now: neither anecdote nor out of date, nor from the future."""
        begin_ns = self.learned_ns - round(EARLY_S * _NS)
        return self.count >= LEAST_COUNT and begin_ns <= at_ns < self.expires_ns


@dataclass(frozen=True, slots=True)
class Prediction:
    """What coefficients say, W; `is_inside` the range in which they were learnt."""

    value_w: float
    value_w_u: float
    is_inside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What is known of one host: by the components seen, and of its load."""

    components: Mapping[tuple[str, ...], Coefficients] = field(default_factory=dict)
    load: Coefficients | None = None


def row_of(kind: str, inputs: Sequence[float], exponent: float = 1.0) -> Vector:
    """What the coefficients are multiplied with."""
    if kind == COMPONENTS:
        return (1.0, *inputs)
    if kind == LOAD:
        return (1.0, max(0.0, inputs[0]) ** exponent)
    return (inputs[0], -inputs[1])


def predicted(known: Coefficients, inputs: Sequence[float]) -> Prediction:
    """The figure that follows from these inputs, W, with its standard uncertainty.

    The doubt holds residual, coefficients, the meter that taught them, and, outside the range
    that was seen, part of what lies beyond it.
    """
    row = row_of(known.kind, inputs, known.exponent)
    value_w = _times(row, known.values)
    near = [min(max(x, lo), hi) for x, lo, hi in zip(inputs, known.lows, known.highs, strict=True)]
    beyond_w = value_w - _times(row_of(known.kind, near, known.exponent), known.values)
    value_w_u = hypot(
        hypot(known.residual_u_frac, known.reference_u_frac) * value_w,
        sqrt(quadratic(known.covariance, row)),
        BEYOND_U_FRAC * beyond_w,
        _bend_w(known, inputs[0], row, value_w) if known.kind == LOAD else 0.0,
    )
    is_inside = all(
        lo - 1e-9 <= x <= hi + 1e-9
        for x, lo, hi in zip(inputs, known.lows, known.highs, strict=True)
    )
    return Prediction(value_w, value_w_u, is_inside)


def _bend_w(known: Coefficients, busy_frac: float, row: Vector, value_w: float) -> float:
    """Doubt of a load's curve, W: of its exponent, and far from where most lessons were.

    No host follows such a curve; it fits best where it was seen most.
    """
    off = (busy_frac - known.centre) / max(known.scatter, LEAST_SCATTER)
    far_w = min(BEND_U * known.residual_u_frac * off * off, BEYOND_U_FRAC) * value_w
    slope_w = known.values[1] * row[1] * log(busy_frac) if 0 < busy_frac < 1 else 0.0
    return hypot(slope_w * known.exponent_u, far_w)


def _times(row: Sequence[float], values: Sequence[float]) -> float:
    return sum(one * value for one, value in zip(row, values, strict=True))


def chosen(known: Iterable[Coefficients], at_ns: int) -> dict[str, Learned]:
    """What may be used now, by host: of the same thing the better meter's, then the newest."""
    best: dict[tuple[str, str, tuple[str, ...]], Coefficients] = {}
    for one in known:
        key = (one.subject, one.kind, one.basis)
        if one.kind != LOOP and one.is_valid(at_ns) and _rank(one) < _rank(best.get(key)):
            best[key] = one
    hosts = dict.fromkeys(subject for subject, _, _ in best)
    return {
        host: Learned(
            components={
                basis: one
                for (subject, kind, basis), one in best.items()
                if subject == host and kind == COMPONENTS
            },
            load=best.get((host, LOAD, INPUTS[LOAD])),
        )
        for host in hosts
    }


def _rank(known: Coefficients | None) -> tuple[int, int]:
    return (9, 0) if known is None else (known.quality, -known.learned_ns)


def mistakes(known: Coefficients) -> list[str]:
    """What is wrong with a record that came from a file; empty: nothing."""
    if known.kind not in NAMES:
        return [f"kind: is {known.kind!r}, must be one of {', '.join(NAMES)}"]
    size, inputs = len(NAMES[known.kind]), len(INPUTS[known.kind])
    found = []
    if len(known.values) != size:
        found.append(f"values: are {len(known.values)}, must be {size}: {NAMES[known.kind]}")
    if len(known.covariance) != size or any(len(line) != size for line in known.covariance):
        found.append(f"covariance: must have {size} lines of {size}")
    if not len(known.lows) == len(known.highs) == inputs:
        found.append(f"lows, highs: must be {inputs} each: {INPUTS[known.kind]}")
    found += _odd_figures(known)
    if not 1 <= known.quality <= 5:
        found.append(f"quality: is {known.quality}, must be 1 (A) to 5 (E)")
    if not 0 < known.exponent <= 4:
        found.append(f"exponent: is {known.exponent}, must be above 0 and at most 4")
    return found


def _odd_figures(known: Coefficients) -> list[str]:
    """Figures that no lessons leave: not finite, out of all proportion, or below 0."""
    # However badly a fit went, its doubt is a figure.
    doubts = {
        "residual_u_frac": known.residual_u_frac,
        "reference_u_frac": known.reference_u_frac,
        "exponent_u": known.exponent_u,
        "scatter": known.scatter,
    }
    found = [
        f"{name}: is {one}, must be 0 or more" for name, one in doubts.items() if not 0 <= one < inf
    ]
    for name, one in zip(NAMES[known.kind], known.values, strict=False):
        most = MOST_FRAC if name.endswith("_frac") else MOST
        if not 0 <= one <= most:
            found.append(f"{name}: is {one}, must be 0 to {most:g}")
    spread = {
        "covariance": (MOST * MOST, [one for line in known.covariance for one in line]),
        "lows, highs": (MOST, [*known.lows, *known.highs]),
        "centre": (MOST, [known.centre]),
    }
    found += [
        f"{name}: must be at most {most:g}"
        for name, (most, ones) in spread.items()
        if not all(abs(one) <= most for one in ones)
    ]
    if known.count < 0 or not 0 <= known.learned_ns < LAST_NS:
        found.append("count, learned_ns: must be 0 or more, and of a time that clocks show")
    if any(line[at] < 0 for at, line in enumerate(known.covariance) if at < len(line)):
        found.append("covariance: has a square below 0")
    return found
