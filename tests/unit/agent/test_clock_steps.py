"""Steps of the wall clock: found against boot time, and early times put right by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.clock_steps import ClockStep, Instant, event_ns, step_between

S = 1_000_000_000
BOOT_NS = 1_750_000_000 * S


def at(boot_s: float, *, off_s: float = 0.0, boot_id: str = "a") -> Instant:
    boot_ns = round(boot_s * S)
    return Instant(boot_id=boot_id, boot_ns=boot_ns, event_ns=BOOT_NS + boot_ns + round(off_s * S))


@pytest.mark.parametrize(
    ("before", "after", "step_s"),
    [
        (at(10), at(11, off_s=0.6), 0.6),
        (at(10), at(11, off_s=-3600), -3600),
        # From 1970 to now.
        (at(10, off_s=-1.75e9), at(11), 1.75e9),
        (at(10), at(11, off_s=0.5), None),
        # Suspended for a day: both clocks went on.
        (at(10), at(86_410), None),
        # Slewed for a day, by as much as the kernel ever does.
        (at(10), at(86_410, off_s=43.0), None),
        (at(10), at(86_410, off_s=44.0), 44.0),
        (at(10), at(3, off_s=99.0, boot_id="b"), None),
        (at(10), at(9, off_s=99.0), None),
    ],
)
def test_a_step_is_what_boot_time_does_not_explain(
    before: Instant, after: Instant, step_s: float | None
) -> None:
    step = step_between(before, after)
    assert (step and step.step_ns) == (None if step_s is None else round(step_s * S))


@given(st.lists(st.floats(-1e6, 1e6).filter(lambda s: abs(s) > 1), max_size=8))
def test_every_time_of_a_boot_is_told_by_the_clock_as_it_was_set_last(steps_s: list[float]) -> None:
    off_s, seen = 0.0, [at(0)]
    steps: list[ClockStep] = []
    for number, step_s in enumerate(steps_s, 1):
        off_s += step_s
        seen.append(at(number * 10, off_s=off_s))
        found = step_between(seen[-2], seen[-1])
        assert found is not None
        steps.append(found)
    last_ns = seen[-1].event_ns - seen[-1].boot_ns
    assert {event_ns(one, steps) - one.boot_ns for one in seen} == {last_ns}


def test_a_step_moves_no_time_of_another_boot() -> None:
    step = ClockStep(boot_id="b", boot_ns=99 * S, step_ns=S)
    assert event_ns(at(10), [step]) == at(10).event_ns
