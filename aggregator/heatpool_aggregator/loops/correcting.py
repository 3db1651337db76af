"""Frames of sites whose clocks are far off: held until that is known, then taken in corrected.

Chunks keep their columns as they came: what was added to the times is the difference between
`Chunk.start_ns` and the earliest of them. Register rows name it.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from heatpool.codec import Columns
from heatpool.process.journal import facts
from heatpool.sample import RefusedReason, SiteId
from heatpool_aggregator.core.admission import EVENT_LIMIT_NS, HOLD_NS, NEW_CLOCK
from heatpool_aggregator.core.chunk import Rows, chunk_to_bytes, rows_from_columns
from heatpool_aggregator.core.course import (
    READ_NS,
    RUN_ON_NS,
    Course,
    End,
    HeldFrame,
    Run,
    Sending,
    is_decided,
    shifts_of,
)
from heatpool_aggregator.core.live import NEVER_NS, rows_mistake
from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.core.shard_state import ShardState
from heatpool_aggregator.loops.effects import Effects, Unusable, clock_word, event
from heatpool_aggregator.loops.metering import check_registers, take_registers
from heatpool_aggregator.loops.ready import chunk_of, schema_of
from heatpool_aggregator.ports import Event, Frame, FrameKind
from heatpool_aggregator.wire import telemetry

logger = logging.getLogger(__name__)

NO_ROW = (NEVER_NS, -1)
Shifts = list[tuple[Run, int]]


class Correcting:
    """Holds and corrects; `guarded` takes one frame by what it is given, and refuses it by name."""

    def __init__(
        self,
        state: ShardState,
        *,
        guarded: Callable[[Frame, Callable[[], None], Effects], None],
    ) -> None:
        self._state, self._guarded = state, guarded

    def observe(self, frame: Frame, sent_ns: int, effects: Effects) -> None:
        """Learns from one more message how far its site's clock is off.

        Raises:
            Unusable: it was sent at no time.
        """
        if not 0 < sent_ns < EVENT_LIMIT_NS:
            raise Unusable(RefusedReason.CLOCK, f"sent_ns is {sent_ns}, not a time since 1970")
        offset_ns = frame.received_ns - sent_ns
        self._ask(frame, offset_ns)
        if self._state.own_clock.is_suspect and _is_far(offset_ns):
            return  # it may say more of our clock than of this one
        before = self._state.clocks.get(frame.site_id, NEW_CLOCK)
        clock = before.observed(sent_ns=sent_ns, received_ns=frame.received_ns)
        self._state.clocks[frame.site_id] = clock
        if word := clock_word(before, clock):
            if clock.is_far or before.is_far:
                logger.warning("site.clock", extra=facts(site_id=frame.site_id, **word))
            effects.events.append(event(frame, "clock", **word))

    def is_due(self, frame: Frame, sent_ns: int) -> bool:
        """Whether a frame goes this way: its site's clock is or was far off, or may have become."""
        clock = self._state.clocks.get(frame.site_id, NEW_CLOCK)
        is_far = clock.is_far or _is_far(frame.received_ns - sent_ns - clock.offset_ns)
        return is_far or frame.site_id in self._state.courses

    def take(self, frame: Frame, sent_ns: int, effects: Effects) -> None:
        """Takes a frame in, and what was held before it; or holds it.

        Raises:
            WireError: it cannot be used, whatever its time is.
        """
        own_clock = self._state.own_clock
        # A site that waits for our clock alone has no course of its own once that is right.
        shifted_ns = 0 if own_clock.is_suspect else frame.received_ns
        course = self._state.courses.setdefault(frame.site_id, Course(shifted_ns=shifted_ns))
        one = _held(frame, sent_ns, own_clock.epoch)
        clock = self._state.clocks.get(frame.site_id, NEW_CLOCK)
        offset_ns = frame.received_ns - sent_ns
        is_ours = own_clock.is_suspect and (_is_far(offset_ns) or bool(course.held))
        if is_ours or not is_decided(clock, offset_ns):
            self._check(frame)
            for gone in course.hold(one):
                self._refuse(_frame(frame.site_id, gone), effects)
            return
        settled_ns = course.settled_ns(clock)
        held, course.held = course.held, []
        for waiting in (*held, one):
            self._correct(_frame(frame.site_id, waiting), waiting.sent_ns, settled_ns, effects)
        if held:
            logger.warning(
                "site.held_taken",
                extra=facts(
                    site_id=frame.site_id, frames_count=len(held), shift_s=settled_ns / 1e9
                ),
            )
        if course.is_over(frame.received_ns):
            del self._state.courses[frame.site_id]

    def _ask(self, frame: Frame, offset_ns: int) -> None:
        own_clock, site_id = self._state.own_clock, frame.site_id
        if _is_far(offset_ns):
            mistakes = own_clock.far(site_id, frame.received_ns, offset_ns)
        else:
            mistakes = own_clock.near(site_id, frame.received_ns)
        if mistakes:
            self._state.came_right(mistakes)

    def _refuse(self, frame: Frame, effects: Effects) -> None:
        whose = "the site's clock is far off and no three messages agree by how much: set it right"
        if self._state.own_clock.is_suspect:
            whose = "the aggregator's own clock is suspect, so nothing is corrected: set it right"

        def refused() -> None:
            raise Unusable(RefusedReason.CLOCK, whose)

        self._guarded(frame, refused, effects)

    def _correct(self, frame: Frame, sent_ns: int, settled_ns: int, effects: Effects) -> None:
        is_billing = frame.kind is FrameKind.BILLING
        live_ns = READ_NS if is_billing else RUN_ON_NS
        sending = Sending(sent_ns, frame.received_ns, live_ns)
        act = self._registers if is_billing else self._rows
        self._guarded(frame, lambda: act(frame, sending, settled_ns, effects), effects)

    def _check(self, frame: Frame) -> None:
        if frame.kind is FrameKind.BILLING:
            check_registers(telemetry.registers_from_bytes(frame.payload).rows)
        else:
            self._decoded(frame)

    def _decoded(self, frame: Frame) -> tuple[Columns, Rows]:
        columns = telemetry.batch_from_bytes(frame.payload).columns
        rows = rows_from_columns(columns, schema_of(self._state, frame, columns.schema_id).channels)
        if mistake := rows_mistake(rows):
            raise Unusable(RefusedReason.OUT_OF_RANGE, mistake)
        return columns, rows

    def _rows(self, frame: Frame, sending: Sending, settled_ns: int, effects: Effects) -> None:
        columns, rows = self._decoded(frame)
        raw_ns = rows.times_ns.tolist()
        shifts = self._shifts(frame, raw_ns, sending, settled_ns)
        times_ns = _shifted(raw_ns, shifts)
        shifted = replace(rows, times_ns=np.array(times_ns, np.int64))
        self._state.live.apply(frame.site_id, frame.boot_id, frame.seq, shifted)
        self._state.count(frame.site_id, len(times_ns))
        if len({ns for _, ns in shifts}) > 1:
            columns = _retimed(columns, times_ns, shifts[0][1])
            effects.events.append(_set_within(frame, shifts))
        blob = chunk_to_bytes(columns, rows.channels)
        effects.chunks.append(chunk_of(frame, min(times_ns), max(times_ns), blob))

    def _registers(self, frame: Frame, sending: Sending, settled_ns: int, effects: Effects) -> None:
        rows = telemetry.registers_from_bytes(frame.payload).rows
        check_registers(rows)
        if not rows:
            return
        raw_ns = [row.event_ns for row in rows]
        times_ns = _shifted(raw_ns, self._shifts(frame, raw_ns, sending, settled_ns))
        corrected = [
            row if event_ns == row.event_ns else CorrectedRow.of(row, event_ns - row.event_ns)
            for row, event_ns in zip(rows, times_ns, strict=True)
        ]
        take_registers(self._state, frame, corrected, effects)

    def _shifts(self, frame: Frame, raw_ns: list[int], sending: Sending, settled_ns: int) -> Shifts:
        """Each run of rows with what to add to its times, ns."""
        course = self._state.courses[frame.site_id]
        if frame.boot_id not in course.ends and (newest := self._newest(frame, raw_ns[0])):
            course.ends[frame.boot_id] = [newest]
        before = course.before(frame.boot_id, frame.seq)
        known_ns = course.known_ns(settled_ns, sending.offset_ns)
        after = course.after(frame.boot_id, frame.seq)
        shifts = shifts_of(raw_ns, sending, before=before, known_ns=known_ns, after=after)
        if shifts is None:
            raise Unusable(
                RefusedReason.CLOCK,
                f"event_ns is {max(raw_ns)}, ahead of its arrival under all that is known of the "
                "site's clock",
            )
        run, shift_ns = shifts[-1]
        end = End(frame.seq, run.end_ns, run.end_ns + shift_ns, frame.received_ns)
        course.passed(frame.boot_id, end)
        if any(ns for _, ns in shifts):
            course.shifted_ns = max(course.shifted_ns, frame.received_ns)
        return shifts

    def _newest(self, frame: Frame, raw_ns: int) -> End | None:
        """What is known of a spool of which nothing came since the course began."""
        live, site_id = self._state.live, frame.site_id
        read = [m.row.event_ns for (site, _), m in live.metered.items() if site == site_id]
        if frame.kind is FrameKind.BILLING and read:
            return End(-1, max(read), max(read), 0)
        if frame.kind is FrameKind.BILLING and self._state.courses[site_id].ends:
            return self._nearest(site_id, raw_ns)
        shown = [place for (site, _), place in live.slots.items() if site == site_id]
        newest_ns, seq = max((live.newest(place, frame.boot_id) for place in shown), default=NO_ROW)
        if newest_ns > NEVER_NS:
            is_own = frame.kind is FrameKind.TELEMETRY
            return End(seq if is_own else -1, newest_ns, newest_ns, 0)
        return self._nearest(site_id, raw_ns)

    def _nearest(self, site_id: SiteId, raw_ns: int) -> End | None:
        nearest = self._state.courses[site_id].nearest(raw_ns)
        return nearest and nearest._replace(seq=-1)


