"""How far a backlog has gone."""

import pytest

from heatpool_agent.core.drain import Drain
from heatpool_agent.core.line import Sent


def test_what_is_left_is_weighed_by_what_was_sent() -> None:
    drain = Drain(100, 0.0)
    assert (drain.rows_left, drain.bytes_left, drain.left_s) == (None, None, None)
    for _ in range(10):
        drain.sent(Sent(size_bytes=200, rows_count=6))
    drain.left(90, 5.0)
    assert (drain.rows_left, drain.bytes_left) == (540, 18_000)
    assert (drain.done_frac, drain.frames_s, drain.left_s) == (0.1, 2.0, 45.0)


def test_the_rate_is_that_of_the_last_minute() -> None:
    drain = Drain(1_000, 0.0)
    for second in range(1, 201):
        drain.left(
            1_000 - second * (1 if second <= 100 else 3) + (200 if second > 100 else 0),
            float(second),
        )
    assert drain.frames_s == pytest.approx(3.0, rel=0.05)


def test_no_backlog_is_done() -> None:
    drain = Drain(0, 0.0)
    assert (drain.done_frac, drain.left_s, drain.rows_left) == (1.0, 0.0, 0)
