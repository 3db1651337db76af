"""Chips of the kernel's hwmon tree: which values they have, what those mean by rules kept as data.

Per chip one tier answers: energy counter, else power (mean before momentary), else volts times
amperes; tiers are never added. The channel is the path of the device, `hwmon/<device>/<chip>/...`,
as the numbers of hwmon folders change at boot.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from heatpool.errors import SensorGone
from heatpool_agent.core.reading import Node
from heatpool_agent.sensors.kernel_file import KernelFile, KernelTree

VOLTS_AMPERES = "volts_amperes"
# No rule says which volts belong to which amperes: taken by number, which can be wrong.
SAME_INDEX = "same_index"
_VALUE = re.compile(r"(energy|power|in|curr)(\d+)_(input|average)")
_DEVICE = Path("device")
# Beside the code, as wheels install it; importlib.resources would cost 2 MB.
_CHIPS = Path(__file__).parents[1] / "data" / "hwmon_chips.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One hwmon folder: its values as (kind, number) -> suffixes that exist and are enabled.

    `denied` fills with the files that we may not read while its points are opened.
    """

    tree: KernelTree
    folder: Path
    name: str
    key: str
    values: Mapping[tuple[str, int], frozenset[str]]
    denied: list[Path] = field(default_factory=list)
    is_masked: bool = False

    def label(self, kind: str, number: int) -> str:
        stem = f"{kind}{number}"
        plain = self.tree.text(self.folder / f"{stem}_label")
        # ACPI power meters tell what they measure in a file beside their device.
        return plain or self.tree.text(self.folder / _DEVICE / f"{stem}_oem_info") or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One channel: the files whose product, uW or uJ, it is."""

    channel: str
    is_counter: bool
    node: Node
    label: str
    flags: tuple[str, ...]
    files: tuple[KernelFile, ...]
    # Of a GPU: older kernels wake it to answer.
    status: KernelFile | None = None

    def opened(self) -> Iterator[KernelFile]:
        yield from self.files
        if self.status is not None:
            yield self.status


def chips(tree: KernelTree) -> list[Chip]:
    chips: list[Chip] = []
    seen: dict[str, int] = {}
    for folder in _listed(tree, tree.sys / "class/hwmon"):
        name = tree.text(folder / "name") or ""
        key = _key(tree, folder, name)
        seen[key] = seen.get(key, 0) + 1
        key += f"~{seen[key]}" if seen[key] > 1 else ""
        chips.append(_chip(tree, folder, name, key))
    return chips


def _chip(tree: KernelTree, folder: Path, name: str, key: str) -> Chip:
    names = [entry.name for entry in _listed(tree, folder)]
    values = _values(tree, folder, names)
    return Chip(
        tree=tree, folder=folder, name=name, key=key, values=values, is_masked=not names
    )  # fmt: skip


def _listed(tree: KernelTree, folder: Path) -> list[Path]:
    try:
        return [folder / name for name in tree.names(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SensorGone(f"{folder}: {error.strerror}", fix=f"chmod a+rx {folder}") from error


def _key(tree: KernelTree, folder: Path, name: str) -> str:
    """Where the chip sits; a chip without a device has only its name, or its folder's."""
    place = tree.device(folder / _DEVICE)
    return "/".join(part for part in (place, name) if part) or folder.name


def _values(
    tree: KernelTree, folder: Path, names: Sequence[str]
) -> dict[tuple[str, int], frozenset[str]]:
    found: dict[tuple[str, int], frozenset[str]] = {}
    for match in filter(None, map(_VALUE.fullmatch, names)):
        kind, number, suffix = match[1], int(match[2]), match[3]
        if (
            f"{kind}{number}_enable" not in names
            or tree.text(folder / f"{kind}{number}_enable") != "0"
        ):
            found[kind, number] = found.get((kind, number), frozenset()) | {suffix}
    return found


def points(chip: Chip) -> list[Point]:
    for tier in (_energies, _powers, _products):
        if points := list(tier(chip)):
            return points
    return []


def _energies(chip: Chip) -> Iterator[Point]:
    for kind, number in sorted(chip.values):
        if kind == "energy" and "input" in chip.values[kind, number]:
            yield from _point(chip, (kind, number), (f"energy{number}_input",))


