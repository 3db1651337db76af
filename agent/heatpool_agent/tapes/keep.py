"""Writes a recording: a tape and a clock for each sensor, whose passes end up in its file.

During a pass the sensor's clock stands still between two exchanges. So every time that a driver saw
stands in the recording, and playing it back gives the same readings to the last bit.
"""

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from heatpool.errors import SensorBusy, SensorGone, WireError
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Sensor
from heatpool_agent.tapes.lines import (
    MANIFEST,
    Begin,
    Counts,
    Do,
    End,
    Exchange,
    KeptError,
    Line,
    Manifest,
    answered,
    kept_error,
)
from heatpool_agent.tapes.redaction import Redaction

T = TypeVar("T", bound=Sequence[Any])
_KEPT = (OSError, SensorBusy, SensorGone, WireError)
_LATE = KeptError(kind="late")
_encode = msgspec.json.Encoder().encode


class Recorder:
    """One folder, and how much may still be written there."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        redaction: Redaction,
        *,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        self.redaction = redaction
        self.clock = clock
        # Passes that are cut off by the end of the recording are no failures of their sensors.
        self.is_ending = False
        self._folder = folder
        self._manifest = manifest
        self._left_bytes = max_bytes
        self._is_full = False
        self._fault: OSError | None = None
        self._parts: dict[str, KeepingTape] = {}

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What is written so far, by sensor."""
        return {name: part.counts() for name, part in self._parts.items()}

    def begin(self) -> None:
        """Writes the manifest of a recording that has no end yet; may raise OSError."""
        self._write_manifest(self._manifest)

    def tape(self, sensor: str) -> "KeepingTape":
        """The tape of one sensor; may raise OSError."""
        file = (self._folder / f"{sensor}.jsonl").open("wb", buffering=0)
        self._parts[sensor] = KeepingTape(self, file)
        return self._parts[sensor]

    def has_room(self, size_bytes: int) -> bool:
        """Takes room for a pass; after the first that found none, none does: no holes."""
        self._is_full = self._is_full or size_bytes > self._left_bytes
        if not self._is_full:
            self._left_bytes -= size_bytes
        return not self._is_full

    def shut(self) -> None:
        """Closes the files; may be called twice."""
        for part in self._parts.values():
            part.shut()

    def failed(self, error: OSError) -> None:
        """A file took no more: what came so far stays readable, and the end says why."""
        self._fault, self._is_full = error, True

    def end(self) -> Manifest:
        """Closes the files and says in the manifest what is in them; may raise OSError."""
        self.shut()
        if self._fault is not None:
            raise self._fault
        manifest = msgspec.structs.replace(
            self._manifest, ended_ns=self.clock.event_ns(), counts=dict(self.counts)
        )
        self._write_manifest(manifest)
        return manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        # Written aside and renamed: a kill in between leaves the one from the beginning.
        aside = self._folder / f"{MANIFEST}.part"
        aside.write_bytes(msgspec.json.format(_encode(manifest)) + b"\n")
        os.replace(aside, self._folder / MANIFEST)


