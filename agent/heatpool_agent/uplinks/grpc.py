"""The line to one aggregator: a telemetry and a control stream on one channel.

Bytes only; what they mean is `wire`'s. Every failure of the line is an UplinkError.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TypeVar

import grpc
import grpc.aio

from heatpool import __version__
from heatpool.errors import UplinkError, WireError
from heatpool.process.journal import facts
from heatpool.sample import BootId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport
from heatpool.units import NS_PER_S
from heatpool_agent import wire
from heatpool_agent.core import certificate
from heatpool_agent.core.line import boundary_of, lane_of
from heatpool_agent.ports import (
    Clock,
    Durable,
    Identity,
    Lane,
    LineLimits,
    LineRefused,
    Resend,
    Sent,
    Seq,
    Speaker,
    SpoolFrame,
    SpoolLoss,
)
from heatpool_agent.uplinks.address import Address, address_of
from heatpool_agent.uplinks.failures import as_uplink_error, ended, within
from heatpool_agent.uplinks.window import Window

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 20.0
WRITE_TIMEOUT_S = 20.0
AGE_LOOK_S = 60.0
JOIN_AGAIN = (
    "look at this machine's clock first (timedatectl); then heatpool-agent join --force with a "
    "new token enrols this site again"
)
OPTIONS = (
    # A dead line is seen within half a minute, also where a router forgot the connection.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # One agent, one connection: sharing with a dead subchannel would delay a new try.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
T = TypeVar("T")
Stream = grpc.aio.StreamStreamCall  # of bytes both ways


class GrpcUplink:
    """An open line; what was written is counted until it has arrived at the other end."""

    def __init__(
        self,
        telemetry: "Stream[bytes, bytes]",
        control: "Stream[bytes, bytes]",
        clock: Clock,
        *,
        renew_ns: int | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._control = control
        self._clock = clock
        self.durable: Sequence[Durable] = ()
        self.refused_schemas: Sequence[str] = ()
        self._renew_ns = renew_ns
        self._limits = LineLimits()
        self._reads_zlib = False
        self._starts: dict[BootId, tuple[int, int]] = {}
        self._window = Window()
        # A stream takes one message at a time, and several tasks have some.
        self._writing = asyncio.Lock()
        self._hold_until_s = 0.0

    @property
    def limits(self) -> LineLimits:
        """What is to be kept now."""
        return self._limits

    async def greet(self, speaker: Speaker) -> None:
        """Opens both streams.

        Raises:
            UplinkError: refused, or no answer; with the wait if the aggregator named one.
        """
        sent_ns = self._clock.event_ns()
        hello = wire.hello(speaker, agent_version=__version__, sent_ns=sent_ns)
        async with within(HELLO_TIMEOUT_S, "Hello"):
            await self._line(self._telemetry, self._telemetry.write(hello))
            answer = await self._answer()
            # One that is busy may ask for less before it answers: its answer has the limits, too.
            while isinstance(answer, LineLimits):
                answer = await self._answer()
            ask = wire.control_hello([speaker.site_id], sent_ns=sent_ns)
            await self._line(self._control, self._control.write(ask))
        if isinstance(answer, wire.HelloAnswer | wire.AckAnswer) and answer.wait_s is not None:
            raise UplinkError("the aggregator asks to come back later", wait_s=answer.wait_s)
        if not isinstance(answer, wire.HelloAnswer):
            raise UplinkError("the aggregator did not answer Hello with a HelloReply")
        self._starts = {
            mark.boot_id: (
                mark.first_seq,
                boundary_of(mark.kind, first_seq=mark.first_seq, next_seq=mark.next_seq),
            )
            for mark in speaker.marks
        }
        self.durable, self.refused_schemas = answer.durable, answer.refused_schemas
        self._reads_zlib = answer.reads_zlib
        self._keep(answer.limits)

    def _keep(self, limits: LineLimits) -> None:
        self._limits = limits
        self._window.allow(limits.unacked_count)

    async def send(self, frame: SpoolFrame) -> Sent | None:
        """Writes one frame, once fewer than the window of its lane wait for their ack.

        Raises:
            WireError: it is no frame; nothing was written.
        """
        _, boundary_seq = self._starts.get(frame.boot_id, (0, 0))
        lane = lane_of(frame.kind, frame.seq, boundary_seq=boundary_seq)
        if not await self._window.room(lane, frame.seq):
            return None
        await self._held()
        message, sent = wire.batch(
            frame,
            sent_ns=self._clock.event_ns(),
            reads_zlib=self._reads_zlib,
            most_bytes=self._limits.batch_bytes,
        )
        self._window.went(lane, frame.boot_id, frame.seq)
        await self._write(message)
        return sent

    async def _held(self) -> None:
        """Waits while the aggregator wants nothing."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._hold_until_s - loop.time()))

    async def aged(self) -> None:
        """Returns once a newer certificate should be shown; never without one."""
        while self._renew_ns is None or self._clock.event_ns() < self._renew_ns:  # noqa: ASYNC110  # a clock that may be set
            await asyncio.sleep(AGE_LOOK_S)

    async def settled(self, lane: Lane) -> bool:
        """Returns once all that was sent on a lane has arrived; False: a Resend came first."""
        return await self._window.settled(lane)

    async def tell(self, loss: SpoolLoss) -> None:
        """Writes one gap."""
        await self._write(wire.gap(loss))

    async def _write(self, message: bytes) -> None:
        async with self._writing, within(WRITE_TIMEOUT_S, "a write"):
            await self._line(self._telemetry, self._telemetry.write(message))

    async def acks(self) -> AsyncIterator[Durable | Resend | LineLimits]:
        """What becomes durable after Hello's answer, what is missed, and what is to be kept."""
        while True:
            answer = await self._answer()
            if isinstance(answer, Resend):
                await self._window.missed()
                yield answer
            elif isinstance(answer, LineLimits):
                # A share of what many send changes by the second; that there is one is news.
                is_news = answer.is_tighter(LineLimits()) and not self._limits.is_tighter(
                    LineLimits()
                )
                level = logging.WARNING if is_news else logging.INFO
                logger.log(level, "uplink.slow", extra=facts(**_figures(answer)))
                self._keep(answer)
                yield answer
            elif isinstance(answer, wire.AckAnswer):
                for durable in await self._taken(answer):
                    yield durable

    async def _taken(self, ack: wire.AckAnswer) -> list[Durable]:
        """What an ack says is durable; its other words are heeded here."""
        for refused in ack.refused:
            logger.error("uplink.refused", extra=facts(frame=refused))
        if ack.wait_s is not None:
            self._hold_until_s = asyncio.get_running_loop().time() + ack.wait_s
        found = []
        for mark in ack.marks:
            start = self._start(mark)
            await self._window.arrived(mark.boot_id, start, mark.received_seq)
            if mark.durable_seq >= start:
                found.append(
                    Durable(boot_id=mark.boot_id, first_seq=Seq(start), last_seq=mark.durable_seq)
                )
        return found

    def _start(self, mark: wire.LaneMark) -> int:
        """From where a watermark counts; a queue without a boundary has its live lane alone."""
        first_seq, boundary_seq = self._starts.get(mark.boot_id, (1, 0))
        return max(first_seq, boundary_seq) if mark.lane is Lane.LIVE else first_seq

    async def setpoints(self) -> AsyncIterator[Setpoint | Heartbeat]:
        """What is wished from this site."""
        while True:
            message = await self._next(self._control)
            with as_uplink_error():
                wish = wire.wish(message)
            if wish is not None:
                yield wish

    async def report(self, report: SetpointReport) -> None:
        """Writes what became of a setpoint."""
        async with within(WRITE_TIMEOUT_S, "a report"):
            await self._line(self._control, self._control.write(wire.setpoint_report(report)))

    async def _answer(self) -> wire.HelloAnswer | wire.AckAnswer | Resend | LineLimits | None:
        message = await self._next(self._telemetry)
        with as_uplink_error():
            return wire.answer(message)

    async def _next(self, stream: "Stream[bytes, bytes]") -> bytes:
        message = await self._line(stream, stream.read())
        if not isinstance(message, bytes):  # the end of the stream
            raise await ended(stream)
        return message

    async def _line(self, stream: "Stream[bytes, bytes]", awaitable: Awaitable[T]) -> T:
        try:
            with as_uplink_error():
                return await awaitable
        except UplinkError:
            # A write to a stream that has ended only says so; the stream says why.
            if stream.done():
                raise await ended(stream) from None
            raise


