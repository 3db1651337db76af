"""What a loop's estimator leaves for the next life of the agent."""

from dataclasses import dataclass

from heatpool.units import NS_PER_S
from heatpool_agent.core.clock_steps import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedEstimator:
    """State of one part of a loop's estimator as JSON text, and when it stood so."""

    loop_id: str
    part: str
    at: Instant
    state: str


def stopped_s(saved: Instant, *, boot_id: str, boot_ns: int, event_ns: int) -> float:
    """How long the agent was away until now, s.

    Within one boot by the clock that nobody sets; over a boot by the wall clock, and 0 where that
    one was set back.
    """
    if boot_id and boot_id == saved.boot_id:
        return max(0, boot_ns - saved.boot_ns) / NS_PER_S
    return max(0, event_ns - saved.event_ns) / NS_PER_S
