"""Power of a loop's hosts: every server once, by its best level, with parts that add up."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.sample import QualityClass
from heatpool_agent.core.levels import HostLoad, NodePower, Source, seen
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import LoopPower, Tree, TreeState, grow

S = 1_000_000_000
LOAD = HostLoad(busy_frac=0.5, logical_cpu_count=64)


def power(node: Node, power_w: float, channel: str = "c", **more: object) -> NodePower:
    plain = NodePower(node=node, channel=channel, power_w=power_w, sensor=f"s-{node.value}")
    return replace(plain, **more)  # type: ignore[arg-type]


def package(power_w: float, number: int = 0, **more: object) -> NodePower:
    return power(Node.PACKAGE, power_w, f"powercap/intel-rapl:{number}", sensor="rapl", **more)


def card(power_w: float, number: int = 0, **more: object) -> NodePower:
    return power(Node.GPU, power_w, f"nvml/{number}", sensor="nvml", **more)


def looked(
    *powers: NodePower,
    seconds: int = 0,
    loads: Mapping[str, HostLoad] | None = None,
    known: Mapping[Source, int] | None = None,
    mirrored: Sequence[tuple[str, str]] = (),
) -> Tree:
    """The tree after so many seconds of the same powers."""
    state, hosts = TreeState(), {p.sensor: p.host for p in powers}
    for second in range(0, seconds + 1, 10):
        tree, state = grow(
            powers, state, loads=loads or {}, known=known, hosts=hosts, mirrored=mirrored,
            boot_ns=second * S,
        )  # fmt: skip
    return tree


def whole(*powers: NodePower, **more: object) -> LoopPower:
    tree = looked(*powers, **more)  # type: ignore[arg-type]
    assert tree.power is not None
    return tree.power


def parts(one: LoopPower, host: str = "") -> dict[str, float]:
    (cover,) = [h.cover for h in one.hosts if h.host == host]
    return {part.name: part.power_w for part in cover.parts}


def test_a_servers_own_meter_replaces_the_sum_of_its_components_and_shows_them_as_parts() -> None:
    found = whole(power(Node.CHASSIS, 900.0), package(150.0), package(150.0, 1), card(300.0))
    assert (found.whole.value, found.whole.quality) == (900.0, QualityClass.B)
    assert found.whole.flags == ("nodes:chassis",)
    shown = parts(found)
    assert (shown["package"], shown["gpu"]) == (300.0, 300.0)
    assert shown["psu_loss"] == pytest.approx(63.0)
    assert shown["rest"] == pytest.approx(900.0 - 600.0 - 63.0)


def test_what_a_supply_loses_is_measured_where_both_its_sides_are() -> None:
    found = whole(power(Node.PSU_IN, 500.0), power(Node.PSU_OUT, 470.0), package(200.0))
    assert parts(found) == pytest.approx({"package": 200.0, "psu_loss": 30.0, "rest": 270.0})


def test_what_is_left_over_carries_the_doubts_of_all_that_it_is_left_from() -> None:
    found = whole(power(Node.PSU_IN, 500.0), power(Node.PSU_OUT, 470.0), package(200.0))
    doubts = {part.name: part.power_w_u for part in found.hosts[0].cover.parts}
    assert doubts["package"] == pytest.approx(0.06 * 200.0)
    assert doubts["psu_loss"] == pytest.approx(math.hypot(0.03 * 500.0, 0.08 * 470.0))
    assert doubts["rest"] == pytest.approx(math.hypot(15.0, doubts["package"], doubts["psu_loss"]))
    assumed = whole(power(Node.CHASSIS, 500.0)).hosts[0].cover.parts
    assert [part.power_w_u for part in assumed] == pytest.approx([8.65, math.hypot(25.0, 8.65)])


def test_a_chassis_seen_through_two_doors_of_the_machine_is_one() -> None:
    doors = [power(Node.CHASSIS, 400.0, f"hwmon/acpi{n}/power1", sensor=f"s{n}") for n in (0, 1)]
    assert whole(*doors).whole.value == 400.0


@pytest.mark.parametrize("node", [Node.CHASSIS, Node.PSU_IN, Node.PSU_OUT])
def test_two_ways_to_one_thing_are_one(node: Node) -> None:
    one = power(node, 400.0, sensor="ipmi")
    other = power(node, 410.0, sensor="bmc", power_w_u=4.0)
    assert whole(one, other).whole == whole(other).whole


def test_two_supplies_of_one_sensor_beat_the_one_that_another_shows() -> None:
    both = [power(Node.PSU_IN, 200.0, name, sensor="bmc") for name in ("a", "b")]
    assert whole(*both, power(Node.PSU_IN, 200.0, sensor="ipmi")).whole.value == 400.0


def test_a_silent_way_leaves_the_word_to_the_other() -> None:
    one, other = (power(Node.CHASSIS, 400.0, sensor=name) for name in ("bmc", "ipmi"))
    known = seen([one, other])
    assert whole(other, known=known).whole.value == 400.0


def test_feeds_a_and_b_are_two_meters() -> None:
    feeds = [power(Node.PDU, 700.0, sensor=name) for name in ("feed-a", "feed-b")]
    assert whole(*feeds).whole.value == 1400.0
    known = seen(feeds)
    assert looked(feeds[0], known=known).power is None


def test_cards_of_two_makers_add_up_and_a_bmc_that_lists_them_does_not() -> None:
    cards = [card(300.0), power(Node.GPU, 200.0, "hwmon/amdgpu/power1", sensor="hwmon")]
    listed = power(Node.GPU, 310.0, "/redfish/v1/Chassis/GPU1", sensor="bmc")
    assert parts(whole(package(100.0), *cards, listed))["gpu"] == 500.0
    assert parts(whole(package(100.0), listed))["gpu"] == 310.0


def test_a_module_holds_its_cpu_and_its_gpu() -> None:
    module = power(Node.MODULE, 650.0, "nvml/0/module", sensor="nvml")
    inner = (power(Node.PACKAGE, 200.0, "hwmon/grace/power1", sensor="hwmon"), card(400.0))
    assert whole(module, *inner).whole == whole(module).whole
    assert whole(module).whole.flags == ("nodes:module", "remainder:board+fans")


def test_a_card_beside_a_module_is_counted_and_one_inside_is_not() -> None:
    module = power(Node.MODULE, 650.0, "nvml/0000:01:00.0", sensor="nvml")
    inside = card(400.0, host="")
    inside = replace(inside, channel="nvml/0000:01:00.0/gpu")
    beside = replace(inside, channel="nvml/0000:41:00.0", power_w=250.0)
    other = power(Node.GPU, 90.0, "hwmon/pci:0000:51:00.0/power1", sensor="hwmon")
    listed = power(Node.GPU, 400.0, "/redfish/v1/Chassis/GPU1", sensor="bmc")
    found = whole(module, inside, beside, other, listed)
    assert parts(found)["gpu"] == 340.0
    assert found.whole.flags == ("nodes:module+gpu", "remainder:board+fans")
    known = seen([module, beside, listed])
    assert looked(module, known=known).power is None
    assert parts(whole(module, beside, known=known))["gpu"] == 250.0


def test_cards_that_only_a_bmc_lists_beside_a_module_are_left_out_and_it_says_so() -> None:
    module = power(Node.MODULE, 650.0, "nvml/0000:01:00.0", sensor="nvml")
    listed = power(Node.GPU, 400.0, "/redfish/v1/Chassis/GPU1", sensor="bmc")
    found = whole(module, listed)
    assert found.whole.value == whole(module).whole.value
    assert "cards_unassigned:nvml" in found.whole.flags
    assert looked(module, known=seen([module, listed])).power is not None


def test_a_sum_of_channels_is_no_single_figure() -> None:
    assert whole(power(Node.CHASSIS, 400.0), package(100.0)).is_single
    assert whole(power(Node.PDU, 400.0)).is_single
    assert not whole(*(power(Node.PDU, 400.0, sensor=name) for name in "ab")).is_single
    assert not whole(package(100.0)).is_single


def test_measured_fans_and_drives_leave_less_to_priors() -> None:
    bare = whole(package(200.0))
    seen_ = whole(package(200.0), power(Node.FAN, 30.0), power(Node.DRIVE, 20.0))
    assert bare.whole.flags[1] == "remainder:dram+board+fans"
    assert seen_.whole.flags == ("nodes:package+fan+drive", "remainder:dram+board+regulators")
    assert parts(seen_)["board"] < parts(bare)["board"]


def test_hosts_add_up_each_by_its_best_level() -> None:
    found = whole(
        power(Node.CHASSIS, 400.0, host="one", sensor="bmc-1"),
        package(200.0, host="one"),
        power(Node.CHASSIS, 600.0, host="two", sensor="bmc-2"),
        loads={"": HostLoad(busy_frac=0.1, logical_cpu_count=4)},
    )
    assert found.whole.value == pytest.approx(1000.0 + 4 * (0.63 + 0.1 * 2.72))
    assert found.whole.flags == ("nodes:host", "nodes:one/chassis", "nodes:two/chassis")
    # A gateway's few guessed watts do not make the sum a guess, but they are in its doubt.
    assert found.whole.quality is QualityClass.B
    assert found.whole.u > 0.05 * 1000.0


def test_a_guessed_host_of_weight_sets_the_class() -> None:
    found = whole(power(Node.CHASSIS, 400.0, host="one"), loads={"": LOAD})
    assert found.whole.quality is QualityClass.E


def test_a_meter_of_all_hosts_covers_them_and_names_what_none_shows() -> None:
    found = whole(
        power(Node.PDU, 1100.0),
        power(Node.CHASSIS, 400.0, host="one", sensor="bmc-1"),
        power(Node.CHASSIS, 600.0, host="two", sensor="bmc-2"),
        loads={"": LOAD},
    )
    assert (found.whole.value, found.level) == (1100.0, "pdu")
    assert [host.host for host in found.hosts] == ["one", "two"]
    assert found.unseen is not None and found.unseen.power_w == pytest.approx(100.0)


def test_a_host_that_falls_silent_beside_others_is_held_with_much_doubt() -> None:
    one = power(Node.CHASSIS, 400.0, host="one", sensor="bmc-1")
    two = power(Node.CHASSIS, 600.0, host="two", sensor="bmc-2")
    hosts, known = {"bmc-1": "one", "bmc-2": "two"}, seen([one, two])
    _, state = grow([one, two], TreeState(), loads={}, known=known, hosts=hosts, boot_ns=0)
    for second in (1, 2):
        tree, state = grow([one], state, loads={}, known=known, hosts=hosts, boot_ns=second * S)
        assert tree.power is not None
        assert tree.power.whole.value == 1000.0
        assert tree.power.whole.flags == ("nodes:one/chassis", "nodes:two/last")
        assert tree.power.whole.u > 0.4 * 600.0
        assert tree.power.whole.quality is QualityClass.E


def test_a_pdu_of_one_host_covers_that_host_alone() -> None:
    found = whole(
        power(Node.PDU, 450.0, host="one", sensor="outlet-1"),
        power(Node.CHASSIS, 430.0, host="one", sensor="bmc-1"),
        power(Node.CHASSIS, 600.0, host="two", sensor="bmc-2"),
    )
    assert found.whole.value == 1050.0


@pytest.mark.parametrize(("seconds", "level"), [(590, "package"), (610, "psys")])
def test_psys_is_believed_after_ten_minutes(seconds: int, level: str) -> None:
    psys = power(Node.PSYS, 160.0, "powercap/intel-rapl:1", sensor="rapl")
    assert level in parts(whole(package(100.0), psys, seconds=seconds))


def test_psys_below_its_packages_is_never_believed() -> None:
    psys = power(Node.PSYS, 90.0, "powercap/intel-rapl:1", sensor="rapl")
    assert "psys" not in parts(whole(package(100.0), psys, seconds=1200))


def test_a_chassis_below_its_components_is_left_after_two_minutes_with_the_size() -> None:
    powers = (power(Node.CHASSIS, 200.0), package(150.0), package(150.0, 1), card(300.0))
    early, late = looked(*powers, seconds=60), looked(*powers, seconds=180)
    assert early.power and early.power.whole.value == 200.0
    assert [(c.outer, c.inner) for c in late.contradictions] == [("chassis", "components")]
    assert late.contradictions[0].size_frac == pytest.approx(2.0)
    assert late.refused == {("", "chassis"): "below_children"}
    assert late.power and late.power.whole.quality is QualityClass.D


def test_components_that_two_meters_speak_against_are_the_wrong_ones() -> None:
    found = looked(
        power(Node.CHASSIS, 300.0), power(Node.PSU_IN, 305.0), package(400.0), seconds=180
    )
    assert found.refused == {("", "components"): "above_parents"}
    assert found.power and found.power.whole.value == 300.0
    assert "package" not in parts(found.power)


def test_a_chassis_in_milliwatts_is_left_and_called_by_its_name() -> None:
    found = looked(power(Node.CHASSIS, 450_000.0), package(300.0), seconds=180)
    assert found.refused == {("", "chassis"): "far_above_children"}
    assert found.power and found.power.whole.quality is QualityClass.D


def test_a_meter_of_all_hosts_that_shows_less_than_they_do_is_left() -> None:
    powers = (
        power(Node.PDU, 700.0, sensor="feed-a"),
        power(Node.CHASSIS, 600.0, host="one", sensor="bmc-1"),
        power(Node.CHASSIS, 800.0, host="two", sensor="bmc-2"),
    )
    assert whole(*powers, seconds=60).level == "pdu"
    late = looked(*powers, seconds=180)
    assert late.refused == {("", "pdu"): "below_children"}
    assert late.power and (late.power.whole.value, late.power.level) == (1400.0, "hosts")


def test_a_store_of_disks_behind_a_small_processor_is_left_alone() -> None:
    assert looked(power(Node.CHASSIS, 900.0), package(12.0), seconds=180).contradictions == ()


def test_levels_that_agree_within_their_doubts_are_left_alone() -> None:
    found = looked(power(Node.CHASSIS, 300.0), power(Node.PSU_IN, 310.0), seconds=180)
    assert (found.contradictions, dict(found.refused)) == ((), {})


def test_no_host_is_no_power() -> None:
    assert looked().power is None


NODES = [node for node in Node if node not in (Node.HEAT_METER, Node.CDU, Node.HOST)]


@given(
    st.lists(
        st.builds(
            NodePower,
            node=st.sampled_from(NODES),
            channel=st.text("abc", min_size=1, max_size=3),
            power_w=st.floats(0, 1e5),
            sensor=st.sampled_from(("s", "t")),
            host=st.sampled_from(("", "one")),
        ),
        max_size=12,
        unique_by=lambda p: (p.sensor, p.channel),
    )
)
def test_parts_add_up_to_their_whole(powers: list[NodePower]) -> None:
    found = whole(*powers, loads={"": LOAD})
    for host in found.hosts:
        total_w = sum(part.power_w for part in host.cover.parts)
        assert total_w == pytest.approx(host.cover.whole.value, rel=1e-9, abs=1e-9)
    of_hosts_w = sum(host.cover.whole.value for host in found.hosts)
    unseen_w = found.unseen.power_w if found.unseen else 0.0
    assert of_hosts_w + unseen_w == pytest.approx(found.whole.value, rel=1e-9, abs=1e-9)


# -- Sites whose truth the tree cannot see ------------------------------------------------------

COMPONENT_U = {Node.PACKAGE: 0.06, Node.DRAM: 0.06, Node.GPU: 0.08}


def site(seed: int) -> tuple[float, list[NodePower], dict[str, HostLoad]]:
    """Power at the wall, W, of one to three servers, and what their meters show of it."""
    chance = random.Random(seed)
    hosts = [f"h{number}" for number in range(chance.randint(1, 3))]
    servers = [server(chance, host) for host in hosts]
    truth_w = sum(wall_w for wall_w, _, _ in servers)
    powers = [p for _, shown, _ in servers for p in shown]
    if chance.random() < 0.3:
        powers.append(power(Node.PDU, truth_w * chance.gauss(1, 0.03), sensor="pdu"))
    loads = {host: load for host, (_, _, load) in zip(hosts, servers, strict=True)}
    return truth_w, powers, loads


def server(chance: random.Random, host: str) -> tuple[float, list[NodePower], HostLoad]:
    sockets, cards = chance.randint(1, 2), chance.choice((0, 0, 1, 4))
    true_w = {
        Node.PACKAGE: [chance.uniform(40, 350) for _ in range(sockets)],
        Node.DRAM: [max(2.0, chance.gauss(15, 10)) for _ in range(sockets)],
        Node.GPU: [chance.uniform(30, 700) for _ in range(cards)],
    }
    served_w = sum(map(sum, true_w.values()))
    board_w = sum(max(5.0, chance.gauss(40, 20)) for _ in range(sockets))
    fans_w = max(0.02, chance.gauss(0.15, 0.08)) * served_w
    out_w = served_w + board_w + fans_w
    wall_w = out_w / min(0.97, chance.gauss(0.93, 0.0173))
    shown = [
        power(
            node,
            watts * gain,
            f"{'nvml' if node is Node.GPU else 'powercap'}/{node.value}-{at}",
            sensor=f"{host}-{node.value}",
            host=host,
        )
        for node, gain in ((node, chance.gauss(1, u)) for node, u in COMPONENT_U.items())
        if node is not Node.DRAM or chance.random() < 0.5
        for at, watts in enumerate(true_w[node])
    ]
    meters = (
        (Node.CHASSIS, wall_w, 0.05), (Node.PSU_IN, wall_w, 0.03), (Node.PSU_OUT, out_w, 0.08)
    )  # fmt: skip
    for node, watts, u_frac in meters:
        if chance.random() < 0.25:
            meter_w = watts * chance.gauss(1, u_frac)
            shown.append(power(node, meter_w, sensor=f"{host}-{node.value}", host=host))
    return wall_w, shown, HostLoad(busy_frac=0.5, logical_cpu_count=64)


def test_the_hidden_truth_lies_within_two_doubts_in_95_of_100_sites() -> None:
    hits, levels = 0, set()
    for seed in range(1500):
        truth_w, powers, loads = site(seed)
        found = whole(*powers, loads=loads)
        levels |= {found.level, *(host.cover.level for host in found.hosts)}
        hits += abs(found.whole.value - truth_w) <= 2 * found.whole.u
    assert levels >= {"pdu", "hosts", "chassis", "psu_in", "psu_out", "components"}
    assert hits / 1500 >= 0.95


@pytest.mark.parametrize("seed", range(40))
def test_what_lies_inside_the_chosen_level_changes_nothing(seed: int) -> None:
    _, powers, loads = site(seed)
    found = whole(*powers, loads=loads)
    chosen = {host.host: host.cover.level for host in found.hosts}
    outer = [
        p
        for p in powers
        if (found.level == "pdu" and p.node is Node.PDU)
        or (found.level == "hosts" and chosen[p.host] in (p.node.value, "components"))
    ]
    assert whole(*outer, loads=loads).whole == found.whole
