"""The agent's line against a gRPC server of the test's own: what is sent, again, and let go."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import pytest

from heatpool.codec import registers_to_bytes
from heatpool.errors import ConfigError, WireError
from heatpool.sample import (
    BootId,
    Channel,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Row,
    SiteId,
    SpoolKind,
)
from heatpool.setpoint import Heartbeat, Setpoint
from heatpool.v1 import control_pb2, telemetry_pb2
from heatpool_agent import wire
from heatpool_agent.board import Board
from heatpool_agent.loops.push import Push
from heatpool_agent.loops.spooling import Spooling
from heatpool_agent.ports import Seq, Speaker, SpoolFrame
from heatpool_agent.spool import SqliteSpool
from heatpool_agent.spool_schema import migrate
from heatpool_agent.uplinks import grpc as uplink

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
    resend_from: int = 0
    rubbish_on: str = ""
    hellos: list[telemetry_pb2.Hello] = field(default_factory=list)
    frames: list[tuple[str, int]] = field(default_factory=list)
    gaps: list[telemetry_pb2.Gap] = field(default_factory=list)
    port: int = 0

    async def telemetry(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        async for data in requests:
            up = Up.FromString(data)
            which = up.WhichOneof("message")
            if which == "hello":
                self.hellos.append(up.hello)
                yield self.reply(up.hello).SerializeToString()
                if self.rubbish_on == "telemetry":
                    yield b"\xff\xff"
            elif which == "gap":
                self.gaps.append(up.gap)
            else:
                batch = up.telemetry if which == "telemetry" else up.registers
                self.frames.append((which or "", batch.seq))
                if len(self.frames) >= self.hang_up_after:
                    self.hang_up_after = 10**9
                    await context.abort(grpc.StatusCode.CANCELLED, "server sheds")
                if self.resend_from and batch.seq == 700:
                    boot_id = self.boot_id("telemetry", self.hellos[-1])
                    wish = telemetry_pb2.Resend(boot_id=boot_id, first_seq=1, last_seq=699)
                    self.resend_from = 0
                    yield Down(resend=wish).SerializeToString()
                if self.acks:
                    yield self.ack(which or "", batch.seq).SerializeToString()

    def reply(self, hello: telemetry_pb2.Hello) -> Down:
        reply = telemetry_pb2.HelloReply(
            limits=telemetry_pb2.Limits(unacked_batches_count=self.window)
        )
        if self.durable_at_hello:
            boot_id = self.boot_id("telemetry", hello)
            reply.durable.add(boot_id=boot_id, first_seq=1, last_seq=self.durable_at_hello)
        return Down(hello_reply=reply)

    def boot_id(self, which: str, hello: telemetry_pb2.Hello) -> str:
        kind = {"telemetry": SpoolKind.TELEMETRY, "registers": SpoolKind.BILLING}[which]
        (spool,) = [spool for spool in hello.sites[0].spools if spool.kind == int(kind)]
        return spool.boot_id

    def ack(self, which: str, seq: int) -> Down:
        boot_id = self.boot_id(which, self.hellos[-1])
        spool = telemetry_pb2.AckedSpool(boot_id=boot_id, received_seq=seq, durable_seq=seq)
        return Down(ack=telemetry_pb2.Ack(spools=[spool]))

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
    server.port = grpc_server.add_insecure_port(f"127.0.0.1:{server.port}")
    await grpc_server.start()
    try:
        yield server
    finally:
        await grpc_server.stop(0)


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
async def site(folder: Path, *, max_bytes: int = 10**9) -> AsyncIterator[Site]:
    """A site whose every row is a frame."""
    await asyncio.to_thread(migrate, folder)
    spool = await asyncio.to_thread(
        SqliteSpool,
        folder,
        clock=Clock(),
        rows_per_frame=1,
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
async def pushing(site: Site, server: Server) -> AsyncIterator[None]:
    """The loop at work."""
    push = Push(
        site.spool,
        site.spooling,
        site.board,
        speaker=site.speaker,
        open_uplink=lambda who: uplink.open(f"http://127.0.0.1:{server.port}", who, Clock()),
    )
    task = asyncio.create_task(push.run(), name="push")
    try:
        yield
    finally:
        site.board.is_line_closing = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def becomes(is_true: Callable[[], bool]) -> None:
    """Returns once a claim holds; fails after 15 s."""
    async with asyncio.timeout(15):
        while not is_true():  # noqa: ASYNC110  # the other end's state
            await asyncio.sleep(0.01)


async def test_everything_is_sent_once_and_let_go_when_it_is_durable(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(30)
        await own.register(1)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 30)
            await becomes(lambda: own.spool.mark(SpoolKind.BILLING).durable_seq == 1)
    assert server.numbers("telemetry") == list(range(1, 31))
    assert server.frames[0] == ("registers", 1), "billing leads"
    assert (own.board.uplink.batches_sent, own.board.uplink.batches_acked) == (31, 31)


async def test_a_server_that_never_acks_gets_no_more_than_the_window(tmp_path: Path) -> None:
    async with listening(Server(acks=False, window=6)) as server, site(tmp_path) as own:
        await own.rows(40)
        async with pushing(own, server):
            await becomes(lambda: len(server.frames) >= 6)
            await asyncio.sleep(0.5)
            assert len(server.frames) == 6
    assert own.spool.mark(SpoolKind.TELEMETRY).durable_seq == Seq(0)


async def test_what_was_not_acked_when_the_line_fell_is_sent_again(tmp_path: Path) -> None:
    async with listening(Server(hang_up_after=12)) as server, site(tmp_path) as own:
        await own.rows(20)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20)
    assert set(server.numbers("telemetry")) == set(range(1, 21))
    assert server.numbers("telemetry").count(12) >= 2, "the frame at the cut was never acked"
    assert len(server.hellos) == 2


async def test_hello_s_answer_says_from_where_to_go_on(tmp_path: Path) -> None:
    async with listening(Server(durable_at_hello=15)) as server, site(tmp_path) as own:
        await own.rows(20)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20)
            await becomes(lambda: 20 in server.numbers("telemetry"))
    assert own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 20


async def test_a_server_that_lost_its_disk_gets_again_what_it_had_acknowledged(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as own:
        async with listening(Server()) as server:
            await own.rows(5)
            async with pushing(own, server):
                await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
        own.board.is_line_closing = False
        async with listening(Server()) as empty, pushing(own, empty):
            await becomes(lambda: empty.numbers("telemetry") == [1, 2, 3, 4, 5])


async def test_what_is_missed_is_sent_again_and_what_is_gone_is_told(tmp_path: Path) -> None:
    async with listening(Server(resend_from=1)) as server, site(tmp_path, max_bytes=45_000) as own:
        await own.rows(700)
        first = own.spool.mark(SpoolKind.TELEMETRY).first_seq
        async with pushing(own, server):
            await becomes(lambda: server.numbers("telemetry").count(700) == 2)
    assert server.numbers("telemetry").count(first) == 2
    assert server.gaps[-1].last_seq == first - 1


async def test_a_new_channel_says_hello_again_before_its_rows(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)
            await own.rows(2, first=10, channel=HOT)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
    assert [len(hello.sites[0].schemas) for hello in server.hellos] == [1, 2]


async def test_rows_that_were_dropped_are_told_as_a_gap(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path, max_bytes=45_000) as own:
        await own.rows(700)
        first = own.spool.mark(SpoolKind.TELEMETRY).first_seq
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 700)
    assert server.gaps[0].first_seq == 1
    assert max(gap.last_seq for gap in server.gaps) == first - 1


async def test_a_frame_that_the_disk_spoiled_is_told_as_a_gap_and_those_behind_it_go(
    tmp_path: Path,
) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        spoil = "UPDATE frames SET payload = x'ff' WHERE seq = 2"
        await own.spooling.call(own.spool._db[SpoolKind.TELEMETRY].execute, spoil)
        async with pushing(own, server):
            await becomes(lambda: server.numbers("telemetry") == [1, 3])
    assert [(gap.first_seq, gap.last_seq) for gap in server.gaps] == [(2, 2)]


async def test_a_disk_that_cannot_be_read_for_a_while_ends_nothing(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        db = own.spool._db[SpoolKind.TELEMETRY]
        await own.spooling.call(db.execute, "ALTER TABLE frames RENAME TO away")
        async with pushing(own, server):
            await becomes(lambda: "no such table" in own.board.uplink.detail)
            await own.rows(1, first=4)
            assert "no such table" in own.board.spool_error
            await own.spooling.call(db.execute, "ALTER TABLE away RENAME TO frames")
            await own.rows(1, first=5)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
    assert set(server.numbers("telemetry")) == {1, 2, 3, 4, 5}
    assert own.board.spool_error == ""


async def test_setpoints_and_heartbeats_come_to_the_board(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        one, other = own.board.listen(), own.board.listen()
        async with pushing(own, server):
            await becomes(lambda: one.qsize() == other.qsize() == 2)
        first, second = one.get_nowait(), one.get_nowait()
    assert isinstance(first, Setpoint) and first.setpoint_seq == 7
    assert isinstance(second, Heartbeat) and second.plan_id == "p"


async def test_a_server_that_comes_late_is_found(tmp_path: Path) -> None:
    server = Server()
    async with listening(server):
        pass
    async with site(tmp_path) as own, pushing(own, server):
        await own.rows(2)
        await becomes(lambda: own.board.uplink.state == "waiting")
        async with listening(server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 2)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1", "ftp://a:1", "://"])
def test_an_address_that_cannot_be_used_is_a_mistake_of_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match=r"aggregator\.url"):
        uplink.target_of(url)


@pytest.mark.parametrize("stream", ["telemetry", "control"])
async def test_rubbish_from_the_other_end_ends_the_line_and_not_the_loop(
    tmp_path: Path, stream: str
) -> None:
    async with listening(Server(rubbish_on=stream)) as server, site(tmp_path) as own:
        await own.rows(1)
        async with pushing(own, server):
            await becomes(lambda: "cannot be read" in own.board.uplink.detail)
            server.rubbish_on = ""
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 1)


def test_a_reason_of_a_newer_aggregator_is_shown_as_its_number() -> None:
    refused = telemetry_pb2.RefusedFrame(boot_id="b", seq=3, detail="new")
    refused.reason = telemetry_pb2.RefusedReason.ValueType(77)
    down = Down(ack=telemetry_pb2.Ack(refused=[refused]))
    answer = wire.answer(down.SerializeToString())
    assert isinstance(answer, wire.AckAnswer)
    assert answer.refused == ("b/3: reason 77 new",)


async def test_figures_that_no_message_holds_are_a_wire_error() -> None:
    row = RegisterRow(
        metering_point_id=MeteringPointId("meter"),
        meter_id=MeterId("ABC.1.2.4"),
        event_ns=1,
        raw=-1,
        exponent=0,
        modulus=None,
        reason=RegisterReason.PERIODIC,
    )
    payload = registers_to_bytes([row])
    frame = SpoolFrame(kind=SpoolKind.BILLING, boot_id=BootId("b"), seq=Seq(1), payload=payload)
    with pytest.raises(WireError, match="does not fit"):
        wire.batch(frame, sent_ns=1)
