"""A site's line and a gRPC server of the test's own, for the tests of both."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from heatpool.sample import (
    Channel,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    SiteId,
    SpoolKind,
)
from heatpool.v1 import control_pb2, telemetry_pb2
from heatpool_agent.board import Board
from heatpool_agent.loops.push import Push
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import Identity, Speaker
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate
from heatpool_agent.uplinks import grpc as uplink

# gRPC joins its poller thread when its last object goes, wherever that happens: keep it up instead.
grpc.aio.init_grpc_aio()

Up = telemetry_pb2.TelemetryServiceStreamRequest
Down = telemetry_pb2.TelemetryServiceStreamResponse
HEAT = Channel("rack", "heat_rate_w", -1)
HOT = Channel("rack", "hot_c", -3)


class Clock:
    def event_ns(self) -> int:
        return time.time_ns()

    def boot_ns(self) -> int:
        return time.monotonic_ns()


@dataclass
class Server:
    """Takes everything, acknowledges what it is told to, hangs up when it is told to."""

    acks: bool = True
    window: int = 0
    hang_up_after: int = 10**9
    durable_at_hello: int = 0
    resend_at: int = 0
    rubbish_on: str = ""
    hole_at: int = 0
    lost: int = 0
    contiguous: int = 0
    taken: set[int] = field(default_factory=set)
    durable: dict[str, int] = field(default_factory=dict)
    hellos: list[telemetry_pb2.Hello] = field(default_factory=list)
    frames: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[telemetry_pb2.Gap] = field(default_factory=list)
    gaps_before: dict[int, int] = field(default_factory=dict)
    port: int = 0
    has_lanes: bool = True
    codecs: list[telemetry_pb2.PayloadCodec.ValueType] = field(default_factory=list)
    before_hello: list[Down] = field(default_factory=list)
    after_hello: list[Down] = field(default_factory=list)
    refused_schemas: list[telemetry_pb2.RefusedSchema] = field(default_factory=list)
    refuse_with: grpc.StatusCode | None = None
    trailing: tuple[tuple[str, str], ...] = ()
    credentials: grpc.ServerCredentials | None = None
    messages: list[Any] = field(default_factory=list)

    async def telemetry(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        async for data in requests:
            up = Up.FromString(data)
            which = up.WhichOneof("message")
            if which == "hello":
                self.hellos.append(up.hello)
                if self.refuse_with is not None:
                    context.set_trailing_metadata(self.trailing)
                    await context.abort(self.refuse_with, "so it is")
                for down in [*self.before_hello, self.reply(up.hello), *self.after_hello]:
                    yield down.SerializeToString()
                if self.rubbish_on == "telemetry":
                    yield b"\xff\xff"
            elif which == "gap":
                self.gaps.append(up.gap)
            else:
                batch = up.telemetry if which == "telemetry" else up.registers
                self.messages.append(batch)
                self.frames.append((which or "", batch.seq))
                self.gaps_before[batch.seq] = len(self.gaps)
                if self.hole_at or (not self.has_lanes and which == "telemetry"):
                    for down in self.in_order(batch.seq):
                        yield down.SerializeToString()
                    continue
                if len(self.frames) >= self.hang_up_after:
                    self.hang_up_after = 10**9
                    await context.abort(grpc.StatusCode.CANCELLED, "server sheds")
                if batch.seq == self.resend_at:
                    boot_id = self.boot_id("telemetry", self.hellos[-1])
                    wish = telemetry_pb2.Resend(boot_id=boot_id, first_seq=1, last_seq=batch.seq)
                    self.resend_at = 0
                    yield Down(resend=wish).SerializeToString()
                    continue  # an ack of it would take the wish back
                if self.acks:
                    yield self.ack(which or "", batch.seq).SerializeToString()

    def in_order(self, seq: int) -> list[Down]:
        """Loses one number the first time, asks for it once, and acks contiguously."""
        if seq == self.hole_at and self.lost == 0:
            self.lost = seq
            return []
        is_first_behind = self.lost and seq == self.lost + 1 and seq not in self.taken
        self.taken.add(seq)
        while self.contiguous + 1 in self.taken:
            self.contiguous += 1
        # An older server knows no lanes: its mark is that of the whole queue.
        downs = [self.ack("telemetry", self.contiguous, has_lanes=False)]
        if is_first_behind and self.lost not in self.taken:
            boot_id = self.boot_id("telemetry", self.hellos[-1])
            missed = telemetry_pb2.Resend(boot_id=boot_id, first_seq=self.lost, last_seq=self.lost)
            downs.append(Down(resend=missed))
        return downs

    def reply(self, hello: telemetry_pb2.Hello) -> Down:
        reply = telemetry_pb2.HelloReply(
            codecs=self.codecs,
            limits=telemetry_pb2.Limits(unacked_batches_count=self.window),
            refused_schemas=self.refused_schemas,
        )
        for known, last_seq in self.durable.items():
            reply.durable.add(boot_id=known, first_seq=1, last_seq=last_seq)
        if self.durable_at_hello:
            boot_id = self.boot_id("telemetry", hello)
            reply.durable.add(boot_id=boot_id, first_seq=1, last_seq=self.durable_at_hello)
        return Down(hello_reply=reply)

    def boot_id(self, which: str, hello: telemetry_pb2.Hello) -> str:
        kind = {"telemetry": SpoolKind.TELEMETRY, "registers": SpoolKind.BILLING}[which]
        (spool,) = [spool for spool in hello.sites[0].spools if spool.kind == int(kind)]
        return spool.boot_id

    def ack(self, which: str, seq: int, *, has_lanes: bool = True) -> Down:
        boot_id = self.boot_id(which, self.hellos[-1])
        spool = telemetry_pb2.AckedSpool(boot_id=boot_id, received_seq=seq, durable_seq=seq)
        if has_lanes:
            is_live = seq >= self.boundary(which)
            spool.lane = telemetry_pb2.LANE_LIVE if is_live else telemetry_pb2.LANE_BACKLOG
        return Down(ack=telemetry_pb2.Ack(spools=[spool]))

    def boundary(self, which: str) -> int:
        """Where the live lane begins, as the last hello has it."""
        boot_id = self.boot_id(which, self.hellos[-1])
        (spool,) = [one for one in self.hellos[-1].sites[0].spools if one.boot_id == boot_id]
        return spool.boundary_seq

    def lane(self, which: str, *, is_live: bool) -> list[int]:
        """Numbers of one lane as they came, where there was one hello."""
        bound = self.boundary(which)
        return [seq for seq in self.numbers(which) if (seq >= bound) is is_live]

    async def control(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        async for data in requests:
            if control_pb2.ControlServiceStreamRequest.FromString(data).HasField("hello"):
                if self.rubbish_on == "control":
                    yield b"\xff\xff"
                setpoint = control_pb2.Setpoint(site_id="s1", setpoint_seq=7, heat_rate_w=5.0)
                for message in (
                    control_pb2.ControlServiceStreamResponse(setpoint=setpoint),
                    control_pb2.ControlServiceStreamResponse(
                        heartbeat=control_pb2.Heartbeat(plan_id="p")
                    ),
                ):
                    yield message.SerializeToString()

    def numbers(self, which: str) -> list[int]:
        return [seq for name, seq in self.frames if name == which]


@asynccontextmanager
async def listening(server: Server) -> AsyncIterator[Server]:
    """The server on a loopback port of its own."""
    grpc_server = grpc.aio.server()
    for service, handler in (
        ("heatpool.v1.TelemetryService", server.telemetry),
        ("heatpool.v1.ControlService", server.control),
    ):
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(handler)
        grpc_server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Stream": method}),)
        )
    address = f"127.0.0.1:{server.port}"
    if server.credentials is None:
        server.port = grpc_server.add_insecure_port(address)
    else:
        server.port = grpc_server.add_secure_port(address, server.credentials)
    await grpc_server.start()
    try:
        yield server
    finally:
        await grpc_server.stop(0)


class Listening(Protocol):
    """Something that an agent may connect to."""

    port: int


@dataclass
class Site:
    """A spool with the loop that sends it."""

    spool: SqliteSpool
    spooling: Spooling
    board: Board

    async def rows(self, count: int, *, first: int = 1, channel: Channel = HEAT) -> None:
        now_ns = time.time_ns()
        for second in range(first, first + count):
            cells = {channel: float(second)}
            await self.spooling.append(Row(event_ns=now_ns + second, cells=cells))

    async def register(self, raw: int) -> None:
        row = RegisterRow(
            metering_point_id=MeteringPointId("meter"),
            meter_id=MeterId("ABC.1.2.4"),
            event_ns=raw,
            raw=raw,
            exponent=0,
            modulus=None,
            reason=RegisterReason.PERIODIC,
        )
        await self.spooling.append_registers((row,))

    def speaker(self) -> Speaker:
        return Speaker(
            site_id=SiteId("s1"),
            marks=[self.spool.mark(kind) for kind in SpoolKind],
            schemas=self.spool.schemas(),
            rejection_capacity_w=None,
            loop_ids=["rack"],
        )


@asynccontextmanager
async def site(
    folder: Path, *, max_bytes: int = 10**9, rows_per_frame: int = 1
) -> AsyncIterator[Site]:
    """A site whose every row is a frame, unless more are told."""
    await asyncio.to_thread(migrate, folder)
    spool = await asyncio.to_thread(
        SqliteSpool,
        folder,
        clock=Clock(),
        rows_per_frame=rows_per_frame,
        max_bytes=max_bytes,
        keep_s=86_400,
    )
    board = Board(site_id=SiteId("s1"))
    found = Site(spool, Spooling(spool, board), board)
    try:
        yield found
    finally:
        await found.spooling.close()


@asynccontextmanager
async def pushing(
    site: Site,
    server: Listening,
    *,
    scheme: str = "http",
    identity: Identity | None = None,
    first_wait_s: float = 0.0,
    message_period_s: float = float("inf"),
    report_period_s: float | None = None,
) -> AsyncIterator[None]:
    """The loop at work, on a line to this port."""
    url = f"{scheme}://127.0.0.1:{server.port}"
    push = Push(
        site.spool,
        site.spooling,
        site.board,
        speaker=site.speaker,
        open_uplink=lambda who: uplink.open(url, who, Clock(), identity),
        clock=Clock(),
        first_wait_s=first_wait_s,
        message_period_s=message_period_s,
        report_period_s=report_period_s,
    )
    task = asyncio.create_task(push.run(), name="push")
    try:
        yield
    finally:
        site.board.is_line_closing = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(is_true: Callable[[], bool]) -> None:
    """Returns once a claim holds; fails after a minute."""
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110  # the other end's state
            await asyncio.sleep(0.01)
