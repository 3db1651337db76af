"""Heat of a loop that no sensor can look into: the assumed share of its electric power.

Nothing can be learnt of it, and what estimates a loop of coolant stays out of such an agent's
memory: 1.5 MB of the 28 that it may hold.
"""

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol

from heatpool_agent.core import estimate
from heatpool_agent.core.clock_steps import Instant
from heatpool_agent.core.crosscheck import Disagreement
from heatpool_agent.core.estimate import LoopHeat, LoopInputs
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.heat_tree import Circuit
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.loop_told import Capture
from heatpool_agent.loops.loop_pass import LoopSettings, Pass

_HEAT_ROOM = "heatpool_agent.loops.heat_look"


class Look(Protocol):
    """What estimates the heat of a loop at each tick."""

    @property
    def disagreements(self) -> tuple[Disagreement, ...]:
        """The heats that disagree now, each pair with its size."""
        ...

    @property
    def fused_s(self) -> float | None:
        """Span, s, of which the fused heat is the mean where it is new at this tick."""
        ...

    @property
    def capture(self) -> Capture | None:
        """Share of the wall power in the coolant."""
        ...

    @property
    def phase(self) -> str:
        """What the fused heat rests on, one word of `PHASES`."""
        ...

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults that last, and those that ended within a day."""
        ...

    def look(
        self,
        inputs: LoopInputs,
        circuit: Circuit,
        tick: Pass,
        *,
        is_whole: bool,
        is_leaking: bool | None,
        single: Collection[str],
    ) -> LoopHeat:
        """The heats of one tick, W."""
        ...

    def flags(self, boot_ns: int) -> tuple[str, ...]:
        """The marks that flow and temperatures have earned."""
        ...

    def saved(self, at: Instant, *, is_whole: bool) -> Iterator[SavedEstimator]:
        """What is left for the next life of the agent."""
        ...


class AirLook:
    """Electric power as the heat that it becomes, in the coolant or in the air.

    Each tick is a figure of its own.
    """

    disagreements: tuple[Disagreement, ...] = ()
    fused_s: float | None = 1.0
    capture: Capture | None = None
    faults: tuple[Fault, ...] = ()

    def __init__(self, loop: LoopSettings) -> None:
        self._priors = loop.priors
        self.phase = "electric" if loop.has_coolant else "air"

    def look(
        self,
        inputs: LoopInputs,
        circuit: Circuit,
        tick: Pass,
        *,
        is_whole: bool,
        is_leaking: bool | None,
        single: Collection[str],
    ) -> LoopHeat:
        """The heat of one tick, W."""
        electric = estimate.electric_heat(inputs.electric, self._priors)
        return LoopHeat(electric=electric, computed=None, fused=electric)

    def flags(self, boot_ns: int) -> tuple[str, ...]:
        """None: there are no pipes."""
        return ()

    def saved(self, at: Instant, *, is_whole: bool) -> Iterator[SavedEstimator]:
        """Nothing."""
        return iter(())


def look_of(
    loop: LoopSettings, *, saved: Mapping[str, SavedEstimator] | None, boot_id: str
) -> Look:
    """What estimates this loop's heat; `saved` is what it left, in the life `boot_id` or before."""
    if not loop.has_pipes:
        return AirLook(loop)
    room: Any = import_module(_HEAT_ROOM)
    found: Look = room.HeatLook(loop, saved=saved, boot_id=boot_id)
    return found