def _powers(chip: Chip) -> Iterator[Point]:
    for kind, number in sorted(chip.values):
        if kind == "power":
            suffix = _best(chip.values[kind, number])
            yield from _point(chip, (kind, number), (f"power{number}_{suffix}",))


def _products(chip: Chip) -> Iterator[Point]:
    for volts, amperes, flags in _pairs(chip):
        nothing: frozenset[str] = frozenset()
        both = chip.values.get(("in", volts), nothing) & chip.values.get(("curr", amperes), nothing)
        if both:
            # A mean of one times a moment of the other is the power of no instant.
            names = (f"in{volts}_{_best(both)}", f"curr{amperes}_{_best(both)}")
            yield from _point(chip, ("in", volts), names, flags=flags)


def _pairs(chip: Chip) -> list[tuple[int, int, tuple[str, ...]]]:
    """Numbers of volts and amperes that belong together: by rule, else label, else number."""
    rule = _rules()["chip"].get(chip.name, {})
    pairs = [(pair["volts"], pair["amperes"]) for pair in rule.get("pairs", ())]
    pairs = pairs or _labelled(chip)
    if pairs:
        return [(volts, amperes, (VOLTS_AMPERES,)) for volts, amperes in pairs]
    numbers = sorted(number for kind, number in chip.values if kind == "curr")
    return [(number, number, (VOLTS_AMPERES, SAME_INDEX)) for number in numbers]


def _labelled(chip: Chip) -> list[tuple[int, int]]:
    """Pairs by the names that drivers of PMBus chips give; what goes in before what comes out."""
    named = {
        kind: {chip.label(k, n).casefold(): n for k, n in sorted(chip.values) if k == kind}
        for kind in ("in", "curr")
    }
    for names in _rules()["pair"]:
        found = [
            (named["in"][label], named["curr"][names["amperes"] + tail])
            for label in named["in"]
            if label.startswith(names["volts"])
            and names["amperes"] + (tail := label.removeprefix(names["volts"])) in named["curr"]
        ]
        if found:
            return found
    return []


def _best(suffixes: frozenset[str]) -> str:
    return "average" if "average" in suffixes else "input"


def _point(
    chip: Chip, value: tuple[str, int], names: tuple[str, ...], *, flags: tuple[str, ...] = ()
) -> Iterator[Point]:
    kind, number = value
    label = chip.label(kind, number)
    opened: list[KernelFile] = []
    try:
        for name in names:
            opened.append(chip.tree.file(chip.folder / name))
    except OSError as error:
        # The chip's other channels go on.
        for file in opened:
            file.close()
        if isinstance(error, PermissionError):
            chip.denied.extend(chip.folder / name for name in names)
        return
    yield Point(
        channel=f"hwmon/{chip.key}/{kind}{number}",
        is_counter=kind == "energy",
        node=_node(chip, label),
        label=label or chip.name,
        flags=flags,
        files=tuple(opened),
        status=_status(chip),
    )


def _status(chip: Chip) -> KernelFile | None:
    if _rules()["chip"].get(chip.name, {}).get("node") != Node.GPU.value:
        return None
    try:
        return chip.tree.file(chip.folder / _DEVICE / "power/runtime_status")
    except OSError:
        return None


def _node(chip: Chip, label: str) -> Node:
    rule = _rules()["chip"].get(chip.name, {})
    for table in (rule.get("labels", {}), _rules()["label"]):
        fits = [start for start in table if label.casefold().startswith(start)]
        if fits:
            return Node(table[max(fits, key=len)])
    if "socket_label" in rule and _shows(chip, rule["socket_label"]):
        return Node.PACKAGE
    return Node(rule.get("node", "chip"))


def _shows(chip: Chip, label: str) -> bool:
    return any(
        chip.label(kind, number).casefold() == label for kind, number in chip.values if kind == "in"
    )


@cache
def _rules() -> dict[str, Any]:
    """The rules as TOML gives them: `label`, `pair` and `chip`."""
    return tomllib.loads(_CHIPS.read_text(encoding="utf-8"))
