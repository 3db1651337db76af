"""Site meters that read one thing: two meters on one cable, or one meter read over two ways.

Feeds A and B of dual-corded servers share their load equally and look just the same. Agreement
alone proves nothing, therefore: the servers' own meters must fit one reading and not the sum.
What lies behind the supplies proves nothing either: counters see 17 to 55 % of a server.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import hypot

from heatpool.sample import Estimate
from heatpool_agent.core.attribution import input_power
from heatpool_agent.core.levels import NOT_ADDED, TWIN, TWIN_SUSPECTED, NodePower, Source
from heatpool_agent.core.mirrors import IDLE_W
from heatpool_agent.core.reading import Node

# Samples that must agree, over so much movement: as long as mirrored packages, moved as cards.
AGREE_COUNT = 30
MOVE_FRAC = 0.2
# Meters are read at different instants: one step of the load undoes no more than ten samples.
MISS_COUNT = 10
MOST_COUNT = 2 * AGREE_COUNT
SETTLED_LOOKS = 10
FITS_U = 2.0
CONTRADICTS_U = 3.0
SLACK_W = 5.0

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """How long two sensors have agreed, between which powers, W, and what speaks for one thing.

    `proof` counts samples: above zero one reading fits what lies below, below zero the sum does.
    """

    count: int
    low_w: float
    high_w: float
    shown_w: tuple[float, float]
    proof: int = 0
    is_one: bool = False

    @property
    def is_alike(self) -> bool:
        """Whether they have agreed for long and while the power moved."""
        is_moved = self.high_w - self.low_w >= MOVE_FRAC * self.high_w
        return self.count >= AGREE_COUNT and is_moved

    @property
    def is_suspected(self) -> bool:
        """Whether they may be one thing; two feeds are not, once what lies below fits their sum."""
        return not self.is_one and (self.proof > 0 or (self.proof == 0 and self.is_alike))


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """What is known of each pair of sensors that agree, after so many looks."""

    pairs: Mapping[Pair, Likeness] = field(default_factory=dict)
    look_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Powers and known sources without those that repeat another; `repeats` are their sensors."""

    powers: Sequence[NodePower]
    known: Mapping[Source, int]
    repeats: frozenset[str] = frozenset()


def observe(
    state: Twins, powers: Sequence[NodePower], below: Callable[[str], Estimate | None]
) -> Twins:
    """The state after one look.

    `below` says what the servers' own meters show together, W: of one host, or of all for the
    empty name. It is asked only where meters agree.
    """
    # What is settled is looked at now and then: it costs as much as the whole tree.
    look_count = state.look_count + 1
    if look_count % SETTLED_LOOKS and state.pairs and all(map(_is_settled, state.pairs.values())):
        return Twins(pairs=state.pairs, look_count=look_count)
    meters = _meters(powers)
    if len(meters) < 2:
        return state
    pairs = dict(state.pairs)
    fresh = [
        pair
        for pair in combinations(sorted(meters), 2)
        if meters[pair[0]].host == meters[pair[1]].host and _compare(pairs, pair, meters)
    ]
    for group in _groups(fresh):
        sign = _evidence(group, meters, below)
        pairs |= {pair: _weighed(pairs[pair], sign) for pair in fresh if group.issuperset(pair)}
    return Twins(pairs=pairs, look_count=look_count)


