"""The loop that hears of gRPC's events once."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVarTuple

import grpc.aio

from heatpool_aggregator.rpc.wakeups import EventLoop

Told = TypeVarTuple("Told")
STREAMS_COUNT, MESSAGES_COUNT = 50, 20


class CountedLoop(EventLoop):
    """Counts how often it is called for gRPC."""

    calls_count = 0

    def add_reader(self, fd: Any, callback: Callable[[*Told], Any], *args: *Told) -> None:
        def _handle_events(*given: *Told) -> None:
            self.calls_count += 1
            callback(*given)

        is_of_grpc = isinstance(callback, functools.partial)
        super().add_reader(fd, _handle_events if is_of_grpc else callback, *args)


async def echo(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for data in requests:
        yield data


async def talk(channel: grpc.aio.Channel) -> list[bytes]:
    call: Any = channel.stream_stream("/test.Echo/Stream")()
    heard = []
    for number in range(MESSAGES_COUNT):
        await call.write(b"%d" % number)
        heard.append(await call.read())
    await call.done_writing()
    return heard


async def talked() -> list[list[bytes]]:
    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Echo", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        heard = await asyncio.gather(*(talk(channel) for _ in range(STREAMS_COUNT)))
    await server.stop(0)
    return heard


def test_each_message_is_heard_and_the_loop_is_called_for_many_at_once() -> None:
    with asyncio.Runner(loop_factory=CountedLoop) as runner:
        loop = runner.get_loop()
        heard = runner.run(talked())
    assert heard == [[b"%d" % number for number in range(MESSAGES_COUNT)]] * STREAMS_COUNT
    assert isinstance(loop, CountedLoop)
    # Two reads and two writes of each message; asyncio's own loop is called for each of them.
    assert 0 < loop.calls_count < STREAMS_COUNT * MESSAGES_COUNT * 4 / 2
