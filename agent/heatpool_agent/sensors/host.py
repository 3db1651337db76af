"""What a host tells without any power sensor: load, clock, temperature; and the agent's own cost.

Load is read from /proc/stat on every tick, what costs more every ten seconds. The agent's own
seconds are told only where the roots are the machine's own: they say nothing of another's dump.
"""

import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heatpool.errors import SensorGone
from heatpool.units import NS_PER_S
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelFile, KernelTree, OneAtATime, whole_number

CPU = "host/cpu"
SELF = "host/agent"
_SLOW_NS = 10 * NS_PER_S
# Names of the chips that sit in a CPU; other temperatures say nothing about its load.
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
# user nice system idle iowait irq softirq steal; guest time is contained in user and nice.
_FIELDS = 8
_FIX = "set [roots].proc to where the machine's /proc is mounted"
_IDLE = slice(3, 5)
_CPUS = Path("devices/system/cpu")
_THROTTLED = "thermal_throttle/package_throttle_total_time_ms"
_MOST_CLOCKS = 16
_CPU = re.compile(r"cpu\d+")
_TEMPERATURE = re.compile(r"temp\d+_input")


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A `[[sensor]]` block of this kind; it needs nothing but its id."""

    kind: Literal["host"]


@asynccontextmanager
async def open(config: Config, roots: Roots, clock: Clock) -> AsyncIterator["Host"]:
    """The sensor; opening touches nothing."""
    sensor = Host(config, roots, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


@dataclass(frozen=True, slots=True)
class _Fact:
    quantity: str
    value: float
    kind: ReadingKind = ReadingKind.GAUGE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where the slower facts lie: clocks of some CPUs, temperatures, one CPU of each package."""

    clocks: tuple[Path, ...] = ()
    temperatures: tuple[Path, ...] = ()
    throttled: tuple[Path, ...] = ()


