"""One circuit out of many readings: duplicates once, units side by side added by flow."""

from dataclasses import replace

import pytest

from heatpool.heat import heat_rate_w
from heatpool_agent.core.heat_tree import branches, joined, per_unit, remembered
from heatpool_agent.core.reading import Node, Reading, ReadingKind


def unit(
    sensor: str, flow_m3_h: float, hot_c: float, cold_c: float, *, path: str = "words"
) -> list[Reading]:
    values = {"volume_flow_m3_h": flow_m3_h, "hot_c": hot_c, "cold_c": cold_c}
    return [
        Reading(
            sensor=sensor,
            channel=f"{path}/{name}",
            quantity=name,
            kind=ReadingKind.GAUGE,
            value=value,
            event_ns=0,
            boot_ns=0,
            node=Node.CDU,
            sensor_side="cold",
        )
        for name, value in values.items()
    ]


ONE, TWO = unit("a", 10.0, 45.0, 35.0), unit("b", 30.0, 41.0, 37.0)
APART = {"a": "cdu-1", "b": "cdu-2"}


def test_units_of_different_hosts_carry_their_heat_together() -> None:
    found = joined(branches([*ONE, *TWO], APART))
    assert found.volume_flow_m3_h == 40.0
    assert (found.hot_c, found.cold_c) == pytest.approx((42.0, 36.5))
    both_w = heat_rate_w(10.0, 45.0, 35.0, "cold") + heat_rate_w(30.0, 41.0, 37.0, "cold")
    assert found.hot_c is not None and found.cold_c is not None
    joint_w = heat_rate_w(40.0, found.hot_c, found.cold_c, "cold")
    assert joint_w == pytest.approx(both_w, rel=1e-3)
    assert found.sensor_side == "cold"


def test_one_unit_read_twice_is_one_unit() -> None:
    again = [replace(r, sensor="b", flags=("map_unverified",)) for r in ONE]
    assert joined(branches([*again, *ONE], {})).volume_flow_m3_h == 10.0


def test_the_less_doubtful_reading_of_a_quantity_is_taken() -> None:
    better = replace(ONE[1], sensor="b", value=45.5, u=0.1)
    assert joined(branches([*ONE, better], {})).hot_c == 45.5


def test_a_flow_meter_beside_a_temperature_pair_is_one_unit() -> None:
    found = joined(branches([ONE[0], *(replace(r, sensor="b") for r in ONE[1:])], {}))
    assert (found.volume_flow_m3_h, found.hot_c, found.cold_c) == (10.0, 45.0, 35.0)


def test_connectors_of_one_unit_lie_side_by_side() -> None:
    pair = [
        *unit("bmc", 10.0, 45.0, 35.0, path="/c/1#"),
        *unit("bmc", 30.0, 41.0, 37.0, path="/c/2#"),
    ]
    assert joined(branches(pair, {})).volume_flow_m3_h == 40.0


def test_readings_that_another_one_says_better_are_passed_over() -> None:
    worse = [replace(r, sensor="b", flags=("lower_rank",)) for r in TWO]
    assert joined(branches([*ONE, *worse], APART)).volume_flow_m3_h == 10.0


def test_a_silent_unit_takes_flow_and_reported_heat_away_and_leaves_temperatures() -> None:
    known = remembered((), branches([*ONE, *TWO], APART))
    found = joined(branches([*ONE, TWO[1]], APART), known)
    assert (found.volume_flow_m3_h, found.reported_heat_w) == (None, None)
    assert found.hot_c == 45.0
    alone = joined(branches(ONE, APART), known)
    assert alone.volume_flow_m3_h is None


def test_a_unit_that_shows_its_connectors_is_no_branch_of_its_own() -> None:
    single = branches(unit("bmc", 10.0, 45.0, 35.0, path="/c/1#"), {})
    both = branches(
        [*unit("bmc", 10.0, 45.0, 35.0, path="/c/1#"), *unit("bmc", 1.0, 45.0, 35.0, path="/c/2#")],
        {},
    )
    known = remembered(remembered((), single), both)
    assert joined(both, known).volume_flow_m3_h == 11.0


def test_a_lost_flow_leaves_the_units_own_heat() -> None:
    reported = replace(ONE[0], channel="words/reported", quantity="reported_heat_w", value=5e3)
    known = remembered((), branches([*ONE, reported], {}))
    assert joined(branches([*ONE[1:], reported], {}), known).reported_heat_w == 5e3


def test_nothing_read_is_nothing_told() -> None:
    assert joined({}).hot_c is None


def test_flow_that_stands_still_weighs_no_pipe() -> None:
    still = joined(branches([*unit("a", 0.0, 45.0, 35.0), *unit("b", 0.0, 41.0, 37.0)], APART))
    assert (still.volume_flow_m3_h, still.hot_c) == (0.0, 43.0)


def test_each_unit_tells_a_quantity_once() -> None:
    assert per_unit([*ONE, *TWO], "hot_c", APART) == {"cdu-1": 45.0, "cdu-2": 41.0}
    assert per_unit([*ONE, *TWO], "hot_c", {}) == {"": 45.0}
