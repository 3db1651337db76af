"""CPU energy counters of the kernel's powercap tree (RAPL), one channel per zone.

A channel is the path of zones, `powercap/intel-rapl:0/intel-rapl:0:0`: a zone lies inside another
where the other's channel is its prefix. All zones are read, nothing is added up here, and a zone's
`enabled` is not asked: it concerns capping, not counting.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heatpool.errors import SensorGone
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelFile, kernel_boot, read_text, whole_number

# The same package seen a second time, through another door of the CPU.
TWIN = "twin"
UNKNOWN_ZONE = "unknown_zone"
_MICRO = -6
_NODES = {
    "package": Node.PACKAGE,
    "core": Node.CORE,
    "uncore": Node.UNCORE,
    "dram": Node.DRAM,
    "psys": Node.PSYS,
}


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["rapl"]


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Rapl"]:
    """The sensor; opening touches nothing, probing opens the zones."""
    sensor = Rapl(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Zone:
    channel: str
    label: str
    node: Node
    flags: tuple[str, ...]
    modulus: int | None
    rated_w: float | None
    energy: KernelFile


class Rapl:
    """All RAPL zones of this machine."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._tree = roots.sys / "class/powercap"
        self._proc = roots.proc
        self._clock = clock
        self._zones: tuple[_Zone, ...] | None = None
        self._generation = ""
        # A cancelled pass may still run on its thread while the descriptors are to be closed.
        self._lock = threading.Lock()

    async def probe(self) -> Sequence[str]:
        """One channel per zone; none on a machine without these counters.

        Raises:
            SensorGone: zones exist and may not be read, or are masked.
        """
        return await asyncio.to_thread(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Energy of every zone as a raw count of uJ, and its rated power where the CPU tells it.

        Raises:
            SensorGone: zones may not be read, or were removed.
        """
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Frees the descriptors; may be called twice."""
        await asyncio.to_thread(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            self._generation = kernel_boot(self._proc)
            self._zones = _zones(self._tree)
            return tuple(zone.channel for zone in self._zones)

    def _read(self) -> list[Reading]:
        if self._zones is None:
            self._probe()
        with self._lock:
            try:
                return [reading for zone in self._zones or () for reading in self._readings(zone)]
            except OSError as error:
                self._shut()
                raise SensorGone(f"{self._tree}: a power zone was removed") from error

    def _readings(self, zone: _Zone) -> list[Reading]:
        found = (self._counted(zone), self._rated(zone))
        return [reading for reading in found if reading is not None]

    def _counted(self, zone: _Zone) -> Reading | None:
        raw = zone.energy.count()
        if raw is None:
            return None
        return Reading(
            sensor=self._config.id,
            channel=zone.channel,
            quantity="energy_j",
            kind=ReadingKind.COUNTER,
            value=raw / 10**6,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=zone.node,
            label=zone.label,
            loop=self._config.loop,
            flags=zone.flags,
            raw=raw,
            exponent=_MICRO,
            modulus=zone.modulus,
            generation=self._generation,
        )

    def _rated(self, zone: _Zone) -> Reading | None:
        if zone.rated_w is None:
            return None
        return Reading(
            sensor=self._config.id,
            channel=zone.channel,
            quantity="rated_w",
            kind=ReadingKind.STATE,
            value=zone.rated_w,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=zone.node,
            label=zone.label,
            loop=self._config.loop,
            flags=zone.flags,
        )

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        for zone in self._zones or ():
            zone.energy.close()
        self._zones = None


def _zones(tree: Path) -> tuple[_Zone, ...]:
    folders = _folders(tree)
    labels = {folder.name: read_text(folder / "name") or "" for folder in folders}
    first_of: dict[tuple[str, ...], str] = {}
    zones: list[_Zone] = []
    try:
        for folder in folders:
            # Two doors to one package show the same names all the way down; names do repeat
            # within one door, and there they are different zones.
            names = tuple(labels.get(part, "") for part in _path(folder.name))
            control = folder.name.partition(":")[0]
            is_twin = first_of.setdefault(names, control) != control and "" not in names
            zones.append(_zone(folder, labels[folder.name], is_twin=is_twin))
    except BaseException:
        for zone in zones:
            zone.energy.close()
        raise
    return tuple(zones)


def _folders(tree: Path) -> list[Path]:
    try:
        names = [folder for folder in tree.iterdir() if folder.name.startswith("intel-rapl")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SensorGone(f"{tree}: {error.strerror}", fix=f"chmod a+rx {tree}") from error
    # The plain control type first: of a package seen twice, its zone is the one that counts.
    zones = [folder for folder in names if ":" in folder.name]
    return sorted(zones, key=lambda zone: (zone.name.split(":")[0], zone.name))


def _path(name: str) -> tuple[str, ...]:
    """`intel-rapl:0:1` -> its parents and itself, outermost first."""
    parts = name.split(":")
    return tuple(":".join(parts[: end + 1]) for end in range(1, len(parts)))


def _zone(folder: Path, label: str, *, is_twin: bool) -> _Zone:
    node = _NODES.get(label.partition("-")[0])
    flags = ((TWIN,) if is_twin else ()) + (() if node else (UNKNOWN_ZONE,))
    max_power_uw = whole_number(read_text(folder / "constraint_0_max_power_uw"))
    return _Zone(
        channel="/".join(("powercap", *_path(folder.name))),
        label=label,
        # A zone of unknown meaning is read and never added, as an inner zone is.
        node=node or Node.UNCORE,
        flags=flags,
        modulus=whole_number(read_text(folder / "max_energy_range_uj")) or None,
        # Not `constraint_0_power_limit_uw`: 4,090 W has been seen there on a part of 95 W.
        rated_w=max_power_uw / 10**6 if max_power_uw else None,
        energy=_energy(folder),
    )


def _energy(folder: Path) -> KernelFile:
    path = folder / "energy_uj"
    try:
        return KernelFile(path)
    except PermissionError as error:
        tree = folder.parent
        raise SensorGone(
            f"{path}: permission denied (root only since kernel 5.10)",
            fix=f"chgrp heatpool {tree}/intel-rapl*/energy_uj && "
            f"chmod 0440 {tree}/intel-rapl*/energy_uj; to keep it over a restart put "
            f"'z {tree}/intel-rapl*/energy_uj 0440 root heatpool - -' "
            "into /etc/tmpfiles.d/heatpool.conf",
        ) from error
    except OSError as error:
        raise SensorGone(
            f"{path}: {error.strerror}, though its zone is listed (masked by a container?)",
            fix="bind-mount the host's /sys/devices/virtual/powercap into the container "
            "and set [roots].sys to where it lies",
        ) from error
