"""A site whose clock was far off: what its times are to be shifted by, and what waits for that.

Rows of a spool were taken in the order of its numbers, whatever the clock showed. So a shift is
found by what came before: times that run on were taken under the same clock, and of shifts that
keep the order the one counts that leaves the smallest gap. No row lies ahead of its arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from heatpool.sample import BootId
from heatpool.units import NS_PER_S
from heatpool_aggregator.core.admission import AGREE_NS, BOOTS_LIMIT, HOLD_NS, SiteClock
from heatpool_aggregator.core.own_clock import Mistake

DELAY_NS = 60 * NS_PER_S  # what a message may take; a slower one waits for the next
RUN_ON_NS = 120 * NS_PER_S  # rows this close were taken under one clock: a step is 10 min or more
READ_NS = 10 * NS_PER_S  # a register is sent as it is read: later, the order of rows says more
STEADY_NS = NS_PER_S  # a shift stays to within this, so that rows keep their distance
SHIFTS_LIMIT = 8  # known of a site
ENDS_LIMIT = 4  # of a spool: two lanes, and what was asked for again
HELD_LIMIT = 64  # frames of a site: an hour of one that sends each minute
HELD_BYTES = 256 << 10
QUIET_NS = 7 * 86_400 * NS_PER_S  # without a shift: what was recorded under the old clock has come


class End(NamedTuple):
    """The last row of a frame, as its site showed the time, and on our clock; ns."""

    seq: int
    raw_ns: int
    true_ns: int
    received_ns: int


class Sending(NamedTuple):
    """When a frame was sent, by its site's clock, and when it came, by ours; ns.

    Rows that were taken no longer than `live_ns` before were sent as they were taken.
    """

    sent_ns: int
    received_ns: int
    live_ns: int = RUN_ON_NS

    @property
    def offset_ns(self) -> int:
        """What to add to the site's time of sending, ns; the way here is still in it."""
        return self.received_ns - self.sent_ns


class HeldFrame(NamedTuple):
    """A frame of the log that waits for its time."""

    boot_id: BootId
    kind: int
    seq: int
    received_ns: int
    payload: bytes
    sent_ns: int
    epoch: int = 0  # of our own clock, at its arrival


class Run(NamedTuple):
    """Rows of one frame, first included and last not, whose times run on; first and last, ns."""

    first: int
    last: int
    start_ns: int
    end_ns: int


@dataclass(slots=True)
class Course:
    """What is known of one site since its clock went far off.

    `shifts_ns` are those that its rows had, the newest last; 0 is always one of them.
    """

    shifts_ns: list[int] = field(default_factory=list)
    ends: dict[BootId, list[End]] = field(default_factory=dict)
    held: list[HeldFrame] = field(default_factory=list)
    shifted_ns: int = 0

    def settled_ns(self, clock: SiteClock) -> int:
        """The shift of what is taken now, ns; a clock within ten minutes is left alone."""
        if not clock.is_far:
            return 0
        near = (ns for ns in self.shifts_ns if abs(ns - clock.offset_ns) <= STEADY_NS)
        shift_ns = next(near, clock.offset_ns)
        others = [ns for ns in self.shifts_ns if abs(ns - shift_ns) > HOLD_NS]
        self.shifts_ns = [*others[1 - SHIFTS_LIMIT :], shift_ns]
        return shift_ns

    def known_ns(self, settled_ns: int, own_ns: int) -> list[int]:
        """Shifts that a row of this site may need, that of its sending first.

        `own_ns` is the offset of the message alone: of a known clock after some delay, or its own.
        """
        known_ns = list(dict.fromkeys((settled_ns, *reversed(self.shifts_ns), 0)))
        same = [ns for ns in known_ns if -AGREE_NS <= own_ns - ns <= HOLD_NS]
        first_ns = max(same, default=own_ns if abs(own_ns) > HOLD_NS else 0)
        return [first_ns, *(ns for ns in known_ns if ns != first_ns)]

    def before(self, boot_id: BootId, seq: int) -> End | None:
        """The end of the nearest frame before this one that is known."""
        end = max((end for end in self.ends.get(boot_id, ()) if end.seq < seq), default=None)
        # Others lie between: nothing runs on from there, whatever the clock showed.
        if end is None or end.seq in {-1, seq - 1}:
            return end
        return end._replace(raw_ns=-(2**62))

    def after(self, boot_id: BootId, seq: int) -> End | None:
        """The end of the nearest frame behind this one that is known."""
        return min((end for end in self.ends.get(boot_id, ()) if end.seq > seq), default=None)

    def nearest(self, raw_ns: int) -> End | None:
        """Of all spools of the site the end that the clock showed nearest to this."""
        ends = (end for ends in self.ends.values() for end in ends)
        return min(ends, key=lambda end: abs(end.raw_ns - raw_ns), default=None)

    def passed(self, boot_id: BootId, end: End) -> None:
        """Keeps where a frame ended, for the next one of its lane."""
        others = [one for one in self.ends.pop(boot_id, ()) if one.seq != end.seq - 1]
        self.ends[boot_id] = [*others[1 - ENDS_LIMIT :], end]
        if len(self.ends) > BOOTS_LIMIT:
            del self.ends[next(iter(self.ends))]

    def hold(self, frame: HeldFrame) -> list[HeldFrame]:
        """Keeps a frame until its time is known; those for which there is no room any more."""
        self.held.append(frame)
        n_bytes = sum(len(one.payload) for one in self.held)
        count = 0
        while len(self.held) - count > HELD_LIMIT or (n_bytes > HELD_BYTES and self.held[count:]):
            n_bytes -= len(self.held[count].payload)
            count += 1
        gone, self.held = self.held[:count], self.held[count:]
        return gone

    def came_right(self, mistakes: Mapping[int, Mistake]) -> None:
        """What is held came at another time than our own clock showed, by epoch of it."""
        for place, one in enumerate(self.held):
            if mistake := mistakes.get(one.epoch):
                received_ns = one.received_ns - mistake.of(one.received_ns - one.sent_ns)
                self.held[place] = one._replace(received_ns=received_ns, epoch=0)

    def is_over(self, received_ns: int) -> bool:
        """Whether nothing more can come that needs a shift."""
        return not self.held and received_ns - self.shifted_ns > QUIET_NS

    def to_list(self) -> list[object]:
        """The same as a list, for a snapshot."""
        ends = [[boot_id, list(map(list, ends))] for boot_id, ends in self.ends.items()]
        return [self.shifts_ns, ends, list(map(list, self.held)), self.shifted_ns]

    @classmethod
    def from_list(cls, fields: Sequence[Any]) -> "Course":
        """The same out of a snapshot."""
        shifts_ns, ends, held, shifted_ns = fields
        return cls(
            shifts_ns=list(shifts_ns),
            ends={BootId(boot_id): [End(*end) for end in found] for boot_id, found in ends},
            held=[HeldFrame(*frame) for frame in held],
            shifted_ns=shifted_ns,
        )


