"""The end of a maker's command that ran as a child, though it may refuse to end."""

import asyncio
import os
import signal
from contextlib import suppress

from heatpool.errors import SensorBusy

# A killed child ends at once, unless the kernel itself holds it.
_END_MOST_S = 0.2
_AGAIN_S = 60.0


class Children:
    """The children of one driver: one that cannot be killed gets no second one beside it."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._left: asyncio.subprocess.Process | None = None

    def check(self) -> None:
        """Refuses another child while the last one is still there.

        Raises:
            SensorBusy: it hangs in the kernel.
        """
        if self._left is not None and self._left.returncode is None:
            raise SensorBusy(
                f"{self._command}: process {self._left.pid} hangs in the kernel, not to be ended",
                wait_s=_AGAIN_S,
            )

    async def end(self, process: asyncio.subprocess.Process) -> None:
        """Kills a child with all that it started, and waits a moment for its end."""
        self._left = process
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(_END_MOST_S):
                while process.stdout is not None and await process.stdout.read(65_536):
                    pass
                await process.wait()
        except TimeoutError:
            # A child of its own may hold the pipe; the library has no open way to let go of it.
            process._transport.close()  # type: ignore[attr-defined]
