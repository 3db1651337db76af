"""Power of boards, rails and AMD GPUs out of the kernel's hwmon tree, by rules kept as data.

Per chip one tier answers: energy counter, else power (mean before momentary), else volts times
amperes; tiers are never added. The channel is the path of the device, `hwmon/<device>/<chip>/...`,
as the numbers of hwmon folders change at boot.
"""

import asyncio
import logging
import re
import threading
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from heatpool.errors import SensorGone
from heatpool.process.journal import facts
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelFile, KernelTree

logger = logging.getLogger(__name__)

VOLTS_AMPERES = "volts_amperes"
# No rule says which volts belong to which amperes: taken by number, which can be wrong.
SAME_INDEX = "same_index"
_VALUE = re.compile(r"(energy|power|in|curr)(\d+)_(input|average)")
_DEVICE = Path("device")


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["hwmon"]


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Hwmon"]:
    """The sensor; opening touches nothing, probing opens the files."""
    sensor = Hwmon(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    """One hwmon folder: its values as (kind, number) -> suffixes that exist and are enabled.

    `denied` fills with the files that we may not read while its points are opened.
    """

    tree: KernelTree
    folder: Path
    name: str
    key: str
    values: Mapping[tuple[str, int], frozenset[str]]
    denied: list[Path] = field(default_factory=list)

    def label(self, kind: str, number: int) -> str:
        stem = f"{kind}{number}"
        plain = self.tree.text(self.folder / f"{stem}_label")
        # ACPI power meters tell what they measure in a file beside their device.
        return plain or self.tree.text(self.folder / _DEVICE / f"{stem}_oem_info") or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """One channel: the files whose product, uW or uJ, it is."""

    channel: str
    is_counter: bool
    node: Node
    label: str
    flags: tuple[str, ...]
    files: tuple[KernelFile, ...]


class Hwmon:
    """All power and energy channels of this machine's hwmon chips."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._tree = KernelTree(roots)
        self._clock = clock
        self._points: tuple[_Point, ...] | None = None
        self._generation = ""
        # A cancelled pass may still run on its thread while the descriptors are to be closed.
        self._lock = threading.Lock()

    async def probe(self) -> Sequence[str]:
        """One channel per power or energy value; none where no chip measures any.

        Raises:
            SensorGone: the tree may not be read.
        """
        return await asyncio.to_thread(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Power, W, or energy as a raw count of uJ, of every channel that answers.

        Raises:
            SensorGone: a chip was removed.
        """
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Frees the descriptors; may be called twice."""
        await asyncio.to_thread(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            self._generation = self._tree.boot()
            chips = _chips(self._tree)
            self._points = tuple(point for chip in chips for point in _points(chip))
            self._refuse_silence([path for chip in chips for path in chip.denied])
            return tuple(point.channel for point in self._points)

    def _refuse_silence(self, denied: Sequence[Path]) -> None:
        """What may not be read is told: by itself while others answer, else by giving up."""
        if not denied:
            return
        names = " ".join(map(str, denied))
        fix = f"chgrp heatpool {names} && chmod 0440 {names}"
        if not self._points:
            raise SensorGone(f"{denied[0]}: permission denied", fix=fix)
        told = facts(sensor=self._config.id, files=names, fix=fix)
        logger.warning("sensor.channels.denied", extra=told)

    def _read(self) -> list[Reading]:
        if self._points is None:
            self._probe()
        with self._lock:
            try:
                found = [self._reading(point) for point in self._points or ()]
            except OSError as error:
                self._shut()
                raise SensorGone("hwmon: a measuring chip was removed") from error
            return [reading for reading in found if reading is not None]

    def _reading(self, point: _Point) -> Reading | None:
        raw = 1
        for file in point.files:
            count = file.count()
            if count is None:
                return None
            raw *= count
        return Reading(
            sensor=self._config.id,
            channel=point.channel,
            quantity="energy_j" if point.is_counter else "power_w",
            kind=ReadingKind.COUNTER if point.is_counter else ReadingKind.GAUGE,
            value=raw / 10**6,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=point.node,
            label=point.label,
            loop=self._config.loop,
            flags=point.flags,
            raw=raw if point.is_counter else None,
            exponent=-6 if point.is_counter else 0,
            generation=self._generation if point.is_counter else "",
        )

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        for point in self._points or ():
            for file in point.files:
                file.close()
        self._points = None


def _chips(tree: KernelTree) -> list[_Chip]:
    chips: list[_Chip] = []
    seen: dict[str, int] = {}
    for folder in _listed(tree, tree.sys / "class/hwmon"):
        name = tree.text(folder / "name") or ""
        key = _key(tree, folder, name)
        seen[key] = seen.get(key, 0) + 1
        key += f"~{seen[key]}" if seen[key] > 1 else ""
        values = _values(tree, folder)
        chips.append(_Chip(tree=tree, folder=folder, name=name, key=key, values=values))
    return chips


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


def _values(tree: KernelTree, folder: Path) -> dict[tuple[str, int], frozenset[str]]:
    found: dict[tuple[str, int], frozenset[str]] = {}
    names = [entry.name for entry in _listed(tree, folder)]
    for match in filter(None, map(_VALUE.fullmatch, names)):
        kind, number, suffix = match[1], int(match[2]), match[3]
        if (
            f"{kind}{number}_enable" not in names
            or tree.text(folder / f"{kind}{number}_enable") != "0"
        ):
            found[kind, number] = found.get((kind, number), frozenset()) | {suffix}
    return found


def _points(chip: _Chip) -> list[_Point]:
    for tier in (_energies, _powers, _products):
        if points := list(tier(chip)):
            return points
    return []


def _energies(chip: _Chip) -> Iterator[_Point]:
    for kind, number in sorted(chip.values):
        if kind == "energy" and "input" in chip.values[kind, number]:
            yield from _point(chip, (kind, number), (f"energy{number}_input",))


def _powers(chip: _Chip) -> Iterator[_Point]:
    for kind, number in sorted(chip.values):
        if kind == "power":
            suffix = _best(chip.values[kind, number])
            yield from _point(chip, (kind, number), (f"power{number}_{suffix}",))


def _products(chip: _Chip) -> Iterator[_Point]:
    for volts, amperes, flags in _pairs(chip):
        nothing: frozenset[str] = frozenset()
        both = chip.values.get(("in", volts), nothing) & chip.values.get(("curr", amperes), nothing)
        if both:
            # A mean of one times a moment of the other is the power of no instant.
            names = (f"in{volts}_{_best(both)}", f"curr{amperes}_{_best(both)}")
            yield from _point(chip, ("in", volts), names, flags=flags)


def _pairs(chip: _Chip) -> list[tuple[int, int, tuple[str, ...]]]:
    """Numbers of volts and amperes that belong together: by rule, else label, else number."""
    rule = _rules()["chip"].get(chip.name, {})
    pairs = [(pair["volts"], pair["amperes"]) for pair in rule.get("pairs", ())]
    pairs = pairs or _labelled(chip)
    if pairs:
        return [(volts, amperes, (VOLTS_AMPERES,)) for volts, amperes in pairs]
    numbers = sorted(number for kind, number in chip.values if kind == "curr")
    return [(number, number, (VOLTS_AMPERES, SAME_INDEX)) for number in numbers]


def _labelled(chip: _Chip) -> list[tuple[int, int]]:
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
    chip: _Chip, value: tuple[str, int], names: tuple[str, ...], *, flags: tuple[str, ...] = ()
) -> Iterator[_Point]:
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
    yield _Point(
        channel=f"hwmon/{chip.key}/{kind}{number}",
        is_counter=kind == "energy",
        node=_node(chip, label),
        label=label or chip.name,
        flags=flags,
        files=tuple(opened),
    )


def _node(chip: _Chip, label: str) -> Node:
    rule = _rules()["chip"].get(chip.name, {})
    for table in (rule.get("labels", {}), _rules()["label"]):
        fits = [start for start in table if label.casefold().startswith(start)]
        if fits:
            return Node(table[max(fits, key=len)])
    if "socket_label" in rule and _shows(chip, rule["socket_label"]):
        return Node.PACKAGE
    return Node(rule.get("node", "chip"))


def _shows(chip: _Chip, label: str) -> bool:
    return any(
        chip.label(kind, number).casefold() == label for kind, number in chip.values if kind == "in"
    )


@cache
def _rules() -> dict[str, Any]:
    """The rules as TOML gives them: `label`, `pair` and `chip`."""
    text = files("heatpool_agent").joinpath("data/hwmon_chips.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
