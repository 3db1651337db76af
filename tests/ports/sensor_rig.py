"""What the port suite of sensors stands on: a clock, a relay, and one driver on its bench."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from ports.bench import Bench
from turns import SOON_S, turning

from heatpool.errors import SensorBusy, SensorError, SensorGone
from heatpool_agent import sensors
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Roots, Sensor, Tape
from heatpool_agent.tapes.keep import KeptSensor, Recorder
from heatpool_agent.tapes.lines import Manifest
from heatpool_agent.tapes.play import Pass, Player, PlayingTape, load
from heatpool_agent.tapes.redaction import Redaction

KINDS = sorted({point.name for point in entry_points(group=sensors.GROUP)} | {*sensors.OWN})
NETWORK = sorted({*KINDS} - {*sensors.local_kinds()})
EVENT_NS, BOOT_NS = 1_750_000_000_000_000_000, 7_000_000_000
# How long a driver may wait in tests of faults: long enough for a healthy device on loopback, and
# where each pass is a process of its own and a login of ten datagrams, or a dozen documents.
TIMEOUT_S, TOOL_TIMEOUT_S = 0.8, 1.5
# Only ends a wait that would never end.
PATIENCE_S = 30.0
# agent.md 4: a busy device is asked again; a bench that healed is ready after a few times.
TRIES = 20


class Clock:
    """Stands still until it is stepped."""

    def __init__(self) -> None:
        self.passed_ns = 0
        self.instants_ns = {BOOT_NS}

    def event_ns(self) -> int:
        return EVENT_NS + self.passed_ns

    def boot_ns(self) -> int:
        return BOOT_NS + self.passed_ns

    def step(self, step_s: float) -> None:
        self.passed_ns += round(step_s * 1e9)
        self.instants_ns.add(self.boot_ns())


class BrokenTape:
    """Passes everything on until it is given an error, which every exchange then ends with."""

    is_playing = False

    def __init__(self, through: Tape) -> None:
        self.error: Exception | None = None
        self._through = through

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.error is not None:
            raise self.error
        return await self._through.exchange(request, ask, hide=hide)

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        if self.error is not None:
            raise self.error
        return self._through.look(request, see, hide=hide)


class Relay:
    """Stands between driver and device on TCP: `spoil` replaces each piece of an answer.

    None in place of a piece ends the connection.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.spoil: Callable[[bytes], bytes | None] = bytes
        self._there = (host, port)
        self._talks: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, ...]] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for ends in self._talks.values():
                _close(ends)
            if self._talks:
                await asyncio.wait(tuple(self._talks), timeout=PATIENCE_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        there, asking = await asyncio.open_connection(*self._there)
        self._talks[talk] = (writer, asking)
        talk.add_done_callback(lambda done: self._talks.pop(done))
        ways = (
            asyncio.create_task(_copy(reader, asking, bytes), name="requests"),
            asyncio.create_task(
                _copy(there, writer, lambda some: self.spoil(some)), name="answers"
            ),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            _close((writer, asking))


def _close(ends: Sequence[asyncio.StreamWriter]) -> None:
    for end in ends:
        end.close()


async def _copy(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    spoil: Callable[[bytes], bytes | None],
) -> None:
    with suppress(OSError):
        while (some := await reader.read(4096)) and (told := spoil(some)) is not None:
            writer.write(told)
            await writer.drain()


@dataclass(frozen=True, slots=True)
class Held:
    """What of the machine this process holds."""

    threads: frozenset[str]
    descriptors: frozenset[str]
    children: frozenset[str]

    def beyond(self, before: "Held") -> str:
        """What is held now and was not then; empty: nothing."""
        more = (
            self.threads - before.threads,
            self.descriptors - before.descriptors,
            self.children - before.children,
        )
        return " ".join(sorted(frozenset().union(*more)))


def held() -> Held:
    """Threads but for the event loop's own workers, open descriptors, child processes."""
    workers = ("asyncio_", "ThreadPoolExecutor")
    threads = {f"thread {t.name} {t.ident}" for t in threading.enumerate() if t.is_alive()}
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return Held(
        frozenset(name for name in threads if not name.split()[1].startswith(workers)),
        frozenset(_descriptors()),
        frozenset(f"child {pid}" for pid in children),
    )


def _descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The one of this very listing is gone by now.
        with suppress(OSError):
            found.append(f"fd {name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


@dataclass
class Rig:
    """One driver, found as the agent finds it, and the bench of its kind."""

    kind: str
    bench: Bench
    module: Any
    clock: Clock = field(default_factory=Clock)

    @property
    def timeout_s(self) -> float:
        """How long the driver may wait for its device in tests of faults."""
        return TOOL_TIMEOUT_S if self.kind in ("ipmi", "redfish") else TIMEOUT_S

    def config(self, settings: Mapping[str, Any], **more: Any) -> Any:
        """The driver's own settings, checked by it."""
        return msgspec.convert({"id": "s", **settings, **more}, self.module.Config)

    def open(self, *, roots: Roots | None = None, **more: Any) -> Any:
        """The driver on its bench."""
        config = self.config(self.bench.settings, **more)
        return self.module.open(config, roots or self.bench.roots, self.clock)

    async def look(self, sensor: Sensor, *what: str) -> Sequence[Reading]:
        """What the last of these passes gives; passes that hang fail."""
        found: Any = ()
        for one in what or ("read",):
            async with asyncio.timeout(PATIENCE_S):
                found = await getattr(sensor, one)()
        return found  # type: ignore[no-any-return]

    async def back(self, sensor: Sensor, *what: str) -> Sequence[Reading]:
        """The same of a device that is well again: the patience it asks for, it gets.

        So does a machine that stood still for longer than the short time of this rig.
        """
        for tries in range(TRIES):
            try:
                return await self.look(sensor, *what)
            except SensorBusy as busy:
                self.clock.step(busy.wait_s)
            except SensorGone as gone:
                if f" {self.timeout_s:g} s" not in str(gone):
                    raise
            await asyncio.sleep(0.05 * tries)
        raise AssertionError(f"{self.kind}: still busy after {TRIES} times")

    def needs(self, fault: str) -> None:
        """Skips where the bench has no such fault, for the reason that it tells."""
        if fault not in self.bench.faults:
            pytest.skip(f"{self.kind}, {fault}: {self.bench.lacks[fault]}")

    async def fails(self, sensor: Sensor, what: str) -> SensorError:
        """How a pass fails, in its own time: with a reason and, if the device is gone, a cure."""
        # What was heard before the fault is old news by now.
        self.clock.step(60.0)
        async with turning() as turns:
            with pytest.raises(SensorError) as caught:
                await self.look(sensor, what)
        error = caught.value
        # Not that of a driver that was told no timeout: 5 s and more.
        assert turns.passed_s < self.timeout_s + SOON_S, f"{turns.passed_s:.2f} s until {error}"
        assert str(error), "no reason"
        assert not isinstance(error, SensorGone) or error.fix, f"no cure: {error}"
        return error

    async def asked(self, before: int) -> None:
        """Returns once the bench was asked something more, at the latest after a while."""
        for _ in range(300):
            if self.bench.exchanges > before:
                break
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def relayed(self) -> AsyncIterator[tuple[Relay, str]]:
        """A relay in front of the bench, and the url that leads through it."""
        parts = urlsplit(self.bench.settings["url"])
        assert parts.hostname is not None and parts.port is not None
        async with Relay(parts.hostname, parts.port).serving() as relay:
            place = parts.netloc.replace(f":{parts.port}", f":{relay.port}")
            yield relay, parts._replace(netloc=place).geturl()

    @asynccontextmanager
    async def recorded(self, folder: Path) -> AsyncIterator[tuple[KeptSensor, Redaction]]:
        """The driver with every pass kept in a folder, at the rig's own time."""
        block = {**self.bench.settings, "id": "s", "timeout_s": self.timeout_s}
        redaction = Redaction([block])
        manifest = Manifest(
            heatpool="0", begun_ns=EVENT_NS, sampling={}, roots={}, loop=[], sensor=redaction.blocks
        )
        recorder = Recorder(folder, manifest, redaction, clock=self.clock, max_bytes=10_000_000)
        recorder.begin()
        tape = recorder.tape("s")
        roots = replace(self.bench.roots, tape=tape)
        async with self.module.open(self.config(block), roots, tape) as sensor:
            yield KeptSensor(sensor, tape), redaction
        recorder.end()

    @asynccontextmanager
    async def played(self, folder: Path) -> AsyncIterator[tuple[Player, Sequence[Pass]]]:
        """The driver on that recording, on a machine with nothing on it."""
        recording = load(folder)
        passes = recording.passes["s"]
        tape = PlayingTape(passes)
        none = folder / "nothing"
        roots = Roots(sys=none / "sys", proc=none / "proc", dev=none / "dev", tape=tape)
        if self.bench.roots.nvml != "auto":
            roots = replace(roots, nvml=str(none / "library"))
        async with self.module.open(
            self.config(recording.manifest.sensor[0]), roots, tape
        ) as sensor:
            yield Player(sensor, tape), passes


def values(readings: Sequence[Reading]) -> dict[tuple[str, str], float]:
    """Value by channel and quantity."""
    return {(reading.channel, reading.quantity): reading.value for reading in readings}
