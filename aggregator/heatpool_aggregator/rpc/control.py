"""The door of the control stream: setpoints down, their states up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

import grpc

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointReport
from heatpool_aggregator.core.quotas import Bucket, Buckets
from heatpool_aggregator.core.turned_away import Reason
from heatpool_aggregator.rpc.refused import Refused
from heatpool_aggregator.rpc.telemetry import Admit, Context, first_of
from heatpool_aggregator.wire.control import ControlHello, request_from_bytes

# A report is an event for good: a site has one setpoint, and says little about it. The burst is
# what an agent keeps while its line is down.
REPORTS_S, REPORTS_BURST = 20.0, 500.0


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

    def __init__(
        self, fan_out: FanOut[SessionT], admit: Admit, *, boot_ns: Callable[[], int]
    ) -> None:
        self._fan_out, self._admit, self._boot_ns = fan_out, admit, boot_ns
        self._buckets = Buckets(lambda: Bucket(REPORTS_S, REPORTS_BURST))

    async def stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """Serves one agent until it goes.

        Raises:
            Refused: it said what it may not.
            WireError: it said what nobody understands.
        """
        hello = _hello(await first_of(context))
        await self._admit(context, hello.site_ids)
        session = await self._fan_out.open(hello.site_ids)
        try:
            refused = await self._serve(session, hello, requests, context)
        finally:
            self._fan_out.close(session)
        if refused is not None:
            raise refused

    async def _serve(
        self,
        session: Session,
        hello: ControlHello,
        requests: AsyncIterator[bytes],
        context: Context,
    ) -> Refused | WireError | None:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(_write(session, context), name="control-write")
            refused = await self._read(hello, requests)
            writer.cancel()
        return refused

    async def _read(
        self, hello: ControlHello, requests: AsyncIterator[bytes]
    ) -> Refused | WireError | None:
        try:
            async for data in requests:
                await self._take(hello, data)
        except (Refused, WireError) as refused:
            return refused
        return None

    def _draw(self, site_id: SiteId) -> None:
        if self._buckets.draw(site_id, self._boot_ns()):
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"more than {REPORTS_S:g} reports a second after the first {REPORTS_BURST:g}: "
                "a site says once what became of a setpoint; look at what it repeats",
            )

    async def _take(self, hello: ControlHello, data: bytes) -> None:
        report = request_from_bytes(data)
        if isinstance(report, ControlHello):
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "hello comes once, at the start")
        if report.site_id not in hello.site_ids:
            raise Refused(
                grpc.StatusCode.PERMISSION_DENIED,
                f"site {report.site_id!r} is not among those that this stream speaks for",
                reason=Reason.OTHER_SITE,
            )
        self._draw(report.site_id)
        if not await self._fan_out.report(report, data):
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "the log does not keep up: come back in 10 s"
            )


def _hello(first: bytes) -> ControlHello:
    hello = request_from_bytes(first)
    if not isinstance(hello, ControlHello):
        raise Refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "the first message is the state of a setpoint: say hello first",
        )
    return hello


async def _write(session: Session, context: Context) -> None:
    while True:
        for message in await session.outgoing():
            await context.write(message)
