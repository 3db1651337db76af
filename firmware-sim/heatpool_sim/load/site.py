"""What one light agent has to say, and what it makes of what it hears; no connection here."""

import random
import time
from collections import deque
from collections.abc import Iterator

from heatpool_sim.load import figures, queues
from heatpool_sim.load.asked import Asked
from heatpool_sim.load.course import NS
from heatpool_sim.load.queue import Lane, Queue
from heatpool_sim.load.tally import Tally
from heatpool_sim.load.voice import Voice
from heatpool_sim.wire import down, garbage, up

WINDOW_LEAST = 4  # before the aggregator says how many
ROWS_MOST = 1_000
IDLE_S = 30.0
HOUR_NS = 3_600 * NS
OFFSETS_NS = tuple(hours * HOUR_NS for hours in (-12, 12, -24, 24, -1, 1, 72, -168))
LIES_EACH = len(garbage.FRAMES)  # frames of garbage, then a message that ends the stream


class Site:
    """The queues of one site, and the words about them."""

    def __init__(
        self,
        number: int,
        asked: Asked,
        tally: Tally,
        random_: random.Random,
        *,
        start_ns: int,
    ) -> None:
        faults = asked.faults
        self.site_id, self._asked, self._tally, self._random = (
            asked.site_id(number),
            asked,
            tally,
            random_,
        )
        self.is_liar = number >= asked.agents - round(asked.agents * faults.garbage_frac)
        # Liars are the last ones, those with a bad clock the first: nobody is both.
        is_off = number < round(asked.agents * faults.bad_clock_frac)
        self.offset_ns = OFFSETS_NS[number % len(OFFSETS_NS)] if is_off else 0
        self.is_noisy = faults.noisy_factor is not None and number == asked.agents // 2
        self._factor = (faults.noisy_factor or 1.0) if self.is_noisy else 1.0
        made = queues.made(asked, random_, own_ns=start_ns + self.offset_ns)
        self.telemetry, self.billing, self.live_from_seq = made
        self.queues = (self.telemetry, self.billing)
        self._by_boot = {queue.boot_id: queue for queue in self.queues}
        self._is_backlog_open = self.live_from_seq > 1
        tally.backlogs_open += self._is_backlog_open
        self.voice = Voice(number, live_from_seq=self.live_from_seq, is_liar=self.is_liar)
        self._limits = down.Limits()
        self._reads_zlib = False
        self.is_told_to_wait = False
        self._silent_until_s = self._backlog_from_s = 0.0
        self._extra: deque[bytes] = deque()
        self._lies_count = 0
        self._greeted_s: float | None = None
        self._is_final = asked.is_quiet  # whoever is quiet makes nothing at all
        self.is_checked = False
        self._cadence()

    # What goes up

    def hello(self) -> bytes:
        """Says who speaks; whatever was on its way is not known to have come."""
        self._extra.clear()
        self._produce()
        return up.hello(self.site_id, [queue.opened() for queue in self.queues], figures.CHANNELS)

    def message(self) -> bytes | None:
        """What is to be sent now; None for nothing."""
        self._produce()
        if self._extra:
            return self._extra.popleft()
        if time.monotonic() < self._silent_until_s:
            return None
        for queue in self.queues:
            if queue.untold:
                self._tally.counts["gaps"] += 1
                return up.gap(queue.boot_id, *queue.untold.popleft())
        return self._asked_again() or self._due()

    def _asked_again(self) -> bytes | None:
        for queue in self.queues:
            if (seq := queue.take_again()) is not None:
                return self._frame(queue, seq)
        return None

    def _due(self) -> bytes | None:
        for queue, lane in self._lanes():
            is_swapped = self._random.random() < self._asked.faults.reorder_frac
            seq = queue.take(lane, is_swapped=is_swapped and not self._is_final)
            if seq is None:
                continue
            lane.in_flight[seq] = time.monotonic_ns()
            data = self._frame(queue, seq)
            if lane.name == "backlog":
                self._pace(len(data))
            if lane.name == "live" and self.is_liar:
                self._lie()
            return data
        return None

    def _lanes(self) -> Iterator[tuple[Queue, Lane]]:
        """Those that may send: billing first, backlog last and only with half of the window."""
        window = self._limits.unacked_batches or WINDOW_LEAST
        lanes = [(queue, lane) for queue in reversed(self.queues) for lane in queue.lanes]
        on_way = sum(len(lane.in_flight) for _, lane in lanes)
        for queue, lane in lanes:
            if lane.name == "backlog":
                is_open = len(lane.in_flight) < max(1, window // 2)
                if is_open and time.monotonic() >= self._backlog_from_s and on_way < window:
                    yield queue, lane
            elif on_way < window or self.is_noisy:
                yield queue, lane

    def _frame(self, queue: Queue, seq: int) -> bytes:
        sent_ns = time.time_ns() + self.offset_ns
        data = self.voice.frame(queue, seq, sent_ns=sent_ns, reads_zlib=self._reads_zlib)
        self._count(queue, seq, len(data))
        if self._random.random() < self._asked.faults.duplicates_frac:
            self._extra.append(data)
            self._tally.repeated(len(data))
        return data

    def _count(self, queue: Queue, seq: int, n_bytes: int) -> None:
        if queue.sent.holds(seq):
            self._tally.repeated(n_bytes)
            return
        queue.sent.add(seq, seq)
        n_rows = queue.course.at(seq).n_rows
        if kind := self.voice.garbage_kind(queue, seq):
            self._tally.garbage(kind, n_bytes)
        else:
            self._tally.sent(queue.kind, n_rows=n_rows, n_bytes=n_bytes)

    def _lie(self) -> None:
        self._lies_count += 1
        turn, left = divmod(self._lies_count, LIES_EACH)
        if left == 0:
            name = tuple(garbage.ENDERS)[turn % len(garbage.ENDERS)]
            self._extra.append(garbage.ENDERS[name]())
            self._tally.enders[name] += 1

    def _pace(self, n_bytes: int) -> None:
        if self._limits.backlog_bytes_s and not self.is_noisy:
            now_s = time.monotonic()
            since_s = max(now_s, self._backlog_from_s)
            self._backlog_from_s = since_s + n_bytes / self._limits.backlog_bytes_s

    # Time

    def _produce(self) -> None:
        if not self._is_final:
            own_ns = time.time_ns() + self.offset_ns
            for queue in self.queues:
                queue.produce(own_ns)

    def idle_s(self) -> float:
        """How long nothing is to be said unless something is heard, s."""
        now_s, own_ns = time.monotonic(), time.time_ns() + self.offset_ns
        waits = [IDLE_S]
        if not self._is_final:
            waits += [(q.course.due_ns(q.next_seq) - own_ns) / NS for q in self.queues]
        for at_s in (self._silent_until_s, self._backlog_from_s):
            if at_s > now_s:
                waits.append(at_s - now_s)
        return max(0.001, min(waits))

    def burst(self, factor: float) -> None:
        """From the next frame on so many times as much as asked for."""
        if not self.is_noisy:
            self._factor = factor
            self._cadence()

    def _cadence(self) -> None:
        """Rows as far apart as before, in messages as long as the aggregator wants them."""
        period_s = self._asked.period_s / self._factor
        step_ns = max(1, int(period_s * NS) // self._asked.rows)
        wanted_s = None if self.is_noisy else self._limits.message_period_s
        n_rows = max(self._asked.rows, round((wanted_s or 0.0) * NS / step_ns))
        n_rows = min(n_rows, self._limits.batch_rows or ROWS_MOST, ROWS_MOST)
        queue = self.telemetry
        queue.course.go_on(queue.next_seq, n_rows=n_rows, step_ns=step_ns)

    def finish(self) -> None:
        """Nothing more is made; what is left is sent."""
        self._produce()
        self._is_final = True
        for queue in self.queues:
            for lane in queue.lanes:
                lane.release()

    def check(self) -> None:
        """Says hello once more, to hear what is durable."""
        self.is_checked = False
        self._extra.append(self.hello())

    # What comes down

    def take(self, data: bytes) -> None:
        """Makes of a message what it means.

        Raises:
            WireError: it is none.
        """
        said = down.said(data)
        if isinstance(said, down.Ack):
            self._acked(said)
        elif isinstance(said, down.HelloReply):
            self._answered(said)
        elif isinstance(said, down.Resend):
            self._tally.counts["resends"] += 1
            if queue := self._by_boot.get(said.boot_id):
                queue.asked_again(said.first_seq, said.last_seq)
        elif isinstance(said, down.Limits):
            self._tally.counts["slows"] += 1
            self._keep(said)

    def _answered(self, reply: down.HelloReply) -> None:
        self.is_told_to_wait = reply.retry_after_s is not None
        if reply.retry_after_s is not None:
            self._hold(reply.retry_after_s)
            return
        self._tally.counts["refused_schemas"] += len(reply.refused_schemas)
        for queue in self.queues:
            queue.answered(reply.durable.get(queue.boot_id, []))
        self._reads_zlib = reply.reads_zlib
        self._keep(reply.limits)
        self.is_checked = self._is_final
        if self._greeted_s is None:
            self._greeted_s = time.monotonic()
        self._see_backlog()

    def _acked(self, ack: down.Ack) -> None:
        now_ns = time.monotonic_ns()
        for mark in ack.marks:
            if queue := self._by_boot.get(mark.boot_id):
                found = queue.acked(mark.durable_seq, is_backlog=mark.is_backlog)
                for lane, sent_ns in found:
                    self._tally.acked(lane, (now_ns - sent_ns) / NS)
        for refusal in ack.refused:
            self._tally.refused[refusal.reason] += 1
        if ack.retry_after_s is not None:
            self._hold(ack.retry_after_s)
        self._see_backlog()

    def _hold(self, wait_s: float) -> None:
        self._tally.counts["retry_afters"] += 1
        self._silent_until_s = time.monotonic() + wait_s

    def _keep(self, limits: down.Limits) -> None:
        first = self._limits
        self._limits = down.Limits(
            batch_rows=limits.batch_rows or first.batch_rows,
            unacked_batches=limits.unacked_batches or first.unacked_batches,
            message_period_s=limits.message_period_s,
            backlog_bytes_s=limits.backlog_bytes_s,
        )
        self._cadence()

    def _see_backlog(self) -> None:
        if self._is_backlog_open and self.telemetry.is_settled_below(self.live_from_seq):
            self._is_backlog_open = False
            self._tally.backlogs_open -= 1
            assert self._greeted_s is not None
            self._tally.drains.add(time.monotonic() - self._greeted_s)

    @property
    def wait_s(self) -> float:
        """How long the aggregator still wants to hear nothing, s."""
        return max(0.0, self._silent_until_s - time.monotonic())

    @property
    def left_count(self) -> int:
        """Frames that are complete and not known to be durable."""
        return sum(queue.left_count for queue in self.queues)
