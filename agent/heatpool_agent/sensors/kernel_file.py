"""Small files of the kernel, looked at through the tape; the ones read often stay open.

Opening costs more than reading: 292 against 115 us for a tick of all power counters. What a
number means is said by the driver that holds the file.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from heatpool.errors import SensorBusy
from heatpool_agent.ports import LIVE, Roots, Tape

T = TypeVar("T")

# A number of sysfs fits in far less; /proc/stat's first line does too.
_READ_BYTES = 512
# Lists of CPUs and the like, read once; /proc/cpuinfo of a large server is near 1 MB.
_WHOLE_BYTES = 4_000_000
_MOST_DIGITS = 20
# A call that is just ending is waited for.
_GRACE_S = 0.1
_HANGS_S = 5.0


class OneAtATime:
    """A driver's blocking work, one call after the other.

    A call into a kernel driver may hang and cannot be cancelled. A second one beside it would hang
    as well, and a few more would leave no thread to anybody else.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._call: asyncio.Future[Any] | None = None
        self._last: Callable[[], None] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What the work gives, done on a thread; raises what it raises.

        Raises:
            SensorBusy: the last call still hangs.
        """
        if await self._hangs():
            raise SensorBusy(f"{self._who} has not answered the last call yet", wait_s=_HANGS_S)
        call = asyncio.get_running_loop().run_in_executor(None, self._done, work)
        # A call that nobody waits for any more may fail unheard.
        call.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._call = call
        # Shielded: a cancelled wait must not forget that the thread is still in the kernel.
        return await asyncio.shield(call)

    async def end(self, work: Callable[[], None]) -> None:
        """Does the last work; where a call still hangs, in its thread once that ends.

        The work must bear to be done twice.
        """
        if await self._hangs():
            self._last = work
        if self._call is None or self._call.done():
            await asyncio.to_thread(work)

    def _done(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            if self._last is not None:
                self._last()

    async def _hangs(self) -> bool:
        if self._call is None or self._call.done():
            return False
        await asyncio.wait([self._call], timeout=_GRACE_S)
        return not self._call.done()


class KernelFile:
    """A file of sysfs or procfs, held open; opening it may raise OSError."""

    def __init__(self, path: Path, tape: Tape = LIVE, name: str = "") -> None:
        self._fd = -1
        self._path = path
        self._tape = tape
        self._request = f"read {name or path}"
        tape.look(f"open {name or path}", self._open)

    def text(self) -> str | None:
        """The content now; None where the kernel has no value at this moment.

        Raises:
            OSError: ENODEV, the device behind it was removed.
        """
        try:
            seen = self._tape.look(self._request, self._see)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise
            return None
        return seen.decode("ascii", "replace").strip()

    def count(self) -> int | None:
        """The content as a whole number; None if it is none."""
        return whole_number(self.text())

    def close(self) -> None:
        """Frees the descriptor; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> bytes:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return b""

    def _see(self) -> bytes:
        return os.pread(self._fd, _READ_BYTES, 0)


class KernelTree:
    """The machine's /sys and /proc: each look at a folder, link or file passes the tape.

    Requests name a place below its root, `sys/class/hwmon`, so that a tape outlives other roots.
    """

    def __init__(self, roots: Roots) -> None:
        self.sys = roots.sys
        self.proc = roots.proc
        self._tape = roots.tape
        self._roots = ((f"{roots.sys}{os.sep}", "sys/"), (f"{roots.proc}{os.sep}", "proc/"))

    def names(self, folder: Path) -> list[str]:
        """What lies in a folder, sorted.

        Raises:
            OSError: it is missing or may not be read.
        """
        seen = self._tape.look(f"list {self._name(folder)}", partial(_list, folder))
        return seen.decode("utf-8", "surrogateescape").split("\n") if seen else []

    def text(self, path: Path) -> str | None:
        """The content of a file that is read once; None where it is missing or unreadable."""
        try:
            seen = self._tape.look(f"text {self._name(path)}", partial(_whole, path))
        except OSError:
            return None
        return seen.decode("utf-8", "replace").strip()

    def number(self, path: Path) -> int | None:
        """The same as a whole number; None if it is none."""
        return whole_number(self.text(path))

    def file(self, path: Path) -> KernelFile:
        """A file to be read often.

        Raises:
            OSError: it is missing or may not be read.
        """
        return KernelFile(path, self._tape, self._name(path))

    def device(self, path: Path) -> str:
        """Which folder below /sys a link leads to; empty where it leads to none we may see."""
        seen = self._tape.look(f"link {self._name(path)}", partial(_lead, path, self.sys))
        return seen.decode("utf-8", "surrogateescape")

    def boot(self) -> str:
        """The id of this life of the kernel; empty where it is not shown."""
        return self.text(self.proc / "sys/kernel/random/boot_id") or ""

    def _name(self, path: Path) -> str:
        told = str(path)
        for root, name in self._roots:
            if told.startswith(root):
                return name + told[len(root) :]
        return told


def whole_number(text: str | None) -> int | None:
    """The decimal number that the text is; None if it is something else or empty."""
    # The kernel counts in 64 bits: what is longer is no number of its.
    if not text or len(text) > _MOST_DIGITS:
        return None
    try:
        return int(text)
    except ValueError:
        return None


def _list(folder: Path) -> bytes:
    return "\n".join(sorted(os.listdir(folder))).encode("utf-8", "surrogateescape")


def _whole(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, _WHOLE_BYTES)]
        # procfs hands out a page at a time.
        while parts[-1] and sum(map(len, parts)) < _WHOLE_BYTES:
            parts.append(os.read(fd, _WHOLE_BYTES))
        return b"".join(parts)
    finally:
        os.close(fd)


def _lead(path: Path, sys: Path) -> bytes:
    # Path.is_dir raises where a folder on the way may not be entered: a bug to the supervisor.
    if not os.path.isdir(path):
        return b""
    place = os.path.realpath(path).removeprefix(os.path.realpath(sys) + os.sep)
    return place.encode("utf-8", "surrogateescape")
