"""How fast a backlog may go, so that the live lane never waits behind it.

A burst is timed from its first write to its last acknowledgement. Most of that is the way and the
other end's commit, whatever the size; what grows with the size was spent on the link. Bursts of
unlike size tell the two apart: the median of the slopes between them, since single times jitter
(Theil and Sen). A pause after each burst keeps the link free for the rest.
"""

from collections import deque
from itertools import combinations

from heatpool_agent.core.median import median

SHARE_FRAC = 0.25
SHARE_LEAST_FRAC = SHARE_FRAC / 16
# A share that was taken back comes again in steps, each after a burst without complaint.
REGAIN = 1.1
# A live frame must not wait longer behind a burst, s.
BURST_S = 1.0
PAUSE_MOST_S = 60.0
# Bursts of this length at most where the other end names a rate.
LIMITED_S = 10.0
# The newest bursts that are compared, and how often a short one is sent to compare with.
BURSTS_KEPT = 12
PROBE_EVERY = 4
# Commits at the other end come 50 ms apart: less than two of them tells nothing of a link.
TOLD_LEAST_S = 0.1


class Pace:
    """Size of the next burst and the pause after it; bytes per second of the link as measured."""

    def __init__(self) -> None:
        self.share_frac = SHARE_FRAC
        self.begin()

    def begin(self) -> None:
        """A new line: its link is not known yet, a share that was taken back stays so."""
        self.link_bytes_s: float | None = None
        self._wanted_count = 1
        self._number = 0
        self._seen: deque[tuple[int, float]] = deque(maxlen=BURSTS_KEPT)

    @property
    def burst_count(self) -> int:
        """Frames of the next burst."""
        is_probe = self._number % PROBE_EVERY == PROBE_EVERY - 1
        return 1 if is_probe else self._wanted_count

    def slow(self) -> None:
        """The other end has too much to do: half the share from now on."""
        self.share_frac = max(SHARE_LEAST_FRAC, self.share_frac / 2)
        self._wanted_count = 1

    def pause_s(
        self, sent_bytes: int, elapsed_s: float, *, count: int, limit_bytes_s: float | None
    ) -> float:
        """How long to send no backlog after a burst of `count` frames, s."""
        self._seen.append((sent_bytes, elapsed_s))
        link_s = self._link_s(sent_bytes, elapsed_s, count=count)
        if count == self.burst_count:
            self._size(link_s, count)
        self._number += 1
        pause_s = link_s / self.share_frac - elapsed_s
        if limit_bytes_s is not None:
            limited_s = sent_bytes / max(limit_bytes_s, 1e-3)
            pause_s = max(pause_s, limited_s - elapsed_s)
            # Longer than the longest pause, it would be sent faster than it may.
            if limited_s > LIMITED_S:
                self._wanted_count = max(1, count // 2)
        self.share_frac = min(SHARE_FRAC, self.share_frac * REGAIN)
        return min(PAUSE_MOST_S, max(0.0, pause_s))

    def _link_s(self, sent_bytes: int, elapsed_s: float, *, count: int) -> float:
        """What of the time went into the link itself, s; nothing while it cannot be told."""
        slopes = [
            (after_s - before_s) / (after_bytes - before_bytes)
            for (before_bytes, before_s), (after_bytes, after_s) in combinations(self._seen, 2)
            # Sizes that are alike tell nothing but the jitter.
            if not 0.7 < before_bytes / after_bytes < 1.4
        ]
        if not slopes:
            # Bursts that may not grow never tell the link from the way: then all of it is the link.
            return elapsed_s if count < self._wanted_count else 0.0
        slope_s = max(0.0, median(slopes))
        largest_s = slope_s * max(seen_bytes for seen_bytes, _ in self._seen)
        self.link_bytes_s = 1.0 / slope_s if largest_s >= TOLD_LEAST_S else None
        return min(elapsed_s, sent_bytes * slope_s)

    def _size(self, link_s: float, count: int) -> None:
        """Doubles while a burst is short on the link, halves where it holds up the rest."""
        if link_s > BURST_S:
            self._wanted_count = max(2, count // 2)
        elif link_s < BURST_S / 2 and count == self._wanted_count:
            self._wanted_count = min(1 << 16, 2 * self._wanted_count)