def told(state: Twins, powers: Sequence[NodePower], known: Mapping[Source, int]) -> Told:
    """Of meters that are one thing the least doubtful that speaks; suspected ones are marked."""
    if not state.pairs:
        return Told(powers=powers, known=known)
    meters = _meters(powers)
    repeats: set[str] = set()
    for group in _groups(pair for pair, one in state.pairs.items() if one.is_one):
        speaking = group & meters.keys()
        if speaking:
            repeats |= group - {min(speaking, key=lambda name: _rank(meters[name]))}
    suspected = {
        sensor for pair, one in state.pairs.items() if one.is_suspected for sensor in pair
    } - repeats
    return Told(
        powers=[_marked(p, repeats, suspected) for p in powers],
        known={s: count for s, count in known.items() if not _is_repeat(s, repeats)},
        repeats=frozenset(repeats),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    sensor: str
    host: str
    value_w: float
    value_w_u: float
    has_u: bool


def _meters(powers: Iterable[NodePower]) -> dict[str, _Meter]:
    """All site meters' channels of each sensor together."""
    own: dict[str, list[NodePower]] = {}
    for power in powers:
        if power.node is Node.SITE_METER and NOT_ADDED.isdisjoint(power.flags):
            own.setdefault(power.sensor, []).append(power)
    return {sensor: _meter(sensor, channels) for sensor, channels in own.items()}


def _meter(sensor: str, channels: Sequence[NodePower]) -> _Meter:
    whole = input_power(Node.SITE_METER, channels)
    return _Meter(
        sensor=sensor,
        host=channels[0].host,
        value_w=whole.value,
        value_w_u=whole.u,
        has_u=all(p.power_w_u is not None for p in channels),
    )


def _compare(pairs: dict[Pair, Likeness], pair: Pair, meters: Mapping[str, _Meter]) -> bool:
    """Whether both have spoken anew; the pair is then counted."""
    one, other = meters[pair[0]], meters[pair[1]]
    shown_w = (one.value_w, other.value_w)
    before = pairs.get(pair)
    if before is not None and before.shown_w == shown_w:
        return False
    low_w, high_w = min(shown_w), max(shown_w)
    is_equal = high_w - low_w <= FITS_U * hypot(one.value_w_u, other.value_w_u)
    if is_equal and low_w > IDLE_W:
        pairs[pair] = _more(before, low_w, high_w, shown_w)
    elif not is_equal and before is not None:
        if before.count <= MISS_COUNT:
            del pairs[pair]
        else:
            pairs[pair] = replace(before, count=before.count - MISS_COUNT, shown_w=shown_w)
        return False
    return is_equal and low_w > IDLE_W


def _is_settled(one: Likeness) -> bool:
    return one.count >= MOST_COUNT and abs(one.proof) >= MOST_COUNT


def _more(
    before: Likeness | None, low_w: float, high_w: float, shown_w: tuple[float, float]
) -> Likeness:
    if before is None:
        return Likeness(count=1, low_w=low_w, high_w=high_w, shown_w=shown_w)
    return replace(
        before,
        count=min(before.count + 1, MOST_COUNT),
        low_w=min(before.low_w, low_w),
        high_w=max(before.high_w, high_w),
        shown_w=shown_w,
    )


def _groups(pairs: Iterable[Pair]) -> list[set[str]]:
    """Sensors that hang together by pairs."""
    groups: list[set[str]] = []
    for pair in pairs:
        touched = [group for group in groups if not group.isdisjoint(pair)]
        groups = [group for group in groups if group.isdisjoint(pair)]
        groups.append(set(pair).union(*touched))
    return groups


def _evidence(
    group: Collection[str], meters: Mapping[str, _Meter], below: Callable[[str], Estimate | None]
) -> int:
    """Above zero: the group is one thing; below zero: each measures something; zero: who knows."""
    host = meters[next(iter(group))].host
    inner = below(host)
    if inner is None:
        return 0
    own = [meter for meter in meters.values() if meter.host == host]
    one_w = min(meters[name].value_w for name in group)
    sum_w = sum(meter.value_w for meter in own)
    single_w = sum_w - sum(meters[name].value_w for name in group) + one_w
    sum_w_u = hypot(inner.u, sum(meter.value_w_u for meter in own))
    single_w_u = hypot(inner.u, sum_w_u * single_w / sum_w)
    if abs(single_w - inner.value) <= FITS_U * single_w_u + SLACK_W:
        return 1 if sum_w - inner.value > CONTRADICTS_U * sum_w_u else 0
    fits = abs(sum_w - inner.value) <= FITS_U * sum_w_u + SLACK_W
    return -1 if fits and inner.value > single_w else 0


def _weighed(one: Likeness, sign: int) -> Likeness:
    if sign == 0:
        return one
    step = 1 if sign > 0 else -MISS_COUNT
    proof = max(-MOST_COUNT, min(one.proof + step, MOST_COUNT))
    is_proven = proof >= AGREE_COUNT and one.is_alike
    return replace(one, proof=proof, is_one=is_proven or (one.is_one and proof > 0))


def _rank(meter: _Meter) -> tuple[bool, float, str]:
    return not meter.has_u, meter.value_w_u, meter.sensor


def _is_repeat(source: Source, repeats: Collection[str]) -> bool:
    return source[0] is Node.SITE_METER and source[1] in repeats


def _marked(
    power: NodePower, repeats: Collection[str], suspected: Collection[str]
) -> NodePower:  # fmt: skip
    if power.node is not Node.SITE_METER:
        return power
    if power.sensor in repeats:
        return replace(power, flags=(*power.flags, TWIN))
    if power.sensor in suspected:
        return replace(power, flags=(*power.flags, TWIN_SUSPECTED))
    return power
