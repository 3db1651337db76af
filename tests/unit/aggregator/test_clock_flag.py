"""Readings under a clock that was far off: lines that stand on them say so, and move no energy."""

from dataclasses import replace

import pytest
from unit.aggregator.test_settlement import ALWAYS, HOUR, NEXT_HOUR, POINT, SITE, S, row

from heatpool_aggregator.core.registers import CorrectedRow
from heatpool_aggregator.core.settlement import PointSeries, settle


@pytest.mark.parametrize(
    ("corrected", "flags"),
    [
        ((), [(), ()]),
        # A reading that the sums of both hours stand on.
        ((3_700,), [("clock",), ("clock",)]),
        # One inside moves nothing from one hour to the other.
        ((1_800,), [(), ()]),
        ((-10,), [("clock",), ()]),
    ],
)
def test_a_reading_under_a_far_clock_flags_the_periods_that_stand_on_it(
    corrected: tuple[int, ...], flags: list[tuple[str, ...]]
) -> None:
    rows = [row(at_s, 1_000 + at_s) for at_s in (-10, 900, 1_800, 2_700, 3_700, 5_400, 7_200)]
    said = [
        CorrectedRow.of(replace(one, event_ns=one.event_ns - 43_200 * S), 43_200 * S)
        if one.event_ns // S in corrected
        else one
        for one in rows
    ]
    found = [
        settle(PointSeries(site_id=SITE, point_id=POINT, rows=said), hour, ALWAYS)[0]
        for hour in (HOUR, NEXT_HOUR)
    ]
    plain = [
        settle(PointSeries(site_id=SITE, point_id=POINT, rows=rows), hour, ALWAYS)[0]
        for hour in (HOUR, NEXT_HOUR)
    ]
    assert [line.flags for line in found] == flags
    assert [line.energy_wh for line in found] == [line.energy_wh for line in plain]
