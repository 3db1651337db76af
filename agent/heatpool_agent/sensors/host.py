"""What a host tells without any power sensor: load, clock, temperature; and the agent's own cost.

Load is read from /proc/stat on every tick; what costs more comes from psutil every ten seconds,
and only where the roots are the machine's own, as psutil knows no others.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import psutil

from heatpool.errors import SensorGone
from heatpool.units import NS_PER_S
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.ports import Clock, Roots
from heatpool_agent.sensors.kernel_file import KernelFile, read_text

CPU = "host/cpu"
SELF = "host/agent"
_SLOW_NS = 10 * NS_PER_S
# Names of the chips that sit in a CPU; other temperatures say nothing about its load.
_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
# user nice system idle iowait irq softirq steal; guest time is contained in user and nice.
_FIELDS = 8
_IDLE = slice(3, 5)


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


class Host:
    """Load and state of the machine that the agent runs on."""

    def __init__(self, config: Config, roots: Roots, clock: Clock) -> None:
        self._config = config
        self._roots = roots
        self._clock = clock
        self._stat: KernelFile | None = None
        self._jiffies: tuple[int, ...] = ()
        self._model = ""
        self._cpu_count = 0
        self._slow: tuple[tuple[str, float], ...] = ()
        self._slow_due_ns = 0
        self._lock = threading.Lock()

    async def probe(self) -> Sequence[str]:
        """The channels of the CPU and of the agent itself.

        Raises:
            SensorGone: /proc/stat cannot be read.
        """
        return await asyncio.to_thread(self._probe)

    async def read(self) -> Sequence[Reading]:
        """Share of busy time since the last pass (absent at the first), and slower facts.

        Raises:
            SensorGone: /proc/stat cannot be read.
        """
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        """Frees the descriptor; may be called twice."""
        await asyncio.to_thread(self._close)

    def _probe(self) -> tuple[str, ...]:
        with self._lock:
            self._shut()
            path = self._roots.proc / "stat"
            try:
                self._stat = KernelFile(path)
            except OSError as error:
                raise SensorGone(
                    f"{path}: {error.strerror}", fix="set [roots].proc to where it is mounted"
                ) from error
            self._model, self._cpu_count = _cpu(self._roots.proc)
            return (CPU, SELF) if self._is_own() else (CPU,)

    def _read(self) -> list[Reading]:
        if self._stat is None:
            self._probe()
        with self._lock:
            return list(self._readings())

    def _readings(self) -> Iterator[Reading]:
        busy_frac = self._busy_frac()
        if busy_frac is not None:
            yield self._reading("busy_frac", busy_frac)
        if self._cpu_count:
            yield self._reading("logical_cpu_count", self._cpu_count, kind=ReadingKind.STATE)
        if not self._is_own():
            return
        if self._clock.boot_ns() >= self._slow_due_ns:
            self._slow_due_ns = self._clock.boot_ns() + _SLOW_NS
            self._slow = tuple(_slow_facts())
        for quantity, value in self._slow:
            yield self._reading(quantity, value)
        own = psutil.Process().cpu_times()
        yield self._reading(
            "cpu_s", own.user + own.system, kind=ReadingKind.COUNTER, channel=SELF
        )  # fmt: skip

    def _busy_frac(self) -> float | None:
        before, self._jiffies = self._jiffies, _jiffies(self._stat)
        if not before or not self._jiffies:
            return None
        spent = [now - was for now, was in zip(self._jiffies, before, strict=True)]
        # Idle time of a CPU that was switched off can step back: no share is made of that.
        total, idle = sum(spent), sum(spent[_IDLE])
        return 1 - idle / total if total > 0 and 0 <= idle <= total else None

    def _is_own(self) -> bool:
        return self._roots.sys == Path("/sys") and self._roots.proc == Path("/proc")

    def _reading(
        self,
        quantity: str,
        value: float,
        *,
        kind: ReadingKind = ReadingKind.GAUGE,
        channel: str = CPU,
    ) -> Reading:
        is_counter = kind is ReadingKind.COUNTER
        return Reading(
            sensor=self._config.id,
            channel=channel,
            quantity=quantity,
            kind=kind,
            value=float(value),
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
            node=Node.HOST,
            label=self._model if channel == CPU else "",
            loop=self._config.loop,
            raw=round(value * 10**6) if is_counter else None,
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
    return tuple(int(word) for word in words[1 : 1 + _FIELDS])


def _cpu(proc: Path) -> tuple[str, int]:
    """Name of the CPU and number of logical CPUs; empty and 0 where it is not told."""
    model, count = "", 0
    for line in (read_text(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        count += key.strip() == "processor"
        model = model or (value.strip() if key.strip() == "model name" else "")
    return model, count


def _slow_facts() -> Iterator[tuple[str, float]]:
    clock = psutil.cpu_freq()
    if clock and clock.max > 0 and clock.current > 0:
        yield "frequency_frac", clock.current / clock.max
    chips = psutil.sensors_temperatures()
    warmth = [one.current for name in _CPU_CHIPS for one in chips.get(name, ())]
    if warmth:
        yield "cpu_c", max(warmth)
