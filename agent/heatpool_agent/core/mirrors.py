"""Zones that show one thing twice: some CPUs of several dies count the whole package on each.

Equal steps over a while, with power above idle, make two channels one; equal zeros prove nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

# Agreement by chance: two busy packages differ by more than 1 % within seconds.
AGREE_FRAC = 0.01
AGREE_COUNT = 30
# Below this two idle packages can agree for hours.
IDLE_W = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """For how many samples in a row each pair of channels has agreed."""

    agreed: Mapping[tuple[str, str], int] = field(default_factory=dict)


def observe(state: Mirrors, power_w: Mapping[str, float]) -> Mirrors:
    """The state after one sample: mean power, W, of each package channel over the same span."""
    agreed = dict(state.agreed)
    for one, other in combinations(sorted(power_w), 2):
        low_w, high_w = sorted((power_w[one], power_w[other]))
        if high_w - low_w > AGREE_FRAC * high_w:
            agreed.pop((one, other), None)
        elif low_w > IDLE_W:
            agreed[one, other] = min(agreed.get((one, other), 0) + 1, AGREE_COUNT)
    return Mirrors(agreed=agreed)


def mirrored(state: Mirrors) -> frozenset[tuple[str, str]]:
    """Pairs of channels that show one thing: of each pair, the second must not be added."""
    return frozenset(pair for pair, count in state.agreed.items() if count >= AGREE_COUNT)
