"""Two wires with meters on them, behind a level converter: at a TCP port, or at a pseudo terminal.

Everything that is asked reaches every meter; what several say at once is lost in each other.
"""

import asyncio
import logging
import os
import tty
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from heatpool.errors import HeatpoolError
from heatpool.process.journal import facts
from heatpool_sim.devices import mbus_telegram as telegram
from heatpool_sim.devices.mbus_telegram import Request
from heatpool_sim.ports import LOOPBACK, Address

logger = logging.getLogger(__name__)

_LONGEST_FRAME_BYTES = 261  # 255 of user data and 6 around them
_IDLE_S = 600.0  # a converter drops a line that nobody has used for so long
_GOODBYE_S = 1.0  # a closed line ends its conversation at the next read


class Talk(Protocol):
    """One meter in one conversation: what was selected and said in it."""

    def reply(self, request: Request) -> bytes:
        """What the meter says; nothing to what is not for it."""
        ...


class MbusBus:
    """Meters on one bus; `begin` gives a fresh talk of each for every master that connects."""

    def __init__(self, begin: Sequence[Callable[[], Talk]], *, port: int = 0) -> None:
        self._begin = begin
        self._port = port
        self._lines: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Address]:
        """Answers at the address for as long as the context is open.

        Raises:
            HeatpoolError: the port is taken.
        """
        try:
            server = await asyncio.start_server(self._converse, LOOPBACK, self._port)
        except OSError as error:
            text = f"port {self._port} on {LOOPBACK}: {error.strerror}; free it or give 0"
            raise HeatpoolError(text) from error
        try:
            yield Address(host=LOOPBACK, port=server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await self._hang_up()

    @asynccontextmanager
    async def serve_pty(self) -> AsyncIterator[str]:
        """Answers at a pseudo terminal, whose path this gives, while the context is open."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        answers = _Answers([begin() for begin in self._begin])
        loop = asyncio.get_running_loop()

        def heard() -> None:
            os.write(master, answers.to(os.read(master, _LONGEST_FRAME_BYTES)))

        loop.add_reader(master, heard)
        try:
            # The slave stays open here: a pseudo terminal that nobody holds has no other end.
            yield os.ttyname(slave)
        finally:
            loop.remove_reader(master)
            os.close(slave)
            os.close(master)

    async def _hang_up(self) -> None:
        talks = tuple(self._lines)
        for writer in self._lines.values():
            writer.close()
        if talks:
            await asyncio.wait(talks, timeout=_GOODBYE_S)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (talk := asyncio.current_task()) is not None:
            self._lines[talk] = writer
            talk.add_done_callback(lambda done: self._lines.pop(done, None))
        try:
            await self._answer_all(reader, writer)
        except (OSError, TimeoutError) as error:
            logger.debug("mbus.line_lost", extra=facts(reason=str(error)))
        finally:
            writer.close()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = _Answers([begin() for begin in self._begin])
        while True:
            async with asyncio.timeout(_IDLE_S):
                data = await reader.read(_LONGEST_FRAME_BYTES)
            if not data:
                return
            writer.write(answers.to(data))
            async with asyncio.timeout(_IDLE_S):
                await writer.drain()


class _Answers:
    """One master's bytes into the meters' bytes."""

    def __init__(self, talks: Sequence[Talk]) -> None:
        self._talks = talks
        self._pending = b""

    def to(self, data: bytes) -> bytes:
        """What the bus answers to these bytes and the unfinished ones before."""
        said = b""
        request, self._pending = telegram.next_request(self._pending + data)
        while request is not None:
            said += telegram.together([talk.reply(request) for talk in self._talks])
            request, self._pending = telegram.next_request(self._pending)
        self._pending = self._pending[-_LONGEST_FRAME_BYTES:]
        return said
