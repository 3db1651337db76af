"""Power at the wall: one cover of one tree, each node once, doubt and class with every figure."""

import tomllib
from dataclasses import replace
from importlib.resources import files
from itertools import combinations
from math import hypot

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.agent.lone_pass import electric_power

from heatpool.sample import Provenance, QualityClass
from heatpool_agent.core import attribution, levels
from heatpool_agent.core.levels import HostLoad, NodePower, Source, host_load, node_powers
from heatpool_agent.core.mirrors import Mirrors, mirrored, observe
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, StepKind

LOAD = HostLoad(busy_frac=0.5, logical_cpu_count=64)
ORDER = (Node.SITE_METER, Node.PDU, Node.CHASSIS, Node.PSU_IN, Node.PSU_OUT, Node.PACKAGE)


def power(node: Node, power_w: float, channel: str = "", *, flags: str = "") -> NodePower:
    return NodePower(
        node=node,
        channel=channel or f"x/{node.value}",
        power_w=power_w,
        flags=tuple(flags.split()),
    )


def package(number: int, power_w: float = 100.0, *, flags: str = "") -> NodePower:
    return power(Node.PACKAGE, power_w, f"powercap/intel-rapl:{number}", flags=flags)


PACKAGES: dict[Source, int] = {(Node.PACKAGE, "", "powercap"): 2}


def value_w(*powers: NodePower, **more: object) -> float:
    estimate = electric_power(powers, **more)  # type: ignore[arg-type]
    assert estimate is not None
    return estimate.value


@pytest.mark.parametrize(("better", "worse"), list(combinations(ORDER, 2)))
def test_the_node_nearer_to_the_wall_wins_alone(better: Node, worse: Node) -> None:
    alone = value_w(power(better, 500.0))
    assert value_w(power(worse, 9000.0), power(better, 500.0), load=LOAD) == alone


@pytest.mark.parametrize(
    ("node", "quality", "u_frac", "value"),
    [
        (Node.SITE_METER, QualityClass.B, 0.03, 500.0),
        (Node.PDU, QualityClass.B, 0.03, 500.0),
        (Node.CHASSIS, QualityClass.B, 0.05, 500.0),
        (Node.PSU_IN, QualityClass.B, 0.03, 500.0),
        (Node.PSU_OUT, QualityClass.C, 0.08, 500.0 / 0.93),
    ],
)
def test_a_meter_before_or_behind_the_supply_has_its_class_and_doubt(
    node: Node, quality: QualityClass, u_frac: float, value: float
) -> None:
    estimate = electric_power([power(node, 500.0)])
    assert estimate is not None
    assert (estimate.quality, estimate.provenance) == (quality, Provenance.ELECTRIC)
    assert estimate.value == pytest.approx(value)
    assert estimate.u == pytest.approx(u_frac * estimate.value)
    assert estimate.flags == (f"nodes:{node.value}",)


def test_a_devices_own_doubt_is_used() -> None:
    estimate = electric_power([replace(power(Node.PDU, 500.0), power_w_u=10.0)])
    assert estimate is not None and estimate.u == pytest.approx(10.0)


def test_two_supplies_of_one_host_add_up_and_so_do_their_doubts() -> None:
    estimate = electric_power([power(Node.PSU_IN, 300.0, "a"), power(Node.PSU_IN, 200.0, "b")])
    assert estimate is not None
    assert estimate.value == pytest.approx(500.0)
    assert estimate.u == pytest.approx(15.0)


def test_a_level_with_a_silent_channel_is_passed_over() -> None:
    one = power(Node.PSU_IN, 300.0, "a")
    estimate = electric_power([one], load=LOAD, known={(Node.PSU_IN, "", ""): 2})
    assert estimate is not None and estimate.flags == ("nodes:host",)


def test_a_silent_package_makes_the_components_incomplete() -> None:
    assert electric_power([package(0)], known=PACKAGES) is None


def test_components_are_scaled_to_the_wall_with_a_named_remainder() -> None:
    estimate = electric_power(
        [package(0), package(1), power(Node.DRAM, 20.0, "powercap/intel-rapl:0/intel-rapl:0:1"),
         power(Node.GPU, 300.0)]
    )  # fmt: skip
    assert estimate is not None
    assert estimate.quality is QualityClass.D
    assert estimate.flags == ("nodes:package+dram+gpu", "remainder:board+fans")
    served_w = 200.0 + 20.0 + 300.0
    assert estimate.value == pytest.approx((served_w * 1.15 + 2 * 40.0) / 0.93)
    assert estimate.u >= 0.15 * estimate.value


def test_memory_that_no_counter_shows_is_in_the_remainder() -> None:
    estimate = electric_power([package(0)])
    assert estimate is not None
    assert estimate.flags == ("nodes:package", "remainder:dram+board+fans")


