"""The door to what is written."""

from typing import Protocol

from heatpool_agent.core.safety import Command


class Actuator(Protocol):
    """Writes to one unit; never reads for the estimator.

    One that follows more of a setpoint than its heat rate has `uses`, a frozenset of the names of
    those fields of a Command; of others it is reported that they are not used.
    """

    @property
    def is_dry(self) -> bool:
        """Whether it writes to no device, so that nobody is told that something was applied."""
        ...

    async def apply(self, command: Command) -> float:
        """Writes, reads back, compares; the heat rate, W, that the device confirms.

        Raises:
            ActuatorError: not confirmed; the caller releases.
        """
        ...

    async def release(self) -> None:
        """Rejects all heat locally; idempotent.

        Raises:
            ActuatorError: not confirmed; the caller tries again and alarms.
        """
        ...

    async def close(self) -> None:
        """Frees the device; may be called twice."""
        ...
