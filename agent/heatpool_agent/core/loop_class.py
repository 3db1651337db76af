"""The best class that the doubt of a fused heat allows, whatever it was made of.

A class says how its figure was come by, and what such figures are doubted by (physics.md 5.4).
Where sensors quarrel, or a device errs by a unit, the doubt of the fused heat may be many times
that: "90 kW, u 200 kW" is no class B. A class holds until the doubt is as large as what the next
one is usually doubted by; beyond that of a rating model nothing is better than class E.

The share is taken of the larger of the figure and of what the loop usually carries. An idle hour of
a loop made for 70 kW, 2 kW sure to 0.4 kW, is measured by the same sensors as well as ever; of the
2 kW alone it would be a rating model's guess, and of a heat that passes through nothing each class
in turn. What is usual is the mean of the clearest heat over a day: a reading that is off by a
factor is doubted by that factor more, and so is not what makes the others look clear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite
from typing import Any

from heatpool.sample import Estimate, QualityClass

# The most u, as a share, that a class allows. Source: physics.md 5.4, usual u of the next class.
MOST_U_FRAC = (
    (QualityClass.A, 0.05),
    (QualityClass.B, 0.08),
    (QualityClass.C, 0.15),
    (QualityClass.D, 0.40),
)
# Nights and weekends of a load come and go within days; a machine that is gone stays gone.
USUAL_S = 86_400.0
# One watt is below every meter's resolution.
LEAST_W = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What the loop usually carries, W: the mean over what was seen, a day at most."""

    level_w: float = 0.0
    seen_s: float = 0.0


def usual_after(
    usual: Usual, electric: Estimate | None, computed: Estimate | None, *, span_s: float
) -> Usual:
    """What the loop usually carries after a span of which one of its heats, or both, is known."""
    # One figure that is no number would spoil the mean for good.
    seen = [one for one in (electric, computed) if one is not None and isfinite(one.value)]
    if not seen or span_s <= 0:
        return usual
    clearest = min(seen, key=lambda one: one.u)
    seen_s = usual.seen_s + span_s
    # A plain mean of the first day, one that forgets from then on.
    share = max(span_s / seen_s, 1.0 - exp(-span_s / USUAL_S))
    level_w = usual.level_w + share * (abs(clearest.value) - usual.level_w)
    return Usual(level_w=level_w, seen_s=min(seen_s, USUAL_S))


def restored(saved: Mapping[str, Any]) -> Usual:
    """What a loop usually carried when it was saved.

    Raises:
        TypeError, ValueError: it is damaged.
    """
    usual = Usual(**saved)
    for value in (usual.level_w, usual.seen_s):
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"the usual heat of a loop must be a number from 0 up, not {value!r}")
    return usual


def best_class(value_w: float, value_w_u: float, usual: Usual) -> QualityClass:
    """The best class that the doubt of a heat allows."""
    size_w = max(abs(value_w), usual.level_w, LEAST_W)
    allowed = (quality for quality, most in MOST_U_FRAC if value_w_u <= most * size_w)
    return next(allowed, QualityClass.E)