def is_decided(clock: SiteClock, offset_ns: int) -> bool:
    """Whether a message with this offset has its time by the clock, which it is part of already."""
    if clock.is_held:
        return False
    return -AGREE_NS <= offset_ns - clock.offset_ns <= DELAY_NS


def runs(times_ns: Sequence[int]) -> list[Run]:
    """Rows in the order in which they were taken, cut where the clock may have been set."""
    cuts = [
        place
        for place, (before, after) in enumerate(pairwise(times_ns), 1)
        if not 0 < after - before <= RUN_ON_NS
    ]
    return [
        Run(first, last, times_ns[first], times_ns[last - 1])
        for first, last in pairwise([0, *cuts, len(times_ns)])
    ]


def shift_of(
    run: Run,
    sending: Sending,
    *,
    before: End | None,
    known_ns: Sequence[int],
    after: End | None = None,
) -> int | None:
    """What to add to the times of a run, ns; None if no shift can be.

    `known_ns` are those that may be, that of the sending first.
    """
    latest_ns = sending.received_ns + DELAY_NS
    if after is not None and before is None:
        # Of a backlog from before the course: what was taken later came first.
        latest_ns = min(latest_ns, after.true_ns)
        known_ns = sorted(known_ns, key=lambda ns: abs(after.true_ns - run.end_ns - ns))
    is_live = _is_live(run, sending, before)
    if before is not None and 0 <= run.start_ns - before.raw_ns <= RUN_ON_NS:
        same_ns = before.true_ns - before.raw_ns
        if is_live and -HOLD_NS <= known_ns[0] - same_ns <= DELAY_NS:
            same_ns = known_ns[0]
        if run.end_ns + same_ns <= latest_ns:
            return same_ns
    may_be = [ns for ns in known_ns if run.end_ns + ns <= latest_ns]
    if before is None or (is_live and known_ns[0] in may_be):
        return next(iter(may_be), None)
    gaps_ns = {ns: run.start_ns + ns - before.true_ns for ns in may_be}
    in_order = [ns for ns in may_be if gaps_ns[ns] >= -DELAY_NS]
    return min(in_order, key=gaps_ns.__getitem__) if in_order else next(iter(may_be), None)


def _is_live(run: Run, sending: Sending, before: End | None) -> bool:
    """Whether rows were sent as they were taken: not of a backlog that has the time by chance."""
    if not -AGREE_NS <= sending.sent_ns - run.end_ns <= sending.live_ns:
        return False
    true_ns = run.end_ns + sending.offset_ns
    return before is None or before.received_ns <= true_ns + AGREE_NS


def shifts_of(
    times_ns: Sequence[int],
    sending: Sending,
    *,
    before: End | None,
    known_ns: Iterable[int],
    after: End | None = None,
) -> list[tuple[Run, int]] | None:
    """Each run of a frame with its shift, ns; None if one of them has none."""
    known, found = list(known_ns), list[tuple[Run, int]]()
    for run in runs(times_ns):
        shift_ns = shift_of(run, sending, before=before, known_ns=known, after=after)
        if shift_ns is None:
            return None
        found.append((run, shift_ns))
        # The next run was taken after this one, and sent with it.
        heard_ns = before.received_ns if before else 0
        before = End(0, run.end_ns, run.end_ns + shift_ns, heard_ns)
    return found
