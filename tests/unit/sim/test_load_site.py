"""What one light agent makes of what it hears: waits, limits, holes, refusals."""

import random
import time
from dataclasses import replace

from heatpool.v1 import telemetry_pb2 as pb
from heatpool_sim.load.asked import Asked, Faults
from heatpool_sim.load.site import OFFSETS_NS, Site
from heatpool_sim.load.tally import Tally

ASKED = Asked(agents=10, rows=2, period_s=0.02, register_period_s=3_600.0)


def site(number: int = 3, asked: Asked = ASKED) -> Site:
    return Site(number, asked, Tally(), random.Random(1), start_ns=time.time_ns() - 10**9)


def greeted(one: Site, **more: object) -> None:
    one.hello()
    limits = pb.Limits(unacked_batches_count=16, batch_rows_count=1_000)
    reply = pb.HelloReply(limits=limits, codecs=[pb.PAYLOAD_CODEC_ZLIB], **more)  # type: ignore[arg-type]
    one.take(pb.TelemetryServiceStreamResponse(hello_reply=reply).SerializeToString())


def hear(one: Site, **what: object) -> None:
    one.take(pb.TelemetryServiceStreamResponse(**what).SerializeToString())  # type: ignore[arg-type]


def said(one: Site) -> list[pb.TelemetryServiceStreamRequest]:
    """All that it has to say now."""
    found = []
    while (message := one.message()) is not None:
        found.append(pb.TelemetryServiceStreamRequest.FromString(message))
    return found


def test_no_more_is_on_its_way_than_the_window() -> None:
    one = site()
    greeted(one)
    boundary_seq = one.telemetry.next_seq - 1
    found = said(one)
    assert len(found) <= 16
    assert found[0].HasField("registers")
    telemetry = [it.telemetry.seq for it in found if it.HasField("telemetry")]
    assert telemetry[0] == boundary_seq
    assert [seq for seq in telemetry if seq < boundary_seq] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_ack_lets_the_next_ones_go() -> None:
    one = site()
    greeted(one)
    first = said(one)
    newest = max(it.telemetry.seq for it in first)
    mark = pb.AckedSpool(
        boot_id=one.telemetry.boot_id, lane=pb.LANE_LIVE, durable_seq=newest, received_seq=newest
    )
    hear(one, ack=pb.Ack(spools=[mark]))
    time.sleep(0.05)
    assert max(it.telemetry.seq for it in said(one)) > newest


def test_nothing_is_said_while_the_aggregator_wants_to_hear_nothing() -> None:
    one = site()
    greeted(one)
    hear(one, ack=pb.Ack(retry_after_s=30.0))
    assert one.message() is None
    assert 10.0 < one.wait_s <= 30.0


def test_a_reply_that_says_later_ends_the_stream_until_then() -> None:
    one = site()
    greeted(one, retry_after_s=20.0)
    assert (one.is_told_to_wait, 10.0 < one.wait_s <= 20.0) == (True, True)
    greeted(one)
    assert not one.is_told_to_wait


def test_a_longer_message_period_makes_longer_messages_of_the_same_rows() -> None:
    one = site()
    greeted(one)
    before = one.telemetry.course.last
    hear(one, slow=pb.Slow(limits=pb.Limits(message_period_s=0.2)))
    slowed = one.telemetry.course.last
    assert (slowed.n_rows, slowed.step_ns) == (10 * before.n_rows, before.step_ns)
    hear(one, slow=pb.Slow(limits=pb.Limits()))
    assert one.telemetry.course.last.n_rows == before.n_rows


def test_a_backlog_keeps_to_its_rate() -> None:
    one = site()
    one.telemetry.produce(time.time_ns())
    greeted(one)
    hear(one, slow=pb.Slow(limits=pb.Limits(backlog_bytes_s=1.0)))
    boundary = one.telemetry.next_seq - 1
    found = [it.telemetry.seq for it in said(one) if it.HasField("telemetry")]
    assert sum(seq < boundary for seq in found) == 1


def test_a_hole_that_is_asked_for_comes_first() -> None:
    one = site()
    greeted(one)
    said(one)
    wish = pb.Resend(boot_id=one.telemetry.boot_id, first_seq=2, last_seq=3)
    hear(one, resend=wish)
    assert [it.telemetry.seq for it in said(one)[:2]] == [2, 3]


def test_it_begins_behind_what_is_durable_and_counts_what_is_denied() -> None:
    one = site()
    greeted(one)
    known = pb.DurableRange(boot_id=one.telemetry.boot_id, first_seq=1, last_seq=5)
    greeted(one, durable=[known])
    backlog = [it.telemetry.seq for it in said(one) if it.HasField("telemetry")]
    assert min(backlog) == 6
    less = pb.DurableRange(boot_id=one.telemetry.boot_id, first_seq=1, last_seq=3)
    greeted(one, durable=[less])
    assert one.telemetry.denied_count == 2


def test_a_burst_sends_more_often_and_a_noisy_one_does_not_slow_down() -> None:
    one = site()
    step_ns = one.telemetry.course.last.step_ns
    one.burst(10.0)
    assert one.telemetry.course.last.step_ns == step_ns // 10
    noisy = site(5, replace(ASKED, faults=Faults(noisy_factor=4.0)))
    greeted(noisy)
    hear(noisy, slow=pb.Slow(limits=pb.Limits(message_period_s=9.0)))
    assert noisy.telemetry.course.last.n_rows == ASKED.rows
    assert noisy.telemetry.course.last.step_ns == step_ns // 4


def test_a_bad_clock_is_hours_or_days_off_and_no_liar_has_one() -> None:
    asked = replace(ASKED, faults=Faults(bad_clock_frac=0.5, garbage_frac=0.5))
    sites = [site(number, asked) for number in range(10)]
    assert [bool(one.offset_ns) for one in sites] == [True] * 5 + [False] * 5
    assert [one.is_liar for one in sites] == [False] * 5 + [True] * 5
    assert min(abs(offset) for offset in OFFSETS_NS) >= 3_600 * 10**9
    first = sites[0]
    greeted(first)
    sent = [it.telemetry.sent_ns for it in said(first) if it.HasField("telemetry")]
    assert abs(sent[0] - time.time_ns() - first.offset_ns) < 60 * 10**9


def test_a_quiet_one_says_hello_and_no_more() -> None:
    one = site(asked=replace(ASKED, is_quiet=True))
    greeted(one)
    time.sleep(0.05)
    assert (said(one), one.left_count) == ([], 0)
