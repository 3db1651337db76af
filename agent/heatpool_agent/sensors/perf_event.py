"""Energy events of the kernel's `power` unit: one open counter per event and CPU of its mask.

Imported by `rapl` only where the kernel shows such events: elsewhere nobody pays for ctypes.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from platform import machine
from typing import Protocol

from heatpool_agent.core.perf_event import NODES, EnergyEvent, cpus, energy_event
from heatpool_agent.ports import Tape
from heatpool_agent.sensors.kernel_file import KernelTree, whole_number

UNIT = Path("bus/event_source/devices/power")
# perf_event_open by kernel; the number is part of each architecture's interface.
_CALLS = {"x86_64": 298, "aarch64": 241, "riscv64": 241}
_ATTR_BYTES = 112
_CLOSE_ON_EXEC = 8
_COUNT_BYTES = 8


class Opened(Protocol):
    """One event that counts; tests put a file here."""

    def read(self) -> bytes:
        """The count, eight bytes in the machine's order; may raise OSError."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


# Of the unit's type, the event's config and the CPU.
Opener = Callable[[int, int, int], Opened]


class KernelEvent:
    """An event of the running kernel, counting on one CPU for all that runs there."""

    def __init__(self, kind: int, config: int, cpu: int) -> None:
        """Opens it.

        Raises:
            OSError: EACCES without CAP_PERFMON; ENOENT, EINVAL: this kernel has no such event.
        """
        call = _CALLS.get(machine())
        if call is None:
            raise OSError(errno.ENOSYS, f"no number of perf_event_open known on {machine()}")
        attr = ctypes.create_string_buffer(_ATTR_BYTES)
        struct.pack_into("=IIQ", attr, 0, kind, _ATTR_BYTES, config)
        library = ctypes.CDLL(None, use_errno=True)
        number = [ctypes.c_long(n) for n in (call, -1, cpu, -1, _CLOSE_ON_EXEC)]
        fd = library.syscall(number[0], attr, *number[1:])
        if fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._fd = int(fd)

    def read(self) -> bytes:
        """The count, eight bytes in the machine's order; may raise OSError."""
        return os.read(self._fd, _COUNT_BYTES)

    def close(self) -> None:
        """Ends it; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What could be opened here."""

    kind: int
    cpus: tuple[int, ...]
    events: tuple[EnergyEvent, ...]


class PerfCount:
    """One event on one CPU as a count of uJ."""

    def __init__(
        self, tape: Tape, event: EnergyEvent, cpu: int, *, open_it: Callable[[], Opened]
    ) -> None:
        """Opens it; may raise OSError."""
        self.event = event
        self.cpu = cpu
        self.channel = f"perf/{event.name}/cpu{cpu}"
        self._opened: Opened | None = None
        self._open_it = open_it
        self._tape = tape
        self._request = f"read {self.channel}"
        tape.look(f"open {self.channel}", self._open)

    def count(self) -> int | None:
        """Energy since it was opened, uJ; None where the kernel has no value at this moment.

        Raises:
            OSError: ENODEV, its CPU was taken away.
        """
        try:
            seen = self._tape.look(self._request, self._see)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise
            return None
        # An event whose CPU went offline ends its file.
        if len(seen) != _COUNT_BYTES:
            return None
        return self.event.energy_uj(struct.unpack("=Q", seen)[0])

    def close(self) -> None:
        """Ends it; may be called twice."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self) -> bytes:
        self._opened = self._open_it()
        return b""

    def _see(self) -> bytes:
        return b"" if self._opened is None else self._opened.read()


def plan(tree: KernelTree) -> Plan | None:
    """What the kernel's files offer; None where it has no energy events."""
    folder = tree.sys / UNIT
    kind, mask = tree.number(folder / "type"), cpus(tree.text(folder / "cpumask"))
    try:
        names = [name for name in tree.names(folder / "events") if name in NODES]
    except OSError:
        return None
    told = [_event(tree, folder / "events", name) for name in names]
    events = tuple(event for event in told if event is not None)
    if kind is None or not mask or not events:
        return None
    return Plan(kind=kind, cpus=mask, events=events)


def open_all(plan: Plan, tape: Tape, opener: Opener = KernelEvent) -> Sequence[PerfCount]:
    """Every event of the plan on each of its CPUs.

    Raises:
        OSError: one may not be opened; then none stays open.
    """
    opened: list[PerfCount] = []
    try:
        for event in plan.events:
            for cpu in plan.cpus:
                open_it = partial(opener, plan.kind, event.config, cpu)
                opened.append(PerfCount(tape, event, cpu, open_it=open_it))
    except BaseException:
        for count in opened:
            count.close()
        raise
    return opened


def package(tree: KernelTree, cpu: int) -> int | None:
    """Number of the package that a CPU sits in."""
    place = tree.sys / f"devices/system/cpu/cpu{cpu}/topology/physical_package_id"
    return whole_number(tree.text(place))


def _event(tree: KernelTree, folder: Path, name: str) -> EnergyEvent | None:
    return energy_event(
        name,
        config=tree.text(folder / name),
        scale=tree.text(folder / f"{name}.scale"),
        unit=tree.text(folder / f"{name}.unit"),
    )
