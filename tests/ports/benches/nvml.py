"""The bench of `nvml`: one card behind a library that is built for it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ports.bench import FAULTS
from ports.machine_bench import GPU, MachineBench

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.nvml import Gpu, GpuModel, NvmlLibrary


class NvmlBench(MachineBench):
    """A card of a maker's own figures, idle and limit as published."""

    faults = FAULTS
    lacks: Mapping[str, str] = {}

    def __init__(self, folder: Path, library: NvmlLibrary) -> None:
        super().__init__(folder, "nvml", frozenset({"energy_j", "power_w", "rated_w"}))
        self._library = library
        self._gpu = Gpu(GpuModel(name="Simulated H100", idle_w=69.85, most_w=700.0), GPU)
        self._gpu.step(400.0, 10.0)
        self._library.show([self._gpu.card()])
        self.use_library(library.path)

    async def pull(self) -> None:
        """The driver is unloaded, its library gone."""
        self._library.fault("remove")

    async def slow(self) -> None:
        """Each call waits for the card's firmware."""
        self._library.fault("hang")

    async def garble(self) -> None:
        """The card fell off its bus: every answer is an error."""
        self._gpu.is_lost = True
        self._library.show([self._gpu.card()])

    async def heal(self) -> None:
        """As at the start."""
        self._gpu.is_lost = False
        self._library.heal()
        self._library.show([self._gpu.card()])


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[NvmlBench]:
    """A card that answers while the context is open; skips where no compiler is."""
    try:
        library = await asyncio.to_thread(NvmlLibrary, folder / "library")
    except HeatpoolError as error:
        pytest.skip(str(error))
    bench = NvmlBench(folder, library)
    try:
        yield bench
    finally:
        # A call that still hangs would hold the test's threads.
        await bench.heal()
