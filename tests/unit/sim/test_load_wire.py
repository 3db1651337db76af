"""Messages put together by hand are those that protobuf would read, and the answers are read."""

import zlib

import pytest

from heatpool.codec import Columns, unpack
from heatpool.sample import Channel, SpoolKind
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_sim.load.figures import CHANNELS, bodies
from heatpool_sim.wire import down, garbage, up

STEP_NS = 10**10


def request(data: bytes) -> pb.TelemetryServiceStreamRequest:
    return pb.TelemetryServiceStreamRequest.FromString(data)


@pytest.mark.parametrize("n_rows", [1, 6, 60])
def test_a_batch_by_hand_is_one_of_protobuf(n_rows: int) -> None:
    prepared = bodies(n_rows, STEP_NS, is_packed=False)[1]
    data = up.telemetry(300, prepared, start_ns=10**18, sent_ns=10**18 + 7)
    batch = request(data).telemetry
    assert (batch.seq, batch.schema_id, batch.start_ns) == (300, up.SCHEMA_ID, 10**18)
    assert (batch.n_rows, batch.sent_ns, batch.site_index) == (n_rows, 10**18 + 7, 0)
    columns = Columns(
        schema_id=1,
        start_ns=batch.start_ns,
        step_ns=batch.step_ns,
        n_rows=n_rows,
        cells=tuple(batch.cells),
        dt_ns=tuple(batch.dt_ns),
        valid_bits=batch.valid_bits,
    )
    values = dict(zip(CHANNELS, unpack(columns, CHANNELS), strict=True))
    hot, cold = values[Channel("rack", "hot_c", -2)], values[Channel("rack", "cold_c", -2)]
    assert all(
        h is not None and c is not None and h - c > 5 for h, c in zip(hot, cold, strict=True)
    )


def test_a_packed_batch_holds_the_varints_of_its_cells() -> None:
    plain = pb.TelemetryBatch.FromString(bodies(60, STEP_NS, is_packed=False)[2])
    packed = pb.TelemetryBatch.FromString(bodies(60, STEP_NS, is_packed=True)[2])
    assert (packed.codec, len(packed.cells)) == (pb.PAYLOAD_CODEC_ZLIB, 0)
    assert zlib.decompress(packed.payload) == up.cells_of(plain.cells)
    assert len(packed.payload) < 0.9 * len(up.cells_of(plain.cells))


def test_site_and_number_come_first_so_that_the_door_is_quick() -> None:
    data = up.telemetry(5, bodies(1, STEP_NS, is_packed=False)[0], start_ns=1, sent_ns=2)
    assert data[2:4] == b"\x10\x05"


def test_registers_by_hand_are_those_of_protobuf() -> None:
    readings = [
        up.Reading(metering_point_id="m", meter_id="k", event_ns=10**18 + n, raw_wh=900 + n)
        for n in range(2)
    ]
    batch = request(up.registers(9, readings, sent_ns=77)).registers
    assert (batch.seq, batch.sent_ns) == (9, 77)
    assert [(row.event_ns, row.raw) for row in batch.rows] == [
        (10**18, 900),
        (10**18 + 1, 901),
    ]


def test_hello_names_both_queues_and_the_schema() -> None:
    spools = [
        up.Spool(kind=kind, boot_id=kind.name, first_seq=1, next_seq=9, boundary_seq=boundary)
        for kind, boundary in ((SpoolKind.TELEMETRY, 8), (SpoolKind.BILLING, 0))
    ]
    site = request(up.hello("load-00001", spools, CHANNELS)).hello.sites[0]
    assert [(one.boot_id, one.boundary_seq) for one in site.spools] == [
        ("TELEMETRY", 8),
        ("BILLING", 0),
    ]
    assert (site.schemas[0].boot_id, len(site.schemas[0].channels)) == ("TELEMETRY", len(CHANNELS))


def test_answers_are_read() -> None:
    reply = pb.HelloReply(
        durable=[pb.DurableRange(boot_id="a", first_seq=1, last_seq=4)],
        limits=pb.Limits(unacked_batches_count=16),
        codecs=[pb.PAYLOAD_CODEC_NONE, pb.PAYLOAD_CODEC_ZLIB],
    )
    found = down.said(pb.TelemetryServiceStreamResponse(hello_reply=reply).SerializeToString())
    assert isinstance(found, down.HelloReply)
    assert (found.durable, found.reads_zlib, found.retry_after_s) == ({"a": [(1, 4)]}, True, None)
    refused = pb.RefusedFrame(boot_id="a", seq=3, reason=pb.REFUSED_REASON_TOO_LARGE)
    acked = pb.AckedSpool(boot_id="a", lane=pb.LANE_BACKLOG, durable_seq=3)
    ack = pb.Ack(spools=[acked], refused=[refused], retry_after_s=2.0)
    said = down.said(pb.TelemetryServiceStreamResponse(ack=ack).SerializeToString())
    assert isinstance(said, down.Ack)
    assert (said.marks[0].is_backlog, said.refused[0].reason) == (True, "too_large")
    assert said.retry_after_s == 2.0


@pytest.mark.parametrize("kind", garbage.FRAMES)
def test_garbage_has_an_identity(kind: str) -> None:
    make, _ = garbage.FRAMES[kind]
    data = make(300, 10**18, 10**18, len(CHANNELS))
    length_end = next(at for at in range(1, 6) if data[at] < 0x80) + 1
    assert data[:1] == b"\x12"
    assert data[length_end : length_end + 3] == b"\x10" + up.varint(300)


def test_a_zip_bomb_is_small_on_the_wire() -> None:
    make, _ = garbage.FRAMES["zip_bomb"]
    assert len(make(1, 1, 1, 12)) < 100_000
