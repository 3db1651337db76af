"""The bench of `hwmon`: an AMD card and a rail, as files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ports.machine_bench import MachineBench


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[MachineBench]:
    """A machine that shows its files while the context is open."""
    yield MachineBench(folder, "hwmon", frozenset({"power_w"}))
