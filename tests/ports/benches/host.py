"""The bench of `host`: the load of a machine of eight CPUs, as files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ports.machine_bench import MachineBench


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[MachineBench]:
    """A machine that shows its files while the context is open."""
    yield MachineBench(
        folder, "host", frozenset({"logical_cpu_count", "frequency_frac", "cpu_c", "throttled_s"})
    )
