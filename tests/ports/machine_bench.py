"""Benches of what the machine itself has: files of a simulated kernel, counted by a tape."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heatpool_agent.ports import Roots
from heatpool_sim.devices.sysfs_tree import (
    MachineModel,
    SysfsTree,
    amd_card,
    core_sensor,
    rail_monitor,
)

GPU = "0000:3b:00.0"


class Counter:
    """A tape that keeps nothing and counts."""

    is_playing = False

    def __init__(self) -> None:
        self.count = 0

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What is there."""
        self.count += 1
        return see()

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What is answered."""
        self.count += 1
        return await ask()


class MachineBench:
    """One sensor kind on a machine of files: a file is never slow."""

    faults = frozenset({"pull", "garble"})
    lacks: Mapping[str, str] = {"slow": "a kernel's file is never slow"}

    def __init__(self, folder: Path, kind: str, quantities: frozenset[str]) -> None:
        self.quantities = quantities
        self.settings: Mapping[str, Any] = {"kind": kind}
        self.tape = Counter()
        chips = (amd_card(), rail_monitor("fans"), core_sensor(51.0))
        self.tree = SysfsTree(folder, MachineModel(gpu_addresses=(GPU,), chips=chips))
        self.tree.step(100.0, 10.0, gpu_w=118.0, more={"fans": 30.0})
        self.roots = Roots(
            sys=self.tree.sys, proc=self.tree.proc, dev=folder / "dev", tape=self.tape
        )  # fmt: skip

    @property
    def exchanges(self) -> int:
        """Looks at files, folders and libraries."""
        return self.tape.count

    def use_library(self, path: Path) -> None:
        """Names the GPUs' library."""
        self.roots = replace(self.roots, nvml=str(path))

    async def pull(self) -> None:
        """Files lead nowhere any more, and those held open are empty."""
        self.tree.fault("masked")

    async def slow(self) -> None:
        """A kernel's file is never slow."""
        raise NotImplementedError

    async def garble(self) -> None:
        """Every measured value is a word."""
        self.tree.fault("garbled")

    async def heal(self) -> None:
        """As at the start, in the same place."""
        self.tree.heal()
