"""Power at the wall out of one pass alone, which the agent's tree goes on from over time."""

from collections.abc import Collection, Mapping, Sequence

from heatpool.sample import Estimate
from heatpool_agent.core.attribution import cover
from heatpool_agent.core.levels import HostLoad, NodePower, Source, levels
from heatpool_agent.core.reading import Node


def electric_power(
    powers: Sequence[NodePower],
    *,
    load: HostLoad | None = None,
    mirrored: Collection[tuple[str, str]] = (),
    known: Mapping[Source, int] | None = None,
) -> Estimate | None:
    """Electric power of one host at the wall, W; None: no idea."""
    found = levels(powers, mirrored=mirrored, known=known)
    # What psys counts differs from board to board: it takes proof, and time (`tree`).
    found[Node.PSYS] = ()
    best = cover(found, load=load)
    return best.whole if best else None
