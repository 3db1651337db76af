"""A bad line: a small TCP proxy of real sockets that delays, narrows, falls silent and cuts.

It forgets connections as well, as a router does that keeps a table of them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CHUNK_BYTES = 1_024
# What a poor router keeps; beyond it the sender feels the line.
KEPT_BYTES = 8_192
OnWay = asyncio.Queue[tuple[float, bytes]]


@dataclass(slots=True)
class BadLine:
    """Both ways alike: `delay_s` one way, `bytes_s` at most; all of it may change at any time."""

    far_port: int
    delay_s: float = 0.0
    bytes_s: float = 1e9
    port: int = 0
    connections: int = 0
    up_bytes: int = 0
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _forgotten: set[asyncio.StreamWriter] = field(default_factory=set)

    def fall_silent(self) -> None:
        """Nothing passes, and nobody is told."""
        self._heard.clear()

    def speak(self) -> None:
        """Goes on, with what was kept meanwhile."""
        self._heard.set()

    def cut(self) -> None:
        """Ends every connection at once; what was on its way is lost."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def forget(self) -> None:
        """Of the connections that there are nothing passes any more, nor does their end."""
        self._forgotten.update(self._writers)

    async def join(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """One connection, until either end or a cut ends it."""
        self.connections += 1
        try:
            far, on = await asyncio.open_connection("127.0.0.1", self.far_port, limit=KEPT_BYTES)
        except OSError:
            back.transport.abort()
            return
        self._writers += [back, on]
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._way(near, on, is_up=True), name="up")
                ways.create_task(self._way(far, back, is_up=False), name="down")
        except* OSError:
            pass  # one end is gone: so is the other
        finally:
            back.transport.abort()
            on.transport.abort()

    async def _way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_up: bool
    ) -> None:
        """Bytes one after another at the line's pace, each chunk a delay after it came."""
        on_way: OnWay = asyncio.Queue(KEPT_BYTES // CHUNK_BYTES)
        async with asyncio.TaskGroup() as ends:
            ends.create_task(self._out(on_way, writer, is_up=is_up), name="out")
            loop = asyncio.get_running_loop()
            while data := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(len(data) / self.bytes_s)
                await on_way.put((loop.time() + self.delay_s, data))
            await on_way.put((0.0, b""))

    async def _out(
        self,
        on_way: "asyncio.Queue[tuple[float, bytes]]",
        writer: asyncio.StreamWriter,
        *,
        is_up: bool,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await on_way.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await self._heard.wait()
            if writer in self._forgotten:
                continue
            if not data:
                writer.transport.abort()
                return
            writer.write(data)
            self.up_bytes += len(data) if is_up else 0
            await writer.drain()


@asynccontextmanager
async def bad_line(
    far_port: int, *, delay_s: float = 0.0, bytes_s: float = 1e9
) -> AsyncIterator[BadLine]:
    """The line on a port of its own."""
    line = BadLine(far_port, delay_s=delay_s, bytes_s=bytes_s)
    line.speak()
    joined: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:

        def join(near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            joined.append(group.create_task(line.join(near, back), name="join"))

        server = await asyncio.start_server(join, "127.0.0.1", 0, limit=KEPT_BYTES)
        line.port = server.sockets[0].getsockname()[1]
        try:
            yield line
        finally:
            server.close()
            for task in joined:
                task.cancel()
