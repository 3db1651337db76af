"""Least squares that forget: normal equations of relative errors, solved against a prior.

Each lesson is a row divided by what was measured, so that every residual is a fraction of it.
Coefficients stay within their prior's mean +-3 u. The doubt counts what repeats: residuals that
follow each other are worth fewer than they are. Source: physics.md 8; JCGM 102 for the covariance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, sqrt

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]

# Coefficients may leave their prior by that many u. Source: physics.md 8.
BOUND_U = 3.0
# What a fit is assumed to miss before anything was seen, relative, and how many lessons that is.
RESIDUAL_U_FRAC = 0.05
RESIDUAL_COUNT = 4.0
# No meter and no host repeats itself better.
LEAST_RESIDUAL_U_FRAC = 0.003
# Residuals of one afternoon never follow each other more than that.
_MOST_CORRELATION = 0.98
# The weight of the lessons follows the residual; a tenth more or less of it moves nothing.
_ROUNDS = 4
_CLOSE_FRAC = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What coefficients are before anything was learnt: means, u, and none below `low`."""

    means: Vector
    means_u: Vector
    low: float = 0.0

    def bounds(self, at: int) -> tuple[float, float]:
        """The least and the most that a coefficient may be."""
        mean, u = self.means[at], self.means_u[at]
        return max(self.low, mean - BOUND_U * u), mean + BOUND_U * u


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """All that was learnt: how many lessons are still remembered, and sums of their products.

    `squares` and `pairs` are of the residuals, and of each with the one before.
    """

    count: float = 0.0
    row: Vector = ()
    products: Matrix = ()
    squares: float = 0.0
    pairs: float = 0.0
    last: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients with their covariance, the relative residual u, and how many lessons count."""

    values: Vector
    covariance: Matrix
    residual_u_frac: float
    count: float


def blank(size: int) -> Sums:
    """Nothing learnt of so many coefficients."""
    none = (0.0,) * size
    return Sums(row=none, products=(none,) * size)


def forgotten(sums: Sums, keep_frac: float) -> Sums:
    """The same with less of it remembered."""
    return replace(
        sums,
        count=keep_frac * sums.count,
        row=tuple(keep_frac * one for one in sums.row),
        products=tuple(tuple(keep_frac * one for one in row) for row in sums.products),
        squares=keep_frac * sums.squares,
        pairs=keep_frac * sums.pairs,
    )


def without(sums: Sums, recent: Sums) -> Sums:
    """What the sums remember beyond those of a shorter memory of the same lessons."""
    return replace(
        sums,
        count=max(0.0, sums.count - recent.count),
        row=tuple(a - b for a, b in zip(sums.row, recent.row, strict=True)),
        products=tuple(
            tuple(a - b for a, b in zip(one, other, strict=True))
            for one, other in zip(sums.products, recent.products, strict=True)
        ),
        squares=max(0.0, sums.squares - recent.squares),
        pairs=sums.pairs - recent.pairs,
    )


def learnt(sums: Sums, row: Sequence[float], measured: float, fit: Fit, *, age_frac: float) -> Sums:
    """The sums with one more lesson; `age_frac` is its span over the time in which one forgets.

    `row` times the coefficients should be `measured`, which is not 0; `fit` is what was known.
    """
    kept = forgotten(sums, exp(-age_frac)) if age_frac > 0 else sums
    z = [one / measured for one in row]
    most = 3.0 * fit.residual_u_frac
    # What the prior missed at the start says nothing of how residuals follow each other.
    missed = 1.0 - sum(one * value for one, value in zip(z, fit.values, strict=True))
    residual = min(max(missed, -most), most)
    return Sums(
        count=kept.count + 1.0,
        row=tuple(old + one for old, one in zip(kept.row, z, strict=True)),
        products=tuple(
            tuple(old + a * b for old, b in zip(line, z, strict=True))
            for line, a in zip(kept.products, z, strict=True)
        ),
        squares=kept.squares + residual * residual,
        pairs=kept.pairs + residual * kept.last,
        last=residual,
    )


def misfit(sums: Sums, values: Sequence[float]) -> float:
    """Sum of the squared relative residuals under these coefficients."""
    first = sum(v * r for v, r in zip(values, sums.row, strict=True))
    second = sum(
        a * b * one
        for a, line in zip(values, sums.products, strict=True)
        for b, one in zip(values, line, strict=True)
    )
    return max(0.0, sums.count - 2.0 * first + second)


def bias_frac(sums: Sums, values: Sequence[float]) -> float:
    """Mean relative residual under these coefficients; 0 without lessons."""
    told = sum(v * r for v, r in zip(values, sums.row, strict=True))
    return (sums.count - told) / sums.count if sums.count > 0 else 0.0


def effective_count(sums: Sums) -> float:
    """How many independent lessons the remembered ones are worth."""
    if sums.squares <= 0:
        return sums.count
    # Shrunk: few lessons do not tell how they follow each other.
    told = sums.pairs / (sums.squares * (1.0 + RESIDUAL_COUNT / sums.count))
    found = min(max(told, 0.0), _MOST_CORRELATION)
    return sums.count * (1.0 - found) / (1.0 + found)


def solved(sums: Sums, prior: Prior) -> Fit:
    """The most likely coefficients, their covariance, and the residual that is left.

    Few lessons leave both the prior's share and Student's: the doubt is honest from the first.
    """
    count = effective_count(sums)
    share = count / sums.count if sums.count > 0 else 0.0
    spare = RESIDUAL_COUNT + max(0.0, count - len(prior.means))
    square = RESIDUAL_U_FRAC**2
    values, inverse = prior.means, _diagonal([u * u for u in prior.means_u])
    for _ in range(_ROUNDS if sums.count > 0 else 0):
        try:
            values, inverse = _bounded(sums, prior, share / square)
        except ValueError:
            # Sums that no lessons of a real host can leave: what was assumed stands.
            break
        start = RESIDUAL_COUNT * RESIDUAL_U_FRAC**2
        before = square
        square = max((start + share * misfit(sums, values)) / spare, LEAST_RESIDUAL_U_FRAC**2)
        if abs(square - before) <= _CLOSE_FRAC * before:
            break
    # Student's: with few lessons the residual itself is not known well.
    return Fit(
        values=values,
        covariance=inverse,
        residual_u_frac=sqrt(square * spare / (spare - 2.0)),
        count=count,
    )


def quadratic(covariance: Matrix, row: Sequence[float]) -> float:
    """Variance of the row times the coefficients; never below 0."""
    return max(
        0.0,
        sum(
            a * b * one
            for a, line in zip(row, covariance, strict=True)
            for b, one in zip(row, line, strict=True)
        ),
    )


def _bounded(sums: Sums, prior: Prior, weight: float) -> tuple[Vector, Matrix]:
    """Coefficients within their bounds: one that would leave them stays at its bound."""
    size = len(prior.means)
    held: dict[int, float] = {}
    while True:
        free = [at for at in range(size) if at not in held]
        values, inverse = _free(sums, prior, weight, free, held)
        outside = {
            at: min(max(values[at], low), high)
            for at in free
            for low, high in (prior.bounds(at),)
            if not low <= values[at] <= high
        }
        if not outside:
            return values, inverse
        held |= outside


def _free(
    sums: Sums, prior: Prior, weight: float, free: Sequence[int], held: dict[int, float]
) -> tuple[Vector, Matrix]:
    size = len(prior.means)
    normal = [[weight * sums.products[a][b] for b in free] for a in free]
    right = []
    for place, at in enumerate(free):
        stiffness = 1.0 / prior.means_u[at] ** 2
        normal[place][place] += stiffness
        told = weight * (
            sums.row[at] - sum(sums.products[at][b] * value for b, value in held.items())
        )
        right.append(told + stiffness * prior.means[at])
    small = inverted(normal)
    found = dict(held)
    for place, at in enumerate(free):
        found[at] = sum(one * two for one, two in zip(small[place], right, strict=True))
    full = [[0.0] * size for _ in range(size)]
    for i, a in enumerate(free):
        for j, b in enumerate(free):
            full[a][b] = small[i][j]
    for at in held:
        # A bound says less than a lesson: the prior's doubt stays.
        full[at][at] = prior.means_u[at] ** 2
    return tuple(found[at] for at in range(size)), tuple(tuple(line) for line in full)


def inverted(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Inverse of a positive definite matrix, by Gauss and Jordan, in its own scale.

    Raises:
        ValueError: it has none.
    """
    size = len(matrix)
    scale = [sqrt(matrix[at][at]) if matrix[at][at] > 0 else 1.0 for at in range(size)]
    work = [
        [matrix[a][b] / (scale[a] * scale[b]) for b in range(size)]
        + [1.0 if a == b else 0.0 for b in range(size)]
        for a in range(size)
    ]
    for at in range(size):
        best = max(range(at, size), key=lambda line, at=at: abs(work[line][at]))  # type: ignore[misc]
        if not abs(work[best][at]) > 1e-14:
            raise ValueError("the lessons do not tell the coefficients apart")
        work[at], work[best] = work[best], work[at]
        top = work[at][at]
        work[at] = [one / top for one in work[at]]
        for line in range(size):
            if line != at and work[line][at] != 0.0:
                much = work[line][at]
                work[line] = [x - much * y for x, y in zip(work[line], work[at], strict=True)]
    return [[work[a][size + b] / (scale[a] * scale[b]) for b in range(size)] for a in range(size)]


def _diagonal(values: Sequence[float]) -> Matrix:
    return tuple(
        tuple(value if a == b else 0.0 for b in range(len(values)))
        for a, value in enumerate(values)
    )
