"""A wall clock that is set while a loop is watched makes no false fault and hides no true one."""

import pytest
from unit.agent.loop_story import DAY, NS, begun, scaled, sound

from heatpool.heat import heat_rate_w
from heatpool_agent.core import residual
from heatpool_agent.core.loop_sample import LoopSample

YEARS_S = 56 * 365 * 86_400
# By minute of the story: what the clock is set off by from then on, s.
HOPS = {
    "back an hour after the fault began": {3 * DAY + 30: -3600},
    "from 1970": {0: -YEARS_S, 3 * DAY + 60: 0},
    "a day ahead for hours, and back": {3 * DAY - 600: 2 * 86_400, 3 * DAY - 240: 0},
}


def _computed_w(sample: LoopSample) -> float:
    flow_m3_h, hot_c, cold_c = sample.volume_flow_m3_h, sample.hot_c, sample.cold_c
    assert flow_m3_h is not None
    assert hot_c is not None
    assert cold_c is not None
    return heat_rate_w(flow_m3_h, hot_c, cold_c, "cold")


def told(offs_s: dict[int, int], *, factor: float) -> set[str]:
    """Names of the faults that last after four days, of which the last one had the flow scaled."""
    story, off_s, change = begun(1), 0, scaled(volume_flow_m3_h=factor)
    for minute in range(4 * DAY):
        off_s = offs_s.get(minute, off_s)
        sample: LoopSample = (change if minute >= 3 * DAY else sound)(minute, story.sample())
        story.minute += 1
        assert sample.power_w is not None
        residual.observe(
            story.watch,
            sample,
            computed_w=_computed_w(sample),
            electric_lagged_w=0.75 * sample.power_w,
            event_ns=story.now_ns + off_s * NS,
        )
    return {fault.fault for fault in residual.faults(story.watch) if fault.end_ns is None}


@pytest.mark.parametrize("hops", HOPS)
def test_a_clock_that_is_set_makes_no_fault_and_hides_none(hops: str) -> None:
    assert not told(HOPS[hops], factor=1.0)
    assert told(HOPS[hops], factor=1.3)
