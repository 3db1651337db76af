"""Means, covariances and running totals of states that hang together, in plain floats.

Linear algebra of a Kalman filter for a handful of states; no physics here.
"""

from dataclasses import dataclass, field, replace

Row = list[float]
# What is counted is set right by later figures; where states are held, only for so long: of hours
# ago they tell nothing but what the model errs.
_FINAL_S = 3600.0
# Partial derivatives by the index of a state; absent is 0.
Partials = dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """An integral of a rate, with its variance and its covariance with each state.

    The filter's clock lags `lag_s` behind: so long passes before it counts, `wait_s` of it is left.
    """

    value: float = 0.0
    variance: float = 0.0
    row: Row
    lag_s: float
    wait_s: float
    age_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Belief:
    """What is held true of each state: mean, covariance (full and symmetric) and totals."""

    mean: Row
    cov: list[Row]
    totals: dict[str, Total] = field(default_factory=dict)

    def copied(self) -> "Belief":
        """The same belief, whose change leaves this one alone."""
        cov = [row[:] for row in self.cov]
        return Belief(mean=self.mean[:], cov=cov, totals=dict(self.totals))


def _dot(partials: Partials, row: Row) -> float:
    return sum([weight * row[index] for index, weight in partials.items()])


def _blend(partials: Partials, cov: list[Row]) -> Row:
    lean = [0.0] * len(cov)
    for index, weight in partials.items():
        lean = [old + weight * value for old, value in zip(lean, cov[index], strict=True)]
    return lean


def variance(belief: Belief, partials: Partials) -> float:
    """Variance of a function of the states with these partial derivatives."""
    return max(0.0, _dot(partials, _blend(partials, belief.cov)))


def covariance(total: Total, partials: Partials) -> float:
    """Covariance of a total with a function of the states."""
    return _dot(partials, total.row)


def observe(
    belief: Belief,
    partials: Partials,
    *,
    miss: float,
    noise: float,
    held: tuple[int, ...] = (),
) -> None:
    """Take in one measured figure that was off by `miss`, with `noise` its own variance.

    States that are `held` keep their mean and variance, and their doubt stays in all others.
    Source: S. F. Schmidt, Advances in Control Systems 3, 293 (1966).
    """
    kept = [(index, belief.mean[index], belief.cov[index]) for index in held]
    lean = _blend(partials, belief.cov)
    spread = noise + _dot(partials, lean)
    if not spread > 0.0:
        return
    weight, pull = 1.0 / spread, miss / spread
    belief.mean = [mean + part * pull for mean, part in zip(belief.mean, lean, strict=True)]
    # (a·b)·w and (b·a)·w are the same float: the matrix stays symmetric to the last bit.
    belief.cov = [
        [value - (part * other) * weight for value, other in zip(row, lean, strict=True)]
        for row, part in zip(belief.cov, lean, strict=True)
    ]
    for index, mean, row in kept:
        belief.mean[index] = mean
        for other in held:
            belief.cov[index][other] = row[other]
    for name, total in belief.totals.items():
        tie = _dot(partials, total.row)
        share = tie * weight
        row = [value - share * other for value, other in zip(total.row, lean, strict=True)]
        if held and total.age_s > _FINAL_S:
            for index in held:
                row[index] = total.row[index]
            belief.totals[name] = replace(total, row=row)
            continue
        belief.totals[name] = replace(
            total,
            value=total.value + tie * pull,
            variance=total.variance - share * tie,
            row=row,
        )


def carry(belief: Belief, changed: dict[int, Partials]) -> None:
    """Covariance after some states became functions of all of them; means are the caller's."""
    cov = belief.cov
    rows = {index: _blend(partials, cov) for index, partials in changed.items()}
    crossed = {
        (one, other): _dot(changed[other], rows[one])
        for one in changed
        for other in changed
        if one <= other
    }
    for index, row in rows.items():
        cov[index] = row
        for line, value in zip(cov, row, strict=True):
            line[index] = value
    for (one, other), value in crossed.items():
        cov[one][other] = cov[other][one] = value
    for name, total in belief.totals.items():
        row = total.row[:]
        for index, partials in changed.items():
            row[index] = _dot(partials, total.row)
        belief.totals[name] = replace(total, row=row)


def forget(belief: Belief, index: int, new_variance: float) -> None:
    """One state is known anew, apart from all others."""
    for row in belief.cov:
        row[index] = 0.0
    belief.cov[index] = [0.0] * len(belief.cov)
    belief.cov[index][index] = new_variance
    for name, total in belief.totals.items():
        row = total.row[:]
        row[index] = 0.0
        belief.totals[name] = replace(total, row=row)


def integrate(belief: Belief, partials: Partials, *, rate: float, span_s: float) -> None:
    """Add a rate held over a span to every total."""
    if not belief.totals:
        return
    lean = _blend(partials, belief.cov)
    own = max(0.0, _dot(partials, lean))
    for name, total in belief.totals.items():
        counted_s = max(0.0, span_s - total.wait_s)
        tie = _dot(partials, total.row)
        belief.totals[name] = Total(
            value=total.value + rate * counted_s,
            variance=total.variance + counted_s * (2.0 * tie + counted_s * own),
            row=[old + counted_s * new for old, new in zip(total.row, lean, strict=True)],
            lag_s=total.lag_s,
            wait_s=max(0.0, total.wait_s - span_s),
            age_s=total.age_s + span_s,
        )


def mend(belief: Belief) -> None:
    """Round-off never leaves a variance below 0, nor ties to a state of none."""
    for index, row in enumerate(belief.cov):
        if row[index] <= 0.0:
            forget(belief, index, 0.0)
