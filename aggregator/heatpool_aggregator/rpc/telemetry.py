"""The door of the telemetry stream: who is it, is it in order; then on to the gateway.

Bytes in, bytes out: a batch is not decoded here, because that would cost more than all the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool_aggregator.rpc.line import Line, Turns
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.wire.messages import WIRE_VERSION, Hello, MessageKind, Peek
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes

HELLO_S = 10.0

Context = grpc.aio.ServicerContext[bytes, bytes]


class Session(Protocol):
    """One stream behind the door; `retry_after_s` is when to come back after a False, s.

    Calls `on_news` when there is something to say, or all is said.
    """

    retry_after_s: float
    on_news: Callable[[], None]

    @property
    def has_hello(self) -> bool:
        """Whether the other end has said who it is."""
        ...

    async def hello(self, hello: Hello, data: bytes) -> bool:
        """Takes a hello; False if there was no room for it in time."""
        ...

    def take(self, data: bytes) -> bool:
        """Takes a batch or registers; False, and nothing, if more is to be done about it."""
        ...

    async def put(self, head: Peek, data: bytes) -> bool:
        """Takes a batch, registers or a gap; False if there was no room for it in time."""
        ...

    def messages(self) -> list[bytes]:
        """What is to be said now."""
        ...

    def is_all_said(self) -> bool:
        """Whether nothing is to be said, now or about what is on its way into the log."""
        ...

    def finish(self) -> None:
        """Nothing more comes up."""
        ...

    def close(self) -> None:
        """The stream has gone."""
        ...


# Lets a stream speak for sites from now on, or raises Refused.
Admit = Callable[[grpc.aio.ServicerContext[Any, Any], Sequence[SiteId]], Awaitable[None]]


class TelemetryService:
    """One bidirectional stream per agent."""

    def __init__(self, open_session: Callable[[], Session], admit: Admit) -> None:
        self._open_session, self._admit = open_session, admit
        self._turns = Turns()

    async def stream(self, _: AsyncIterator[bytes], context: Context) -> None:
        """Serves one agent until it goes.

        Raises:
            Refused: it said what it may not.
            WireError: it said what nobody understands.
        """
        first = [await first_of(context)]
        session = self._open_session()
        line = Line(context, session.messages, self._turns)
        session.on_news = line.speak
        try:
            refused = await self._read(session, first.pop(), line, context)
            session.finish()
            await line.say_all(session.is_all_said)
        finally:
            line.close()
            session.close()
        if refused is not None:
            raise refused

    async def _read(
        self, session: Session, data: bytes | None, line: Line, context: Context
    ) -> Refused | WireError | None:
        """Takes message after message; what ended the stream, None if the agent did."""
        try:
            while data is not None:
                await self._take(session, data, context)
                # A stream rests for days: what it said last is not to be kept for as long.
                del data
                data = await line.read_on(session.take)
        except (Refused, WireError) as refused:
            return refused
        return None

    async def _take(self, session: Session, data: bytes, context: Context) -> None:
        head = peek(data)
        if head.kind is MessageKind.HELLO:
            hello = _understood(hello_from_bytes(data))
            await self._admit(context, [site.site_id for site in hello.sites])
            is_taken = await session.hello(hello, data)
        elif session.has_hello:
            is_taken = await session.put(head, data)
        else:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the first message is {head.kind.name.lower()}: say hello first",
            )
        if not is_taken:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"no room: come back in {session.retry_after_s:.0f} s, nothing that was acked is "
                "lost",
                retry_after_s=session.retry_after_s,
            )


async def first_of(context: Context) -> bytes:
    """The first message of a stream.

    Raises:
        Refused: it does not come; a stream without a name holds a place for no longer.
    """
    try:
        async with asyncio.timeout(HELLO_S):
            data = await context.read()
    except TimeoutError as error:
        text = f"no hello within {HELLO_S:g} s"
        raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, text) from error
    if not isinstance(data, bytes):
        text = "the stream ended without a hello"
        raise Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
    return data


def _understood(hello: Hello) -> Hello:
    if hello.wire_version != WIRE_VERSION:
        raise Refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"wire version {hello.wire_version} is not spoken here, this is {WIRE_VERSION}: "
            "run the same version of heatpool on both ends",
        )
    return hello
