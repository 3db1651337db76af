"""Steps of the wall clock, seen against boot time, so that early times can be put right later.

Whoever set the clock knew better than it did: a step moves every time of the same boot before it.
Slewing is no step; it is within what a time says anyway.
"""

from collections.abc import Iterable
from dataclasses import dataclass

STEP_NS = 500_000_000
# The kernel slews by at most this much.
SLEW_FRAC = 500e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment by both clocks, in one life of the kernel."""

    boot_id: str
    boot_ns: int
    event_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The wall clock was put forward by `step_ns`, back if negative, just before `boot_ns`."""

    boot_id: str
    boot_ns: int
    step_ns: int


def step_between(before: Instant, after: Instant) -> ClockStep | None:
    """The step between two looks at the clocks; None without one, or across a boot."""
    passed_ns = after.boot_ns - before.boot_ns
    if before.boot_id != after.boot_id or passed_ns < 0:
        return None
    step_ns = after.event_ns - before.event_ns - passed_ns
    if abs(step_ns) <= STEP_NS + SLEW_FRAC * passed_ns:
        return None
    return ClockStep(boot_id=after.boot_id, boot_ns=after.boot_ns, step_ns=step_ns)


def event_ns(instant: Instant, steps: Iterable[ClockStep]) -> int:
    """When it was by the clock as it was set later, ns since 1970."""
    return instant.event_ns + sum(
        step.step_ns
        for step in steps
        if step.boot_id == instant.boot_id and step.boot_ns > instant.boot_ns
    )
