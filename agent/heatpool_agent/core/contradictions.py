"""Levels of one host that cannot all be right, and which of them is believed less.

A level that shows less than what lies inside it, or a thousand times as much, is left out once
that has lasted. Source: agent.md 5.4, 6 A.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from heatpool.sample import Estimate
from heatpool.units import NS_PER_S
from heatpool_agent.core import plausible
from heatpool_agent.core.attribution import COMPONENTS as COMPONENTS
from heatpool_agent.core.attribution import INPUTS, PSU_OUT_U_FRAC, Part, covered_parts, input_power
from heatpool_agent.core.levels import Levels
from heatpool_agent.core.reading import Node

# Longer than a management controller keeps one figure, and than any load's transient in it.
LASTS_S = 120.0
# Two levels are read at different instants and resolve 1 W.
SLACK_W = 5.0
SLACK_U = 2.0
# Counters see 17 to 55 % of a server: a thousand times as much is another unit.
FAR_FACTORS = (500.0, 2000.0)
FAR_LEAST_W = 10.0

HOSTS = "hosts"
# Sensors of shared meters name no host, and neither do those of this machine.
ALL = ""
# Meters that cover every host of a loop, unless they name one.
SHARED = (Node.SITE_METER, Node.PDU)

_PLACE = {node.value: place for place, node in enumerate((*INPUTS, Node.PSU_OUT))}
_PLACE |= {COMPONENTS: len(_PLACE), HOSTS: len(_PLACE) + 1}

# A pair of levels by host, outer and inner.
Pair = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two levels that cannot both be right; `size_frac` is the inner's excess over the outer."""

    host: str
    outer: str
    inner: str
    size_frac: float


def level_of(node: Node) -> str:
    """The level that a node's power belongs to; components are one level."""
    return node.value if node.value in _PLACE else COMPONENTS


def contradictions(host: str, own: Levels) -> list[Contradiction]:
    """Pairs of levels of which the inner shows more, beyond both doubts, or next to nothing."""
    sums = _sums(own)
    return [
        _contradiction(host, outer, inner)
        for place, outer in enumerate(sums)
        for inner in sums[place + 1 :]
        if _clash(outer, inner)
    ]


def _contradiction(host: str, outer: Part, inner: Part) -> Contradiction:
    size_frac = (inner.power_w - outer.power_w) / max(outer.power_w, 1.0)
    return Contradiction(host=host, outer=outer.name, inner=inner.name, size_frac=size_frac)


def _clash(outer: Part, inner: Part) -> bool:
    doubt_w = SLACK_W + SLACK_U * hypot(outer.power_w_u, inner.power_w_u)
    low, high = FAR_FACTORS
    is_far = inner.power_w >= FAR_LEAST_W and low <= outer.power_w / inner.power_w <= high
    return is_far or inner.power_w - outer.power_w > doubt_w


def _sums(own: Levels) -> list[Part]:
    found = []
    for node in INPUTS:
        if own.get(node):
            whole = input_power(node, own[node])
            found.append(Part(node.value, whole.value, whole.u))
    if own.get(Node.PSU_OUT):
        out_w = sum(p.power_w for p in own[Node.PSU_OUT])
        found.append(Part(Node.PSU_OUT.value, out_w, PSU_OUT_U_FRAC * out_w))
    parts = covered_parts({**own, Node.PSYS: ()}) if found else ()
    if parts:
        total_w = sum(part.power_w for part in parts)
        found.append(Part(COMPONENTS, total_w, hypot(*(part.power_w_u for part in parts))))
    return found


def refused_levels(lasting: Iterable[Contradiction]) -> dict[tuple[str, str], str]:
    """Of each contradiction the level that more others speak against; of two alike the outer."""
    left = list(lasting)
    refused: dict[tuple[str, str], str] = {}
    while left:
        against: dict[tuple[str, str], int] = {}
        for clash in left:
            for name in (clash.outer, clash.inner):
                against[clash.host, name] = against.get((clash.host, name), 0) + 1
        # Counters of components count what is there: alone against one, the meter is wrong.
        worst = max(against, key=lambda key: (against[key], -_PLACE[key[1]]))
        inner = [c for c in left if (c.host, c.outer) == worst]
        refused[worst] = _mark(inner)
        left = [c for c in left if worst not in ((c.host, c.outer), (c.host, c.inner))]
    return refused


def _mark(inside: Sequence[Contradiction]) -> str:
    """What a refused level is charged with, by what lies inside it."""
    if not inside:
        return plausible.ABOVE_PARENTS
    is_far = all(clash.size_frac < 0 for clash in inside)
    return plausible.FAR_ABOVE_CHILDREN if is_far else plausible.BELOW_CHILDREN


def pair_of(clash: Contradiction) -> Pair:
    """What a contradiction is known by from look to look."""
    return clash.host, clash.outer, clash.inner


def lasting(
    found: Iterable[Contradiction], since_ns: Mapping[Pair, int], boot_ns: int
) -> list[Contradiction]:
    """Those that have stood for long; `since_ns` of boot time is when each began."""
    return [
        clash
        for clash in found
        if boot_ns - since_ns.get(pair_of(clash), boot_ns) >= LASTS_S * NS_PER_S
    ]


def above_hosts(shared: Levels, whole: Estimate | None) -> list[Contradiction]:
    """Meters of all hosts that show less than the hosts by their own sensors: a feed is missing.

    `whole` is what these show together, W.
    """
    if whole is None:
        return []
    inner = Part(HOSTS, whole.value, whole.u)
    outers = [
        Part(node.value, meter.value, meter.u)
        for node in SHARED
        if shared.get(node) and (meter := input_power(node, shared[node]))
    ]
    return [_contradiction(ALL, outer, inner) for outer in outers if _clash(outer, inner)]
