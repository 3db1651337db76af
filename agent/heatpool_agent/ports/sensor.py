"""The door to what is read."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from heatpool_agent.core.reading import Reading
from heatpool_agent.ports.clock import Clock
from heatpool_agent.ports.tape import Roots


class Sensor(Protocol):
    """One device or one part of the machine, read in one pass."""

    async def probe(self) -> Sequence[str]:
        """Channels that exist here, without side effects; repeatable.

        Raises:
            SensorGone: nothing can be read, with the reason and what mends it.
        """
        ...

    async def read(self) -> Sequence[Reading]:
        """All channels once; cancellable, under the caller's timeout.

        Raises:
            SensorBusy: again later.
            SensorGone: not readable any more.
        """
        ...

    async def close(self) -> None:
        """Frees the device; may be called twice."""
        ...


class SensorModule(Protocol):
    """What a module behind the entry point `heatpool.sensors` gives."""

    Config: type[Any]

    def open(self, config: Any, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
        """The sensor, ready to be probed; opening touches no device."""
        ...
