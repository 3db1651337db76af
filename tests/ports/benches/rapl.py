"""The bench of `rapl`: energy counters of one package, its cores and its memory, as files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ports.machine_bench import MachineBench


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[MachineBench]:
    """A machine that shows its files while the context is open."""
    yield MachineBench(folder, "rapl", frozenset({"energy_j", "rated_w"}))
