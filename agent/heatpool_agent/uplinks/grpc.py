"""The line to one aggregator: a telemetry and a control stream on one channel.

Bytes only; what they mean is `wire`'s. Every failure of the line is an UplinkError.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import grpc
import grpc.aio

from heatpool import __version__
from heatpool.errors import ConfigError, UplinkError, WireError
from heatpool.process.journal import facts
from heatpool.sample import BootId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport
from heatpool_agent import wire
from heatpool_agent.config import aggregator_address
from heatpool_agent.ports import Acked, Clock, Resend, Seq, Speaker, SpoolFrame, SpoolLoss

logger = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 20.0
# Four messages in flight hide a round trip of a slow line; the aggregator may allow more.
WINDOW_LEAST = 4
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


def target_of(url: str) -> str:
    """The `host:port` behind an aggregator url.

    Raises:
        ConfigError: no address in it, or a scheme that is not known.
    """
    address = aggregator_address(url)
    if address is None:
        raise ConfigError([f"aggregator.url: is {url!r}, must be http://HOST:PORT"])
    return address


class GrpcUplink:
    """An open line; what was written is counted until it is durable at the other end."""

    def __init__(
        self, telemetry: "Stream[bytes, bytes]", control: "Stream[bytes, bytes]", clock: Clock
    ) -> None:
        self._telemetry = telemetry
        self._control = control
        self._clock = clock
        self.durable: Mapping[BootId, Seq] = {}
        self._window = WINDOW_LEAST
        self._sent: dict[BootId, Seq] = {}
        self._durable: dict[BootId, Seq] = {}
        self._moved = asyncio.Event()
        self._resends = 0

    async def greet(self, speaker: Speaker) -> None:
        """Opens both streams.

        Raises:
            UplinkError: refused, or no answer; with the wait if the aggregator named one.
        """
        sent_ns = self._clock.event_ns()
        hello = wire.hello(speaker, agent_version=__version__, sent_ns=sent_ns)
        async with _within(HELLO_TIMEOUT_S, "Hello"):
            await self._line(self._telemetry.write(hello))
            answer = await self._answer()
            ask = wire.control_hello([speaker.site_id], sent_ns=sent_ns)
            await self._line(self._control.write(ask))
        if not isinstance(answer, wire.HelloAnswer):
            raise UplinkError("the aggregator did not answer Hello with a HelloReply")
        if answer.wait_s is not None:
            raise UplinkError("the aggregator asks to come back later", wait_s=answer.wait_s)
        if answer.refused_schemas:
            raise UplinkError("; ".join(answer.refused_schemas))
        self.durable = {acked.boot_id: acked.durable_seq for acked in answer.durable}
        self._window = max(WINDOW_LEAST, answer.window)

    async def send(self, frame: SpoolFrame) -> None:
        """Writes one frame, once fewer than the window wait for their ack.

        What was sent before waits for no window, and a Resend ends the waiting with nothing
        written: else the missed frame would wait for an ack that only itself can bring.
        Raises:
            WireError: it is no frame; nothing was written.
        """
        resends = self._resends
        while frame.seq > self._sent.get(frame.boot_id, 0) and (
            self._waiting_count() >= self._window
        ):
            self._moved.clear()
            await self._moved.wait()
            if self._resends != resends:
                return
        message = wire.batch(frame, sent_ns=self._clock.event_ns())
        self._durable.setdefault(frame.boot_id, Seq(frame.seq - 1))
        self._sent[frame.boot_id] = max(frame.seq, self._sent.get(frame.boot_id, frame.seq))
        await self._write(message)

    async def tell(self, loss: SpoolLoss) -> None:
        """Writes one gap."""
        await self._write(wire.gap(loss))

    async def _write(self, message: bytes) -> None:
        async with _within(WRITE_TIMEOUT_S, "a write"):
            await self._line(self._telemetry.write(message))

    def _waiting_count(self) -> int:
        return sum(max(0, seq - self._durable[boot]) for boot, seq in self._sent.items())

    async def acks(self) -> AsyncIterator[Acked | Resend]:
        """What becomes durable, beginning with what Hello's answer says, and what is missed."""
        for boot_id, seq in self.durable.items():
            yield Acked(boot_id=boot_id, durable_seq=seq)
        while True:
            answer = await self._answer()
            if isinstance(answer, Resend):
                self._resends += 1
                self._moved.set()
                yield answer
            elif isinstance(answer, wire.AckAnswer):
                for refused in answer.refused:
                    logger.error("uplink.refused", extra=facts(frame=refused))
                for acked in answer.durable:
                    self._durable[acked.boot_id] = acked.durable_seq
                    yield acked
                self._moved.set()

    async def setpoints(self) -> AsyncIterator[Setpoint | Heartbeat]:
        """What is wished from this site."""
        while True:
            message = await self._next(self._control)
            with _as_uplink_error():
                wish = wire.wish(message)
            if wish is not None:
                yield wish

    async def report(self, report: SetpointReport) -> None:
        """Writes what became of a setpoint."""
        async with _within(WRITE_TIMEOUT_S, "a report"):
            await self._line(self._control.write(wire.setpoint_report(report)))

    async def _answer(self) -> wire.HelloAnswer | wire.AckAnswer | Resend | None:
        message = await self._next(self._telemetry)
        with _as_uplink_error():
            return wire.answer(message)

    async def _next(self, stream: "Stream[bytes, bytes]") -> bytes:
        message = await self._line(stream.read())
        if not isinstance(message, bytes):  # the end of the stream
            with _as_uplink_error():
                code, details = await stream.code(), await stream.details()
                raise UplinkError(f"the aggregator closed the stream: {code.name} {details}")
        return message

    async def _line(self, awaitable: Awaitable[T]) -> T:
        with _as_uplink_error():
            return await awaitable


@contextmanager
def _as_uplink_error() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise UplinkError(f"{error.code().name}: {error.details()}") from error
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:
        raise UplinkError(f"the stream is closed: {error}") from error
    except WireError as error:
        raise UplinkError(f"the aggregator sent what cannot be read: {error}") from error


@asynccontextmanager
async def _within(seconds_s: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds_s):
            yield
    except TimeoutError as error:
        raise UplinkError(f"{what} was not taken within {seconds_s:.0f} s") from error


@asynccontextmanager
async def open(url: str, speaker: Speaker, clock: Clock) -> AsyncIterator[GrpcUplink]:
    """A line whose Hello is answered; both streams end with the context.

    Raises:
        UplinkError: the aggregator cannot be reached or refused the site.
    """
    async with grpc.aio.insecure_channel(target_of(url), options=OPTIONS) as channel:
        telemetry: Stream[bytes, bytes] = channel.stream_stream(wire.TELEMETRY_METHOD)()
        control: Stream[bytes, bytes] = channel.stream_stream(wire.CONTROL_METHOD)()
        uplink = GrpcUplink(telemetry, control, clock)
        try:
            await uplink.greet(speaker)
            yield uplink
        finally:
            telemetry.cancel()
            control.cancel()
