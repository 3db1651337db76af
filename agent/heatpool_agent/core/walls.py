"""Packages that look mirrored, and a meter of their host that has room for all of them.

Two sockets at equal work agree as closely as two dies that each show the whole package. What one
of them leaves of the host's power tells them apart where nothing else large is unseen.
Source: agent.md 5.1.
"""

from collections.abc import Collection, Mapping, Sequence

from heatpool.units import NS_PER_S
from heatpool_agent.core.attribution import INPUTS, PSU_EFFICIENCY, covered_parts
from heatpool_agent.core.contradictions import LASTS_S
from heatpool_agent.core.levels import Levels, NodePower, levels
from heatpool_agent.core.reading import Node

# More of what comes out of the supply is seldom seen by no counter.
UNLIKELY_REST_FRAC = 0.6


def denied(
    powers: Sequence[NodePower],
    before_ns: Mapping[str, int],
    mirrored: Collection[tuple[str, str]],
    boot_ns: int,
) -> tuple[dict[str, int], Collection[tuple[str, str]]]:
    """Since when each host's wall speaks for two packages, and the pairs that are left as one.

    `before_ns` is what the last look gave, ns of boot time by host.
    """
    if not mirrored:
        return {}, mirrored
    two_ns: dict[str, int] = {}
    left = set(mirrored)
    for host in {p.host for p in powers if p.node is Node.PACKAGE}:
        own = [p for p in powers if p.host == host]
        names = {p.name for p in own if p.node is Node.PACKAGE}
        pairs = {pair for pair in mirrored if names.issuperset(pair)}
        since_ns = before_ns.get(host)
        is_lasting = since_ns is not None and boot_ns - since_ns >= LASTS_S * NS_PER_S
        verdict = _wall_denies(own, pairs) if pairs else False
        # Without a clear word of the wall what was proven stands.
        if verdict or (verdict is None and is_lasting):
            two_ns[host] = boot_ns if since_ns is None else since_ns
            left -= pairs if is_lasting else set()
    return two_ns, left


def _wall_denies(own: Sequence[NodePower], pairs: Collection[tuple[str, str]]) -> bool | None:
    """Whether one host's meter leaves too much beside one package, and not beside all; or None."""
    single, every = levels(own, mirrored=pairs), levels(own)
    behind_w = _behind_w(single)
    if behind_w is None:
        return None
    single_w, every_w = (sum(part.power_w for part in covered_parts(of)) for of in (single, every))
    if every_w > behind_w:
        return False
    # What leaves that much beside all of them has something else in it, as unseen cards.
    most_w = UNLIKELY_REST_FRAC * behind_w
    return True if behind_w - single_w > most_w >= behind_w - every_w else None


def _behind_w(own: Levels) -> float | None:
    """What comes out of a host's supplies by its own meters, W."""
    if own.get(Node.PSU_OUT):
        return sum(p.power_w for p in own[Node.PSU_OUT])
    for node in INPUTS:
        if own.get(node):
            return PSU_EFFICIENCY * sum(p.power_w for p in own[node])
    return None
