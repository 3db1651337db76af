"""How far one reading may be off, its class, and which readings computed heat was taken from."""

import random
from dataclasses import replace
from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.lone_pass import electric_power

from heatpool.sample import QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core.doubt import Doubt, computed_from, doubt, quality_class
from heatpool_agent.core.heat_tree import branches, joined
from heatpool_agent.core.levels import Witness, node_powers
from heatpool_agent.core.reading import Node, Reading, ReadingKind

PRIORS, REPORTED_U_FRAC = loop_priors("dlc")
GAUGE, COUNTER, STATE = ReadingKind.GAUGE, ReadingKind.COUNTER, ReadingKind.STATE
A, B, C, D, E = QualityClass


def reading(
    node: Node, quantity: str, value: float, kind: ReadingKind = GAUGE, **more: object
) -> Reading:
    plain = Reading(
        sensor="s",
        channel=f"c/{quantity}",
        quantity=quantity,
        kind=kind,
        value=value,
        event_ns=0,
        boot_ns=0,
        node=node,
        loop="rack",
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def told(one: Reading) -> Doubt | None:
    return doubt(one, PRIORS, reported_u_frac=REPORTED_U_FRAC)


@pytest.mark.parametrize(
    ("one", "u", "quality"),
    [
        (reading(Node.HEAT_METER, "energy_wh", 1e6, COUNTER), 5e4, A),
        (reading(Node.HEAT_METER, "delivered_heat_w", 2e4), 1e3, A),
        (reading(Node.HEAT_METER, "volume_m3", 100.0, COUNTER), 1.5, B),
        (reading(Node.CDU, "reported_heat_w", 2e4), 1e3, B),
        (reading(Node.CDU, "volume_flow_m3_h", 10.0), 0.15, B),
        (reading(Node.CDU, "volume_flow_m3_h", 0.1), 0.0035, B),
        (reading(Node.CDU, "hot_c", 45.0), 0.07, B),
        (reading(Node.PDU, "power_w", 1000.0), 30.0, B),
        (reading(Node.CHASSIS, "power_w", 1000.0), 50.0, B),
        (reading(Node.CHASSIS, "power_w", 10.0), 1.0, B),
        (reading(Node.CHASSIS, "energy_wh", 1000.0, COUNTER), 50.0, B),
        (reading(Node.PSU_OUT, "power_w", 1000.0), 80.0, C),
        (reading(Node.PACKAGE, "energy_j", 100.0, COUNTER), 6.0, D),
        (reading(Node.CORE, "energy_j", 100.0, COUNTER), 6.0, D),
        (reading(Node.GPU, "power_w", 300.0), 24.0, D),
        (reading(Node.FAN, "power_w", 10.0), 0.5, D),
    ],
)
def test_a_reading_without_its_own_doubt_has_that_of_its_kind(
    one: Reading, u: float, quality: QualityClass
) -> None:
    found = told(one)
    assert found is not None and found.is_prior
    assert found.u == pytest.approx(u)
    assert quality_class(one) is quality


@pytest.mark.parametrize(
    "one",
    [
        reading(Node.CDU, "leak", 0.0, STATE),
        reading(Node.PSU_IN, "rated_w", 1840.0, STATE),
        reading(Node.CDU, "hot_pressure_bar", 2.0),
        reading(Node.CDU, "power_w", 37.0),
        reading(Node.HOST, "cpu_c", 44.0),
        reading(Node.PSU_IN, "power_w", nan, flags=("not_finite",)),
        reading(Node.PSU_IN, "power_w", 1840.0, flags=("rating_as_reading",)),
    ],
)
def test_what_nothing_is_known_of_has_neither_doubt_nor_class(one: Reading) -> None:
    assert (told(one), quality_class(one)) == (None, None)


def test_a_devices_own_doubt_comes_first() -> None:
    assert told(reading(Node.CHASSIS, "power_w", 1000.0, u=7.0)) == Doubt(7.0, is_prior=False)


def test_load_is_good_for_a_model_and_no_more() -> None:
    assert quality_class(reading(Node.HOST, "busy_frac", 0.4)) is E
    assert quality_class(reading(Node.HOST, "logical_cpu_count", 16.0, STATE)) is E


def test_a_heat_meter_that_something_speaks_against_is_not_the_best() -> None:
    assert quality_class(reading(Node.HEAT_METER, "energy_wh", 1.0), is_doubted=True) is B


@pytest.mark.parametrize("node", [Node.SITE_METER, Node.PDU, Node.CHASSIS, Node.PSU_IN])
def test_the_doubt_of_a_lone_meter_is_that_of_the_estimate_it_carries(node: Node) -> None:
    one = reading(node, "power_w", 777.0)
    carried, found = electric_power(node_powers((one,), {})), told(one)
    assert carried is not None and found is not None
    assert found.u == pytest.approx(carried.u)
    assert quality_class(one) is carried.quality


def unit(sensor: str, *values: float, flags: tuple[str, ...] = ()) -> list[Reading]:
    names = ("volume_flow_m3_h", "hot_c", "cold_c")[: len(values)]
    pairs = zip(names, values, strict=True)
    return [
        reading(Node.CDU, name, value, sensor=sensor, channel=f"{sensor}/{name}", flags=flags)
        for name, value in pairs
    ]


def test_computed_heat_names_the_one_of_two_sensors_that_it_took() -> None:
    worse = unit("a", 10.0, 45.0, 35.0, flags=("map_unverified",))
    found = computed_from([*worse, *unit("b", 10.0, 45.0, 35.0)], "rack", {})
    assert found == {Witness("b", f"b/{q}", q) for q in ("volume_flow_m3_h", "hot_c", "cold_c")}


@pytest.mark.parametrize(
    "readings",
    [
        unit("a", 10.0, 45.0),
        [replace(r, loop="other") for r in unit("a", 10.0, 45.0, 35.0)],
        [replace(r, node=Node.HEAT_METER) for r in unit("a", 10.0, 45.0, 35.0)],
        unit("a", 10.0, 45.0, 35.0, flags=("out_of_range",)),
    ],
)
def test_what_gives_no_computed_heat_is_not_named(readings: list[Reading]) -> None:
    assert computed_from(readings, "rack", {}) == frozenset()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 4), hosts_count=st.integers(1, 3))
def test_the_named_readings_alone_give_the_same_circuit(
    seed: int, count: int, hosts_count: int
) -> None:
    chance = random.Random(seed)
    names = [f"s{number}" for number in range(count)]
    hosts = {name: f"h{chance.randrange(hosts_count)}" for name in names}
    readings = [
        r
        for name in names
        for r in unit(
            *(name, chance.uniform(1, 50), chance.uniform(40, 60), chance.uniform(20, 39)),
            flags=chance.choice([(), ("map_unverified",)]),
        )
    ]
    used = computed_from(readings, "rack", hosts)
    alone = [r for r in readings if Witness(r.sensor, r.channel, r.quantity) in used]
    assert joined(branches(alone, hosts)) == joined(branches(readings, hosts))
    assert len(alone) == 3 * len(set(hosts.values()))
