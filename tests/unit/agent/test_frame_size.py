"""How many rows a frame waits for, as the other end asks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.frame_size import rows_per_frame
from heatpool_agent.core.line import LineLimits


def rows(asked: LineLimits, *, row_bytes: float | None = None) -> int:
    """Of a site with 10-s rows and a message a minute."""
    return rows_per_frame(
        asked, message_period_s=60.0, report_period_s=10.0, rows_most=1_000, row_bytes=row_bytes
    )


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        (LineLimits(), 6),
        (LineLimits(message_period_s=120.0), 12),
        (LineLimits(message_period_s=10.0), 6),
        (LineLimits(message_period_s=86_400.0), 360),
        (LineLimits(report_period_s=60.0), 1),
        (LineLimits(report_period_s=60.0, message_period_s=300.0), 5),
        (LineLimits(batch_rows_count=4), 4),
        (LineLimits(batch_rows_count=4, message_period_s=600.0), 4),
        (LineLimits(report_period_s=900.0), 1),
        (LineLimits(report_period_s=1.0, message_period_s=3_600.0), 1_000),
    ],
)
def test_a_frame_waits_for_as_many_rows_as_is_asked(asked: LineLimits, count: int) -> None:
    assert rows(asked) == count


def test_a_message_that_would_be_too_large_is_closed_earlier() -> None:
    assert rows(LineLimits(batch_bytes=1_000), row_bytes=200.0) == 4
    assert rows(LineLimits(batch_bytes=100), row_bytes=200.0) == 1
    assert rows(LineLimits(batch_bytes=1_000)) == 6


@given(
    st.none() | st.floats(0.001, 1e9),
    st.none() | st.floats(0.001, 1e9),
    st.none() | st.integers(1, 10**9),
    st.none() | st.floats(0.1, 1e6),
)
def test_whatever_is_asked_a_frame_has_rows_and_not_too_many(
    message_s: float | None, report_s: float | None, count: int | None, row_bytes: float | None
) -> None:
    asked = LineLimits(
        message_period_s=message_s, report_period_s=report_s, batch_rows_count=count, batch_bytes=64
    )
    assert 1 <= rows(asked, row_bytes=row_bytes) <= min(1_000, count or 1_000)
