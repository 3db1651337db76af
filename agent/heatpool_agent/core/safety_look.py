"""What the interlock of one loop is told: the worst of all devices, and none of them forgotten.

Whether a reading is too old for its own sensor's pace is admission's word; the interlock's own
limit sees that the ticks go on. So a detector that is read twice a minute is no reason to trip.
"""

import math
from collections.abc import Sequence

from heatpool.units import NS_PER_S
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.safety import LoopState, SafetyReading, safety_reading

# However seldom its sensor speaks: three looks at a BMC that is asked once a minute.
OLDEST_S = 180.0
# Spare pumps rest and say nothing; a detector or a thermometer that told goes on telling.
_LASTING = frozenset({"leak", "hot_c"})


class SafetyLook:
    """One loop's safety readings with the memory of who told them.

    The first loop (`is_first`) is also stopped by a leak that names no loop.
    """

    def __init__(self, loop_id: str, *, is_first: bool) -> None:
        self._loop_id = loop_id
        self._is_first = is_first
        self._told: dict[str, set[tuple[str, str]]] = {}

    def state(self, judged: Sequence[Reading], *, boot_ns: int) -> LoopState:
        """What safety rests on at this tick; NaN is absent, and absent is not fine."""
        return LoopState(
            hot_c=self._reading(judged, "hot_c", worst=1.0, boot_ns=boot_ns),
            leak=self._reading(judged, "leak", worst=1.0, boot_ns=boot_ns),
            pump_runs=self._reading(judged, "pump_runs", worst=-1.0, boot_ns=boot_ns),
        )

    def _reading(
        self, judged: Sequence[Reading], quantity: str, *, worst: float, boot_ns: int
    ) -> SafetyReading | None:
        own = [r for r in judged if r.quantity == quantity and self._is_own(r)]
        now = {(r.sensor, r.channel) for r in own}
        told = self._told.setdefault(quantity, set())
        is_lost = bool(told - now) if quantity in _LASTING else bool(told) and not now
        told |= now
        values = [_value(r, boot_ns) for r in own] + [math.nan] * is_lost
        if quantity == "leak" and self._is_first:
            values += [r.value for r in judged if _is_warning(r)]
        found = [SafetyReading(value=value, boot_ns=boot_ns) for value in values]
        return safety_reading(found, worst=worst)

    def _is_own(self, reading: Reading) -> bool:
        return reading.loop == self._loop_id and reading.node is not Node.HEAT_METER


def _is_warning(reading: Reading) -> bool:
    """Whether something that names no loop, and so vouches for none, tells of a leak."""
    is_leak = reading.quantity == "leak" and not reading.loop
    return is_leak and is_admitted(reading) and reading.value != 0


def _value(reading: Reading, boot_ns: int) -> float:
    is_young = boot_ns - reading.boot_ns <= OLDEST_S * NS_PER_S
    return reading.value if is_young and is_admitted(reading) else math.nan
