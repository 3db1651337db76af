"""The door of the telemetry stream: who is it, is it in order; then on to the gateway.

Bytes in, bytes out: a batch is not decoded here, because that would cost more than all the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import grpc

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool_aggregator.wire.messages import WIRE_VERSION, Hello, MessageKind, Peek
from heatpool_aggregator.wire.peek import peek
from heatpool_aggregator.wire.telemetry import hello_from_bytes

Context = grpc.aio.ServicerContext[bytes, bytes]


class Session(Protocol):
    """One stream behind the door."""

    @property
    def has_hello(self) -> bool:
        """Whether the other end has said who it is."""
        ...

    async def hello(self, hello: Hello, data: bytes) -> bool:
        """Takes a hello; False if there was no room for it in time."""
        ...

    async def put(self, peek: Peek, data: bytes) -> bool:
        """Takes a batch, registers or a gap; False if there was no room for it in time."""
        ...

    async def outgoing(self) -> list[bytes]:
        """What is to be said now; empty when all is said."""
        ...

    def finish(self) -> None:
        """Nothing more comes up."""
        ...

    def close(self) -> None:
        """The stream has gone."""
        ...


class Refused(Exception):
    """The stream ends with this status."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


class TelemetryService:
    """One bidirectional stream per agent."""

    def __init__(self, open_session: Callable[[], Session], known: frozenset[SiteId]) -> None:
        self._open_session, self._known = open_session, known

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Serves one agent until it goes."""
        session = self._open_session()
        refused: Refused | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_write(session, context), name="telemetry-write")
                refused = await self._read(session, requests)
                session.finish()
        finally:
            session.close()
        if refused is not None:
            await context.abort(refused.code, refused.detail)

    async def _read(self, session: Session, requests: AsyncIterator[bytes]) -> Refused | None:
        """Takes message after message; what ended the stream, None if the agent did."""
        try:
            async for data in requests:
                await self._take(session, data)
        except Refused as refused:
            return refused
        except WireError as error:
            return Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return None

    async def _take(self, session: Session, data: bytes) -> None:
        head = peek(data)
        if head.kind is MessageKind.HELLO:
            is_taken = await session.hello(self._admitted(hello_from_bytes(data)), data)
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
                "the log does not keep up: come back in 10 s, nothing that was acked is lost",
            )

    def _admitted(self, hello: Hello) -> Hello:
        if hello.wire_version != WIRE_VERSION:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"wire version {hello.wire_version} is not spoken here, this is {WIRE_VERSION}: "
                "run the same version of heatpool on both ends",
            )
        if strangers := [site.site_id for site in hello.sites if site.site_id not in self._known]:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, stranger(strangers[0]))
        return hello


def stranger(site_id: SiteId) -> str:
    """What to tell a site that no virtual source has as a member."""
    return (
        f"site {site_id!r} is no member of a virtual source here: add it as "
        "[[virtual_source.member]] to the aggregator's configuration and start it again"
    )


async def _write(session: Session, context: Context) -> None:
    while messages := await session.outgoing():
        for message in messages:
            await context.write(message)
