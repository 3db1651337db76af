"""CPU energy counters (RAPL): the kernel's perf events where they open, else its powercap tree.

A channel is `perf/<event>/cpu<n>` or the path of zones, `powercap/intel-rapl:0/intel-rapl:0:0`: a
zone lies inside another where the other's channel is its prefix. All are read, nothing is added up
here, and a zone's `enabled` is not asked: it concerns capping, not counting.

Where both ways are open the events are the witness, because they never wrap unseen; zones that
show the same again are flagged twins, and stay as the cross-check.
"""

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from heatpool.errors import SensorGone
from heatpool_agent.config import SensorSettings
from heatpool_agent.core import powercap
from heatpool_agent.core.powercap import TWIN as TWIN
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelTree, OneAtATime

_MICRO = -6
# A counter of 32 bits must be seen often enough that no wrap can hide.
_LONGEST_S = 30.0
_LOOKS_PER_WRAP = 4
# Whatever a rating says: reading is no work of its own.
_SHORTEST_S = 1.0
# A range that a package could run through within four seconds is no range: real ones last minutes.
# Taken at its word, it would have the counter read without a pause.
_LEAST_RANGE_UJ = 2_000_000_000
# No package is rated above this today: agent.md 5.1 counts with it.
_MOST_W = 500.0
_MUTE_FIX = "read an energy_uj by hand as root; a virtual machine may show zones that never count"
_REMOVED_FIX = "load its driver again: modprobe intel_rapl_msr"
_EVENTS = Path("bus/event_source/devices/power/events")
_PERF_ROOM = "heatpool_agent.sensors.perf_event"
_PERF_FIX = (
    "give the agent CAP_PERFMON by deploy/agent/heatpool-agent.service.d/rapl-perf.conf, "
    "or leave via = 'auto' to read powercap"
)


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["rapl"]
    # "auto": perf events where the agent may open them, with powercap beside them; else powercap.
    via: Literal["auto", "powercap", "perf"] = "auto"


@asynccontextmanager
async def open(
    config: Config, roots: Roots, clock: Clock, *, opener: Any = None
) -> AsyncIterator["Rapl"]:
    """The sensor; opening touches nothing, probing opens the counters.

    `opener` opens one perf event in place of the kernel's own call.
    """
    sensor = Rapl(config, roots, clock, opener=opener)
    try:
        yield sensor
    finally:
        await sensor.close()


class _Count(Protocol):
    def count(self) -> int | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counter:
    """One channel with what is known of it beforehand."""

    channel: str
    label: str
    node: Node
    flags: tuple[str, ...]
    modulus: int | None
    rated_w: float | None
    generation: str
    energy: _Count

    def wrap_s(self) -> float:
        """How long the count lasts at its highest power."""
        most_w = max(self.rated_w or _MOST_W, _MOST_W)
        return (self.modulus / 10**6 / most_w) if self.modulus else float("inf")


