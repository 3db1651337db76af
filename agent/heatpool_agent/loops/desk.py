"""What is said to the site as a whole: the local operator's override, and orders for nobody here.

The override lies in a file, so that a command, the page and a restart mean the same one; here it
becomes an end on the boot clock.
"""

import asyncio
import logging
from collections.abc import Sequence

from heatpool.errors import StoreError
from heatpool.process.journal import facts
from heatpool.setpoint import Setpoint, SetpointReport, SetpointState
from heatpool_agent.board import Board, put_newest
from heatpool_agent.core.override import OverrideAsk, begun
from heatpool_agent.core.safety import Override
from heatpool_agent.kept_orders import OverrideFile
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.ports import Clock

logger = logging.getLogger(__name__)

TICK_S = 1.0
# A disk that hangs must not stop the answers; what was asked last goes on meanwhile.
DISK_S = 5.0
_NS = 1_000_000_000


class Desk:
    """One per site; `loops` are those that an actuator serves."""

    def __init__(
        self, loops: Sequence[str], board: Board, clock: Clock, file: OverrideFile
    ) -> None:
        self._loops, self._board, self._clock, self.file = loops, board, clock, file
        self._wishes = board.listen()
        self._ask: OverrideAsk | str | None = None

    async def run(self) -> None:
        """Looks and answers until cancelled."""
        while not self._board.is_stopping:
            await self.step()
            await until_next_tick(TICK_S, self._clock)

    async def step(self) -> None:
        """Answers what came, and takes over what is asked on disk."""
        while not self._wishes.empty():
            wish = self._wishes.get_nowait()
            if isinstance(wish, Setpoint) and (refusal := self._refusal(wish)):
                self._refuse(wish, refusal)
        try:
            async with asyncio.timeout(DISK_S):
                await self._look()
        except (StoreError, TimeoutError) as error:
            reason = str(error) or f"the disk did not answer in {DISK_S:g} s"
            logger.error("override.disk", extra=facts(reason=reason))

    def _refusal(self, wish: Setpoint) -> str:
        if wish.site_id != self._board.site_id:
            return f"this is site {self._board.site_id}, the order is for {wish.site_id[:64]!r}"
        if not self._loops:
            return "no actuator is set up here: nothing can be ordered"
        if wish.loop_id and wish.loop_id not in self._loops:
            known = ", ".join(self._loops)
            return f"loop {wish.loop_id[:64]!r} has no actuator here; there is one for: {known}"
        return ""

    def _refuse(self, wish: Setpoint, refusal: str) -> None:
        logger.warning("setpoint.refused", extra=facts(seq=wish.setpoint_seq, reason=refusal))
        report = SetpointReport(
            site_id=self._board.site_id,
            setpoint_seq=wish.setpoint_seq,
            state=SetpointState.REFUSED,
            event_ns=self._clock.event_ns(),
            detail=refusal,
        )
        put_newest(self._board.reports, report)

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._read)
        if found != self._ask:
            self._ask = found
            self._post(self._override(found))
        now = self._board.override
        is_over = now is None or self._clock.boot_ns() >= now.ends_boot_ns
        if isinstance(found, OverrideAsk) and is_over:
            # Gone from disk too: a wall clock that is set back must not bring it to life again.
            await asyncio.to_thread(self.file.remove)
            self._ask = None
        if now is not None and is_over:
            self._post(None)

    def _read(self) -> OverrideAsk | str | None:
        """What is asked; the reason where nobody can tell."""
        try:
            return self.file.read()
        except StoreError as error:
            return str(error)

    def _override(self, found: OverrideAsk | str | None) -> Override | None:
        boot_ns = self._clock.boot_ns()
        if isinstance(found, str):
            # Somebody asked for something: until it can be read, heat is rejected here.
            reason = f"local override that cannot be read: {found}"
            return Override(heat_rate_w=None, ends_boot_ns=2**62, reason=reason)
        if found is None:
            return None
        return begun(found, boot_ns=boot_ns, event_ns=self._clock.event_ns())

    def _post(self, override: Override | None) -> None:
        if override is None and self._board.override is not None:
            logger.info("override.ended")
        elif override is not None:
            left_s = (override.ends_boot_ns - self._clock.boot_ns()) / _NS
            logger.warning("override.begun", extra=facts(reason=override.reason, left_s=left_s))
        self._board.override = override
