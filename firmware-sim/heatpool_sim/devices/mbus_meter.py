"""A heat meter that speaks M-Bus over TCP, as through a level converter at a fixed address."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.devices import mbus_telegram as telegram
from heatpool_sim.devices.mbus_telegram import Request
from heatpool_sim.ports import LOOPBACK, Address, Twin

logger = logging.getLogger(__name__)

_LONGEST_FRAME_BYTES = 261  # 255 of user data and 6 around them
_IDLE_S = 600.0  # a converter drops a line that nobody has used for so long
_GOODBYE_S = 1.0  # a closed line ends its conversation at the next read
_SILENT = frozenset({"offline", "meter_offline"})


class MbusMeter:
    """One meter behind its own TCP port; several masters may ask, each is answered."""

    def __init__(self, *, port: int = 0, address: int = 1) -> None:
        self._port = port
        self._address = address
        self._access = 0
        self._lines: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def serve(self, plant: Twin) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._converse(plant, reader, writer)

        try:
            server = await asyncio.start_server(converse, LOOPBACK, self._port)
        except OSError as error:
            text = f"port {self._port} on {LOOPBACK}: {error.strerror}; free it or give 0"
            raise HeatpoolError(text) from error
        try:
            yield Address(host=LOOPBACK, port=server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await self._hang_up()

    def reply(self, plant: Twin, request: Request) -> bytes:
        """What the meter says to a request; nothing to one that calls another address."""
        if request.address != self._address or plant.faults & _SILENT:
            return b""
        if request.is_reset or request.is_user_data:
            return telegram.ACK
        if not request.is_data_request:
            return b""
        if "busy" in plant.faults:
            return telegram.busy(address=self._address)
        self._access = (self._access + 1) % 256
        meter, state = plant.meter()
        frame = telegram.answer(meter, state, address=self._address, access=self._access)
        return telegram.with_wrong_checksum(frame) if "checksum_wrong" in plant.faults else frame

    async def _hang_up(self) -> None:
        talks = tuple(self._lines)
        for writer in self._lines.values():
            writer.close()
        if talks:
            await asyncio.wait(talks, timeout=_GOODBYE_S)

    async def _converse(
        self, plant: Twin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if (talk := asyncio.current_task()) is not None:
            self._lines[talk] = writer
            talk.add_done_callback(lambda done: self._lines.pop(done, None))
        try:
            await self._answer_all(plant, reader, writer)
        except (OSError, TimeoutError) as error:
            logger.debug("mbus.line_lost", extra=facts(reason=str(error)))
        finally:
            writer.close()

    async def _answer_all(
        self, plant: Twin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        pending = b""
        while True:
            async with asyncio.timeout(_IDLE_S):
                data = await reader.read(_LONGEST_FRAME_BYTES)
            if not data:
                return
            request, pending = telegram.next_request(pending + data)
            while request is not None:
                writer.write(self.reply(plant, request))
                request, pending = telegram.next_request(pending)
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()
            pending = pending[-_LONGEST_FRAME_BYTES:]
