"""What comes down a line, whatever it says: an answer with sane figures, or a WireError."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.errors import WireError
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_agent import wire
from heatpool_agent.core.line import Lane, lane_share
from heatpool_agent.ports import LineLimits

FLOATS = st.floats()
COUNTS = st.integers(0, 2**32 - 1)
SEQS = st.integers(0, 2**64 - 1)


def down(**message: object) -> bytes:
    return pb.TelemetryServiceStreamResponse(**message).SerializeToString()  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_wire_error(data: bytes) -> None:
    try:
        wire.answer(data)
    except WireError:
        return


@given(COUNTS, COUNTS, FLOATS, FLOATS, FLOATS)
def test_limits_are_figures_that_can_be_kept(
    rows: int, unacked: int, report_s: float, message_s: float, bytes_s: float
) -> None:
    told = pb.Limits(
        batch_rows_count=rows,
        unacked_batches_count=unacked,
        report_period_s=report_s,
        message_period_s=message_s,
        backlog_bytes_s=bytes_s,
    )
    limits = wire.answer(down(slow=pb.Slow(limits=told)))
    assert isinstance(limits, LineLimits)
    for period_s in (limits.report_period_s, limits.message_period_s):
        assert period_s is None or 0 < period_s <= wire.SPAN_MOST_S
    assert limits.backlog_bytes_s is None or (
        isfinite(limits.backlog_bytes_s) and limits.backlog_bytes_s >= 0
    )
    assert all(1 <= lane_share(lane, limits.unacked_count) <= 256 for lane in Lane)


@given(st.integers(3, 2**32))
def test_the_lanes_together_keep_the_window(count: int) -> None:
    assert sum(lane_share(lane, count) for lane in Lane) <= count


@given(SEQS, SEQS)
def test_durable_ranges_run_forwards(first: int, last: int) -> None:
    known = pb.DurableRange(boot_id="b", first_seq=first, last_seq=last)
    answer = wire.answer(down(hello_reply=pb.HelloReply(durable=[known])))
    assert isinstance(answer, wire.HelloAnswer)
    assert all(0 < one.first_seq <= one.last_seq for one in answer.durable)


@pytest.mark.parametrize(("told_s", "kept_s"), [(inf, 3600.0), (nan, 0.0), (-5.0, 0.0), (7.5, 7.5)])
def test_no_word_silences_a_site_for_long(told_s: float, kept_s: float) -> None:
    answer = wire.answer(down(ack=pb.Ack(retry_after_s=told_s)))
    assert isinstance(answer, wire.AckAnswer)
    assert answer.wait_s == kept_s


@pytest.mark.parametrize(
    ("before", "after", "tighter"),
    [
        (LineLimits(), LineLimits(backlog_bytes_s=9.0), True),
        (LineLimits(backlog_bytes_s=9.0), LineLimits(backlog_bytes_s=8.0), True),
        (LineLimits(backlog_bytes_s=8.0), LineLimits(backlog_bytes_s=9.0), False),
        (LineLimits(backlog_bytes_s=9.0), LineLimits(), False),
        (LineLimits(), LineLimits(message_period_s=120.0), True),
        (LineLimits(message_period_s=120.0), LineLimits(), False),
        (LineLimits(), LineLimits(), False),
    ],
)
def test_only_to_be_allowed_less_is_a_complaint(
    before: LineLimits, after: LineLimits, *, tighter: bool
) -> None:
    assert after.is_tighter(before) is tighter
