"""One cause is one alarm: beside a gross fault, and after it, the heats tell nothing of it."""

import copy
import re
from dataclasses import replace

import pytest
from unit.agent.loop_story import DAY, HOUR, NS, Change, begun, fixed, scaled, sound

from heatpool_agent.core import residual
from heatpool_agent.core.loop_sample import LoopSample


def swapped(_: int, sample: LoopSample) -> LoopSample:
    return replace(sample, hot_c=sample.cold_c, cold_c=sample.hot_c)


def test_what_is_told_of_a_sensor_that_stood_still_outlives_its_mending() -> None:
    story = begun().goes_on(DAY)
    # A window ends with the first sample by which it mends.
    story.goes_on(2 * HOUR + 4, fixed(hot_c=38.05)).goes_on(HOUR)
    (stuck,) = residual.faults(story.watch)
    assert stuck.fault == "stuck_sensor"
    assert stuck.end_ns is not None
    found = re.search(r"for (\d+) samples", stuck.evidence)
    assert found
    assert int(found[1]) >= HOUR
    assert "never more than 1 before" in stuck.evidence


def test_what_is_told_of_a_dead_meter_outlives_its_mending() -> None:
    silent = fixed(hot_c=38.0, cold_c=30.0, volume_flow_m3_h=8.0)
    story = begun().goes_on(DAY).goes_on(2 * HOUR + 4, silent).goes_on(HOUR)
    (dead,) = residual.faults(story.watch)
    found = re.search(r"for (\d+) samples", dead.evidence)
    assert found
    assert int(found[1]) >= HOUR


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (swapped, "swapped_sensors"),
        (scaled(volume_flow_m3_h=1000 / 60), "unit_error"),
        (fixed(hot_c=38.05), "stuck_sensor"),
        (fixed(hot_c=38.0, cold_c=30.0, volume_flow_m3_h=8.0), "dead_meter"),
    ],
)
def test_a_gross_fault_that_ended_leaves_one_alarm_and_nothing_in_the_sums(
    change: Change, fault: str
) -> None:
    # In the middle of a window, an hour after the start: little is learnt by then.
    story = begun().goes_on(HOUR + 2).goes_on(2 * HOUR, change)
    mended_ns = story.now_ns
    for _ in range(30):
        story.goes_on(10)
        assert set(story.faults) == {fault}
    (found,) = residual.faults(story.watch)
    assert found.end_ns is not None
    assert abs(found.end_ns - mended_ns) <= 900 * NS
    assert max(max(one.above, one.below) for one in story.watch.sums) < 10.0


def test_while_coolant_leaks_the_heats_teach_and_tell_nothing() -> None:
    story = begun().goes_on(DAY)
    learnt = copy.deepcopy(story.watch.baseline)
    leaking = LoopSample(span_s=0.0)
    residual.observe(
        story.watch, leaking, computed_w=None, electric_lagged_w=None, event_ns=story.now_ns,
        is_leaking=True,
    )  # fmt: skip
    story.goes_on(6 * HOUR, scaled(volume_flow_m3_h=0.8))
    assert set(story.faults) == {"leak"}
    assert story.watch.baseline == learnt


def test_one_shift_keeps_its_name_and_start_after_it_is_over() -> None:
    def airy(minute: int, sample: LoopSample) -> LoopSample:
        assert sample.volume_flow_m3_h
        restless = 1.0 + (0.03 if minute % 2 else -0.03)
        return replace(sample, volume_flow_m3_h=0.86 * restless * sample.volume_flow_m3_h)

    story = begun().goes_on(9 * HOUR)
    names = set()
    for change, minutes in ((airy, HOUR), (sound, 2 * HOUR)):
        for _ in range(minutes):
            names |= {(one.fault, one.start_ns) for one in story.goes_on(1, change).faults.values()}
    assert {name for name, _ in names} == {"air_in_loop"}
    assert len(names) == 1
