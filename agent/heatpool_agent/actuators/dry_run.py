"""The actuator that writes nothing: it logs what it would do, once per change."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from heatpool.process.journal import facts
from heatpool_agent.config import ActuatorSettings
from heatpool_agent.ports import Actuator, Clock, Command, Roots

logger = logging.getLogger(__name__)


class Config(ActuatorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Nothing of its own."""


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Actuator]:
    """An actuator that touches nothing."""
    return _opened(config.id)


@asynccontextmanager
async def _opened(name: str) -> AsyncIterator[Actuator]:
    yield DryRunActuator(name)


class DryRunActuator:
    """Confirms every command and logs the changes."""

    is_dry = True

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: Command | None = None

    async def apply(self, command: Command) -> float:
        """The heat rate, W, that a device would have been told."""
        if command != self._last:
            logger.info("actuator.dry_run", extra=facts(actuator=self._name, **_told(command)))
            self._last = command
        return command.heat_rate_w or 0.0

    async def release(self) -> None:
        """Logs that all heat would be rejected locally."""
        await self.apply(Command.release("released"))

    async def close(self) -> None:
        """Nothing to free."""


def _told(command: Command) -> dict[str, object]:
    if command.heat_rate_w is None:
        return {"told": "release", "reason": command.reason}
    return {"told": "deliver", "heat_rate_w": command.heat_rate_w, "reason": command.reason}
