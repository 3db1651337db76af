"""Our own wall clock against boot time, and what sites say of it: looked at, told, waited for."""

import logging

from heatpool.process.journal import facts
from heatpool.units import NS_PER_S
from heatpool_aggregator.board import Board
from heatpool_aggregator.core.admission import HOLD_NS
from heatpool_aggregator.core.own_clock import HEARD_NS
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.ports import Clock

logger = logging.getLogger(__name__)

FIX = "look at timedatectl and chronyc tracking, and set it right; all goes on by itself then"


class ClockWatch:
    """Sees steps of the wall clock, and says while it is suspect.

    `is_caught_up`: no frame of the log waits, so that silence of a site is silence.
    """

    def __init__(self, state: ShardState, clock: Clock, board: Board) -> None:
        self._state, self._clock, self._board = state, clock, board
        self._now_ns, self._boot_ns = clock.now_ns(), clock.boot_ns()
        self._stepped_boot_ns: int | None = None
        self._epoch = self._voices_count = 0  # as they were just after the step
        self.is_caught_up = True

    def is_suspect(self) -> bool:
        """Whether no period may be closed by the wall clock of this moment."""
        self.look()
        return self._state.own_clock.is_suspect or self._stepped_boot_ns is not None

    def look(self) -> None:
        """Compares the clocks, and says what is new."""
        own_clock = self._state.own_clock
        now_ns, boot_ns = self._clock.now_ns(), self._clock.boot_ns()
        step_ns = now_ns - self._now_ns - (boot_ns - self._boot_ns)
        self._now_ns, self._boot_ns = now_ns, boot_ns
        if not -HOLD_NS <= step_ns <= HOLD_NS:
            own_clock.stepped(step_ns)
            self._stepped_boot_ns = boot_ns if own_clock.is_suspect else None
            self._epoch, self._voices_count = own_clock.epoch, own_clock.awaited_count
            logger.warning(
                "aggregator.clock_stepped",
                extra=facts(step_s=step_ns / NS_PER_S, is_suspect=own_clock.is_suspect),
            )
        if self.is_caught_up and self._is_back_before_step(now_ns):
            # Frames of before were applied after it, and that time is over now.
            step_ns = now_ns - own_clock.last_ns
            own_clock.stepped(step_ns, voices_count=self._voices_count)
            self._epoch = own_clock.epoch
        at_ns = now_ns if self.is_caught_up else own_clock.last_ns
        if own_clock.is_suspect and (mistakes := own_clock.judged(at_ns)):
            self._state.came_right(mistakes)
        if self._stepped_boot_ns is not None and self._is_judged(now_ns, boot_ns):
            self._stepped_boot_ns = None
        self._tell()

    def _is_back_before_step(self, now_ns: int) -> bool:
        own_clock = self._state.own_clock
        is_other = self._stepped_boot_ns is not None and own_clock.epoch != self._epoch
        return is_other and not -HOLD_NS <= now_ns - own_clock.last_ns <= HOLD_NS

    def _is_judged(self, now_ns: int, boot_ns: int) -> bool:
        """Whether what sites say is of now: frames from before a step are applied after it."""
        own_clock = self._state.own_clock
        if own_clock.is_suspect:
            return False
        if boot_ns - (self._stepped_boot_ns or 0) > HEARD_NS:
            return True
        is_most = 2 * own_clock.near_count > self._voices_count
        return is_most and abs(now_ns - own_clock.last_ns) <= HOLD_NS

    def _tell(self) -> None:
        told, error_ns = self._told(), self._state.own_clock.error_ns
        before = self._board.clock_suspect
        if told == before:
            return
        self._board.post(clock_suspect=told)
        if error_ns is not None:
            logger.error(
                "aggregator.clock_suspect",
                extra=facts(offset_s=error_ns / NS_PER_S, reason=told, fix=FIX),
            )
        elif not told:
            logger.warning("aggregator.clock_right", extra=facts())

    def _told(self) -> str:
        own_clock = self._state.own_clock
        if own_clock.error_ns is not None:
            size, way = _size(own_clock.error_ns)
            return f"most sites agree that the aggregator's clock is {size} {way}: {FIX}"
        if self._stepped_boot_ns is not None and own_clock.step_ns is not None:
            size, way = _size(own_clock.step_ns)
            return f"the aggregator's clock was set, and is {size} {way} of before: {FIX}"
        return self._board.clock_suspect if self._stepped_boot_ns is not None else ""


def _size(error_ns: int) -> tuple[str, str]:
    minutes = round(abs(error_ns) / NS_PER_S / 60)
    way = "ahead" if error_ns > 0 else "behind"
    return (f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"), way