class Rapl:
    """All RAPL counters of this machine."""

    def __init__(self, config: Config, roots: Roots, clock: Clock, *, opener: Any = None) -> None:
        self._config = config
        self._tree = KernelTree(roots)
        self._folder = roots.sys / "class/powercap"
        self._tape = roots.tape
        self._clock = clock
        self._opener = opener
        self._counters: tuple[_Counter, ...] | None = None
        # A cancelled pass may still run on its thread while the descriptors are to be closed.
        self._lock = threading.Lock()
        self._calls = OneAtATime("rapl: the powercap tree")

    @property
    def longest_period_s(self) -> float:
        """How far apart two reads may lie before a wrap could be missed, s; known once probed."""
        found = self._counters or ()
        wrap_s = min((counter.wrap_s() for counter in found), default=float("inf"))
        return max(min(wrap_s / _LOOKS_PER_WRAP, _LONGEST_S), _SHORTEST_S)

    async def probe(self) -> Sequence[str]:
        """One channel per counter; none on a machine without these counters.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: counters exist and may not be read, or are masked.
        """
        return await self._calls.run(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Energy of every counter as a raw count of uJ, and its rated power where it is told.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: counters may not be read, or were removed.
        """
        return await self._calls.run(self._read)

    async def close(self) -> None:
        """Frees the descriptors; may be called twice."""
        await self._calls.end(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            self._counters = self._opened()
            return tuple(counter.channel for counter in self._counters)

    def _opened(self) -> tuple[_Counter, ...]:
        via = self._config.via
        perf = self._perf(is_asked=via == "perf") if via != "powercap" else ()
        if via == "perf":
            return perf
        try:
            zones = self._zones()
        except SensorGone:
            # The events are the better witness; what only the zones show is a loss, not a fault.
            if perf:
                return perf
            raise
        except BaseException:
            _close(perf)
            raise
        return (*_with_ratings(self._tree, perf, zones), *_second(zones, perf))

    def _perf(self, *, is_asked: bool) -> tuple[_Counter, ...]:
        if not (self._tree.device(self._tree.sys / _EVENTS) or is_asked):
            return ()
        room = import_module(_PERF_ROOM)
        plan = room.plan(self._tree)
        if plan is None:
            return ()
        # A new descriptor counts from zero: each opening is a life of its own.
        generation = f"{self._tree.boot()}/{self._clock.boot_ns()}"
        try:
            counts = room.open_all(plan, self._tape, self._opener or room.KernelEvent)
        except OSError as error:
            if not is_asked:
                return ()
            raise SensorGone(f"perf_event_open: {error.strerror}", fix=_PERF_FIX) from error
        return tuple(_event_counter(count, generation) for count in counts)

    def _zones(self) -> tuple[_Counter, ...]:
        generation = self._tree.boot()
        opened: list[_Counter] = []
        try:
            for zone in powercap.zones(self._labels()):
                folder = self._folder / zone.folder
                opened.append(_zone_counter(self._tree, folder, zone, generation))
        except BaseException:
            _close(opened)
            raise
        return tuple(opened)

    def _labels(self) -> dict[str, str]:
        try:
            names = self._tree.names(self._folder)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SensorGone(
                f"{self._folder}: {error.strerror}", fix=f"chmod a+rx {self._folder}"
            ) from error
        return {name: self._tree.text(self._folder / name / "name") or "" for name in names}

    def _read(self) -> list[Reading]:
        if self._counters is None:
            self._probe()
        with self._lock:
            try:
                found = [r for counter in self._counters or () for r in self._readings(counter)]
            except OSError as error:
                self._shut()
                raise SensorGone(
                    f"{self._folder}: a power zone was removed", fix=_REMOVED_FIX
                ) from error
            if self._counters and not any(r.kind is ReadingKind.COUNTER for r in found):
                self._shut()
                raise SensorGone(f"{self._folder}: no zone shows a number any more", fix=_MUTE_FIX)
            return found

    def _readings(self, counter: _Counter) -> Iterator[Reading]:
        raw = counter.energy.count()
        if raw is not None and raw >= 0:
            yield self._counted(counter, raw)
        if counter.rated_w is not None:
            yield self._rated(counter, counter.rated_w)

    def _counted(self, counter: _Counter, raw: int) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=counter.channel,
            quantity="energy_j",
            kind=ReadingKind.COUNTER,
            value=raw / 10**6,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=counter.node,
            label=counter.label,
            loop=self._config.loop,
            flags=counter.flags,
            raw=raw,
            exponent=_MICRO,
            modulus=counter.modulus,
            generation=counter.generation,
        )

    def _rated(self, counter: _Counter, rated_w: float) -> Reading:
        return Reading(
            sensor=self._config.id,
            channel=counter.channel,
            quantity="rated_w",
            kind=ReadingKind.STATE,
            value=rated_w,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=counter.node,
            label=counter.label,
            loop=self._config.loop,
            flags=counter.flags,
        )

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        _close(self._counters or ())
        self._counters = None


def _close(counters: Sequence[_Counter]) -> None:
    for counter in counters:
        counter.energy.close()


def _event_counter(count: Any, generation: str) -> _Counter:
    return _Counter(
        channel=count.channel,
        label=count.event.name,
        node=count.event.node,
        flags=(),
        modulus=count.event.modulus_uj,
        rated_w=None,
        generation=generation,
        energy=count,
    )


def _zone_counter(tree: KernelTree, folder: Path, zone: powercap.Zone, generation: str) -> _Counter:
    max_power_uw = tree.number(folder / "constraint_0_max_power_uw")
    return _Counter(
        channel=zone.channel,
        label=zone.label,
        node=zone.node,
        flags=zone.flags,
        modulus=_range_uj(tree.number(folder / "max_energy_range_uj")),
        # Not `constraint_0_power_limit_uw`: 4,090 W has been seen there on a part of 95 W.
        rated_w=max_power_uw / 10**6 if max_power_uw else None,
        generation=generation,
        energy=_energy(tree, folder),
    )


def _range_uj(told: int | None) -> int | None:
    """Where the count begins anew, uJ; None where the kernel tells none that can be."""
    return told if told is not None and told >= _LEAST_RANGE_UJ else None


def _with_ratings(
    tree: KernelTree, perf: Sequence[_Counter], zones: Sequence[_Counter]
) -> Iterator[_Counter]:
    """Packages among the events with the rating that their zone tells."""
    rated_w = {zone.label: zone.rated_w for zone in zones if TWIN not in zone.flags}
    for counter in perf:
        if counter.node is Node.PACKAGE:
            room = import_module(_PERF_ROOM)
            number = room.package(tree, int(counter.channel.rpartition("cpu")[2]))
            yield replace(counter, rated_w=rated_w.get(f"package-{number}"))
        else:
            yield counter


def _second(zones: Sequence[_Counter], perf: Sequence[_Counter]) -> Iterator[_Counter]:
    """Zones with those marked that show what an event shows already."""
    seen = {counter.node for counter in perf}
    for zone in zones:
        is_repeat = zone.node in seen and TWIN not in zone.flags
        yield replace(zone, flags=(*zone.flags, TWIN)) if is_repeat else zone


def _energy(tree: KernelTree, folder: Path) -> _Count:
    path = folder / "energy_uj"
    try:
        return tree.file(path)
    except PermissionError as error:
        place = folder.parent
        raise SensorGone(
            f"{path}: permission denied (root only since kernel 5.10)",
            fix=f"chgrp heatpool {place}/intel-rapl*/energy_uj && "
            f"chmod 0440 {place}/intel-rapl*/energy_uj; to keep it over a restart put "
            f"'z {place}/intel-rapl*/energy_uj 0440 root heatpool - -' "
            "into /etc/tmpfiles.d/heatpool.conf",
        ) from error
    except OSError as error:
        raise SensorGone(
            f"{path}: {error.strerror}, though its zone is listed (masked by a container?)",
            fix="bind-mount the host's /sys/devices/virtual/powercap into the container "
            "and set [roots].sys to where it lies",
        ) from error