class Host:
    """Load and state of the machine that the agent runs on."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._roots = roots
        self._tree = KernelTree(roots)
        self._clock = clock
        self._stat: KernelFile | None = None
        self._jiffies: tuple[int, ...] = ()
        self._model = ""
        self._cpu_count = 0
        self._places = _Places()
        self._slow: tuple[_Fact, ...] = ()
        self._slow_due_ns = 0
        self._lock = threading.Lock()
        self._calls = OneAtATime("host: /proc or /sys")

    async def probe(self) -> Sequence[str]:
        """The channels of the CPU and of the agent itself.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: /proc/stat cannot be read.
        """
        return await self._calls.run(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Share of busy time since the last pass (absent at the first), and slower facts.

        Raises:
            SensorBusy: the last call still hangs.
            SensorGone: /proc/stat cannot be read.
        """
        return await self._calls.run(self._read)

    async def close(self) -> None:
        """Frees the descriptor; may be called twice."""
        await self._calls.end(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            path = self._roots.proc / "stat"
            try:
                self._stat = self._tree.file(path)
            except OSError as error:
                raise SensorGone(f"{path}: {error.strerror}", fix=_FIX) from error
            self._model, self._cpu_count = _cpu(self._tree)
            self._places = _places(self._tree)
            return (CPU, SELF) if self._is_own() else (CPU,)

    def _read(self) -> list[Reading]:
        if self._stat is None:
            self._probe()
        with self._lock:
            try:
                return list(self._readings())
            except SensorGone:
                self._shut()
                raise
            except OSError as error:
                self._shut()
                path = self._roots.proc / "stat"
                raise SensorGone(f"{path}: {error.strerror}", fix=_FIX) from error

    def _readings(self) -> Iterator[Reading]:
        busy_frac = self._busy_frac()
        if busy_frac is not None:
            yield self._reading(_Fact("busy_frac", busy_frac))
        if self._cpu_count:
            yield self._reading(_Fact("logical_cpu_count", self._cpu_count, ReadingKind.STATE))
        if self._clock.boot_ns() >= self._slow_due_ns:
            self._slow_due_ns = self._clock.boot_ns() + _SLOW_NS
            self._slow = tuple(_slow_facts(self._tree, self._places))
        yield from map(self._reading, self._slow)
        if self._is_own():
            # Not through the tape: what another agent used once is no news of this one.
            cpu_s = time.process_time_ns() / NS_PER_S
            yield self._reading(_Fact("cpu_s", cpu_s, ReadingKind.COUNTER), channel=SELF)

    def _busy_frac(self) -> float | None:
        before, self._jiffies = self._jiffies, _jiffies(self._stat)
        if not self._jiffies:
            raise SensorGone(f"{self._roots.proc / 'stat'}: no line of CPU time", fix=_FIX)
        if not before:
            return None
        spent = [now - was for now, was in zip(self._jiffies, before, strict=True)]
        # Idle time of a CPU that was switched off can step back: no share is made of that.
        total, idle = sum(spent), sum(spent[_IDLE])
        return 1 - idle / total if total > 0 and 0 <= idle <= total else None

    def _is_own(self) -> bool:
        return self._roots.sys == Path("/sys") and self._roots.proc == Path("/proc")

    def _reading(self, fact: _Fact, *, channel: str = CPU) -> Reading:
        is_counter = fact.kind is ReadingKind.COUNTER
        return Reading(
            sensor=self._config.id,
            channel=channel,
            quantity=fact.quantity,
            kind=fact.kind,
            value=float(fact.value),
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=Node.HOST,
            label=self._model if channel == CPU else "",
            loop=self._config.loop,
            raw=round(fact.value * 10**6) if is_counter else None,
            exponent=-6 if is_counter else 0,
        )

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        if self._stat is not None:
            self._stat.close()
        self._stat = None
        self._jiffies = ()


def _jiffies(stat: KernelFile | None) -> tuple[int, ...]:
    words = ((stat.text() if stat else None) or "").partition("\n")[0].split()
    if len(words) < 1 + _FIELDS or words[0] != "cpu":
        return ()
    spent = [whole_number(word) for word in words[1 : 1 + _FIELDS]]
    return tuple(jiffies for jiffies in spent if jiffies is not None) if None not in spent else ()


def _cpu(tree: KernelTree) -> tuple[str, int]:
    """Name of the CPU and number of logical CPUs; empty and 0 where it is not told."""
    model, count = "", 0
    for line in (tree.text(tree.proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        count += key.strip() == "processor"
        model = model or (value.strip() if key.strip() == "model name" else "")
    return model, count


def _places(tree: KernelTree) -> _Places:
    folder = tree.sys / _CPUS
    cpus = [folder / name for name in _names(tree, folder) if _CPU.fullmatch(name)]
    # One CPU in so many stands for its neighbours: 256 of them cost milliseconds to ask.
    some = cpus[:: len(cpus) // _MOST_CLOCKS + 1]
    firsts = {tree.number(cpu / "topology/physical_package_id"): cpu for cpu in reversed(cpus)}
    return _Places(
        clocks=tuple(cpu / "cpufreq" for cpu in some),
        temperatures=tuple(_temperatures(tree)),
        throttled=tuple(cpu / _THROTTLED for cpu in firsts.values()),
    )


def _temperatures(tree: KernelTree) -> Iterator[Path]:
    folder = tree.sys / "class/hwmon"
    for chip in _names(tree, folder):
        if tree.text(folder / chip / "name") in _CPU_CHIPS:
            names = filter(_TEMPERATURE.fullmatch, _names(tree, folder / chip))
            yield from (folder / chip / name for name in names)


def _slow_facts(tree: KernelTree, places: _Places) -> Iterator[_Fact]:
    clocks = [frac for folder in places.clocks if (frac := _clock_frac(tree, folder))]
    if clocks:
        yield _Fact("frequency_frac", sum(clocks) / len(clocks))
    warmth = [n for path in places.temperatures if (n := tree.number(path)) is not None]
    if warmth:
        yield _Fact("cpu_c", max(warmth) / 1000)
    spent_ms = [n for path in places.throttled if (n := tree.number(path)) is not None]
    if spent_ms:
        yield _Fact("throttled_s", sum(spent_ms) / 1000, ReadingKind.COUNTER)


def _clock_frac(tree: KernelTree, folder: Path) -> float | None:
    now_khz = tree.number(folder / "scaling_cur_freq")
    most_khz = tree.number(folder / "cpuinfo_max_freq")
    return now_khz / most_khz if now_khz and most_khz else None


def _names(tree: KernelTree, folder: Path) -> list[str]:
    try:
        return tree.names(folder)
    except OSError:
        return []
