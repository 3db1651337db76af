"""How much a lasting quarrel of electric and computed heat widens the doubt of the fused one.

The filter explains a difference of both by the biases of its sensors, each as far as its prior
allows, and its own doubt rightly does not grow with what it explains: as long as the priors hold
it is honest at any difference. Beyond three times the doubt of both no bias that the priors allow
explains it: a sensor is worse than assumed, and nobody knows which one. Only then, and only when
it lasts, the doubt grows by the Birge ratio. From twice the doubt on the class falls to C
(`crosscheck`), which happens to one honest site in twenty: measured on the clean bench, widening
from there on took 95.9 % inside the 95 % band to 97.3 %.

Heats that are further apart than any bias (swapped pipes, a slip of units) need not last: either is
as likely the wrong one, and the doubt is that of both, seen from the fused figure. Else the one of
small figures and thus small doubts would win: 5 kW, sure to 0.2 kW, of a loop that carries 70 kW.

Source: R. T. Birge, Phys. Rev. 40, 207 (1932); physics.md 3.6.
"""

from dataclasses import dataclass, replace
from math import exp, hypot, sqrt

from heatpool.sample import Estimate

# Longer than any loop's transient. Source: physics.md 3.6.
PERSISTS_S = 600.0
# One honest site in 370 is further out.
BEYOND_U = 3.0
# No bias that the priors allow is so far off.
APART_U = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarrel:
    """Difference of electric and computed heat in its own doubt, slowly followed; and for how long.

    `ratio` is signed, electric minus computed; None: never both there.
    """

    ratio: float | None = None
    lasts_s: float = 0.0


def quarrelled(
    quarrel: Quarrel,
    lagged_w: float | None,
    electric: Estimate | None,
    computed: Estimate | None,
    *,
    span_s: float,
) -> Quarrel:
    """The quarrel after a span in which both heats were seen, or not."""
    if lagged_w is None or electric is None or computed is None:
        return quarrel
    # One watt is below every meter's resolution.
    ratio = (lagged_w - computed.value) / max(hypot(electric.u, computed.u), 1.0)
    if quarrel.ratio is None:
        return Quarrel(ratio=ratio)
    kept = exp(-span_s / PERSISTS_S)
    ratio = ratio + kept * (quarrel.ratio - ratio)
    lasts_s = quarrel.lasts_s + span_s if abs(ratio) > BEYOND_U else 0.0
    return replace(quarrel, ratio=ratio, lasts_s=lasts_s)


def doubt_w(
    quarrel: Quarrel,
    value_w: float,
    value_w_u: float,
    lagged_w: float | None,
    electric: Estimate | None,
    computed: Estimate | None,
) -> float:
    """The doubt of a fused heat, W, with what a quarrel of the heats that it is made of adds."""
    wider_w = stretch(quarrel) * value_w_u
    if electric is None or computed is None:
        return wider_w
    lagged_w = electric.value if lagged_w is None else lagged_w
    two = ((lagged_w, electric.u), (computed.value, computed.u))
    both_w = sqrt(0.5 * sum([(one_w - value_w) ** 2 + u_w**2 for one_w, u_w in two]))
    is_apart = abs(lagged_w - computed.value) > APART_U * max(hypot(electric.u, computed.u), 1.0)
    return max(value_w_u, both_w if is_apart else min(wider_w, both_w))


def is_astray(
    value_w: float,
    value_w_u: float,
    lagged_w: float | None,
    electric: Estimate | None,
    computed: Estimate | None,
) -> bool:
    """Whether a fused heat lies beyond both heats that it is made of, and beyond their doubt.

    So it does where one of them was far off for minutes, and is right again. Power goes before the
    heat and the sensors behind it: between the two anything may be true.
    """
    if electric is None or computed is None:
        return False
    seen = [(electric.value, electric.u), (computed.value, computed.u)]
    if lagged_w is not None:
        seen.append((lagged_w, electric.u))
    (least_w, least_u), (most_w, most_u) = min(seen), max(seen)
    below_u = (least_w - value_w) / max(hypot(value_w_u, least_u), 1.0)
    above_u = (value_w - most_w) / max(hypot(value_w_u, most_u), 1.0)
    return max(below_u, above_u) > BEYOND_U


def stretch(quarrel: Quarrel) -> float:
    """By what the fused doubt is to be multiplied, at least 1."""
    if quarrel.ratio is None or quarrel.lasts_s < PERSISTS_S:
        return 1.0
    return max(1.0, abs(quarrel.ratio))
