"""How far a backlog has gone, and how long the rest will take."""

from collections import deque

from heatpool_agent.core.line import Sent

# The rate is that of the last minute: a line may get better or worse.
RATE_S = 60.0


class Drain:
    """Counts one line's backlog; `at_s` is any clock that only runs forwards, s."""

    def __init__(self, left_count: int, at_s: float) -> None:
        self.start_count = left_count
        self._left: deque[tuple[float, int]] = deque([(at_s, left_count)])
        self._sent_count = self._rows_count = self._size_bytes = 0

    def sent(self, sent: Sent) -> None:
        """One frame has gone; what it weighs is what the others are thought to weigh."""
        self._sent_count += 1
        self._rows_count += sent.rows_count
        self._size_bytes += sent.size_bytes

    def left(self, left_count: int, at_s: float) -> None:
        """So many frames are left now."""
        self._left.append((at_s, left_count))
        while len(self._left) > 2 and self._left[1][0] <= at_s - RATE_S:
            self._left.popleft()

    @property
    def left_count(self) -> int:
        """Frames that are left."""
        return self._left[-1][1]

    @property
    def done_frac(self) -> float:
        """Share of the backlog at the start that has arrived; 1 where there was none."""
        done = self.start_count - self.left_count
        return max(0.0, done / self.start_count) if self.start_count else 1.0

    @property
    def frames_s(self) -> float | None:
        """Frames that arrive per second; None: not known yet."""
        (first_s, before), (last_s, now) = self._left[0], self._left[-1]
        return (before - now) / (last_s - first_s) if last_s > first_s and before > now else None

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at this rate, s; None: not known yet."""
        rate = self.frames_s
        if not self.left_count:
            return 0.0
        return self.left_count / rate if rate else None

    @property
    def rows_left(self) -> int | None:
        """Rows that are left, told from those sent; None: none was sent yet."""
        return self._told(self._rows_count)

    @property
    def bytes_left(self) -> int | None:
        """Bytes on the line that are left, told from those sent; None: none was sent yet."""
        return self._told(self._size_bytes)

    def _told(self, sent_sum: int) -> int | None:
        if not self.left_count:
            return 0
        return round(sent_sum * self.left_count / self._sent_count) if self._sent_count else None
