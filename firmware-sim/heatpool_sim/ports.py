"""Through what a simulated device sees its plant, and the world sees the device."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from heatpool_sim.plant.fed import Fed
from heatpool_sim.plant.gauges import Gauges
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.steering import Wished

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a device answers."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The address as agents are told it."""
        return f"tcp://{self.host}:{self.port}"


class Twin(Protocol):
    """The plant behind a device: what its sensors show and what its cells command."""

    @property
    def faults(self) -> frozenset[str]:
        """Names of the faults that last now."""
        ...

    def gauges(self) -> Gauges:
        """The coolant unit's display."""
        ...

    def meter(self) -> tuple[Meter, MeterState]:
        """The heat meter's plate and its registers."""
        ...

    def cells(self) -> tuple[int, int, int, int]:
        """The coolant unit's holding block."""
        ...

    def write(self, values: list[int], *, at: int) -> bool:
        """Whether the block took these cells; a write restarts the watchdog."""
        ...

    def adjust(self, name: Wished, value: float | None) -> bool:
        """Whether the cooling loop took this setting; None: as it was commissioned."""
        ...


class Powered(Protocol):
    """The computers behind a machine's own sensors: what they used, and what goes wrong."""

    @property
    def faults(self) -> frozenset[str]:
        """Names of the faults that last now."""
        ...

    @property
    def happened(self) -> tuple[str, ...]:
        """Events since the start, oldest first."""
        ...

    @property
    def fed(self) -> Fed:
        """Energy of each part, J."""
        ...

    def gauges(self) -> Gauges:
        """What sensors show, the server's temperatures among them."""
        ...


class Device(Protocol):
    """Translates a plant into a protocol; knows no physics."""

    def serve(self, plant: Twin) -> AbstractAsyncContextManager[Address]:
        """Answers at the address for as long as the context is open."""
        ...
