"""The door of the control stream: setpoints down, their states up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

import grpc

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport
from heatpool_aggregator.rpc.telemetry import Context, Refused, stranger
from heatpool_aggregator.wire.control import ControlHello, request_from_bytes

HELLO_S = 10.0  # a stream without a name holds a place for no longer


class Session(Protocol):
    """One stream behind the door."""

    async def outgoing(self) -> list[bytes]:
        """What is to be said now; waits for it."""
        ...


SessionT = TypeVar("SessionT", bound=Session)


class FanOut(Protocol[SessionT]):
    """Where setpoints come from and their states go to."""

    async def open(self, site_ids: tuple[SiteId, ...]) -> SessionT:
        """A stream that listens for these sites."""
        ...

    def close(self, session: SessionT) -> None:
        """The stream has gone."""
        ...

    async def report(self, report: SetpointReport, data: bytes) -> bool:
        """Records a state; False if there was no room for it in time."""
        ...


class ControlService:
    """One bidirectional stream per agent."""

    def __init__(self, fan_out: FanOut[SessionT], known: frozenset[SiteId]) -> None:
        self._fan_out, self._known = fan_out, known

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Serves one agent until it goes."""
        try:
            hello = await self._hello(requests)
            session = await self._fan_out.open(hello.site_ids)
            try:
                refused = await self._serve(session, hello, requests, context)
            finally:
                self._fan_out.close(session)
        except Refused as error:
            refused = error
        if refused is not None:
            await context.abort(refused.code, refused.detail)

    async def _serve(
        self,
        session: Session,
        hello: ControlHello,
        requests: AsyncIterator[bytes],
        context: Context,
    ) -> Refused | None:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(_write(session, context), name="control-write")
            refused = await self._read(hello, requests)
            writer.cancel()
        return refused

    async def _hello(self, requests: AsyncIterator[bytes]) -> ControlHello:
        try:
            async with asyncio.timeout(HELLO_S):
                first = request_from_bytes(await anext(aiter(requests)))
        except (TimeoutError, StopAsyncIteration) as error:
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION, f"no hello within {HELLO_S:g} s"
            ) from error
        except WireError as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        if not isinstance(first, ControlHello):
            raise Refused(
                grpc.StatusCode.FAILED_PRECONDITION,
                "the first message is the state of a setpoint: say hello first",
            )
        if strangers := [site_id for site_id in first.site_ids if site_id not in self._known]:
            raise Refused(grpc.StatusCode.PERMISSION_DENIED, stranger(strangers[0]))
        return first

    async def _read(self, hello: ControlHello, requests: AsyncIterator[bytes]) -> Refused | None:
        try:
            async for data in requests:
                await self._take(hello, data)
        except Refused as refused:
            return refused
        except WireError as error:
            return Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return None

    async def _take(self, hello: ControlHello, data: bytes) -> None:
        report = request_from_bytes(data)
        if isinstance(report, ControlHello):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "hello comes once, at the start")
        if report.site_id not in hello.site_ids:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"site {report.site_id!r} is not among those that this stream speaks for",
            )
        if not await self._fan_out.report(report, data):
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the log does not keep up: come back in 10 s"
            )


async def _write(session: Session, context: Context) -> None:
    while True:
        for message in await session.outgoing():
            await context.write(message)