class KeepingTape:
    """The tape and the clock of one sensor that is recorded; drivers may use it on threads."""

    is_playing = False

    def __init__(self, recorder: Recorder, file: BinaryIO) -> None:
        self._recorder = recorder
        self._file = file
        self._lock = threading.Lock()
        self._held: tuple[int, int] | None = None
        self._pass = 0
        self._lines: list[Line] = []
        self._counts = {"passes": 0, "exchanges": 0, "errors": 0, "bytes": 0, "dropped_passes": 0}

    def event_ns(self) -> int:
        """Nanoseconds since 1970, UTC; standing still within a pass, between its exchanges."""
        held = self._held
        return held[0] if held else self._recorder.clock.event_ns()

    def boot_ns(self) -> int:
        """Nanoseconds since boot, in the same manner."""
        held = self._held
        return held[1] if held else self._recorder.clock.boot_ns()

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """The device's answer, kept."""
        number = self._pass
        try:
            data = await ask()
        except _KEPT as error:
            self._keep_error(number, request, kept_error(error))
            raise
        except asyncio.CancelledError:
            self._keep_error(number, request, _LATE)
            raise
        self._keep(number, request, data, hide)
        return data

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What is there, kept."""
        number = self._pass
        try:
            data = see()
        except _KEPT as error:
            self._keep_error(number, request, kept_error(error))
            raise
        self._keep(number, request, data, hide)
        return data

    def counts(self) -> Counts:
        """What is written so far."""
        return Counts(**self._counts)

    def shut(self) -> None:
        """Closes the file; what still comes is lost."""
        with self._lock:
            self._file.close()

    @contextmanager
    def one_pass(self, do: Do) -> Iterator[Callable[[int], None]]:
        """A pass, written when it ends; what it gives says how many readings it gave."""
        counted = [0]
        self._begin(do)
        try:
            yield lambda count: counted.__setitem__(0, count)
        except _KEPT as error:
            self._end(0, kept_error(error))
            raise
        except asyncio.CancelledError:
            if not self._recorder.is_ending:
                self._end(0, _LATE)
            raise
        else:
            self._end(counted[0], None)
        finally:
            with self._lock:
                self._held, self._lines, self._pass = None, [], self._pass + 1

    def _keep(
        self, number: int, request: str, data: bytes, hide: Callable[[bytes], bytes] | None
    ) -> None:
        redaction = self._recorder.redaction
        shown = redaction.answer(hide(data) if hide else data)
        event_ns, boot_ns = self._now()
        request = redaction.text(request)
        self._add(number, answered(request, shown, event_ns=event_ns, boot_ns=boot_ns))

    def _keep_error(self, number: int, request: str, error: KeptError) -> None:
        event_ns, boot_ns = self._now()
        self._add(
            number,
            Exchange(
                event_ns=event_ns,
                boot_ns=boot_ns,
                request=self._recorder.redaction.text(request),
                error=self._hidden(error),
            ),
        )

    def _hidden(self, error: KeptError) -> KeptError:
        text = self._recorder.redaction.text
        return msgspec.structs.replace(error, text=text(error.text), fix=text(error.fix))

    def _now(self) -> tuple[int, int]:
        clock = self._recorder.clock
        return clock.event_ns(), clock.boot_ns()

    def _add(self, number: int, line: Exchange) -> None:
        """An answer that came after its pass was given up reached nobody, and is not kept."""
        with self._lock:
            if number == self._pass and self._held is not None:
                self._held = (line.event_ns, line.boot_ns)
                self._lines.append(line)

    def _begin(self, do: Do) -> None:
        event_ns, boot_ns = self._now()
        with self._lock:
            self._held = (event_ns, boot_ns)
            self._lines = [Begin(do=do, event_ns=event_ns, boot_ns=boot_ns)]

    def _end(self, count: int, error: KeptError | None) -> None:
        event_ns, boot_ns = self._now()
        told = self._hidden(error) if error else None
        with self._lock:
            lines = [*self._lines, End(event_ns=event_ns, boot_ns=boot_ns, count=count, error=told)]
            written = b"".join(_encode(line) + b"\n" for line in lines)
            if not self._write(written):
                self._counts["dropped_passes"] += 1
                return
            self._counts["passes"] += 1
            self._counts["exchanges"] += len(lines) - 2
            self._counts["errors"] += error is not None
            self._counts["bytes"] += len(written)

    def _write(self, data: bytes) -> bool:
        if self._file.closed or not self._recorder.has_room(len(data)):
            return False
        try:
            _write_all(self._file, data)
        except OSError as error:
            self._recorder.failed(OSError(error.errno, error.strerror, self._file.name))
            with suppress(OSError):
                self._file.truncate(self._counts["bytes"])
            return False
        return True


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Writes all of it: a disk that gets full takes a part first, and says why at the next."""
    rest = memoryview(data)
    # One short write to a local file as a rule, so that a kill leaves whole passes.
    while rest:
        count = file.write(rest)
        if not count:
            raise OSError(errno.EIO, "takes no more", file.name)
        rest = rest[count:]


class KeptSensor:
    """A sensor whose passes are kept."""

    def __init__(self, sensor: Sensor, tape: KeepingTape) -> None:
        self._sensor = sensor
        self._tape = tape

    async def probe(self) -> Sequence[str]:
        """Channels that exist here."""
        return await self._kept("probe", self._sensor.probe)

    async def read(self) -> Sequence[Reading]:
        """All channels once."""
        return await self._kept("read", self._sensor.read)

    async def close(self) -> None:
        """Frees the device."""
        await self._sensor.close()

    async def _kept(self, do: Do, look: Callable[[], Awaitable[T]]) -> T:
        with self._tape.one_pass(do) as give:
            found = await look()
            give(len(found))
            return found
