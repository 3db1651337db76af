"""What is said down the telemetry stream: replies, Acks made by hand, what to send again."""

from heatpool.sample import BootId, RefusedReason, SiteId
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_aggregator.core.quotas import Limits
from heatpool_aggregator.wire import telemetry
from heatpool_aggregator.wire.acks import AckedPrefix, ack_of, server_time
from heatpool_aggregator.wire.messages import DurableRange, Lane, Refusal, RefusedSchema


def test_hello_reply_says_what_is_durable_and_what_is_not_understood() -> None:
    known = DurableRange(site_index=0, boot_id=BootId("t1"), first_seq=1, last_seq=8)
    refused = RefusedSchema(site_index=0, schema_id=3, reason="no channels")
    data = telemetry.hello_reply_to_bytes([known], [refused], server_ns=6)
    reply = pb.TelemetryServiceStreamResponse.FromString(data).hello_reply
    assert (reply.durable[0].boot_id, reply.durable[0].last_seq) == ("t1", 8)
    assert (reply.refused_schemas[0].reason, reply.server_ns) == ("no channels", 6)
    assert (reply.limits.batch_rows_count, reply.limits.unacked_batches_count) == (1000, 16)
    assert list(reply.codecs) == [pb.PAYLOAD_CODEC_NONE, pb.PAYLOAD_CODEC_ZLIB]
    assert not reply.HasField("retry_after_s")


def test_an_ack_names_watermarks_and_refusals() -> None:
    refusal = Refusal(
        site_id=SiteId("site-a"),
        boot_id=BootId("t1"),
        seq=7,
        reason=RefusedReason.OUT_OF_RANGE,
        detail="hot_c is 900",
    )
    prefix = AckedPrefix(site_index=1, boot_id=BootId("t1"), lane=Lane.LIVE)
    parts = [prefix.with_marks(9, 300), *telemetry.refused_in_ack([(1, refusal)]), server_time(6)]
    data = ack_of(parts)
    ack = pb.TelemetryServiceStreamResponse.FromString(data).ack
    expected = pb.AckedSpool(
        site_index=1, boot_id="t1", lane=pb.LANE_LIVE, received_seq=9, durable_seq=300
    )
    assert (list(ack.spools), ack.server_ns) == ([expected], 6)
    assert (ack.refused[0].reason, ack.refused[0].detail) == (
        pb.REFUSED_REASON_OUT_OF_RANGE,
        "hot_c is 900",
    )


def test_resend_and_slow_carry_their_figures() -> None:
    wanted = DurableRange(site_index=1, boot_id=BootId("t1"), first_seq=3, last_seq=5)
    resend = pb.TelemetryServiceStreamResponse.FromString(telemetry.resend_to_bytes(wanted)).resend
    slow = pb.TelemetryServiceStreamResponse.FromString(
        telemetry.slow_to_bytes(Limits(backlog_bytes_s=5))
    ).slow
    assert (resend.first_seq, resend.last_seq) == (3, 5)
    assert (slow.limits.batch_bytes, slow.limits.backlog_bytes_s) == (1 << 20, 5)
    assert not slow.limits.HasField("message_period_s")
