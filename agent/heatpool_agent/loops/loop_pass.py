"""What a loop is told: its settings once, and everything that was read at each tick."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from heatpool_agent.core.coefficients import Learned
from heatpool_agent.core.estimate import LoopPriors
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.reading import Reading
from heatpool_agent.core.totals import Step

Key = tuple[str, str]
# Longer than the longest period of ticks (`config.PERIOD_MOST_S`): nothing was seen meanwhile.
GAP_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What is known of a loop beforehand.

    Without coolant all its heat leaves with the air; without pipes no sensor can see any coolant.
    """

    loop_id: str
    fluid: str
    sensor_side: str
    priors: LoopPriors
    reported_u_frac: float
    rejection_capacity_w: float | None
    model: LoopModel = field(default_factory=LoopModel)
    has_coolant: bool = True
    has_pipes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """All that one tick gives to every loop; `is_due`: a row ends with it.

    `learned` is what is known of each host.
    """

    judged: Sequence[Reading]
    usable: Sequence[Reading]
    steps: Mapping[Key, Step]
    hosts: Mapping[str, str]
    mirrored: Collection[Key]
    boot_ns: int
    event_ns: int = 0
    is_due: bool = False
    learned: Mapping[str, Learned] = field(default_factory=dict)
