"""A server as its own kernel and its cards' library show it: files that an agent's roots name.

Two packages with memory and four GPUs of the plant's computers, each counter with an error of its
own. Files are written after each step of the plant, and behind no counter is more than a step.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.devices.nvml import Gpu, GpuModel, NvmlLibrary
from heatpool_sim.devices.sysfs_tree import Chip, MachineModel, SysfsTree
from heatpool_sim.plant.fed import Fed, means_w
from heatpool_sim.plant.feed import CPUS, GPUS
from heatpool_sim.plant.noise import between
from heatpool_sim.ports import Powered

logger = logging.getLogger(__name__)

_FIRST_BUS = 0x17
_CORE_FRAC = 0.7
_OF_FILES = {
    f"machine_{name}": name for name in ("unreadable", "masked", "frozen", "asleep", "garbled")
}
_OF_LIBRARY = {f"gpu_{name}": name for name in ("hang", "refuse", "remove")}
_AT_ONCE = {"machine_reset": "reset", "machine_wrap_near": "wrap_near"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is bolted in."""

    cpu_name: str
    cpu_most_w: float
    gpu: GpuModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the machine's files lie; without a C compiler there is no library."""

    sys: Path
    proc: Path
    nvml: Path


class Machine:
    """One server; it is switched on when it is served, as after a reboot."""

    def __init__(self, folder: Path, parts: Parts, *, seed: str) -> None:
        self._folder = folder
        self._parts = parts
        self._seed = f"{seed}/machine"
        self._plant: Powered | None = None
        self._tree: SysfsTree | None = None
        self._library: NvmlLibrary | None = None
        self._gpus = [
            Gpu(parts.gpu, f"0000:{_FIRST_BUS + 0x10 * index:02x}:00.0") for index in range(GPUS)
        ]
        self._shown = Fed()
        self._lasting: frozenset[str] = frozenset()
        self._happened = 0

    @asynccontextmanager
    async def serve(self, plant: Powered) -> AsyncIterator[Roots]:
        """Shows its files for as long as the context is open; `follow` moves them on."""
        self._plant, self._shown, self._happened = plant, plant.fed, len(plant.happened)
        await asyncio.to_thread(self._switch_on)
        try:
            yield Roots(
                sys=self._folder / "sys",
                proc=self._folder / "proc",
                nvml=self._folder / "nvml" / "libnvidia-ml.so.1",
            )
        finally:
            if self._library is not None:
                # A call that still hangs would hold its caller for a minute.
                await asyncio.to_thread(self._library.heal)

    async def follow(self) -> None:
        """Shows what the plant has used since the last time."""
        if self._plant is None:
            return
        fed, gauges = self._plant.fed, self._plant.gauges()
        happened = self._plant.happened[self._happened :]
        self._happened += len(happened)
        celsius = {f"cpu{n}_c": told for n, told in enumerate(gauges.server.cpu_c)}
        await asyncio.to_thread(self._show, fed, self._plant.faults, happened, celsius)

    def _switch_on(self) -> None:
        for name in ("sys", "proc", "nvml"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        parts = self._parts
        self._tree = SysfsTree(
            self._folder,
            MachineModel(
                package_count=CPUS,
                cpu_name=parts.cpu_name,
                package_most_w=parts.cpu_most_w,
                gpu_addresses=tuple(gpu.address for gpu in self._gpus),
                chips=tuple(_core_sensor(index) for index in range(CPUS)),
            ),
        )
        boot_id = self._tree.proc / "sys/kernel/random/boot_id"
        boot_id.write_text(f"{uuid4()}\n", encoding="ascii")
        try:
            self._library = NvmlLibrary(self._folder / "nvml")
            self._library.show([gpu.card() for gpu in self._gpus])
        except HeatpoolError as error:
            logger.warning("machine.no_gpus", extra=facts(reason=str(error)))

    def _show(
        self,
        fed: Fed,
        faults: frozenset[str],
        happened: tuple[str, ...],
        celsius: dict[str, float],
    ) -> None:
        if self._tree is None:
            return
        self._change(faults, self._tree)
        for name in happened:
            if name in _AT_ONCE:
                self._tree.fault(_AT_ONCE[name])
        means, span_s = means_w(self._shown, fed), fed.spent_s - self._shown.spent_s
        self._shown = fed
        if not means:
            return
        cpus_w = [self._w(f"cpu{index}", means) for index in range(CPUS)]
        memory_w = self._w("memory", means) / CPUS
        more = {
            **{f"package-{index}": power_w for index, power_w in enumerate(cpus_w)},
            **{f"core-{index}": _CORE_FRAC * power_w for index, power_w in enumerate(cpus_w)},
            **{f"dram-{index}": memory_w for index in range(CPUS)},
        }
        self._tree.step(sum(cpus_w) / CPUS, span_s, more=more | celsius)
        for index, gpu in enumerate(self._gpus):
            gpu.step(self._w(f"gpu{index}", means), span_s)
        if self._library is not None and "gpu_remove" not in faults:
            self._library.show([gpu.card() for gpu in self._gpus])

    def _w(self, part: str, means_w: dict[str, float]) -> float:
        """The part's power as its own counter has it, W."""
        # RAPL counts within a percent or two; a card's shunt is worse (agent.md 3).
        most = 0.04 if part.startswith("gpu") else 0.015
        return means_w[part] * between(1.0 - most, 1.0 + most, seed=f"{self._seed}/{part}")

    def _change(self, faults: frozenset[str], tree: SysfsTree) -> None:
        """Takes up the faults that began, and ends those that are over."""
        lasting = faults & (_OF_FILES.keys() | _OF_LIBRARY.keys())
        for gpu in self._gpus[:1]:  # one falls off its bus, the others stay
            gpu.is_lost = "gpu_lost" in faults
            gpu.is_frozen = "gpu_frozen" in faults
        if lasting == self._lasting:
            return
        self._lasting = lasting
        tree.heal()
        if self._library is not None:
            self._library.heal()
        for name in sorted(lasting):
            if name in _OF_FILES:
                tree.fault(_OF_FILES[name])
            elif self._library is not None:
                self._library.fault(_OF_LIBRARY[name])


def _core_sensor(index: int) -> Chip:
    """A package's temperature; a chip shows what it is told, here degC instead of watts."""
    return Chip(name="coretemp", shows={"temp1_input": (f"cpu{index}_c", 1000.0)})
