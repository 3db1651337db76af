"""GPUs as NVIDIA's library tells them: a real shared library, built here, that reads a file.

The file is replaced whole at each change, so that no answer is torn. Each folder has a library of
its own: two machines with different cards can run in one process.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from heatpool.errors import HeatpoolError
from heatpool_sim.devices.counting import EnergyCount

LIBRARY = "libnvidia-ml.so.1"
# Energy, mean of a second, this moment, older call, highest limit; then the module's.
_COLUMNS = ("energy", "mean", "now", "usage", "most", "module_energy", "module_mean", "module_now")
_SOURCE = "nvml_library.c"
_BUILD_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One line of the library's file: mJ and mW by column, absent where the card tells none."""

    address: str
    name: str
    values: Mapping[str, int]
    is_lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """What a model of card answers; `most_w` is the highest limit that may be set.

    Before Ampere there is no mean of a second, before Volta no energy; a module is CPU and GPU on
    one board, where the GPU alone is not measured.
    """

    name: str
    idle_w: float
    most_w: float
    has_energy: bool = True
    has_mean: bool = True
    is_module: bool = False


class Gpu:
    """One card that runs: power in, an energy counter since its driver was loaded."""

    def __init__(self, model: GpuModel, address: str, *, start_mj: int = 0) -> None:
        self.model = model
        self.address = address
        self.power_w = model.idle_w
        self.energy = EnergyCount(start_mj * 1000)
        self.is_lost = False
        self.is_frozen = False

    def step(self, power_w: float, dt_s: float) -> None:
        """Holds a power, W, for so many seconds; a card keeps within idle and its limit."""
        self.power_w = min(max(power_w, self.model.idle_w), self.model.most_w)
        if not self.is_frozen:
            self.energy.add(self.power_w, dt_s)

    def card(self) -> Card:
        """What its driver tells now."""
        milliwatt = round(self.power_w * 1000)
        told = {"energy": self.energy.mj, "mean": milliwatt, "now": milliwatt, "usage": milliwatt}
        if not self.model.has_energy:
            del told["energy"]
        if not self.model.has_mean:
            del told["mean"]
        if self.model.is_module:
            told = {f"module_{column}": told[column] for column in told if column != "usage"}
        told["most"] = round(self.model.most_w * 1000)
        return Card(
            address=self.address, name=self.model.name, values=told, is_lost=self.is_lost
        )  # fmt: skip


class NvmlLibrary:
    """The library in its folder, its cards, and the calls that it got."""

    def __init__(self, folder: Path) -> None:
        """Builds the library.

        Raises:
            HeatpoolError: no C compiler, or it refuses.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / LIBRARY
        _build(self.path)
        (folder / "calls").write_text("", encoding="ascii")
        self.show(())

    def show(self, cards: Sequence[Card]) -> None:
        """Puts these cards in place of those before, at once."""
        fresh = self.folder / "cards.new"
        fresh.write_text("".join(map(_line, cards)), encoding="utf-8")
        fresh.replace(self.folder / "cards")

    def calls(self) -> list[str]:
        """Names of the calls since the start, oldest first."""
        return (self.folder / "calls").read_text(encoding="ascii").split()

    def fault(self, name: str) -> None:
        """Makes one last: `hang`, `refuse`, or `remove` of the library itself."""
        if name == "remove":
            # Gone from its place, and the driver gone from under those who hold it open.
            self.path.rename(self.folder / "removed")
            (self.folder / "refuse").touch()
            self.show(())
        else:
            (self.folder / name).touch()

    def heal(self) -> None:
        """Ends every fault; the cards must be shown again after a removal."""
        for name in ("hang", "refuse"):
            (self.folder / name).unlink(missing_ok=True)
        if (self.folder / "removed").exists():
            (self.folder / "removed").rename(self.path)


def blank(card: Card, *columns: str, bits: int = 32) -> Card:
    """The card with the library's mark for "no value" in these columns, of either width."""
    mark = 2**63 - 16 if bits == 64 else 2**31 - 16
    return replace(card, values={**card.values, **dict.fromkeys(columns, mark)})


def _build(library: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise HeatpoolError("no C compiler (gcc or cc) to build the simulated NVIDIA library")
    # Built beside its place and moved: another process may load it meanwhile.
    fresh = library.with_name(f"{library.name}.{os.getpid()}")
    with as_file(files("heatpool_sim.devices").joinpath(_SOURCE)) as source:
        done = subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", fresh, source, "-ldl"],
            check=False, capture_output=True, text=True, timeout=_BUILD_S,
        )  # fmt: skip
    if done.returncode != 0:
        raise HeatpoolError(f"the simulated NVIDIA library does not build: {done.stderr.strip()}")
    fresh.replace(library)


def _line(card: Card) -> str:
    told = [str(card.values.get(column, "-")) for column in _COLUMNS]
    name = card.name.replace("\t", " ").replace("\n", " ")
    state = "lost" if card.is_lost else "ok"
    return "\t".join((card.address, name, *told, state)) + "\n"
