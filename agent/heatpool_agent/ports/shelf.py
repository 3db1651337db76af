"""The door to what was learnt."""

from typing import Protocol

from heatpool_agent.core.calibrate import Calibration


class Shelf(Protocol):
    """What was learnt of hosts and loops, on disk; every method blocks."""

    def calibration(self) -> Calibration:
        """What a person has had learnt."""
        ...

    def learned(self) -> Calibration:
        """What the daemon has learnt in an earlier life."""
        ...

    def is_changed(self) -> bool:
        """Whether a person has had something learnt since that was last read."""
        ...

    def is_forgotten(self) -> bool:
        """Whether a person has taken away what the daemon has learnt; told once."""
        ...

    def keep_learned(self, told: Calibration, *, saved_ns: int) -> None:
        """Replaces what the daemon has learnt.

        Raises:
            StoreError: the disk refused.
        """
        ...
