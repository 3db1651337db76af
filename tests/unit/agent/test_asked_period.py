"""How often a row ends, where the aggregator asks for another period than the site's own."""

import pytest
from unit.agent.test_sense import Site

from heatpool_agent.core.line import LineLimits

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("asked_s", "ends_s"),
    [
        (None, [10, 20, 30, 40, 50, 60]),
        (20.0, [20, 40, 60]),
        (30.4, [30, 60]),  # ticks are whole
        (0.001, list(range(1, 61))),
    ],
)
def test_rows_end_as_often_as_is_asked(asked_s: float | None, ends_s: list[int]) -> None:
    site = Site()
    site.board.asked = LineLimits(report_period_s=asked_s)
    assert [at_s for at_s in range(1, 61) if site.sense._is_due(at_s * NS)] == ends_s


def test_no_row_stands_for_more_than_a_quarter_of_an_hour() -> None:
    site = Site()
    site.board.asked = LineLimits(report_period_s=1e9)
    assert [at_s for at_s in range(1, 1801) if site.sense._is_due(at_s * NS)] == [900, 1800]
