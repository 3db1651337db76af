"""What the other end may say on a line, and an older one that says less."""

import asyncio
import logging
from pathlib import Path

import pytest
from integration.bad_line import bad_line
from integration.uplink_site import Down, Server, becomes, listening, pushing, site
from turns import turned

from heatpool.sample import SpoolKind
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_agent.doctor.network import Answered, aggregator
from heatpool_agent.doctor.verdict import Status
from heatpool_aggregator.wire.telemetry import batch_from_bytes

UP = pb.TelemetryServiceStreamRequest


def slow(**limits: float) -> Down:
    return Down(slow=pb.Slow(limits=pb.Limits(**limits)))  # type: ignore[arg-type]


async def test_an_older_aggregator_without_lanes_gets_everything(tmp_path: Path) -> None:
    async with listening(Server(has_lanes=False)) as server, site(tmp_path) as own:
        await own.rows(60)
        await own.register(1)
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.state == "connected")
            await own.rows(5, first=100)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 65)
            await becomes(lambda: own.spool.mark(SpoolKind.BILLING).durable_seq == 1)
    assert sorted(server.numbers("telemetry")) == list(range(1, 66))
    assert {batch.codec for batch in server.messages if isinstance(batch, pb.TelemetryBatch)} == {
        pb.PAYLOAD_CODEC_NONE
    }


@pytest.mark.parametrize(
    ("rows_per_frame", "codec"), [(59, pb.PAYLOAD_CODEC_NONE), (60, pb.PAYLOAD_CODEC_ZLIB)]
)
async def test_frames_of_sixty_rows_are_packed_where_the_other_end_reads_it(
    tmp_path: Path, rows_per_frame: int, codec: int
) -> None:
    codecs = [pb.PAYLOAD_CODEC_NONE, pb.PAYLOAD_CODEC_ZLIB]
    own_site = site(tmp_path, rows_per_frame=rows_per_frame)
    async with listening(Server(codecs=codecs)) as server, own_site as own:
        await own.rows(rows_per_frame)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 1)
    (batch,) = server.messages
    assert batch.codec == codec
    columns = batch_from_bytes(UP(telemetry=batch).SerializeToString()).columns
    # 1.0, 2.0, 3.0 ... at one decimal: the first cell, then differences.
    assert columns.cells == (10,) * rows_per_frame


async def test_a_mark_of_the_live_lane_lets_no_backlog_go(tmp_path: Path) -> None:
    async with listening(Server(acks=False)) as server, site(tmp_path) as own:
        await own.rows(9)
        async with pushing(own, server):
            await becomes(lambda: 9 in server.numbers("telemetry"))
            live = server.ack("telemetry", 9)
        server.after_hello = [live]
        own.board.is_line_closing = False
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.batches_acked == 1)
            assert own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 0
            backlog = own.board.uplink.backlog
            assert backlog is not None and backlog.frames_count == 8


async def test_a_rate_for_the_backlog_is_kept_and_may_change(tmp_path: Path) -> None:
    crawl = slow(unacked_batches_count=16, backlog_bytes_s=1.0)
    async with listening(Server(after_hello=[crawl])) as server, site(tmp_path) as own:
        await own.rows(200)
        async with pushing(own, server):
            await becomes(lambda: own.board.asked.backlog_bytes_s == 1.0)
            await becomes(lambda: len(server.frames) >= 2)
            await asyncio.sleep(0.5)
            assert len(server.lane("telemetry", is_live=False)) < 30, "the rest waits for minutes"
            await own.rows(1, first=300)
            await becomes(lambda: 201 in server.numbers("telemetry"))


async def test_an_aggregator_that_is_busy_may_ask_for_less_before_it_answers(
    tmp_path: Path,
) -> None:
    crawl = slow(backlog_bytes_s=1.0)
    async with listening(Server(before_hello=[crawl])) as server, site(tmp_path) as own:
        await own.rows(1)
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.batches_acked == 1)
            assert len(server.hellos) == 1


async def test_nothing_is_sent_while_the_aggregator_wants_nothing(tmp_path: Path) -> None:
    hold = Down(ack=pb.Ack(retry_after_s=0.7))
    async with listening(Server(after_hello=[hold])) as server, site(tmp_path) as own:
        start_s = asyncio.get_running_loop().time()
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.state == "connected")
            await turned(0.1)  # its word has to arrive
            await own.register(1)
            await becomes(lambda: server.numbers("registers") == [1])
            assert asyncio.get_running_loop().time() - start_s > 0.7


async def test_what_is_asked_for_is_logged_in_plain_figures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    often = slow(message_period_s=5.0, backlog_bytes_s=100.0)
    async with listening(Server(after_hello=[often])) as server, site(tmp_path) as own:
        async with pushing(own, server):
            await becomes(lambda: own.board.asked.message_period_s == 5.0)
    (said,) = [one for one in caplog.records if one.getMessage() == "uplink.slow"]
    assert vars(said)["heatpool_facts"] == {"message_period_s": 5.0, "backlog_bytes_s": 100.0}


async def test_frames_close_sooner_where_that_is_asked_for(tmp_path: Path) -> None:
    often = slow(message_period_s=1.0)
    own_site = site(tmp_path, rows_per_frame=1_000)
    async with listening(Server(after_hello=[often])) as server, own_site as own:
        await own.rows(2)
        await own.spooling.close_frame()
        async with pushing(own, server):
            await becomes(lambda: own.board.asked.message_period_s == 1.0)
            await own.rows(3, first=10)
            await becomes(lambda: 2 in server.numbers("telemetry"))
    assert server.messages[-1].n_rows == 3


