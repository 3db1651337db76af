"""The newest commits of a log in memory, for the shard, which asks for them within moments."""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from heatpool_aggregator.ports import Frame, Position

TAIL_BYTES = 8 << 20


class Tail:
    """The newest commits, as they are in the file: the shard asks for them within moments."""

    def __init__(self) -> None:
        self._commits: deque[tuple[Position, Sequence[Frame], int]] = deque()
        self._n_bytes = 0

    def add(self, position: Position, frames: Sequence[Frame]) -> None:
        """Takes in a durable commit; the oldest go."""
        if self._commits and self._commits[-1][0] + 1 != position:
            # One in between was given up here and may be in the file all the same.
            self._commits.clear()
            self._n_bytes = 0
        n_bytes = sum(len(payload) for *_, payload in frames)
        self._commits.append((position, frames, n_bytes))
        self._n_bytes += n_bytes
        while self._n_bytes > TAIL_BYTES:
            self._n_bytes -= self._commits.popleft()[2]

    def drop(self, position: Position) -> None:
        """Lets go what is applied up to a position: the file alone says what is left of it."""
        while self._commits and self._commits[0][0] <= position:
            self._n_bytes -= self._commits.popleft()[2]

    def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]] | None:
        """Frames behind a position, and from now on no others; None if they are not all here."""
        if not self._commits or after + 1 < self._commits[0][0]:
            return None
        # Whoever asks has what is before: let go at once, it is still at hand and not yet old.
        while len(self._commits) > 1 and self._commits[0][0] <= after:
            self._n_bytes -= self._commits.popleft()[2]
        # Positions follow one on another.
        found: list[tuple[Position, Frame]] = []
        for position, frames, _ in islice(self._commits, after + 1 - self._commits[0][0], None):
            found += [(position, frame) for frame in frames]
            if len(found) >= limit:
                break
        return found
