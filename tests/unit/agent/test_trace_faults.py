"""Faults of a trace, told by an estimator that may think better of one."""

from heatpool_agent.core.fault import Fault
from heatpool_agent.core.plausible import SWAPPED_SENSORS
from heatpool_agent.core.trace_faults import Faults


def fault(name: str, start_ns: int = 10, end_ns: int | None = None) -> Fault:
    return Fault(fault=name, start_ns=start_ns, end_ns=end_ns, evidence="seen")


def test_a_better_name_takes_the_place_of_the_first_one() -> None:
    faults = Faults()
    faults.collect([fault("air_in_loop")])
    faults.collect([fault("power_meter")])
    faults.collect([fault("power_meter", end_ns=90)])
    assert faults.told() == (fault("power_meter", end_ns=90),)


def test_what_is_taken_back_was_none() -> None:
    faults = Faults()
    faults.collect([fault("residual")])
    faults.collect([fault("stuck_sensor", 5)])
    assert faults.told() == (fault("stuck_sensor", 5),)


def test_what_ended_is_kept_when_the_estimator_forgets_it() -> None:
    faults = Faults()
    faults.collect([fault("fouling", end_ns=20)])
    faults.collect([])
    assert faults.told() == (fault("fouling", end_ns=20),)


def test_what_the_sensors_show_needs_no_word_of_the_estimator() -> None:
    faults = Faults()
    faults.marked((SWAPPED_SENSORS,), 12, since_ns=10, evidence="seen")
    faults.collect([])
    assert faults.told() == (fault("swapped_sensors"),)
    faults.marked((), 40, since_ns=40, evidence="")
    assert faults.told() == (fault("swapped_sensors", end_ns=40),)
