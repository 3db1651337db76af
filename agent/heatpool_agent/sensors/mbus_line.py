"""One M-Bus and who holds it: a TCP gateway's connection or a serial port, one talk at a time.

Meters that share a bus share its line. What the frames say is `core.mbus`.
"""

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress

from heatpool.errors import ConfigError, WireError
from heatpool_agent.core.endpoint import endpoint
from heatpool_agent.core.mbus import split_frame
from heatpool_agent.core.mbus_link import SerialPort, serial_port
from heatpool_agent.sensors.mbus_serial import OpenPort

# A gateway that holds more than a long frame (261 bytes) sends it in several pieces anyway.
READ_BYTES = 512
# A meter that is asked the same again with the same frame count bit repeats its answer.
SERIAL_TRIES = 3


class Line(ABC):
    """A bus; `lock` is held for a whole readout, a new `session` means links to be reset."""

    silence = ""  # what is said when no answer comes, where the line itself knows the limit
    silent_fix = ""
    lost_fix = ""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.session = 0
        self.users = 0

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether the meters' links are still as they were left."""

    @abstractmethod
    async def ask(self, frame: bytes) -> bytes:
        """The next frame after `frame` was sent, on a line opened anew if it was lost.

        Raises:
            WireError: what comes can be no answer.
            OSError: the line is lost, or TimeoutError: it stays silent.
            SensorGone: it cannot be opened, and the cause is known.
        """

    def break_off(self) -> None:
        """After a failure: the links are at an unknown place, and answers may still come."""
        self.session += 1

    @abstractmethod
    def hang_up(self) -> None:
        """Frees the line."""


async def answer_to(frame: bytes, piece: Callable[[], Awaitable[bytes]]) -> bytes:
    """The frame that the pieces of an answer make, without the echo that some converters add."""
    data = b""
    while True:
        data = (data + await piece()).removeprefix(frame)
        answer, rest = split_frame(data)
        if rest and answer is not None:
            raise WireError(f"{len(rest)} bytes after the answer", offset=len(answer))
        if answer is not None:
            return answer


class TcpLine(Line):
    """A gateway that passes bytes through; how late it does is its own affair."""

    silent_fix = "check address, bus voltage and baud rate of the gateway, or raise timeout_s"
    lost_fix = "check power and network of the gateway, and that nobody else is connected"

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._host = host
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_open(self) -> bool:
        """Gateways close idle lines; that is no fault of the meter."""
        return self._reader is not None and not self._reader.at_eof()

    async def ask(self, frame: bytes) -> bytes:
        """The next frame after `frame` was sent."""
        reader, writer = await self._connected()
        writer.write(frame)
        await writer.drain()

        async def piece() -> bytes:
            if not (read := await reader.read(READ_BYTES)):
                raise ConnectionResetError("the gateway closed the connection")
            return read

        return await answer_to(frame, piece)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.is_open:
            self.hang_up()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self.session += 1
        return self._reader, self._writer

    def break_off(self) -> None:
        """Whatever still comes dies with the connection."""
        super().break_off()
        self.hang_up()

    def hang_up(self) -> None:
        """Drops the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


class SerialLine(Line):
    """A converter at a port of this machine; the standard's times hold.

    The port stays held after a failure: many converters take their power from its control lines.
    """

    silence = f"no whole answer in {SERIAL_TRIES} tries"
    silent_fix = "check address, bus voltage, wiring, and that the meter speaks this baud rate"
    lost_fix = "plug the converter in again; name it by its path under /dev/serial/by-id"

    def __init__(self, port: SerialPort) -> None:
        super().__init__()
        self.port = port
        self._open: OpenPort | None = None
        self._is_calm = True

    @property
    def is_open(self) -> bool:
        """Whether the port is held."""
        return self._open is not None

    async def ask(self, frame: bytes) -> bytes:
        """The next frame after `frame` was sent, asked again after noise or silence."""
        if self._open is None:
            self._open = await OpenPort.of(self.port)
            self.session += 1
        try:
            for _ in range(SERIAL_TRIES - 1):
                with suppress(TimeoutError, WireError):
                    return await self._asked_once(self._open, frame)
            return await self._asked_once(self._open, frame)
        except TimeoutError:
            raise
        except OSError:
            self.hang_up()
            raise

    async def _asked_once(self, held: OpenPort, frame: bytes) -> bytes:
        async def piece() -> bytes:
            async with asyncio.timeout(self.port.answer_s(len(frame))):
                return await held.read(READ_BYTES)

        await self._calm(held)
        self._is_calm = False
        held.send(frame)
        answer = await answer_to(frame, piece)
        self._is_calm = True
        return answer

    async def _calm(self, held: OpenPort) -> None:
        """Waits until nobody speaks; after a failure a meter may be in the middle of its answer."""
        await asyncio.sleep(self.port.idle_s())
        with suppress(TimeoutError):
            while not self._is_calm:
                async with asyncio.timeout(self.port.quiet_s()):
                    await held.read(READ_BYTES)

    def hang_up(self) -> None:
        """Gives the port back."""
        if self._open is not None:
            self._open.close()
        self._open, self._is_calm = None, True


# Lines in use by what names them; a line goes when its last sensor does.
_LINES: dict[str, Line] = {}


async def line_to(url: str) -> Line:
    """The line of a url, shared by everybody who names the same bus; nothing is opened yet.

    Raises:
        ConfigError: the url names no line, or one port at two speeds.
    """
    try:
        name, line = await _known_or_new(url)
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    _LINES[name] = line
    line.users += 1
    return line


async def _known_or_new(url: str) -> tuple[str, Line]:
    if not url.startswith("serial:"):
        host, port = endpoint(url)
        name = f"tcp://{host}:{port}"
        return name, _LINES.get(name) or TcpLine(host, port)
    wanted = serial_port(url)
    # One port has many names, such as those in /dev/serial/by-id.
    name = await asyncio.to_thread(os.path.realpath, wanted.path)
    line = _LINES.get(name) or SerialLine(wanted)
    if isinstance(line, SerialLine) and line.port.baud != wanted.baud:
        raise ValueError(
            f"url: {wanted.path} is used at {line.port.baud} baud by another sensor, "
            f"not {wanted.baud}; give both the same"
        )
    return name, line


def leave(line: Line) -> None:
    """One sensor less; the last one hangs up."""
    line.users -= 1
    if line.users == 0:
        line.hang_up()
        for name in [name for name, known in _LINES.items() if known is line]:
            del _LINES[name]
