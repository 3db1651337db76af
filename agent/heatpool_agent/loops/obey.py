"""The way down at the site: each second, what the loop's actuator is told, and nobody else asked.

The uplink only brings wishes to the board. Without a valid lease the answer is `release`: all heat
is rejected here.
"""

import asyncio
import logging

from heatpool.errors import ActuatorError
from heatpool.process.journal import facts
from heatpool.setpoint import Setpoint, SetpointReport, SetpointState
from heatpool_agent.board import Board, LoopView, SetpointView, put_newest
from heatpool_agent.core.safety import (
    Command,
    Held,
    Limits,
    LoopState,
    admit,
    decide,
    renew,
)
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.ports import Actuator, Clock

logger = logging.getLogger(__name__)

TICK_S = 1.0
# Beside the tick this stays within the two seconds that a fallback may take.
ACT_TIMEOUT_S = 0.8
# A device that refused a wish is not asked for the same again before this.
REFUSED_WAIT_S = 30
# The meter moved by more than its noise towards what was wished.
EFFECT_FRAC = 0.10
_NS = 1_000_000_000


class Obey:
    """One loop with its actuator; holds at most one setpoint, never over a restart."""

    def __init__(
        self, loop_id: str, actuator: Actuator, limits: Limits, board: Board, clock: Clock
    ) -> None:
        self.loop_id = loop_id
        self._wishes = board.listen()
        self._actuator = actuator
        self._limits = limits
        self._board = board
        self._clock = clock
        self._held: Held | None = None
        self._told: tuple[float | None, str, int] | None = None
        self._reason = ""
        self._refused: tuple[float | None, str, int] | None = None
        self._again_boot_ns = 0
        self._is_confirmed = False
        self._applied_w: float | None = None
        self._state = SetpointState.PLANNED

    async def run(self) -> None:
        """Decides and acts until cancelled; every way out ends in a release."""
        try:
            while not self._board.is_stopping:
                self._take_wishes()
                await self._act(self._decided())
                self._post()
                await until_next_tick(TICK_S, self._clock)
        finally:
            await self._release_at_exit()

    def _take_wishes(self) -> None:
        boot_ns = self._clock.boot_ns()
        while not self._wishes.empty():
            wish = self._wishes.get_nowait()
            if not isinstance(wish, Setpoint):
                self._held = renew(self._held, wish, boot_ns=boot_ns)
            elif wish.site_id == self._board.site_id and wish.loop_id in ("", self.loop_id):
                self._take(wish, boot_ns)

    def _take(self, wish: Setpoint, boot_ns: int) -> None:
        self._held, state, detail = admit(
            self._held, wish, boot_ns=boot_ns, event_ns=self._clock.event_ns()
        )
        logger.info(
            "setpoint.%s",
            state.name.lower(),
            extra=facts(seq=wish.setpoint_seq, heat_rate_w=wish.heat_rate_w, reason=detail),
        )
        self._report(wish.setpoint_seq, state, detail)
        if state is SetpointState.RECEIVED:
            self._state = state

    def _decided(self) -> Command:
        return decide(
            self._held,
            self._seen(),
            self._limits,
            override=None,
            boot_ns=self._clock.boot_ns(),
        )

    def _seen(self) -> LoopState:
        view = self._view()
        return LoopState() if view is None else view.safety

    def _view(self) -> LoopView | None:
        return next((view for view in self._board.loops if view.loop_id == self.loop_id), None)

    async def _act(self, command: Command) -> None:
        """Tells the device each tick: it writes what is new, and feeds its watchdog when due."""
        told = self._key(command)
        boot_ns = self._clock.boot_ns()
        if told == self._refused and boot_ns < self._again_boot_ns:
            # It just refused this: hammering it would not help, and heat goes nowhere else.
            command = Command.release("refused by the device")
            is_new = False
        else:
            is_new = self._told != told or not self._is_confirmed
            self._told, self._reason = told, command.reason
        try:
            async with asyncio.timeout(ACT_TIMEOUT_S):
                await self._write(command)
        except (ActuatorError, TimeoutError) as error:
            await self._not_confirmed(command, told, str(error) or "no answer in time")
        else:
            self._confirmed(command, is_new=is_new)

    def _key(self, command: Command) -> tuple[float | None, str, int]:
        """What makes a command another one. A newer setpoint that wishes the same is still to be
        confirmed under its own number; a reason that only counts seconds is the same reason."""
        seq = self._held.setpoint.setpoint_seq if self._held else 0
        kind = "".join(sign for sign in command.reason if not (sign.isdigit() or sign == "."))
        return command.heat_rate_w, kind, seq

    async def _write(self, command: Command) -> None:
        if command.heat_rate_w is None:
            await self._actuator.release()
            self._applied_w = None
        else:
            self._applied_w = await self._actuator.apply(command)

    def _confirmed(self, command: Command, *, is_new: bool) -> None:
        if not self._is_confirmed:
            self._tell_outcome("")
        self._is_confirmed = True
        if not is_new:
            self._see_effect()
            return
        if self._held is None:
            return
        if command.heat_rate_w is not None:
            self._state = SetpointState.APPLIED
            detail = f"applied {self._applied_w:.0f} W"
        elif self._clock.boot_ns() >= self._held.lease_ends_boot_ns:
            self._state, detail = SetpointState.EXPIRED, command.reason
        else:
            self._state, detail = SetpointState.OVERRIDDEN, command.reason
        logger.info("setpoint.%s", self._state.name.lower(), extra=facts(detail=detail))
        self._report(self._held.setpoint.setpoint_seq, self._state, detail)

    async def _not_confirmed(
        self, command: Command, told: tuple[float | None, str, int], reason: str
    ) -> None:
        """A release is tried again at the next tick; a wish is released, and waits."""
        self._is_confirmed = False
        self._tell_outcome(reason)
        if command.heat_rate_w is None:
            return
        self._applied_w = None
        self._refused, self._told = told, None
        self._again_boot_ns = self._clock.boot_ns() + REFUSED_WAIT_S * _NS
        self._state = SetpointState.REFUSED
        if self._held is not None:
            self._report(self._held.setpoint.setpoint_seq, SetpointState.REFUSED, reason)
        await self._try_release()

    def _tell_outcome(self, reason: str) -> None:
        """A change is logged once; the board shows it for as long as it lasts."""
        if reason and self.loop_id not in self._board.actuator_errors:
            logger.error("actuator.refused", extra=facts(loop=self.loop_id, reason=reason))
        errors = {**self._board.actuator_errors, self.loop_id: reason}
        self._board.actuator_errors = {loop: why for loop, why in errors.items() if why}

    async def _try_release(self) -> bool:
        try:
            async with asyncio.timeout(ACT_TIMEOUT_S):
                await self._actuator.release()
        except (ActuatorError, TimeoutError) as error:
            logger.error("actuator.release", extra=facts(loop=self.loop_id, reason=str(error)))
            return False
        return True

    def _see_effect(self) -> None:
        view = self._view()
        if self._state is not SetpointState.APPLIED or view is None or self._held is None:
            return
        applied_w, delivered_w = self._applied_w, view.delivered_heat_w
        if applied_w is None or delivered_w is None:
            return
        if abs(delivered_w - applied_w) <= EFFECT_FRAC * max(applied_w, 1.0):
            self._state = SetpointState.EFFECT_SEEN
            detail = f"meter shows {delivered_w:.0f} W"
            self._report(self._held.setpoint.setpoint_seq, self._state, detail)

    def _report(self, seq: int, state: SetpointState, detail: str) -> None:
        report = SetpointReport(
            site_id=self._board.site_id,
            setpoint_seq=seq,
            state=state,
            event_ns=self._clock.event_ns(),
            applied_heat_rate_w=self._applied_w,
            detail=detail,
        )
        put_newest(self._board.reports, report)

    def _post(self) -> None:
        if self._held is None:
            return
        left_ns = self._held.lease_ends_boot_ns - self._clock.boot_ns()
        self._board.setpoint = SetpointView(
            setpoint_seq=self._held.setpoint.setpoint_seq,
            heat_rate_w=self._held.setpoint.heat_rate_w,
            applied_heat_rate_w=self._applied_w,
            state=self._state,
            reason=self._reason,
            lease_left_s=max(0.0, left_ns / _NS),
        )

    async def _release_at_exit(self) -> None:
        """Three tries, since a device that stays in remote control must be told once more."""
        for _ in range(3):
            if await self._try_release():
                return
