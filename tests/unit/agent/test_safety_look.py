"""What the interlock sees: slow sensors do not trip it, silent ones do, and no leak is missed."""

from dataclasses import replace
from math import isnan

import pytest

from heatpool_agent.core.plausible import judge
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.safety import Limits, interlock
from heatpool_agent.core.safety_look import OLDEST_S, SafetyLook

S = 1_000_000_000
FINE = {"hot_c": 45.0, "leak": 0.0}


def said(sensor: str, *, at_s: float, **values: float) -> list[Reading]:
    return [
        Reading(
            sensor=sensor,
            channel=f"words/{name}",
            quantity=name.rstrip("12"),
            kind=ReadingKind.GAUGE if name == "hot_c" else ReadingKind.STATE,
            value=value,
            event_ns=0,
            boot_ns=round(at_s * S),
            node=Node.CDU,
            loop="rack",
        )
        for name, value in values.items()
    ]


def trip(look: SafetyLook, readings: list[Reading], *, at_s: float, period_s: float = 1.0) -> str:
    boot_ns = round(at_s * S)
    judged = [judge(r, boot_ns=boot_ns, period_s=period_s) for r in readings]
    return interlock(look.state(judged, boot_ns=boot_ns), Limits(), boot_ns=boot_ns)


@pytest.fixture
def look() -> SafetyLook:
    return SafetyLook("rack", is_first=True)


@pytest.mark.parametrize(("age_s", "trips"), [(0.0, False), (30.0, False), (91.0, True)])
def test_a_detector_asked_twice_a_minute_trips_after_three_of_its_periods(
    look: SafetyLook, *, age_s: float, trips: bool
) -> None:
    readings = said("bmc", at_s=100.0, **FINE)
    assert bool(trip(look, readings, at_s=100.0 + age_s, period_s=30.0)) is trips


def test_no_sensor_is_slow_enough_to_leave_a_loop_unseen(look: SafetyLook) -> None:
    readings = said("bmc", at_s=0.0, **FINE)
    assert not trip(look, readings, at_s=OLDEST_S, period_s=900.0)
    assert trip(look, readings, at_s=OLDEST_S + 1, period_s=900.0)


def test_what_was_fine_at_the_last_tick_is_old_when_the_ticks_end(look: SafetyLook) -> None:
    state = look.state(said("cdu", at_s=0.0, **FINE), boot_ns=0)
    assert not interlock(state, Limits(), boot_ns=3 * S)
    assert interlock(state, Limits(), boot_ns=4 * S)


@pytest.mark.parametrize("lost", ["leak2", "hot_c"])
def test_a_place_that_is_told_of_no_more_is_not_fine_because_another_is(
    look: SafetyLook, lost: str
) -> None:
    both = [*said("cdu", at_s=0.0, leak=0.0, hot_c=45.0), *said("bmc", at_s=0.0, leak2=0.0)]
    both += said("unit", at_s=0.0, hot_c=44.0)
    assert not trip(look, both, at_s=0.0)
    left = [r for r in both if (r.sensor, r.channel) not in {("bmc", "words/leak2")}]
    left = left if lost == "leak2" else [r for r in both if r.sensor != "unit"]
    assert trip(look, left, at_s=0.0)
    assert not trip(look, both, at_s=0.0)


def test_a_spare_pump_that_rests_stops_nothing_and_the_last_one_does(look: SafetyLook) -> None:
    both = said("cdu", at_s=0.0, pump_runs1=1.0, pump_runs2=1.0, **FINE)
    assert not trip(look, both, at_s=0.0)
    assert not trip(look, [r for r in both if r.channel != "words/pump_runs2"], at_s=0.0)
    assert trip(look, [r for r in both if r.quantity != "pump_runs"], at_s=0.0)


@pytest.mark.parametrize(("is_first", "expected"), [(True, "leak"), (False, "")])
def test_a_leak_that_names_no_loop_stops_the_first_one(*, is_first: bool, expected: str) -> None:
    look = SafetyLook("rack", is_first=is_first)
    fine = said("cdu", at_s=0.0, **FINE)
    wet = [replace(r, loop="") for r in said("bmc", at_s=0.0, leak=1.0)]
    dry = [replace(r, loop="", value=0.0) for r in wet]
    assert trip(look, [*fine, *wet], at_s=0.0) == expected
    assert trip(look, [*fine, *dry], at_s=0.0) == ""
    assert trip(look, fine, at_s=0.0) == ""


def test_what_names_no_loop_vouches_for_none(look: SafetyLook) -> None:
    dry = [replace(r, loop="") for r in said("bmc", at_s=0.0, leak=0.0)]
    hot = said("cdu", at_s=0.0, hot_c=45.0)
    assert trip(look, [*hot, *dry], at_s=0.0) == "no reading of leak"


def test_of_two_the_worse_stands_and_a_refused_one_is_absent(look: SafetyLook) -> None:
    two = [*said("cdu", at_s=0.0, **FINE), *said("unit", at_s=0.0, leak=1.0, hot_c=500.0)]
    state = look.state([judge(r, boot_ns=0, period_s=1.0) for r in two], boot_ns=0)
    assert state.leak is not None and state.leak.value == 1.0
    assert state.hot_c is not None and isnan(state.hot_c.value)
    assert state.pump_runs is None
