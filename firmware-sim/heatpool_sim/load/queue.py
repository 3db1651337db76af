"""One queue of a light agent: what is due, on its way, durable, asked for again, dropped.

Numbers only; what a frame holds is `voice`'s. Lanes are as the agent's: live forwards from the
boundary that hello told, backlog oldest first up to it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal

from heatpool.sample import SpoolKind
from heatpool_sim.load.course import Course
from heatpool_sim.load.ranges import Ranges
from heatpool_sim.wire.down import Range
from heatpool_sim.wire.up import Spool

LaneName = Literal["live", "backlog", "billing"]


class Lane:
    """A way of frames over one stream, by number but for a swap now and then."""

    __slots__ = ("_is_follower_gone", "cursor", "held", "in_flight", "name")

    def __init__(self, name: LaneName, start: int) -> None:
        self.name, self.cursor = name, start
        self.held: int | None = None  # its follower goes first
        self._is_follower_gone = False
        self.in_flight: dict[int, int] = {}

    def take(self, settled: Ranges, end: int, *, is_swapped: bool) -> int | None:
        """The number to be sent now, below `end`; None for none."""
        if self.held is not None and self._is_follower_gone:
            held, self.held, self._is_follower_gone = self.held, None, False
            return held
        seq = self._next(settled, end)
        if seq is not None and self.held is None and is_swapped:
            self.held = seq
            seq = self._next(settled, end)
        if seq is not None and self.held is not None:
            self._is_follower_gone = True
        return seq

    def release(self) -> None:
        """Nothing follows any more."""
        self._is_follower_gone = self.held is not None

    def _next(self, settled: Ranges, end: int) -> int | None:
        seq = settled.next_missing(self.cursor)
        if seq >= end:
            return None
        self.cursor = seq + 1
        return seq


class Queue:
    """`durable` is what was acknowledged; `denied_count` of it was not known to a later reply."""

    def __init__(
        self, kind: SpoolKind, boot_id: str, course: Course, *, next_seq: int, frames_most: int
    ) -> None:
        self.kind, self.boot_id, self.course = kind, boot_id, course
        self.first_seq, self.next_seq = 1, next_seq
        self.durable, self.sent, self.dropped = Ranges(), Ranges(), Ranges()
        self.denied_count = 0
        self.untold: deque[Range] = deque()  # dropped, and not yet said
        self._settled = Ranges()  # durable or dropped
        self._frames_most = frames_most
        self._again: deque[Range] = deque()
        self._start = self._boundary = 0
        self.lanes: tuple[Lane, ...] = ()

    def produce(self, now_ns: int) -> None:
        """Takes in what is complete by now; the oldest go if there are too many."""
        while self.course.due_ns(self.next_seq) <= now_ns:
            self.next_seq += 1
        if (excess := self.left_count - self._frames_most) > 0:
            self._drop(excess)

    def _drop(self, count: int) -> None:
        """The oldest that are not on their way go."""
        gone, seq = Ranges(), self.first_seq
        while count:
            seq = self._settled.next_missing(seq)
            if seq >= self.next_seq:
                break
            if not any(seq in lane.in_flight for lane in self.lanes):
                gone.add(seq, seq)
                count -= 1
            seq += 1
        for first, last in gone.pairs:
            self.dropped.add(first, last)
            self._settled.add(first, last)
            self.untold.append((first, last))
        self.first_seq = self.dropped.next_missing(self.first_seq)

    def opened(self) -> Spool:
        """The state that a hello says now; lanes begin anew."""
        has_lanes = self.kind is SpoolKind.TELEMETRY
        self._start = self.first_seq
        self._boundary = max(self.first_seq, self.next_seq - 1) if has_lanes else 0
        self._again.clear()
        if not has_lanes:
            self.lanes = (Lane("billing", self._start),)
        elif self._boundary == self._start:
            self.lanes = (Lane("live", self._start),)
        else:
            self.lanes = (Lane("live", self._boundary), Lane("backlog", self._start))
        return Spool(
            kind=self.kind,
            boot_id=self.boot_id,
            first_seq=self.first_seq,
            next_seq=self.next_seq,
            boundary_seq=self._boundary,
        )

    def answered(self, pairs: Sequence[Range]) -> None:
        """What the aggregator says is durable, the truth from now on."""
        known = Ranges(pairs)
        self.denied_count += self.durable.lacking_in(known, self._start)
        for first, last in self.durable.pairs:
            known.add(first, min(last, self._start - 1))
        self.durable = known
        self._settled = Ranges([*known.pairs, *self.dropped.pairs])

    def take(self, lane: Lane, *, is_swapped: bool = False) -> int | None:
        """The number to be sent now on a lane."""
        end = self._boundary if lane.name == "backlog" else self.next_seq
        return lane.take(self._settled, end, is_swapped=is_swapped)

    def acked(self, durable_seq: int, *, is_backlog: bool) -> list[tuple[LaneName, int]]:
        """Takes an ack; lane and time of sending of each frame that it was the first to name."""
        found: list[tuple[LaneName, int]] = []
        for lane in self.lanes:
            if (lane.name == "backlog") != is_backlog:
                continue
            is_later = lane.name == "live" and self._boundary > self._start
            start = self._boundary if is_later else self._start
            self.durable.add(start, durable_seq)
            self._settled.add(start, durable_seq)
            for seq in [seq for seq in lane.in_flight if seq <= durable_seq]:
                found.append((lane.name, lane.in_flight.pop(seq)))
        return found

    def asked_again(self, first_seq: int, last_seq: int) -> None:
        """A hole that the aggregator sees."""
        if (last := min(last_seq, self.next_seq - 1)) >= first_seq:
            self._again.append((first_seq, last))

    def take_again(self) -> int | None:
        """The next number that was asked for; None for none. What was dropped is a gap."""
        while self._again:
            first, last = self._again.popleft()
            end = min(last, self.dropped.next_missing(first) - 1)
            if end >= first:
                self.untold.append((first, end))
            seq = max(first, end + 1)
            if seq < last:
                self._again.appendleft((seq + 1, last))
            if seq <= last:
                return seq
        return None

    @property
    def left_count(self) -> int:
        """Frames that are complete, and neither dropped nor known to be durable."""
        last = self.next_seq - 1
        return last - self.first_seq + 1 - self._settled.count(self.first_seq, last)

    def is_settled_below(self, seq: int) -> bool:
        """Whether nothing below this number is left to send."""
        return self._settled.next_missing(1) >= seq

    def arrived(self) -> list[Range]:
        """What is durable and was not only told as a gap."""
        found = []
        for first, last in self.durable.pairs:
            while first <= last:
                start = self.dropped.next_missing(first)
                first = next((a for a, _ in self.dropped.pairs if a > start), last + 1)
                if start <= last:
                    found.append((start, min(first - 1, last)))
        return found
