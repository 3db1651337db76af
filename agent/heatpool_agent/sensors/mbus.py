"""Heat meters on M-Bus behind a TCP gateway, read by primary address.

What the bytes mean is `core.mbus`; what they mean to us `core.decode`. Meters that share a
gateway share its one connection, and a bus carries one talk at a time.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Annotated
from weakref import WeakValueDictionary

import msgspec

from heatpool.errors import ConfigError, SensorBusy, SensorGone, WireError
from heatpool_agent.config import SensorSettings
from heatpool_agent.core.decode import Stamp, heat_readings
from heatpool_agent.core.endpoint import TcpUrl, endpoint
from heatpool_agent.core.mbus import (
    HeatView,
    Telegram,
    decode,
    heat_view,
    request_frame,
    reset_frame,
    split_frame,
)
from heatpool_agent.core.mbus_frames import ACK
from heatpool_agent.core.reading import Reading
from heatpool_agent.ports import Clock, Roots, Sensor

# Meters with load profiles send a few; one that never stops would hold the bus for good.
MAX_TELEGRAMS = 16
# A gateway that holds more than a long frame (261 bytes) sends it in several pieces anyway.
READ_BYTES = 512


class Config(SensorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Gateway and primary address of one meter."""

    url: TcpUrl
    address: Annotated[int, msgspec.Meta(ge=0, le=250)]


def open(config: Config, roots: Roots, clock: Clock) -> AbstractAsyncContextManager[Sensor]:
    """The sensor, not yet connected.

    Raises:
        ConfigError: on entering, if the url cannot be used.
    """
    return _opened(config, clock)


@asynccontextmanager
async def _opened(config: Config, clock: Clock) -> AsyncIterator[Sensor]:
    try:
        line = _line_to(*endpoint(config.url))
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    sensor = MbusSensor(config, line, clock)
    try:
        yield sensor
    finally:
        await sensor.close()


class _Line:
    """The connection to one gateway; `session` counts how often it was opened."""

    def __init__(self, host: str, port: int) -> None:
        self.lock = asyncio.Lock()
        self.session = 0
        self.users = 0
        self._host = host
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, frame: bytes) -> bytes:
        """The next frame after `frame` was sent; WireError if what comes can be none."""
        reader, writer = await self.connected()
        writer.write(frame)
        await writer.drain()
        data = b""
        while True:
            if not (piece := await reader.read(READ_BYTES)):
                raise ConnectionResetError("the gateway closed the connection")
            answer, rest = split_frame(data := data + piece)
            if rest and answer is not None:
                raise WireError(f"{len(rest)} bytes after the answer", offset=len(answer))
            if answer is not None:
                return answer

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Both ends of the connection, opened anew if it was lost."""
        # Gateways close idle lines; that is no fault of the meter.
        if self._reader is not None and self._reader.at_eof():
            self.hang_up()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            self.session += 1
        return self._reader, self._writer

    def hang_up(self) -> None:
        """Drops the connection and whatever may still come on it."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


# Lines in use by (host, port); a line goes when its last sensor does.
_LINES: WeakValueDictionary[tuple[str, int], _Line] = WeakValueDictionary()


def _line_to(host: str, port: int) -> _Line:
    line = _LINES.get((host, port)) or _Line(host, port)
    _LINES[host, port] = line
    line.users += 1
    return line


class MbusSensor:
    """One meter on a bus."""

    def __init__(self, config: Config, line: _Line, clock: Clock) -> None:
        self._config = config
        self._line = line
        self._clock = clock
        self._session = 0
        self._fcb = True
        self._is_closed = False
        self._where = f"{config.url} address {config.address}"

    async def probe(self) -> Sequence[str]:
        """Channels that the meter shows now."""
        return [reading.channel for reading in await self.read()]

    async def read(self) -> Sequence[Reading]:
        """The meter's present figures.

        Raises:
            SensorBusy: the meter asks for patience.
            SensorGone: no connection, no answer in time, a broken one, or no heat meter.
        """
        async with self._line.lock:
            telegram = await self._exchange()
        stamp = Stamp(
            sensor=self._config.id,
            loop=self._config.loop,
            event_ns=self._clock.event_ns(),
            boot_ns=self._clock.boot_ns(),
        )
        return heat_readings(self._heat_view(telegram), stamp)

    async def close(self) -> None:
        """Leaves the line; the last meter on it hangs up."""
        if not self._is_closed:
            self._is_closed = True
            self._line.users -= 1
        if self._line.users == 0:
            self._line.hang_up()

    async def _exchange(self) -> Telegram:
        # After any failure the connection goes: what still comes must not meet the next request.
        is_clean = False
        try:
            async with asyncio.timeout(self._config.timeout_s):
                telegram = await self._telegram()
            is_clean = True
        except SensorBusy:
            # The line is well, but where in its telegrams the meter stands is not known.
            is_clean, self._session = True, 0
            raise
        except TimeoutError as error:
            raise SensorGone(
                f"{self._where}: no whole answer in {self._config.timeout_s:g} s",
                fix="check address, bus voltage and baud rate of the gateway, or raise timeout_s",
            ) from error
        except OSError as error:
            raise SensorGone(
                f"{self._where}: {error.strerror or error}",
                fix="check power and network of the gateway, and that nobody else is connected",
            ) from error
        except WireError as error:
            raise SensorGone(f"{self._where}: {error}", fix=self._broken_fix()) from error
        finally:
            if not is_clean:
                self._line.hang_up()
        return telegram

    def _broken_fix(self) -> str:
        return f"check the wiring, and that only one meter has address {self._config.address}"

    async def _telegram(self) -> Telegram:
        """All telegrams of one readout as one."""
        await self._reset_link()
        first = telegram = await self._next_telegram()
        records = list(first.records)
        for _ in range(MAX_TELEGRAMS - 1):
            if not telegram.more_follows:
                return replace(first, records=tuple(records), more_follows=False)
            telegram = await self._next_telegram()
            records += telegram.records
        raise WireError(f"more than {MAX_TELEGRAMS} telegrams in one readout")

    async def _reset_link(self) -> None:
        """Sets the meter's link to its start, once per connection."""
        await self._line.connected()
        if self._session == self._line.session:
            return
        answer = await self._line.ask(reset_frame(self._config.address))
        if answer != ACK:
            raise WireError(f"{answer[:8].hex(' ').upper()} came where E5 should acknowledge")
        self._session, self._fcb = self._line.session, True

    async def _next_telegram(self) -> Telegram:
        answer = await self._line.ask(request_frame(self._config.address, fcb=self._fcb))
        # Only what arrived whole is ticked off; else the meter would skip a telegram.
        self._fcb = not self._fcb
        telegram = decode(answer)
        if telegram.address != self._config.address:
            raise WireError(f"address {telegram.address} answered", offset=5)
        return telegram

    def _heat_view(self, telegram: Telegram) -> HeatView:
        view = heat_view(telegram)
        if "not_heat" in view.flags and telegram.header is not None:
            raise SensorGone(
                f"{self._where}: is a meter of {telegram.header.medium_name}, not of heat",
                fix="name the address of the heat meter",
            )
        return view
