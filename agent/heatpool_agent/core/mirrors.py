"""Channels that show one thing twice: dies that each count the whole package, boards likewise.

Equal steps over a while, with power above idle, make two channels one; equal zeros prove nothing.
Packages differ within seconds. Two cards at the same work do not: they must agree more closely,
for longer, and while their load moves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

# Below this two idle channels can agree for hours.
IDLE_W = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How closely, for how many samples, and over how much movement two channels must agree."""

    agree_frac: float
    agree_count: int
    move_frac: float = 0.0


# Agreement by chance: two busy packages differ by more than 1 % within seconds.
PACKAGES = Rule(agree_frac=0.01, agree_count=30)
CARDS = Rule(agree_frac=0.001, agree_count=120, move_frac=0.2)


@dataclass(frozen=True, slots=True)
class Agreed:
    """For how many samples in a row two channels have agreed, and between which powers, W."""

    count: int
    low_w: float
    high_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrors:
    """Pairs of channels that agree, and those that have agreed for long enough."""

    agreed: Mapping[tuple[str, str], Agreed] = field(default_factory=dict)
    pairs: frozenset[tuple[str, str]] = frozenset()


def observe(state: Mirrors, power_w: Mapping[str, float], rule: Rule = PACKAGES) -> Mirrors:
    """The state after one sample: mean power, W, of each channel over the same span."""
    agreed = dict(state.agreed)
    for pair in combinations(sorted(power_w), 2):
        low_w, high_w = sorted((power_w[pair[0]], power_w[pair[1]]))
        if high_w - low_w > rule.agree_frac * high_w:
            agreed.pop(pair, None)
        elif low_w > IDLE_W:
            agreed[pair] = _more(agreed.get(pair), low_w, high_w)
    if not agreed and not state.agreed:
        return state
    return Mirrors(
        agreed=agreed, pairs=frozenset(pair for pair, one in agreed.items() if _proves(one, rule))
    )


def mirrored(state: Mirrors) -> frozenset[tuple[str, str]]:
    """Pairs of channels that show one thing: of each pair, the second must not be added."""
    return state.pairs


def _more(before: Agreed | None, low_w: float, high_w: float) -> Agreed:
    if before is None:
        return Agreed(1, low_w, high_w)
    return Agreed(before.count + 1, min(before.low_w, low_w), max(before.high_w, high_w))


def _proves(one: Agreed, rule: Rule) -> bool:
    is_moved = one.high_w - one.low_w >= rule.move_frac * one.high_w
    return one.count >= rule.agree_count and is_moved
