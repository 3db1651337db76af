"""How fast a backlog may go, so that the live lane never waits behind it.

A burst of known bytes is timed from its first write to its last acknowledgement. The least time
that any burst took is what the way and the other end's commit cost, whatever the size; what is
above it was spent on the link. A pause after each burst keeps the link free for the rest.
"""

SHARE_FRAC = 0.25
SHARE_LEAST_FRAC = SHARE_FRAC / 16
# A share that was taken back comes again in steps, each after a burst without complaint.
REGAIN = 1.1
# A live frame must not wait longer behind a burst, s.
BURST_S = 1.0
PAUSE_MOST_S = 60.0
# Commits at the other end come 50 ms apart: less than two of them tells nothing of a link.
TOLD_LEAST_S = 0.1


class Pace:
    """Size of the next burst and the pause after it; bytes per second of the link as measured."""

    def __init__(self) -> None:
        self.link_bytes_s: float | None = None
        self.share_frac = SHARE_FRAC
        self.burst_count = 1
        self._least: tuple[float, int] | None = None

    def begin(self) -> None:
        """A new line: its link is not known yet, a share that was taken back stays so."""
        self.link_bytes_s, self._least, self.burst_count = None, None, 1

    def slow(self) -> None:
        """The other end has too much to do: half the share from now on."""
        self.share_frac = max(SHARE_LEAST_FRAC, self.share_frac / 2)
        self.burst_count = 1

    def pause_s(
        self, sent_bytes: int, elapsed_s: float, *, count: int, limit_bytes_s: float | None
    ) -> float:
        """How long to send no backlog after a burst of `count` frames, s."""
        link_s = self._link_s(sent_bytes, elapsed_s, count=count)
        self._note(sent_bytes, link_s)
        self._size(link_s, count)
        pause_s = link_s / self.share_frac - elapsed_s
        if limit_bytes_s is not None:
            pause_s = max(pause_s, sent_bytes / max(limit_bytes_s, 1e-3) - elapsed_s)
        self.share_frac = min(SHARE_FRAC, self.share_frac * REGAIN)
        return min(PAUSE_MOST_S, max(0.0, pause_s))

    def _link_s(self, sent_bytes: int, elapsed_s: float, *, count: int) -> float:
        """What of the time went into the link itself, s; nothing while it cannot be told."""
        if self._least is None or elapsed_s < self._least[0]:
            self._least = (elapsed_s, sent_bytes)
        least_s, least_bytes = self._least
        more_bytes = sent_bytes - least_bytes
        if more_bytes > 0:
            # The shortest burst had bytes of its own on the link: its share belongs to them.
            return (elapsed_s - least_s) * min(2.0, sent_bytes / more_bytes)
        if self.link_bytes_s is not None:
            return min(elapsed_s, sent_bytes / self.link_bytes_s)
        # Bursts that may not grow never tell the link from the way: then all of it is the link.
        return elapsed_s if count < self.burst_count else 0.0

    def _note(self, sent_bytes: int, link_s: float) -> None:
        """Keeps the link's rate where the time can be told from the jitter of commits."""
        if link_s >= TOLD_LEAST_S:
            seen = sent_bytes / link_s
            known = self.link_bytes_s
            self.link_bytes_s = seen if known is None else known + 0.2 * (seen - known)

    def _size(self, link_s: float, count: int) -> None:
        """Doubles while a burst is short on the link, halves where it holds up the rest."""
        if link_s > BURST_S:
            self.burst_count = max(1, count // 2)
        elif link_s < BURST_S / 2 and count >= self.burst_count:
            self.burst_count = min(1 << 16, 2 * self.burst_count)