@pytest.mark.parametrize(
    "extra",
    [
        power(Node.CORE, 60.0, "powercap/intel-rapl:0/intel-rapl:0:0"),
        power(Node.UNCORE, 60.0, "powercap/intel-rapl:0/intel-rapl:0:1"),
        power(Node.PSYS, 160.0, "powercap/intel-rapl:1"),
        power(Node.PACKAGE, 100.0, "powercap/intel-rapl-mmio:0", flags="twin"),
        # The same socket seen by the board's own driver.
        power(Node.PACKAGE, 100.0, "hwmon/amd_energy/energy1"),
        # Coolant and host channels carry no power of the tree.
        power(Node.CDU, 5000.0),
        power(Node.HOST, 5000.0),
    ],
)
def test_what_lies_inside_or_repeats_is_never_added(extra: NodePower) -> None:
    assert value_w(package(0), extra) == value_w(package(0))


def test_packages_of_a_boards_chips_count_where_there_is_no_powercap() -> None:
    one = power(Node.PACKAGE, 45.0, "hwmon/k10temp/power1")
    inner = power(Node.CORE, 15.0, "hwmon/k10temp/power2")
    assert value_w(one, inner) == pytest.approx(value_w(package(0, 45.0)))


def test_equal_packages_are_two_until_they_are_seen_to_be_mirrors() -> None:
    both = (package(0), package(1))
    state = Mirrors()
    for number in range(29):
        state = observe(state, {p.channel: 68.0 + number for p in both})
    assert value_w(*both, mirrored=mirrored(state)) > 1.5 * value_w(package(0))
    state = observe(state, {p.channel: 68.0 for p in both})
    assert value_w(*both, mirrored=mirrored(state), known=PACKAGES) == value_w(package(0))


@pytest.mark.parametrize(
    "left_out",
    [
        power(Node.PACKAGE, 100.0, "powercap/intel-rapl-mmio:0", flags="twin"),
        power(Node.PACKAGE, 100.0, "hwmon/amd_energy/energy1"),
    ],
)
def test_a_package_is_never_dropped_for_a_repeat_of_itself(left_out: NodePower) -> None:
    both = (left_out, package(0))
    pairs = {(both[0].channel, both[1].channel)}
    assert value_w(*both, mirrored=pairs) == value_w(package(0))


@pytest.mark.parametrize(("one_w", "other_w"), [(0.0, 0.0), (15.0, 15.0), (100.0, 102.0)])
def test_idle_or_unlike_packages_prove_no_mirror(one_w: float, other_w: float) -> None:
    state = Mirrors()
    for _ in range(100):
        state = observe(state, {"a": one_w, "b": other_w})
    assert mirrored(state) == frozenset()


def test_one_disagreement_undoes_a_mirror() -> None:
    state = Mirrors()
    for _ in range(100):
        state = observe(state, {"a": 100.0, "b": 100.0})
    assert mirrored(state) == {("a", "b")}
    assert mirrored(observe(state, {"a": 100.0, "b": 50.0})) == frozenset()


def test_a_card_without_cpu_counters_takes_the_hosts_model_for_the_rest() -> None:
    gpu = power(Node.GPU, 5000.0)
    estimate = electric_power([gpu], load=LOAD)
    assert estimate is not None
    assert estimate.flags == ("nodes:gpu", "remainder:host")
    assert estimate.value == pytest.approx(5000.0 / 0.93 + attribution.host_power_w(LOAD))
    assert electric_power([gpu]) is None


@pytest.mark.parametrize(
    ("busy_frac", "power_w"), [(0.0, 64 * 0.63), (1.0, 64 * 3.35), (0.5, 64 * 1.99)]
)
def test_a_host_without_sensors_is_class_e_by_its_load(busy_frac: float, power_w: float) -> None:
    estimate = electric_power([], load=HostLoad(busy_frac=busy_frac, logical_cpu_count=64))
    assert estimate is not None
    assert estimate.value == pytest.approx(power_w)
    assert estimate.u == pytest.approx(hypot(0.4 * power_w, 100.0, 200.0 * busy_frac))
    assert (estimate.quality, estimate.flags) == (QualityClass.E, ("nodes:host",))


def test_unknown_load_is_more_doubtful_and_says_so() -> None:
    known = electric_power([], load=LOAD)
    unknown = electric_power([], load=replace(LOAD, busy_frac=None))
    assert known is not None and unknown is not None
    assert unknown.u > known.u
    assert "load:unknown" in unknown.flags


def test_nothing_known_is_no_estimate() -> None:
    assert electric_power([]) is None


