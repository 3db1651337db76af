"""The way down at the site: each second, what the loop's actuator is told, and nobody else asked.

The uplink only brings wishes to the board. Without a valid lease the answer is `release`: all heat
is rejected here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from heatpool.errors import ActuatorError, StoreError
from heatpool.process.journal import facts
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool_agent.board import Board, LoopView, SetpointView, put_newest
from heatpool_agent.core.effect import EFFECT_DEFAULT_S, Applied, is_awaited, is_past, is_seen
from heatpool_agent.core.obedience import HOLD_DEFAULT_S, Obedience, beat, settled, take
from heatpool_agent.core.safety import (
    NO_LEASE,
    Command,
    Held,
    Limits,
    LoopState,
    decide,
    followed,
)
from heatpool_agent.loops.grid import until_next_tick
from heatpool_agent.ports import Actuator, Clock

logger = logging.getLogger(__name__)

TICK_S = 1.0
# A number is on disk within milliseconds; a slower disk goes on meanwhile, and the next tick looks.
KEEP_S = 0.2
# Beside the tick this stays within the two seconds that a fallback may take.
ACT_TIMEOUT_S = 0.8
# A device that refused a wish is not asked for the same again before this.
REFUSED_WAIT_S = 30
_NS = 1_000_000_000


def _forget(_: int) -> None:
    """Keeps nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How a loop obeys: how long it keeps to itself, how soon its meter answers, s.

    `seen_seq` is the highest order of earlier lives; `keep` puts a higher one on disk, blocking,
    and a tick waits `keep_s` for it.
    """

    hold_s: float = HOLD_DEFAULT_S
    effect_s: float = EFFECT_DEFAULT_S
    seen_seq: int = 0
    keep: Callable[[int], None] = _forget
    keep_s: float = KEEP_S


class Obey:
    """One loop with its actuator; holds at most one setpoint, never over a restart."""

    def __init__(
        self,
        loop_id: str,
        actuator: Actuator,
        limits: Limits,
        board: Board,
        clock: Clock,
        *,
        habits: Habits = Habits(),
    ) -> None:
        self.loop_id = loop_id
        self._wishes = board.listen()
        self._actuator = actuator
        self._limits = limits
        self._board = board
        self._clock = clock
        self._habits = habits
        self._obedience = Obedience(
            hold_ns=round(habits.hold_s * _NS),
            quiet_boot_ns=clock.boot_ns(),
            seen_seq=habits.seen_seq,
        )
        self._unkept: tuple[Setpoint, int] | None = None
        self._keeping: tuple[int, asyncio.Future[None]] | None = None
        self._waits = ""
        self._renewed_seq = 0
        self._applied: Applied | None = None
        self._is_lost = False  # the effect did not come in its time, and that was told
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
                await self.step()
                await until_next_tick(TICK_S, self._clock)
        finally:
            await self._release_at_exit()

    async def step(self) -> None:
        """One tick: takes what is wished, decides, acts and shows."""
        await self._take_wishes()
        await self._act(self._decided())
        self._post()

    @property
    def _held(self) -> Held | None:
        return self._obedience.held

    async def _take_wishes(self) -> None:
        if self._unkept is not None:
            unkept, self._unkept = self._unkept, None
            await self._take(*unkept)
        while not self._wishes.empty():
            wish = self._wishes.get_nowait()
            if not isinstance(wish, Setpoint):
                self._renew(wish)
            elif wish.site_id == self._board.site_id and wish.loop_id in ("", self.loop_id):
                await self._take(wish, self._clock.boot_ns())
        self._obedience = settled(self._obedience, boot_ns=self._clock.boot_ns())

    def _renew(self, heartbeat: Heartbeat) -> None:
        before = self._held
        self._obedience = beat(self._obedience, heartbeat, boot_ns=self._clock.boot_ns())
        held = self._held
        # Said once: a hundred thousand sites would say it three thousand times a second.
        if held is not None and held is not before and self._renewed_seq < self._obedience.seen_seq:
            self._renewed_seq = held.setpoint.setpoint_seq
            self._report(self._renewed_seq, SetpointState.RENEWED, "by heartbeat, from here on")

    async def _take(self, wish: Setpoint, boot_ns: int) -> None:
        """An order and when it was received, from which its lease runs."""
        obedience, state, detail = take(
            self._obedience, wish, boot_ns=boot_ns, event_ns=self._clock.event_ns()
        )
        if state is not SetpointState.REFUSED:
            try:
                # Before anything follows from it: whoever plays it back later must come too late.
                async with asyncio.timeout(self._habits.keep_s):
                    await self._keep(wish.setpoint_seq)
            except TimeoutError:
                self._unkept = wish, boot_ns
                return
            except StoreError as error:
                state, detail = SetpointState.REFUSED, f"its number cannot be kept: {error}"
        self._answer(wish, state, detail)
        if state is SetpointState.RECEIVED:
            self._obedience = obedience
            if not wish.dry_run:
                self._state = state

    async def _keep(self, setpoint_seq: int) -> None:
        """One thread at a time: those that a disk holds up would be missed by the sensors.

        Raises:
            StoreError: the disk did not take the number.
        """
        kept_seq = -1
        while kept_seq != setpoint_seq:
            if self._keeping is None:
                loop = asyncio.get_running_loop()
                future = loop.run_in_executor(None, self._habits.keep, setpoint_seq)
                self._keeping = setpoint_seq, future
            kept_seq, future = self._keeping
            # Whoever gives up on it leaves it to the next tick.
            await asyncio.wait((future,))
            self._keeping = None
            error = future.exception()
            if error is not None and kept_seq == setpoint_seq:
                raise error

    def _answer(self, wish: Setpoint, state: SetpointState, detail: str) -> None:
        logger.info(
            "setpoint.%s",
            state.name.lower(),
            extra=facts(seq=wish.setpoint_seq, heat_rate_w=wish.heat_rate_w, reason=detail),
        )
        held = self._held
        is_repeat = held is not None and held.setpoint.setpoint_seq == wish.setpoint_seq
        if state is SetpointState.REFUSED and is_repeat and not self._obedience.is_over:
            # The order itself stands: only its repetition is refused.
            state = self._state
        self._report(wish.setpoint_seq, state, detail)

    def _decided(self) -> Command:
        boot_ns = self._clock.boot_ns()
        self._waits = self._obedience.waits(boot_ns)
        return decide(
            self._held,
            self._seen(),
            self._limits,
            override=self._board.override,
            boot_ns=boot_ns,
            waits=self._waits,
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
        seq = self._seq_now()
        override = self._board.override
        if override is not None and command.reason == override.reason:
            return command.heat_rate_w, command.reason, seq
        kind = "".join(sign for sign in command.reason if not (sign.isdigit() or sign == "."))
        return command.heat_rate_w, kind, seq

    def _seq_now(self) -> int:
        """Number of the order that is followed now, else of the one that is held; 0: of none.

        One that was received and has not begun yet says nothing of what the device does.
        """
        now = followed(self._held, self._clock.boot_ns()) or self._held
        return now.setpoint.setpoint_seq if now is not None else 0

    async def _write(self, command: Command) -> None:
        if command.heat_rate_w is None:
            await self._actuator.release()
            self._applied_w, self._applied = None, None
            return
        before_w = self._delivered_w()
        self._applied_w = await self._actuator.apply(command)
        # An order that changes nothing at the device waits on for the effect of the one before.
        if self._applied is None or self._applied.heat_rate_w != self._applied_w:
            self._is_lost = False
            self._applied = Applied(
                heat_rate_w=self._applied_w, before_w=before_w, boot_ns=self._clock.boot_ns()
            )

    def _confirmed(self, command: Command, *, is_new: bool) -> None:
        if not self._is_confirmed:
            self._tell_outcome("")
        self._is_confirmed = True
        if not is_new:
            self._see_effect()
            return
        state = self._became(command)
        seq = self._seq_now() or self._obedience.seen_seq
        if state is None or not seq:
            return
        self._state = state
        is_applied = state is SetpointState.APPLIED
        detail = self._applied_detail() if is_applied else command.reason
        logger.info("setpoint.%s", state.name.lower(), extra=facts(detail=detail))
        self._report(seq, state, detail)

    def _became(self, command: Command) -> SetpointState | None:
        """What the confirmed command makes of the setpoint; None: nothing new."""
        if command.heat_rate_w is not None:
            return SetpointState.APPLIED
        boot_ns = self._clock.boot_ns()
        override = self._board.override
        if override is not None and boot_ns < override.ends_boot_ns:
            return SetpointState.OVERRIDDEN
        held = self._held
        if held is None:
            # Said once when the local operator gives back what no order holds.
            was_overridden = self._state is SetpointState.OVERRIDDEN
            return SetpointState.EXPIRED if was_overridden else None
        if boot_ns >= held.lease_ends_boot_ns:
            return SetpointState.EXPIRED
        # While it waits, for its time too, it is received, and was told so.
        is_waiting = command.reason in (self._waits, NO_LEASE)
        return None if is_waiting else SetpointState.OVERRIDDEN

    def _applied_detail(self) -> str:
        if self._actuator.is_dry:
            return (
                f"would apply {self._applied_w:.0f} W: the actuator is not armed, no meter shows it"
            )
        parts = [f"applied {self._applied_w:.0f} W"]
        if self._applied is not None and not is_awaited(self._applied):
            has_meter = self._applied.before_w is not None
            parts.append("the meter shows it already" if has_meter else "no meter shows it")
        if self._held is not None:
            wish = self._held.setpoint
            uses: frozenset[str] = getattr(self._actuator, "uses", frozenset())
            asked = (("hot_c", wish.hot_c), ("ramp_w_s", wish.ramp_w_s))
            parts += [f"{name} not used" for name, value in asked if value and name not in uses]
        return "; ".join(parts)

    async def _not_confirmed(
        self, command: Command, told: tuple[float | None, str, int], reason: str
    ) -> None:
        """A release is tried again at the next tick; a wish is released, and waits."""
        self._is_confirmed = False
        self._tell_outcome(reason)
        if command.heat_rate_w is None:
            return
        self._applied_w, self._applied = None, None
        self._refused, self._told = told, None
        self._again_boot_ns = self._clock.boot_ns() + REFUSED_WAIT_S * _NS
        self._state = SetpointState.REFUSED
        if self._held is not None:
            self._report(self._seq_now(), SetpointState.REFUSED, reason)
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

    def _delivered_w(self) -> float | None:
        view = self._view()
        return None if view is None else view.delivered_heat_w

    def _see_effect(self) -> None:
        applied, held = self._applied, self._held
        if self._state is not SetpointState.APPLIED or applied is None or held is None:
            return
        boot_ns, within_s = self._clock.boot_ns(), self._habits.effect_s
        delivered_w = self._delivered_w()
        if is_seen(applied, delivered_w, boot_ns=boot_ns, within_s=within_s):
            self._state = SetpointState.EFFECT_SEEN
            before, now = f"{applied.before_w:.0f} W", f"{delivered_w:.0f} W"
            self._report(self._seq_now(), self._state, f"meter went {before} to {now}")
        elif is_awaited(applied) and is_past(applied, boot_ns, within_s) and not self._is_lost:
            self._is_lost = True
            detail = f"the meter does not show it within {within_s:.0f} s"
            self._report(self._seq_now(), self._state, detail)

    def _report(self, seq: int, state: SetpointState, detail: str) -> None:
        # What the device does when an order arrives is the doing of the one before.
        is_its_doing = state is not SetpointState.RECEIVED and not self._actuator.is_dry
        report = SetpointReport(
            site_id=self._board.site_id,
            setpoint_seq=seq,
            state=state,
            event_ns=self._clock.event_ns(),
            applied_heat_rate_w=self._applied_w if is_its_doing else None,
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
