"""A stream whose messages wake no task: order, ends and failures, over real gRPC."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from heatpool_aggregator.rpc.line import TURN_COUNT, Line, Turns

Serve = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[Any]:
    """A call that this coroutine answers."""

    async def stream(_: AsyncIterator[bytes], context: Any) -> None:
        await serve(context)

    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Line", {"Stream": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(20), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel.stream_stream("/test.Line/Stream")()
    finally:
        await server.stop(0)


async def all_of(call: Any) -> list[bytes]:
    return [data async for data in call]


class Echo:
    """Says what it takes, but for odd messages."""

    def __init__(self, odd: frozenset[bytes] = frozenset()) -> None:
        self.odd, self.to_say = odd, list[bytes]()
        self.line: Line | None = None

    def messages(self) -> list[bytes]:
        said, self.to_say = self.to_say, []
        return said

    def take(self, data: bytes) -> bool:
        if data in self.odd:
            return False
        self.say(data)
        return True

    def say(self, data: bytes) -> None:
        assert self.line is not None
        self.to_say.append(data)
        self.line.speak()

    async def serve(self, context: Any) -> None:
        self.line = line = Line(context, self.messages, Turns())
        try:
            while (odd := await line.read_on(self.take)) is not None:
                self.say(b"odd " + odd)
            await line.say_all(lambda: not self.to_say)
        finally:
            line.close()


async def test_each_message_is_answered_in_its_order() -> None:
    said = [b"%d" % number for number in range(50)]
    async with served(Echo(frozenset({b"7", b"49"})).serve) as call:
        for data in said:
            await call.write(data)
        await call.done_writing()
        answers = await all_of(call)
    assert answers == [b"odd " + one if one in (b"7", b"49") else one for one in said]


async def test_what_take_raises_ends_the_stream() -> None:
    heard: list[Exception] = []

    def take(_: bytes) -> bool:
        raise ValueError("not this one")

    async def serve(context: Any) -> None:
        line = Line(context, list, Turns())
        try:
            await line.read_on(take)
        except ValueError as error:
            heard.append(error)
        line.close()

    async with served(serve) as call:
        await call.write(b"1")
        assert await all_of(call) == []
    assert [str(error) for error in heard] == ["not this one"]


async def test_a_caller_that_goes_ends_the_coroutine_that_rests() -> None:
    rests, gone = asyncio.Event(), asyncio.Event()

    async def serve(context: Any) -> None:
        line = Line(context, list, Turns())
        rests.set()
        try:
            await line.read_on(lambda _: True)
        finally:
            line.close()
            gone.set()

    async with served(serve) as call:
        await call.write(b"1")
        await rests.wait()
        call.cancel()
        await gone.wait()


async def test_nobody_speaks_longer_than_its_turn() -> None:
    nobody: Any = None
    turns, said = Turns(), list[int]()

    class Spoken(Line):
        def say(self) -> None:
            said.append(1)

    for _ in range(2 * TURN_COUNT):
        turns.take(Spoken(nobody, list, turns))
    await asyncio.sleep(0)
    assert len(said) == TURN_COUNT
    await asyncio.sleep(0)
    assert len(said) == 2 * TURN_COUNT
