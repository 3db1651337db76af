"""Which readings a host's power, its parts and a loop's power are taken from."""

from collections.abc import Mapping, Sequence

import pytest

from heatpool_agent.core.attribution import INPUTS
from heatpool_agent.core.levels import HostLoad, NodePower, Witness, node_powers
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, StepKind
from heatpool_agent.core.tree import LoopPower, TreeState, grow

RAPL = "powercap/intel-rapl:0"


def power(
    node: Node, power_w: float, *, sensor: str, channel: str = "c", host: str = ""
) -> NodePower:
    return NodePower(node=node, channel=channel, power_w=power_w, sensor=sensor, host=host)


def whole(*powers: NodePower, loads: Mapping[str, HostLoad] | None = None) -> LoopPower:
    hosts = {p.sensor: p.host for p in powers}
    tree, _ = grow(powers, TreeState(), loads=loads or {}, hosts=hosts, boot_ns=0)
    assert tree.power is not None
    return tree.power


def named(witnesses: Sequence[Witness]) -> list[tuple[str, str]]:
    return sorted((w.sensor, w.channel) for w in witnesses)


BMC = (
    power(Node.PACKAGE, 140.0, sensor="bmc", channel="cpu"),
    power(Node.GPU, 290.0, sensor="bmc", channel="gpu"),
)
LOCAL = (
    power(Node.PACKAGE, 150.0, sensor="rapl", channel=RAPL),
    power(Node.GPU, 300.0, sensor="nvml", channel="nvml/0"),
)


@pytest.mark.parametrize("node", INPUTS)
def test_a_host_names_the_meter_that_carries_it_and_each_part_its_sensors(node: Node) -> None:
    found = whole(power(node, 900.0, sensor="meter", host="a"), *BMC, *LOCAL)
    carried = next(one.cover for one in found.hosts if one.host == "a")
    assert named(carried.witnesses) == [("meter", "c")]


def test_of_two_ways_to_one_chassis_one_is_named_and_each_part_has_its_sensors() -> None:
    meter = power(Node.CHASSIS, 900.0, sensor="bmc", channel="total")
    ipmi = power(Node.CHASSIS, 905.0, sensor="ipmi", channel="dcmi")
    found = whole(meter, ipmi, *BMC, *LOCAL)
    (host,) = found.hosts
    assert named(host.cover.witnesses) == [("bmc", "total")]
    assert found.witnesses == host.cover.witnesses
    shown = {part.name: part.sensors for part in host.cover.parts}
    assert (shown["package"], shown["gpu"], shown["rest"]) == (("rapl",), ("nvml",), ())


def test_a_sum_of_components_names_each_of_them_once() -> None:
    assert named(whole(*BMC, *LOCAL).witnesses) == [("nvml", "nvml/0"), ("rapl", RAPL)]


def test_a_supplys_output_carries_its_host() -> None:
    found = whole(power(Node.PSU_OUT, 470.0, sensor="bmc"), *LOCAL)
    assert named(found.witnesses) == [("bmc", "c")]


def test_a_meter_of_all_hosts_carries_the_loop_and_each_host_still_names_its_own() -> None:
    strip = power(Node.PDU, 1000.0, sensor="strip")
    found = whole(strip, power(Node.CHASSIS, 900.0, sensor="bmc", host="a"))
    assert named(found.witnesses) == [("strip", "c")]
    assert named(found.hosts[0].cover.witnesses) == [("bmc", "c")]


def test_a_modelled_host_names_the_load_that_it_was_modelled_from() -> None:
    busy = Witness("host", "host/cpu", "busy_frac")
    load = HostLoad(busy_frac=0.5, logical_cpu_count=64, witnesses=(busy,))
    found = whole(loads={"": load})
    assert found.witnesses == found.hosts[0].cover.parts[0].witnesses == (busy,)


@pytest.mark.parametrize(("exponent", "quantity"), [(-6, "energy_j"), (3, "power_w")])
def test_of_counter_and_gauge_of_one_channel_the_one_that_was_used_is_named(
    exponent: int, quantity: str
) -> None:
    plain = Reading(
        sensor="nvml",
        channel="nvml/0",
        quantity="power_w",
        kind=ReadingKind.GAUGE,
        value=300.0,
        event_ns=0,
        boot_ns=0,
        node=Node.GPU,
    )
    counter = Reading(
        sensor="nvml",
        channel="nvml/0",
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=1e3,
        event_ns=0,
        boot_ns=0,
        node=Node.GPU,
        raw=1,
        exponent=exponent,
    )
    step = Step(kind=StepKind.COUNTED, power_w=301.0)
    (found,) = node_powers((plain, counter), {("nvml", "nvml/0"): step})
    assert found.witness.quantity == quantity
