"""A bench: one simulated device of one sensor kind, and what can be done to it.

Each module in `benches` is named after the kind it is for and gives `opened(folder)`, an async
context manager of a `Bench`. The suite in `test_sensors.py` runs every driver that an entry point
names on its bench; a driver without one fails there.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from heatpool_agent.ports import Roots

FAULTS = frozenset({"pull", "slow", "garble"})


class Bench(Protocol):
    """One device on this machine, answering as in the field until told otherwise.

    Every fault lasts until `heal`. What a device cannot have (a kernel file is never slow) stands
    in `lacks` with the reason, and what it can have in `faults`.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """The driver's block: kind and its own keys; the suite adds `id` and what it varies."""
        ...

    @property
    def roots(self) -> Roots:
        """Where the machine's files lie."""
        ...

    @property
    def quantities(self) -> frozenset[str]:
        """What the device shows at least, by the names of the readings."""
        ...

    @property
    def faults(self) -> frozenset[str]:
        """What can be done to it."""
        ...

    @property
    def lacks(self) -> Mapping[str, str]:
        """Why the other faults cannot be."""
        ...

    @property
    def exchanges(self) -> int:
        """How often the device was asked or connected to so far; opening a driver must not."""
        ...

    async def pull(self) -> None:
        """The plug: open connections die and nothing answers."""
        ...

    async def slow(self) -> None:
        """Everything still connects, and no answer comes."""
        ...

    async def garble(self) -> None:
        """Answers are bytes of something else."""
        ...

    async def heal(self) -> None:
        """As in the field again, at the same address."""
        ...