@pytest.mark.parametrize(
    ("asked", "rows_count"),
    [({"message_period_s": 50.0}, 5), ({"batch_rows_count": 1}, 1), ({"report_period_s": 30.0}, 1)],
)
async def test_frames_are_as_long_as_is_asked_from_the_next_one_on(
    tmp_path: Path, asked: dict[str, float], rows_count: int
) -> None:
    """A site of 10-s rows and a message every 20 s."""
    own_site = site(tmp_path, rows_per_frame=2)
    async with listening(Server(after_hello=[slow(**asked)])) as server, own_site as own:
        # New channels would have Hello said again, and its answer asks for nothing at first.
        await own.rows(2)
        async with pushing(own, server, message_period_s=20.0, report_period_s=10.0):
            await becomes(lambda: own.spool.rows_per_frame == rows_count)
            await own.rows(5, first=10)
            await becomes(lambda: len(server.frames) >= 1 + 5 // rows_count)
    assert [frame.n_rows for frame in server.messages if frame.seq == 1] == [2]
    assert {frame.n_rows for frame in server.messages if frame.seq > 1} == {rows_count}


async def test_frames_get_shorter_where_messages_would_be_too_large(tmp_path: Path) -> None:
    small = slow(batch_bytes=120)
    own_site = site(tmp_path, rows_per_frame=100)
    async with listening(Server(after_hello=[small])) as server, own_site as own:
        async with pushing(own, server, message_period_s=1_000.0, report_period_s=10.0):
            await becomes(lambda: own.board.asked.batch_bytes == 120)
            await own.rows(100)
            await becomes(lambda: own.spool.rows_per_frame < 100)
            await own.rows(100, first=200)
            await becomes(lambda: len(server.frames) >= 2)
    assert server.messages[-1].n_rows < 100


async def test_a_loss_while_the_line_is_open_is_told_once(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(3)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)
            await own.spooling.call(own.spool.lose, SpoolKind.TELEMETRY, 7, 8)
            own.board.spooled.set()
            await becomes(lambda: len(server.gaps) == 1)
            await own.rows(2, first=10)
            await becomes(lambda: len(server.frames) >= 5)
    assert [(gap.first_seq, gap.last_seq, gap.start_ns) for gap in server.gaps] == [(4, 4, 7)]


async def test_many_losses_hold_up_no_live_row(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(2)
        for number in range(300):
            start_ns = number * 10
            await own.spooling.call(own.spool.lose, SpoolKind.TELEMETRY, start_ns, start_ns + 5)
        await own.rows(1, first=1_000)
        async with bad_line(server.port, bytes_s=8_000.0) as line, pushing(own, line):
            seq = own.spool.mark(SpoolKind.TELEMETRY).next_seq - 1
            await becomes(lambda: seq in server.numbers("telemetry"))
            assert server.gaps_before[seq] < 200
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq >= 2)


async def test_a_first_connect_that_waits_its_turn_says_so(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        async with pushing(own, server, first_wait_s=217.0):
            await becomes(lambda: own.board.uplink.state == "waiting")
            assert own.board.uplink.detail.startswith("first connect in 217 s")
            await asyncio.sleep(0.2)
    assert server.hellos == []


async def test_an_ack_of_what_was_never_numbered_ends_the_line(tmp_path: Path) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(2)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 2)
            server.after_hello = [server.ack("telemetry", 2**64 - 1)]
        own.board.is_line_closing = False
        async with pushing(own, server):
            await becomes(lambda: "acknowledges number" in own.board.uplink.detail)
            server.after_hello = []
            await own.rows(1, first=9)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)


@pytest.mark.parametrize(("first_seq", "last_seq"), [(9, 1), (2**63, 2**64 - 1), (0, 0)])
async def test_a_resend_of_what_is_nowhere_ends_nothing(
    tmp_path: Path, first_seq: int, last_seq: int
) -> None:
    async with listening(Server()) as server, site(tmp_path) as own:
        await own.rows(4)
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 4)
            boot_id = server.boot_id("telemetry", server.hellos[-1])
        wish = pb.Resend(boot_id=boot_id, first_seq=first_seq, last_seq=last_seq)
        server.after_hello = [Down(resend=wish)]
        own.board.is_line_closing = False
        async with pushing(own, server):
            await becomes(lambda: len(server.hellos) == 2)
            await own.rows(1, first=9)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 5)
    assert len(server.hellos) == 2


async def test_a_refused_schema_stops_no_row_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refused = [pb.RefusedSchema(schema_id=7, reason="has 0 channels")]
    caplog.set_level(logging.ERROR)
    async with listening(Server(refused_schemas=refused)) as server, site(tmp_path) as own:
        await own.rows(3)
        # The line is cut once and opened again: that says nothing new.
        server.hang_up_after = 2
        async with pushing(own, server):
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 3)
            await becomes(lambda: own.board.uplink.state == "connected")
            detail = own.board.uplink.detail
    assert len(server.hellos) == 2
    assert "unread: schema 7: has 0 channels" in detail
    assert [one.message for one in caplog.records] == ["uplink.schema_refused"]
    verdict = aggregator(
        Answered(address="a:1", speaks_http2=True), {"state": "connected", "detail": detail}
    )
    assert (verdict.status, detail in verdict.found) == (Status.WARN, True)
