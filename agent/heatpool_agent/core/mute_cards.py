"""What cards draw that are known to be there and show no power: a wide guess, never nothing.

Left out, they would make a host of 1.7 kW one of 40 W that is sure to 40 %.
"""

from collections.abc import Sequence

from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading

# Source: our choice: between idle, a tenth, and what its driver lets it draw, anything is possible.
OF_RATED_FRAC, OF_RATED_FRAC_U = 0.55, 0.30
# Source: our choice: from one card that rests to four of 700 W.
UNRATED_W, UNRATED_W_U = 1_000.0, 1_000.0
_CARDS = (Node.GPU, Node.MODULE)
_SHOWS_POWER = frozenset({"power_w", "energy_j", "energy_wh", "is_suspended"})


def rated_w(readings: Sequence[Reading]) -> float:
    """What the cards without any power may draw at most, W; 0 where there are none such.

    Cards that show neither power nor rating are not known to be there.
    """
    cards = [r for r in readings if r.node in _CARDS and is_admitted(r)]
    speaking = {(r.sensor, r.channel) for r in cards if r.quantity in _SHOWS_POWER}
    ratings = {(r.sensor, r.channel): r.value for r in cards if r.quantity == "rated_w"}
    return sum(value for key, value in ratings.items() if key not in speaking)


def assumed_w(rated_w: float, *, are_silent: bool = False) -> tuple[float, float]:
    """Power of mute cards behind the supply, W, and its standard uncertainty.

    `are_silent`: cards showed power before, and do not any more. One load drives them all: their
    doubts add up.
    """
    if rated_w > 0:
        return OF_RATED_FRAC * rated_w, OF_RATED_FRAC_U * rated_w
    return (UNRATED_W, UNRATED_W_U) if are_silent else (0.0, 0.0)
