"""One circuit out of many readings: duplicates once, units side by side added by flow."""

import random
from dataclasses import replace

import pytest

from heatpool.heat import heat_rate_w
from heatpool_agent.core.heat_tree import MIXED_SENSORS, branches, joined, per_unit, remembered
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


def test_flow_and_temperatures_are_those_of_one_sensor_the_less_doubtful_one() -> None:
    again = [replace(r, sensor="b", value=r.value + 1, u=0.1) for r in ONE]
    found = joined(branches([*ONE, *again], {}))
    assert (found.volume_flow_m3_h, found.hot_c, found.cold_c) == (11.0, 46.0, 36.0)
    lone = replace(ONE[1], sensor="c", value=49.0, u=0.01)
    assert joined(branches([*ONE, lone], {})) == joined(branches(ONE, {}))


@pytest.mark.parametrize("seed", range(20))
def test_a_sensor_of_which_a_part_is_refused_is_passed_over_while_another_tells_all(
    seed: int,
) -> None:
    rng = random.Random(seed)
    wrong = unit("map", rng.uniform(0, 99), rng.uniform(20, 60), rng.uniform(20, 60))
    heat = replace(wrong[0], channel="words/heat", quantity="reported_heat_w", value=9e9)
    gone = rng.randrange(3)
    # However sure of itself, its map was written for another device.
    left = [replace(r, u=1e-6) for r in (*wrong[:gone], *wrong[gone + 1 :], heat)]
    both = [*left, *ONE]
    rng.shuffle(both)
    found = joined(branches(both, {}, [wrong[gone]]))
    assert (found.volume_flow_m3_h, found.hot_c, found.cold_c) == (10.0, 45.0, 35.0)
    assert (found.reported_heat_w, found.flags) == (None, ())


def test_a_sensor_that_tells_a_refused_quantity_elsewhere_too_comes_last() -> None:
    sure = [replace(r, sensor="map", value=r.value + 1, u=1e-6) for r in ONE]
    assert joined(branches([*ONE, *sure], {})).hot_c == 46.0
    again = replace(sure[1], channel="words/hot_c_2")
    assert joined(branches([*ONE, *sure], {}, [again])).hot_c == 45.0


def test_pieces_of_several_sensors_are_joined_where_none_tells_all_and_say_so() -> None:
    first, second = ONE[:2], [replace(r, sensor="b") for r in ONE[1:]]
    found = joined(branches([*first, *second], {}))
    assert (found.volume_flow_m3_h, found.flags) == (10.0, (MIXED_SENSORS,))
    # What a refused part casts doubt on comes last, and is mixed even if it looks made for it.
    pair = [replace(r, sensor="b") for r in ONE[1:]]
    found = joined(branches([ONE[0], *pair], {}, [replace(ONE[0], sensor="b")]))
    assert (found.hot_c, found.flags) == (45.0, (MIXED_SENSORS,))
    hot = replace(ONE[1], sensor="c", value=44.0)
    assert joined(branches([ONE[0], *pair, hot], {}, [replace(ONE[0], sensor="b")])).hot_c == 44.0


def test_a_flow_meter_beside_a_temperature_pair_is_one_unit() -> None:
    found = joined(branches([ONE[0], *(replace(r, sensor="b") for r in ONE[1:])], {}))
    assert (found.volume_flow_m3_h, found.hot_c, found.cold_c) == (10.0, 45.0, 35.0)
    assert found.flags == ()


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
