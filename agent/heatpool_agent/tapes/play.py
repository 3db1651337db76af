"""Plays a recording: each pass of a driver gets the answers of that pass, at their time."""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from heatpool.errors import ConfigError, SensorError, SensorGone
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Sensor
from heatpool_agent.tapes import own_files
from heatpool_agent.tapes.lines import (
    MANIFEST,
    Begin,
    Do,
    End,
    Exchange,
    KeptError,
    Line,
    Manifest,
    error_of,
)

T = TypeVar("T")
_decode = msgspec.json.Decoder(Line).decode
_FIX = "record anew with this version of heatpool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One probe or read of one sensor, as it was."""

    number: int
    do: Do
    begin: Begin
    exchanges: tuple[Exchange, ...]
    end: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a folder holds; `damaged` says where a sensor's file could not be read on."""

    manifest: Manifest
    passes: Mapping[str, tuple[Pass, ...]]
    damaged: Mapping[str, str]


def load(folder: Path) -> Recording:
    """The recording in a folder, as far as it can be read; blocking.

    Raises:
        ConfigError: it is no recording, or of another version.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(own_files.content(path), type=Manifest)
    except OSError as error:
        text = f"cannot be read: {error.strerror}; name a folder made by heatpool-agent record"
        raise ConfigError([text], file=str(path)) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError([f"is no recording: {error}"], file=str(path)) from error
    passes, damaged = {}, {}
    for block in manifest.sensor:
        name = Path(str(block.get("id", ""))).name
        passes[name], reason = _passes(folder / f"{name}.jsonl")
        if reason:
            damaged[name] = reason
    return Recording(manifest=manifest, passes=passes, damaged=damaged)


def _passes(path: Path) -> tuple[tuple[Pass, ...], str]:
    """Whole passes up to the first line that is none; a kill leaves half a line at the end."""
    found: list[Pass] = []
    begin: Begin | None = None
    exchanges: list[Exchange] = []
    try:
        for line in map(_decode, own_files.lines(path)):
            if isinstance(line, Begin):
                begin, exchanges = line, []
            elif isinstance(line, Exchange):
                exchanges.append(line)
            elif begin is not None:
                found.append(_pass(len(found), begin, exchanges, line))
                begin = None
    except OSError as error:
        return tuple(found), f"{path.name}: {error.strerror}"
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return tuple(found), f"{path.name}: after {len(found)} passes: {error}"
    return tuple(found), ""


def _pass(number: int, begin: Begin, exchanges: Sequence[Exchange], end: End) -> Pass:
    for exchange in exchanges:
        exchange.data()
    return Pass(number=number, do=begin.do, begin=begin, exchanges=tuple(exchanges), end=end)


class PlayingTape:
    """The tape and the clock of one sensor that is played; drivers may use it on threads."""

    is_playing = True

    def __init__(self, passes: Sequence[Pass]) -> None:
        self._lock = threading.Lock()
        self._now = (passes[0].begin.event_ns, passes[0].begin.boot_ns) if passes else (0, 0)
        self._everything: dict[str, list[tuple[int, Exchange]]] = defaultdict(list)
        self._queues: dict[str, deque[Exchange]] = {}
        self._number = 0
        self._error: KeptError | None = None
        for one in passes:
            for exchange in one.exchanges:
                self._everything[exchange.request].append((one.number, exchange))

    def event_ns(self) -> int:
        """When it was, as the driver saw it then."""
        return self._now[0]

    def boot_ns(self) -> int:
        """The same since boot."""
        return self._now[1]

    @property
    def is_empty(self) -> bool:
        """Whether this sensor's driver was never heard to ask anything."""
        return not self._everything

    def begin(self, one: Pass) -> None:
        """From now on answers are those of this pass."""
        with self._lock:
            self._number, self._error = one.number, one.end.error
            self._now = (one.begin.event_ns, one.begin.boot_ns)
            self._queues = defaultdict(deque)
            for exchange in one.exchanges:
                self._queues[exchange.request].append(exchange)

    async def exchange(
        self,
        request: str,
        ask: Callable[[], Awaitable[bytes]],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What was answered then."""
        # The loop gets its turn here, as it would while a device thinks.
        await asyncio.sleep(0)
        return self._answer(request)

    def look(
        self,
        request: str,
        see: Callable[[], bytes],
        *,
        hide: Callable[[bytes], bytes] | None = None,
    ) -> bytes:
        """What was there then."""
        return self._answer(request)

    def _answer(self, request: str) -> bytes:
        with self._lock:
            exchange = self._next(request)
            error = exchange.error if exchange else self._error
        if error is not None and error.kind == "late" and self._error is not None:
            # The driver's own limit ended this wait, and its words for that are the pass's.
            error = self._error
        if error is not None:
            raise error_of(error)
        if exchange is None:
            raise SensorGone(f"the recording has no answer to {request!r}", fix=_FIX)
        return exchange.data()

    def _next(self, request: str) -> Exchange | None:
        """This pass's answer; one of another pass where this one went well without asking."""
        if queue := self._queues.get(request):
            exchange = queue.popleft()
            self._now = (exchange.event_ns, exchange.boot_ns)
            return exchange
        if self._error is not None:
            return None
        told = self._everything.get(request, ())
        before = [exchange for number, exchange in told if number < self._number]
        after = [exchange for number, exchange in told if number > self._number]
        return before[-1] if before else after[0] if after else None


class Player:
    """One sensor that plays its passes in their order."""

    def __init__(self, sensor: Sensor, tape: PlayingTape) -> None:
        self._sensor = sensor
        self._tape = tape
        self._channels: Sequence[str] | None = None
        self._readings: Sequence[Reading] | None = None

    async def probe(self, one: Pass) -> Sequence[str]:
        """What this probe found.

        Raises what it raised then.
        """
        found = await self._played(one, self._sensor.probe, self._channels)
        self._channels = found
        return found

    async def read(self, one: Pass) -> Sequence[Reading]:
        """What this pass read.

        Raises what it raised then.
        """
        found = await self._played(one, self._sensor.read, self._readings)
        self._readings = found
        return found

    async def _played(
        self, one: Pass, look: Callable[[], Awaitable[Sequence[T]]], before: Sequence[T] | None
    ) -> Sequence[T]:
        self._tape.begin(one)
        if not one.exchanges:
            # A rest, or figures of the pass before that still held: the driver asked nothing.
            if one.end.error is not None:
                raise error_of(one.end.error)
            if before is not None or not one.end.count:
                return before or ()
        if self._tape.is_empty:
            raise SensorGone("the recording has no answer to anything of this sensor", fix=_FIX)
        try:
            return await look()
        except (SensorError, OSError):
            if one.end.error is not None and one.end.error.kind == "late":
                raise error_of(one.end.error) from None
            raise
