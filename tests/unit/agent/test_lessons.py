"""What a tick teaches of a loop or a host, and what it must not."""

from dataclasses import replace

import pytest

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core.attribution import cover
from heatpool_agent.core.calibrate import Lesson, of_load
from heatpool_agent.core.lessons import Sight, host_sights, loop_sight, resized
from heatpool_agent.core.levels import HostLoad, NodePower, levels
from heatpool_agent.core.reading import Node
from heatpool_agent.core.tree import HostPower, LoopPower, Tree

PRIORS = loop_priors("dlc")[0]


def sights(
    *,
    lagged_w: float | None = 100e3,
    hot_c: float | None = 44.0,
    value_w: float = 75e3,
    flags: tuple[str, ...] = (),
) -> list[Sight]:
    computed = Estimate(
        value=value_w,
        u=1e3,
        quality=QualityClass.B,
        provenance=Provenance.COMPUTED,
        flags=flags,
    )
    return loop_sight("rack", lagged_w=lagged_w, hot_c=hot_c, computed=computed, priors=PRIORS)


def test_computed_heat_teaches_a_loop_its_capture_and_loss() -> None:
    (sight,) = sights()
    assert sight.inputs == (100e3, 20.0)
    assert sight.measured.value == 75e3
    assert sight.prior_w == pytest.approx(PRIORS.capture_frac * 100e3)


@pytest.mark.parametrize(
    "odd",
    [
        {"flags": ("mixed_sensors",)},
        {"flags": ("swapped_sensors",)},
        {"lagged_w": None},
        {"lagged_w": 0.0},
        {"hot_c": None},
        {"value_w": -5e3},
    ],
)
def test_heat_that_is_marked_absent_or_negative_teaches_no_loop(odd: dict[str, object]) -> None:
    assert sights(**odd) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "kinds"), [(("a",), {"components", "load"}), (("a", "b"), set())]
)
def test_under_a_meter_of_all_hosts_a_host_is_learnt_only_if_it_is_alone(
    names: tuple[str, ...], kinds: set[str]
) -> None:
    hosts = []
    for name in names:
        package = NodePower(node=Node.PACKAGE, channel=f"{name}/intel-rapl:0", power_w=100.0)
        found = cover({Node.PACKAGE: (package,)})
        assert found is not None
        hosts.append(HostPower(host=name, cover=found))
    whole = Estimate(
        value=220.0 * len(names),
        u=4.0,
        quality=QualityClass.B,
        provenance=Provenance.ELECTRIC,
        flags=("nodes:pdu",),
    )
    tree = Tree(power=LoopPower(whole=whole, level=Node.PDU.value, hosts=tuple(hosts)))
    loads = {name: HostLoad(busy_frac=0.5, logical_cpu_count=40) for name in names}
    assert {sight.key[0] for sight in host_sights(tree, loads)} == kinds


def test_a_board_that_another_device_shows_stays_when_the_bmc_goes() -> None:
    powers = (
        NodePower(node=Node.CHASSIS, channel="all", power_w=300.0, sensor="bmc"),
        NodePower(node=Node.FAN, channel="fans", power_w=14.0, sensor="bmc"),
        NodePower(node=Node.PACKAGE, channel="powercap/0", power_w=100.0, sensor="rapl"),
        NodePower(node=Node.BOARD, channel="hwmon/3", power_w=38.0, sensor="rails"),
    )
    found = cover(levels(powers))
    assert found is not None
    host = HostPower(host="a", cover=found)
    tree = Tree(power=LoopPower(whole=found.whole, level="hosts", hosts=(host,)))
    (sight,) = host_sights(tree, {})
    assert sight.key == ("components", "a", ("board", "package"))
    assert sight.inputs == (138.0, 0.0, 0.0)
    assert sight.sensors == {"bmc"}


@pytest.mark.parametrize(
    ("measured_w", "quality", "is_resized"),
    [(50.0, 2, False), (1700.0, 2, True), (1700.0, 3, False), (float("inf"), 2, False)],
)
def test_only_a_lesson_far_beyond_what_was_assumed_and_no_worse_makes_a_learner_larger(
    *, measured_w: float, quality: int, is_resized: bool
) -> None:
    before = replace(of_load("", 10.0, 54.0), quality=2, count=20)
    told = Lesson(
        event_ns=0,
        span_s=10.0,
        inputs=(0.5,),
        measured_w=measured_w,
        measured_u_frac=0.02,
        reference="pdu",
        quality=quality,
        prior_w=32.0,
    )
    after = resized(before, told)
    assert (after.prior != before.prior) is is_resized
    assert after.count == 20
    assert resized(after, told) == after