def _is_far(offset_ns: int) -> bool:
    return not -HOLD_NS <= offset_ns <= HOLD_NS


def _held(frame: Frame, sent_ns: int, epoch: int) -> HeldFrame:
    _, boot_id, kind, seq, received_ns, payload = frame
    return HeldFrame(boot_id, int(kind), seq, received_ns, payload, sent_ns, epoch)


def _frame(site_id: SiteId, held: HeldFrame) -> Frame:
    boot_id, kind, seq, received_ns, payload, *_ = held
    return Frame(site_id, boot_id, FrameKind(kind), seq, received_ns, payload)


def _shifted(raw_ns: list[int], shifts: Iterable[tuple[Run, int]]) -> list[int]:
    return [ns + shift_ns for run, shift_ns in shifts for ns in raw_ns[run.first : run.last]]


def _retimed(columns: Columns, times_ns: list[int], first_shift_ns: int) -> Columns:
    """Columns of rows between which the clock was set: all by the clock of the first."""
    steps = tuple(after - before for before, after in pairwise(times_ns))
    return replace(columns, start_ns=times_ns[0] - first_shift_ns, step_ns=0, dt_ns=steps)


def _set_within(frame: Frame, shifts: Shifts) -> Event:
    """What was added to which rows, as one chunk has one shift."""
    parts = [[run.first, run.last, ns / 1e9] for run, ns in shifts]
    return event(frame, "clock_set", boot_id=frame.boot_id, seq=frame.seq, rows_shift_s=parts)
