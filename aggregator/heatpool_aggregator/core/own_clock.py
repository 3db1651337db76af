"""Whether our own clock is to be believed: where most sites agree and not with us, it is us.

Time is that of arrival, as frames of the log have it, so that a replay judges alike. A step of our
clock begins another epoch: nothing is corrected until the sites of before are heard again.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from heatpool.sample import SiteId
from heatpool.units import NS_PER_S
from heatpool_aggregator.core.admission import HOLD_NS

HEARD_NS = 3_600 * NS_PER_S
JUDGES_COUNT = 3  # fewer sites are no majority of anything
BIN_NS = HOLD_NS // 2  # two bins side by side: offsets within ten minutes of each other
JUMPS_LIMIT = 256


class Jump(NamedTuple):
    """A step of our clock, ns, with which an epoch began; of silence it has the length in it."""

    epoch: int
    step_ns: int


class Mistake(NamedTuple):
    """What our clock was ahead in an epoch, ns; `is_sure`: whatever a site says."""

    error_ns: int
    is_sure: bool

    def of(self, offset_ns: int) -> int:
        """What to take from the arrival of a message with this offset, ns."""
        is_ours = self.is_sure or abs(offset_ns - self.error_ns) <= HOLD_NS
        return self.error_ns if is_ours else 0


@dataclass(slots=True)
class OwnClock:
    """Sites heard in this epoch, and what they say of our clock.

    `error_ns` is what most of them say it is ahead, None for nothing. `is_open`: a step is not
    judged yet. `step_ns` is one that was seen as it was made.
    """

    epoch: int = 1
    last_ns: int = 0
    heard: OrderedDict[SiteId, int] = field(default_factory=OrderedDict)
    far_ns: dict[SiteId, int] = field(default_factory=dict)
    jumps: list[Jump] = field(default_factory=list)
    agreed_ns: dict[int, int] = field(default_factory=dict)
    awaited_count: int = 0
    is_open: bool = False
    began_ns: int = 0
    error_ns: int | None = None
    step_ns: int | None = None
    _bins: Counter[int] = field(default_factory=Counter)

    @property
    def is_suspect(self) -> bool:
        """Whether nothing may be corrected, nor closed."""
        return self.is_open or self.error_ns is not None

    @property
    def near_count(self) -> int:
        """Sites that were heard in this epoch and agree with us."""
        return len(self.heard) - len(self.far_ns)

    def near(self, site_id: SiteId, received_ns: int) -> Mapping[int, Mistake] | None:
        """A message whose sender agrees with us within ten minutes; see `judged`."""
        self._passed(site_id, received_ns)
        if self.far_ns:
            self._is_not_far(site_id)
        return self.judged(received_ns) if self.is_suspect else None

    def far(
        self, site_id: SiteId, received_ns: int, offset_ns: int
    ) -> Mapping[int, Mistake] | None:
        """A message whose sender does not; see `judged`."""
        self._passed(site_id, received_ns)
        self._is_not_far(site_id)
        self.far_ns[site_id] = offset_ns
        place = offset_ns // BIN_NS
        self._bins[place] += 1
        self._forget(received_ns)
        for low in (place - 1, place):
            if self._is_majority(low):
                self._doubt(offset_ns)
                return None
        return self.judged(received_ns) if self.is_suspect else None

    def stepped(self, step_ns: int, *, voices_count: int = 0) -> None:
        """Our clock was put forward by this while we looked, ns; back if negative.

        `voices_count` sites are waited for at least.
        """
        self.step_ns = step_ns
        self.awaited_count = max(self.awaited_count, voices_count)
        self.last_ns += step_ns
        self._jumped(step_ns)
        if not self.is_suspect:
            self.step_ns = None

    def judged(self, now_ns: int) -> Mapping[int, Mistake] | None:
        """What our clock was ahead in earlier epochs, once it is right; None: not known yet.

        It is right once most sites agree with it, or if nobody is there who could say.
        """
        self._forget(now_ns)
        has_waited = now_ns - self.began_ns > HEARD_NS
        if has_waited:
            self.awaited_count = 0
        if 2 * self.near_count <= self._voices():
            if not (self.is_open and has_waited):
                return None
            if far_ns := [ns for ns in self.far_ns.values() if self._is_majority(ns // BIN_NS)]:
                self._doubt(min(far_ns))
                return None
        mistakes = self._mistakes()
        self.is_open, self.error_ns, self.step_ns, self.awaited_count = False, None, None, 0
        self.jumps, self.agreed_ns = [], {}
        return mistakes

    def _passed(self, site_id: SiteId, received_ns: int) -> None:
        step_ns = received_ns - self.last_ns
        if not -HOLD_NS <= step_ns <= HOLD_NS and self.last_ns:
            self.last_ns = received_ns
            self._jumped(step_ns)
        self.last_ns = received_ns
        self.heard[site_id] = received_ns
        self.heard.move_to_end(site_id)

    def _jumped(self, step_ns: int) -> None:
        self._forget(self.last_ns - step_ns)
        self.epoch += 1
        voices_count = self._voices()
        self.awaited_count = voices_count if voices_count >= JUDGES_COUNT else 0
        self.is_open, self.began_ns = self.awaited_count > 0, self.last_ns
        self.jumps = [*self.jumps[1 - JUMPS_LIMIT :], Jump(self.epoch, step_ns)]
        if not self.is_suspect:
            self.jumps = []
        self.heard.clear()
        self.far_ns.clear()
        self._bins.clear()

    def _voices(self) -> int:
        return max(self.awaited_count, len(self.heard))

    def _doubt(self, offset_ns: int) -> None:
        if self.error_ns is None or abs(self.error_ns - offset_ns) > HOLD_NS:
            self.error_ns = offset_ns
        self.is_open = False
        agreed_ns = self.agreed_ns.get(self.epoch, offset_ns)
        # The lowest has met the shortest queue.
        is_same = abs(agreed_ns - offset_ns) <= HOLD_NS
        self.agreed_ns[self.epoch] = min(agreed_ns, offset_ns) if is_same else offset_ns

    def _is_majority(self, low: int) -> bool:
        # What is not there is not made by asking.
        count = self._bins.get(low, 0) + self._bins.get(low + 1, 0)
        return count >= JUDGES_COUNT and 2 * count > self._voices()

    def _is_not_far(self, site_id: SiteId) -> None:
        offset_ns = self.far_ns.pop(site_id, None)
        if offset_ns is not None:
            place = offset_ns // BIN_NS
            self._bins[place] -= 1
            if not self._bins[place]:
                del self._bins[place]

    def _forget(self, now_ns: int) -> None:
        """Those that were not heard for an hour have no voice."""
        while self.heard:
            site_id, heard_ns = next(iter(self.heard.items()))
            if now_ns - heard_ns <= HEARD_NS:
                return
            del self.heard[site_id]
            self._is_not_far(site_id)

    def _mistakes(self) -> dict[int, Mistake]:
        """By earlier epoch what our clock was ahead, seen from this one, which is right."""
        steps_ns = reversed([step_ns for _, step_ns in self.jumps])
        errors_ns = [-ns for ns in accumulate(steps_ns)]
        epochs = [epoch - 1 for epoch, _ in reversed(self.jumps)]
        found = {}
        for place, (epoch, error_ns) in enumerate(zip(epochs, errors_ns, strict=True)):
            agreed_ns = self.agreed_ns.get(epoch)
            if agreed_ns is None:
                # There and back to where it was: no silence does that.
                is_back = any(abs(ns) <= HOLD_NS for ns in errors_ns[place + 1 :])
                found[epoch] = Mistake(error_ns, is_sure=is_back)
            elif 2 * abs(agreed_ns - error_ns) < abs(agreed_ns):
                # It is us who moved, give or take a silence, and not the sites.
                found[epoch] = Mistake(agreed_ns, is_sure=True)
        return found

    def to_list(self) -> list[object]:
        """The same as a list, for a snapshot."""
        return [
            self.epoch,
            self.last_ns,
            list(self.heard.items()),
            list(self.far_ns.items()),
            list(map(list, self.jumps)),
            list(self.agreed_ns.items()),
            [self.awaited_count, self.is_open, self.began_ns, self.error_ns, self.step_ns],
        ]

    @classmethod
    def from_list(cls, fields: Sequence[Any]) -> "OwnClock":
        """The same out of a snapshot."""
        epoch, last_ns, heard, far_ns, jumps, agreed_ns, rest = fields
        clock = cls(
            epoch=epoch,
            last_ns=last_ns,
            heard=OrderedDict((SiteId(site_id), ns) for site_id, ns in heard),
            far_ns={SiteId(site_id): ns for site_id, ns in far_ns},
            jumps=[Jump(*jump) for jump in jumps],
            agreed_ns=dict(agreed_ns),
        )
        clock.awaited_count, clock.is_open, clock.began_ns, clock.error_ns, clock.step_ns = rest
        clock._bins = Counter(ns // BIN_NS for ns in clock.far_ns.values())
        return clock
