"""A Log that lives as long as its process: for tests and for trying out, never for money."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from heatpool.errors import LogError
from heatpool_aggregator.ports import START, Frame, Position, Snapshot


class MemoryPartition:
    """The only partition."""

    def __init__(self, commits: dict[Position, tuple[Frame, ...]]) -> None:
        self.snapshot: Snapshot | None = None
        self._commits = commits

    async def read(self, after: Position, limit: int) -> Sequence[tuple[Position, Frame]]:
        """Frames behind a position; whole commits, until there are `limit` of them."""
        found: list[tuple[Position, Frame]] = []
        for position, frames in self._commits.items():
            if len(found) >= limit:
                break
            if position > after:
                found += [(position, frame) for frame in frames]
        return found

    async def save(self, snapshot: Snapshot) -> None:
        """Keeps the snapshot and forgets the frames that are applied in it."""
        self.snapshot = snapshot
        for position in [p for p in self._commits if p <= snapshot.position]:
            del self._commits[position]


class MemoryLog:
    """Frames of this process."""

    def __init__(self) -> None:
        self._commits: dict[Position, tuple[Frame, ...]] = {}
        self._last = START
        self._partition = MemoryPartition(self._commits)

    async def append(self, frames: Sequence[Frame]) -> Position:
        """Position of the commit."""
        self._last = Position(self._last + 1)
        self._commits[self._last] = tuple(frames)
        return self._last

    @asynccontextmanager
    async def partition(self, number: int) -> AsyncIterator[MemoryPartition]:
        """The only partition, 0.

        Raises:
            LogError: any other number.
        """
        if number != 0:
            raise LogError(f"memory log: partition {number} does not exist, there is only 0")
        yield self._partition


@asynccontextmanager
async def open_log(target: str, directory: Path) -> AsyncIterator[MemoryLog]:
    """An empty log; target and directory mean nothing to it."""
    yield MemoryLog()
