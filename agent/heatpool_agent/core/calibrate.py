"""A host or a loop that is learnt from a better meter, while one is there.

Least squares with two memories: 14 days are the record, 4 h notice that the machine has changed.
A lesson counts only if the load moved by more than 10 % within the window; whether a fault is up
the caller knows. Source: physics.md 8; agent.md 6 D.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, hypot, isfinite, log, sqrt

from heatpool_agent.core import least_squares as squares
from heatpool_agent.core.coefficients import (
    COMPONENTS,
    EARLY_S,
    EXPIRES_S,
    LEAST_COUNT,
    LOAD,
    LOOP,
    Coefficients,
    row_of,
)
from heatpool_agent.core.least_squares import Fit, Prior, Sums, Vector

FAST_S = 4 * 3_600.0
SLOW_S = 14 * 86_400.0
MOVED_FRAC = 0.10
# The machine is another one when, over the last hours, the record misses it by more than that, and
# by more than its own residual, which the change has raised too. It must be older than these hours.
CHANGED_FRAC = 0.05
CHANGED_COUNT = 60.0
CHANGED_OLDER = 1.5
CHANGED_RESIDUALS = 1.2
# CPU and GPU watts at the wall: regulators, fans and supply on top of what the counters show.
SERVED_FRAC, SERVED_FRAC_U, CARDS_FRAC_U = 1.24, 0.20, 0.15
BASE_LEAST_W_U, BASE_U_FRAC = 40.0, 0.7
FANS_FULL_W, FANS_FULL_W_U = 20.0, 40.0
# Load alone: what a machine of that many CPUs draws differs from make to make by its own size.
IDLE_LEAST_W_U, SPAN_LEAST_W_U = 100.0, 200.0
EXPONENTS = (0.3, 0.45, 0.6, 0.75, 0.9, 1.0, 1.2, 1.45, 1.75)
EXPONENT, EXPONENT_U = 0.85, 1.0
# The true one lies between two of them.
EXPONENT_STEP_U = 0.045
# Beyond that it holds what no count of CPUs tells, such as cards: it is another size of machine.
SIZED_TIMES = 3.0
# Loss to the room at 20 K above it, relative to the power.
LOSS_FRAC, LOSS_FRAC_U, LOSS_AT_K = 0.02, 0.02, 20.0
# Less than any host draws, and more than any site.
LEAST_W, MOST_W = 0.1, 1e9
# Lessons of which the error with and without what was learnt is remembered.
JUDGED_COUNT = 5_000.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one span showed: means of the inputs, and what a better meter said, W.

    `prior_w` is what would have been said without it; `quality` the meter's class, 1 (A) to 5.
    """

    event_ns: int
    span_s: float
    inputs: Vector
    measured_w: float
    measured_u_frac: float
    reference: str
    quality: int
    prior_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Errors of lessons foretold, summed: without what was learnt, with it, and of how many."""

    count: float = 0.0
    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """One host or loop in the course of being learnt; a new one by `of_components` and its like.

    One pair of sums per exponent; only the load has more than one. `centre` and `scatter_square`
    are of the first input. `still` is the mean lesson of a time in which nothing moved: it counts
    once, when something does.
    """

    kind: str
    subject: str
    basis: tuple[str, ...]
    prior: Prior
    exponents: Vector
    slow: tuple[Sums, ...]
    fast: tuple[Sums, ...]
    judged: Judged = Judged()
    count: int = 0
    learned_ns: int = 0
    reference: str = ""
    reference_u_frac: float = 0.0
    quality: int = 0
    lows: Vector = ()
    highs: Vector = ()
    centre: float = 0.0
    scatter_square: float = 0.0
    window_ns: int = 0
    low_w: float = 0.0
    high_w: float = 0.0
    still: Lesson | None = None
    still_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """All that is known of hosts and loops: finished coefficients, and what still learns."""

    coefficients: tuple[Coefficients, ...] = ()
    learners: tuple[Learner, ...] = ()


def of_components(subject: str, basis: tuple[str, ...], base_w: float) -> Learner:
    """A host whose counters are seen: `wall = base + b1 cpu + b2 gpu + b3 n^3`.

    `base_w` is what is assumed behind the supply without any load.
    """
    base_w = max(0.0, base_w)
    prior = Prior(
        means=(base_w, SERVED_FRAC, SERVED_FRAC, FANS_FULL_W),
        means_u=(
            max(BASE_LEAST_W_U, BASE_U_FRAC * base_w),
            SERVED_FRAC_U,
            CARDS_FRAC_U,
            FANS_FULL_W_U,
        ),
    )
    return _new(COMPONENTS, subject, basis, prior, (1.0,))


def of_load(subject: str, idle_w: float, full_w: float) -> Learner:
    """A host of which only the load is seen: `wall = idle + span * busy^exponent`."""
    span_w = max(1.0, full_w - idle_w)
    prior = Prior(
        means=(idle_w, span_w),
        means_u=(max(IDLE_LEAST_W_U, idle_w), max(SPAN_LEAST_W_U, span_w)),
    )
    return _new(LOAD, subject, ("busy_frac",), prior, EXPONENTS)


def of_loop(subject: str, capture_frac: float, capture_frac_u: float, power_w: float) -> Learner:
    """A loop whose flow and temperatures are seen: `Q = capture * P - loss * (T - T_room)`.

    `power_w` is about what is drawn: the loss is assumed to grow with the size.
    """
    w_k = power_w / LOSS_AT_K
    prior = Prior(
        means=(capture_frac, LOSS_FRAC * w_k),
        means_u=(capture_frac_u, max(LOSS_FRAC_U * w_k, 1e-3)),
    )
    return _new(LOOP, subject, ("electric_w", "excess_k"), prior, (1.0,))


def observed(learner: Learner, lesson: Lesson) -> Learner:
    """The learner after one more span; what is no lesson, or from a worse meter, changes nothing.

    A better meter than before begins anew.
    """
    if _is_over(learner, lesson):
        learner = _anew(learner)
    if not _is_lesson(learner, lesson):
        return learner
    learner = _watched(learner, lesson)
    # A share shows at any one power; what it rests on beside, the loss, keeps its own doubt.
    if learner.kind != LOOP and not has_moved(learner):
        return _waited(learner, lesson)
    if learner.still is not None:
        still, learner = learner.still, replace(learner, still=None, still_count=0)
        learner = _learnt(learner, still)
    return _learnt(learner, lesson)


def coefficients(learner: Learner) -> Coefficients | None:
    """What the record says now; None before the first lesson."""
    if not learner.count:
        return None
    fits = _fits(learner.slow, learner.prior)
    weights = _weights(learner, fits)
    best = max(range(len(fits)), key=lambda at: weights[at])
    mean = sum(w * e for w, e in zip(weights, learner.exponents, strict=True))
    spread = sum(w * (e - mean) ** 2 for w, e in zip(weights, learner.exponents, strict=True))
    judged = learner.judged
    is_judged = judged.count > 0
    return Coefficients(
        kind=learner.kind,
        subject=learner.subject,
        values=fits[best].values,
        covariance=fits[best].covariance,
        residual_u_frac=fits[best].residual_u_frac,
        count=learner.count,
        learned_ns=learner.learned_ns,
        reference=learner.reference,
        reference_u_frac=learner.reference_u_frac,
        quality=learner.quality,
        lows=learner.lows,
        highs=learner.highs,
        basis=learner.basis,
        exponent=learner.exponents[best],
        exponent_u=hypot(sqrt(spread), EXPONENT_STEP_U) if len(fits) > 1 else 0.0,
        centre=learner.centre,
        scatter=sqrt(learner.scatter_square),
        before_mape_frac=judged.before / judged.count if is_judged else None,
        after_mape_frac=judged.after / judged.count if is_judged else None,
    )


def has_moved(learner: Learner) -> bool:
    """Whether the load has moved enough in the window to teach anything."""
    return learner.high_w - learner.low_w > MOVED_FRAC * learner.high_w


def _new(
    kind: str, subject: str, basis: tuple[str, ...], prior: Prior, exponents: Vector
) -> Learner:
    none = (squares.blank(len(prior.means)),) * len(exponents)
    return Learner(
        kind=kind,
        subject=subject,
        basis=basis,
        prior=prior,
        exponents=exponents,
        slow=none,
        fast=none,
    )


def _anew(learner: Learner) -> Learner:
    return _new(learner.kind, learner.subject, learner.basis, learner.prior, learner.exponents)


def _is_lesson(learner: Learner, lesson: Lesson) -> bool:
    told = (*lesson.inputs, lesson.measured_w, lesson.measured_u_frac, lesson.prior_w)
    is_whole = all(isfinite(one) and abs(one) <= MOST_W for one in told)
    is_whole = is_whole and lesson.measured_w >= LEAST_W and lesson.span_s > 0
    return is_whole and (not learner.quality or lesson.quality <= learner.quality)


def _is_over(learner: Learner, lesson: Lesson) -> bool:
    """Whether what was learnt is worth less than the lesson: from a worse meter, or out of date."""
    age_s = (lesson.event_ns - learner.learned_ns) / _NS
    is_old = learner.count > 0 and not -EARLY_S <= age_s <= EXPIRES_S
    return bool(learner.quality) and (lesson.quality < learner.quality or is_old)


def _watched(learner: Learner, lesson: Lesson) -> Learner:
    """The window in which the load must move: it begins anew after 4 h, or when time ran back."""
    age_s = (lesson.event_ns - learner.window_ns) / _NS
    if not learner.quality or not 0 <= age_s <= FAST_S:
        learner = replace(
            learner, window_ns=lesson.event_ns, low_w=lesson.prior_w, high_w=lesson.prior_w
        )
    return replace(
        learner,
        low_w=min(learner.low_w, lesson.prior_w),
        high_w=max(learner.high_w, lesson.prior_w),
        reference=lesson.reference,
        reference_u_frac=lesson.measured_u_frac,
        quality=lesson.quality,
    )


def _waited(learner: Learner, lesson: Lesson) -> Learner:
    """The mean of a time in which nothing moved."""
    if learner.still is None:
        return replace(learner, still=lesson, still_count=1)
    n = learner.still_count + 1

    def mean(old: float, new: float) -> float:
        return old + (new - old) / n

    still = replace(
        lesson,
        inputs=tuple(map(mean, learner.still.inputs, lesson.inputs)),
        measured_w=mean(learner.still.measured_w, lesson.measured_w),
        prior_w=mean(learner.still.prior_w, lesson.prior_w),
    )
    return replace(learner, still=still, still_count=n)


def _learnt(learner: Learner, lesson: Lesson) -> Learner:
    if learner.kind == LOAD and not learner.count:
        learner = replace(learner, prior=_sized(learner.prior, lesson))
    fits = _fits(learner.slow, learner.prior)
    learner = replace(learner, judged=_judged(learner, lesson, fits))
    rows = [row_of(learner.kind, lesson.inputs, one) for one in learner.exponents]

    def taught(sums: Sequence[Sums], memory_s: float) -> tuple[Sums, ...]:
        age_frac = lesson.span_s / memory_s
        return tuple(
            squares.learnt(one, row, lesson.measured_w, fit, age_frac=age_frac)
            for one, row, fit in zip(sums, rows, fits, strict=True)
        )

    lows, highs = learner.lows or lesson.inputs, learner.highs or lesson.inputs
    share = 1.0 / (learner.count + 1)
    off = lesson.inputs[0] - learner.centre
    learner = replace(
        learner,
        slow=taught(learner.slow, SLOW_S),
        fast=taught(learner.fast, FAST_S),
        count=learner.count + 1,
        learned_ns=lesson.event_ns,
        lows=tuple(map(min, lows, lesson.inputs)),
        highs=tuple(map(max, highs, lesson.inputs)),
        centre=learner.centre + share * off,
        scatter_square=(1.0 - share) * (learner.scatter_square + share * off * off),
    )
    return _unless_changed(learner, fits)


def _sized(prior: Prior, lesson: Lesson) -> Prior:
    """The assumed machine, as much larger as the first lesson shows where that is beyond belief."""
    row = row_of(LOAD, lesson.inputs, EXPONENT)
    told_w = sum(x * value for x, value in zip(row, prior.means, strict=True))
    times = lesson.measured_w / max(told_w, LEAST_W)
    if times <= SIZED_TIMES:
        return prior
    return Prior(
        means=tuple(times * value for value in prior.means),
        means_u=tuple(times * u for u in prior.means_u),
    )


def _judged(learner: Learner, lesson: Lesson, fits: Sequence[Fit]) -> Judged:
    if learner.count < LEAST_COUNT:
        return learner.judged
    weights = _weights(learner, fits)
    best = max(range(len(fits)), key=lambda at: weights[at])
    row = row_of(learner.kind, lesson.inputs, learner.exponents[best])
    told_w = sum(x * value for x, value in zip(row, fits[best].values, strict=True))
    old, keep = learner.judged, exp(-1.0 / JUDGED_COUNT)
    return Judged(
        count=keep * old.count + 1.0,
        before=keep * old.before + abs(lesson.prior_w / lesson.measured_w - 1.0),
        after=keep * old.after + abs(told_w / lesson.measured_w - 1.0),
    )


def _unless_changed(learner: Learner, fits: Sequence[Fit]) -> Learner:
    """Begins anew where the lessons of the last hours are of another machine than older ones."""
    weights = _weights(learner, fits)
    best = max(range(len(fits)), key=lambda at: weights[at])
    slow, fast = learner.slow[best], learner.fast[best]
    if fast.count < CHANGED_COUNT or slow.count < CHANGED_OLDER * fast.count:
        return learner
    older = squares.solved(squares.without(slow, fast), learner.prior)
    missed = abs(squares.bias_frac(fast, older.values))
    if missed <= max(CHANGED_FRAC, CHANGED_RESIDUALS * older.residual_u_frac):
        return learner
    return _anew(learner)


def _fits(sums: Sequence[Sums], prior: Prior) -> list[Fit]:
    return [squares.solved(one, prior) for one in sums]


def _weights(learner: Learner, fits: Sequence[Fit]) -> list[float]:
    """How likely each exponent is; they add up to 1."""
    if len(fits) == 1:
        return [1.0]
    # One count for all: a bad fit's residuals follow each other, and it must not gain by that.
    count = min(fits, key=lambda fit: fit.residual_u_frac).count + squares.RESIDUAL_COUNT
    scores = [
        -0.5 * ((exponent - EXPONENT) / EXPONENT_U) ** 2 - count * log(fit.residual_u_frac)
        for exponent, fit in zip(learner.exponents, fits, strict=True)
    ]
    top = max(scores)
    each = [exp(score - top) for score in scores]
    return [one / sum(each) for one in each]
