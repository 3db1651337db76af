"""When a BMC may be asked again."""

import pytest

from heatpool.errors import SensorBusy, SensorGone
from heatpool_agent.sensors.pace import FACTOR_MOST, LoginRefused, Pace

NS = 1_000_000_000
STALE_PERIODS = 3


def test_a_quick_service_is_due_whenever_the_supervisor_comes() -> None:
    pace = Pace(30.0)
    pace.passed(begun_ns=0, slowest_s=0.1, interval_s=None)
    assert pace.is_due(0)


@pytest.mark.parametrize(("slowest_s", "due"), [(2.9, True), (3.1, False)])
def test_a_slow_answer_skips_a_tick(slowest_s: float, due: bool) -> None:  # noqa: FBT001 a table
    pace = Pace(30.0)
    pace.passed(begun_ns=0, slowest_s=slowest_s, interval_s=None)
    assert pace.is_due(30 * NS) is due
    assert pace.is_due(60 * NS)


def test_no_slowness_makes_readings_stale() -> None:
    pace = Pace(30.0)
    for _ in range(10):
        pace.passed(begun_ns=0, slowest_s=55.0, interval_s=None)
    assert FACTOR_MOST < STALE_PERIODS
    assert pace.is_due(FACTOR_MOST * 30 * NS)


@pytest.mark.parametrize(("interval_s", "next_s"), [(5.0, 0), (30.0, 0), (60.0, 60)])
def test_sensors_are_not_read_more_often_than_they_measure(interval_s: float, next_s: int) -> None:
    pace = Pace(30.0)
    pace.passed(begun_ns=0, slowest_s=0.1, interval_s=interval_s)
    assert pace.is_due(next_s * NS)
    assert pace.is_due(30 * NS) is (next_s == 0)


def test_no_slow_sensor_delays_a_leak_or_makes_readings_stale() -> None:
    pace = Pace(30.0)
    pace.passed(begun_ns=0, slowest_s=0.1, interval_s=600.0)
    assert not pace.is_due(30 * NS)
    assert pace.is_due(FACTOR_MOST * 30 * NS)


def test_a_success_between_failures_forgives_them() -> None:
    pace = Pace(30.0)
    for _ in range(9):
        pace.failed(SensorGone("x"), 0)
        pace.failed(SensorGone("x"), 0)
        assert pace.rest(0) is None
        pace.passed(begun_ns=0, slowest_s=0.0, interval_s=None)


@pytest.mark.parametrize(
    ("failures", "error", "rest_s"),
    [(3, SensorGone("x", fix="y"), 300), (1, LoginRefused("x", fix="y"), 900)],
)
def test_a_rest_tells_the_failure_again(failures: int, error: SensorGone, rest_s: int) -> None:
    pace = Pace(30.0)
    for _ in range(failures):
        pace.failed(error, 0)
    again = pace.rest((rest_s - 1) * NS)
    assert isinstance(again, SensorGone)
    assert (again.reason, again.fix) == ("x", "y")
    assert pace.rest(rest_s * NS) is None


def test_what_is_left_of_the_wait_is_told() -> None:
    pace = Pace(30.0)
    pace.asked_for_patience(SensorBusy("x", wait_s=120.0), 0)
    left = pace.rest(20 * NS)
    assert isinstance(left, SensorBusy)
    assert left.wait_s == 100.0
    assert pace.rest(120 * NS) is None
