"""The agent's line where the other end, its disk or its own are not as they should be."""

import asyncio
import shutil
from pathlib import Path

import pytest
from integration.uplink_site import Down, Server, becomes, listening, pushing, site

from heatpool.codec import registers_to_bytes
from heatpool.errors import WireError
from heatpool.sample import (
    BootId,
    GapReason,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    SpoolKind,
)
from heatpool.v1 import telemetry_pb2
from heatpool_agent import wire
from heatpool_agent.ports import Seq, SpoolFrame
from heatpool_agent.spool.beyond import SPARE_COUNT


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


async def test_one_resend_fills_a_hole_though_the_window_is_full(tmp_path: Path) -> None:
    async with listening(Server(hole_at=3, window=16)) as server, site(tmp_path) as own:
        await own.rows(1)
        async with pushing(own, server):
            await becomes(lambda: own.board.uplink.state == "connected")
            await own.rows(11, first=2)
            await becomes(lambda: own.spool.mark(SpoolKind.TELEMETRY).durable_seq == 12)


async def test_a_spool_older_than_what_was_sent_gives_no_number_again(tmp_path: Path) -> None:
    kind = SpoolKind.TELEMETRY
    async with site(tmp_path) as own:
        await own.rows(3)
        old = own.spool.mark(kind).boot_id
        async with listening(Server(durable={old: 9})) as server, pushing(own, server):
            await becomes(lambda: own.spool.mark(kind).durable_seq > 9)
        assert own.spool.mark(kind).boot_id == old
    first = 10 + SPARE_COUNT
    assert sorted(server.numbers("telemetry")) == [first, first + 1, first + 2]
    assert len(server.hellos) == 2
    # Numbers are left out, and no row is lost: nobody is to look for any.
    gaps = [(gap.first_seq, gap.last_seq, gap.reason) for gap in server.gaps]
    assert gaps == [(10, first - 1, int(GapReason.UNUSED))]


async def test_an_older_copy_that_went_on_by_itself_loses_no_row(tmp_path: Path) -> None:
    kind = SpoolKind.TELEMETRY
    async with listening(Server()) as server:
        async with site(tmp_path / "now") as own:
            await own.rows(20)
            async with pushing(own, server):
                await becomes(lambda: own.spool.mark(kind).durable_seq == 20)
            boot_id = own.spool.mark(kind).boot_id
        await asyncio.to_thread(shutil.copytree, tmp_path / "now", tmp_path / "copy")
        sent = len(server.frames)
        async with site(tmp_path / "copy") as own:
            # What the lost hour brought is durable under 21 to 25; the copy gives these again.
            await own.rows(8, first=101)
            again = Server(durable={boot_id: 25})
            async with listening(again), pushing(own, again):
                await becomes(lambda: len(again.numbers("telemetry")) == 8)
                await becomes(lambda: own.spool.mark(kind).durable_seq > 25)
    assert sent == 20
    values = sorted(message.cells[0] for message in again.messages)
    assert values == [10 * second for second in range(101, 109)]
    assert min(again.numbers("telemetry")) > 25
    # What the copy had sent is not sent again.
    assert len(again.frames) == 8