def _channel(address: Address, identity: Identity | None) -> grpc.aio.Channel:
    if not address.is_secure or identity is None:
        return grpc.aio.insecure_channel(address.target, options=OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=identity.root_pem,
        private_key=identity.key_pem,
        certificate_chain=identity.chain_pem,
    )
    return grpc.aio.secure_channel(address.target, credentials, options=OPTIONS)


def _renewal_ns(identity: Identity | None, now_ns: int) -> int | None:
    """When to come again with a newer certificate; None for one that is past that already.

    Raises:
        LineRefused: it has ended, or cannot be read.
    """
    if identity is None:
        return None
    try:
        own = certificate.first(identity.chain_pem.decode("ascii", errors="replace"))
    except WireError as error:
        raise LineRefused(f"this site's own {error}", fix=JOIN_AGAIN) from error
    if own.end_ns < now_ns:
        ended_at = datetime.fromtimestamp(own.end_ns // NS_PER_S, UTC)
        told = f"this site's certificate ended on {ended_at:%Y-%m-%d %H:%M} UTC"
        raise LineRefused(told, fix=JOIN_AGAIN)
    due_ns = own.start_ns + (own.end_ns - own.start_ns) * 5 // 6
    return due_ns if due_ns > now_ns else None


@asynccontextmanager
async def open(
    url: str, speaker: Speaker, clock: Clock, identity: Identity | None = None
) -> AsyncIterator[GrpcUplink]:
    """A line whose Hello is answered; both streams end with the context.

    Raises:
        ConfigError: the url cannot be used with this identity.
        UplinkError: the aggregator cannot be reached or refused the site.
    """
    address = address_of(url, identity)
    renew_ns = _renewal_ns(identity if address.is_secure else None, clock.event_ns())
    async with _channel(address, identity) as channel:
        telemetry: Stream[bytes, bytes] = channel.stream_stream(wire.TELEMETRY_METHOD)()
        control: Stream[bytes, bytes] = channel.stream_stream(wire.CONTROL_METHOD)()
        uplink = GrpcUplink(telemetry, control, clock, renew_ns=renew_ns)
        try:
            await uplink.greet(speaker)
            yield uplink
        finally:
            telemetry.cancel()
            control.cancel()


def _figures(limits: LineLimits) -> dict[str, object]:
    """What is asked for, each with its name."""
    return {name: value for name, value in asdict(limits).items() if value is not None}