@given(
    st.lists(
        st.builds(
            NodePower,
            node=st.sampled_from(list(Node)),
            channel=st.text("abc", min_size=1, max_size=3),
            power_w=st.floats(0, 1e5),
        ),
        max_size=8,
        unique_by=lambda p: p.channel,
    ),
    st.randoms(use_true_random=False),
)
def test_an_estimate_always_has_doubt_and_does_not_depend_on_order(
    powers: list[NodePower], random: object
) -> None:
    shuffled = list(powers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    estimate, other = electric_power(powers, load=LOAD), electric_power(shuffled, load=LOAD)
    assert estimate is not None and other is not None
    assert estimate.u > 0
    assert estimate.value == pytest.approx(other.value)


def reading(quantity: str, value: float, kind: ReadingKind, **more: object) -> Reading:
    plain = Reading(
        sensor="s", channel="c", quantity=quantity, kind=kind, value=value, event_ns=0, boot_ns=0,
        node=Node.GPU,
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


ENERGY = reading("energy_j", 1.0, ReadingKind.COUNTER, raw=1)
GAUGE = reading("power_w", 70.0, ReadingKind.GAUGE)


@pytest.mark.parametrize("readings", [(ENERGY, GAUGE), (GAUGE, ENERGY)])
def test_a_channel_counts_once_and_by_its_counter(readings: tuple[Reading, ...]) -> None:
    steps = {(ENERGY.sensor, "c"): Step(kind=StepKind.COUNTED, delta_j=69.0, power_w=69.0)}
    assert [p.power_w for p in node_powers(readings, steps)] == [69.0]


def test_a_counter_without_a_span_leaves_the_word_to_the_gauge() -> None:
    steps = {(ENERGY.sensor, "c"): Step(kind=StepKind.FIRST)}
    assert [p.power_w for p in node_powers((ENERGY, GAUGE), steps)] == [70.0]


def test_a_device_that_shows_energy_and_power_apart_is_counted_by_its_power() -> None:
    energy = replace(ENERGY, channel="/a/energy", node=Node.CHASSIS, sensor="bmc")
    gauge = replace(GAUGE, channel="/a/power", node=Node.CHASSIS, sensor="bmc")
    steps = {("bmc", "/a/energy"): Step(kind=StepKind.COUNTED, delta_j=69.0, power_w=69.0)}
    assert [p.power_w for p in node_powers((energy, gauge), steps)] == [70.0]
    assert [p.power_w for p in node_powers((energy,), steps)] == [69.0]


def test_a_card_that_sleeps_is_a_few_watts_and_not_silent() -> None:
    asleep = reading("is_suspended", 1.0, ReadingKind.STATE)
    (power_,) = node_powers((asleep,), {})
    assert (power_.node, power_.power_w) == (Node.GPU, levels.ASLEEP_CARD_W)
    cards: dict[Source, int] = {(Node.GPU, "s", ""): 1}
    estimate = electric_power([package(0), power_], known=cards)
    assert estimate is not None and estimate.flags[0] == "nodes:package+gpu"
    assert electric_power([package(0)], known=cards) is None


def test_a_coarse_counter_carries_no_power() -> None:
    register = replace(ENERGY, quantity="energy_wh", exponent=3)
    steps = {("s", "c"): Step(kind=StepKind.COUNTED, delta_j=3.6e6, power_w=3.6e6)}
    assert node_powers((register,), steps) == ()


def test_a_refused_reading_carries_no_power() -> None:
    assert node_powers((replace(GAUGE, flags=("out_of_range",)),), {}) == ()


def test_load_needs_the_number_of_cpus() -> None:
    busy = reading("busy_frac", 0.25, ReadingKind.GAUGE, node=Node.HOST)
    count = reading("logical_cpu_count", 8.0, ReadingKind.STATE, node=Node.HOST)
    assert host_load((busy,)) is None
    load = host_load((count,))
    assert load is not None and (load.busy_frac, load.logical_cpu_count) == (None, 8)
    load = host_load((busy, count))
    assert load is not None and (load.busy_frac, load.logical_cpu_count) == (0.25, 8)
    assert {w.quantity for w in load.witnesses} == {"busy_frac", "logical_cpu_count"}


def test_constants_are_those_of_the_data_file_each_with_its_source() -> None:
    text = files("heatpool_agent").joinpath("data/priors.toml").read_text(encoding="utf-8")
    rooms = {"attribution": attribution, "levels": levels}
    priors = {
        name: entry for room in rooms for name, entry in tomllib.loads(text)[room].items()
    }  # fmt: skip
    constants = {
        name.lower(): number
        for room in rooms.values()
        for name, number in vars(room).items()
        if name.isupper() and isinstance(number, float) and name != "FINE_COUNT_J"
    }
    assert {name: entry["value"] for name, entry in priors.items()} == constants
    needed = {"value", "unit", "source", "valid_from", "verified"}
    assert all(entry.keys() == needed for entry in priors.values())
