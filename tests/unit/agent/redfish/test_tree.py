"""What real controllers say, through the tree: each server once, each circuit by its own water."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from heatpool_agent.core import heat_tree
from heatpool_agent.core.levels import node_powers
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step, StepKind
from heatpool_agent.core.tree import LoopPower, TreeState, grow

Walk = Callable[..., Any]
pytestmark = pytest.mark.realdata


def whole(readings: Sequence[Reading]) -> LoopPower:
    """Power out of one pass in which every counter has just moved."""
    steps = {
        (r.sensor, r.channel): Step(kind=StepKind.COUNTED, delta_j=500.0, power_w=500.0)
        for r in readings
        if r.kind is ReadingKind.COUNTER
    }
    tree, _ = grow(node_powers(readings, steps), TreeState(), loads={}, boot_ns=0)
    assert tree.power is not None
    return tree.power


@pytest.mark.parametrize(
    ("capture", "power_w"),
    [
        ("dmtf/public-rackmount1", 374.0),
        ("hpe_cray_ex235a_liquidcooled", 747.0),
        ("lambda_gb300/powershelf_delta/redfish/v1", 1749.0),
    ],
)
def test_a_server_is_counted_once(walked: Walk, capture: str, power_w: float) -> None:
    found = whole(walked(capture).all)
    assert found.whole.value == power_w
    assert found.whole.flags == ("nodes:chassis",)
    (host,) = found.hosts
    assert sum(part.power_w for part in host.cover.parts) == pytest.approx(power_w)


def test_neither_a_rating_nor_half_of_the_outputs_is_added_to_the_chassis(flat: Walk) -> None:
    found = flat("telegraf_dell_hp/dell", "dell_chassis", "dell_power").all
    assert whole(found).whole.value == 429.0
    (host,) = whole(found).hosts
    assert {part.name for part in host.cover.parts if part.is_measured} == set()


def test_outputs_that_are_not_all_are_no_level(flat: Walk) -> None:
    found = flat("telegraf_dell_hp/hp", "hp_power", hp_chassis="/redfish/v1/Chassis/1").all
    assert whole(found).whole.value == 221.0
    without = [r for r in found if r.node is not Node.CHASSIS]
    powers = node_powers(without, {})
    assert [p for p in powers if p.node is Node.PSU_OUT] == []


def test_each_side_of_a_cooling_unit_is_a_circuit_of_its_own(walked: Walk) -> None:
    found = walked("dmtf_publications/public-cooling-unit").all
    for loop, flow_m3_h in (("facility", None), ("rack", 2.52)):
        own = [r for r in found if r.loop == loop and is_admitted(r)]
        circuit = heat_tree.joined(heat_tree.branches(own, {}))
        assert None not in (circuit.hot_c, circuit.cold_c, circuit.reported_heat_w)
        if flow_m3_h:
            assert circuit.volume_flow_m3_h == pytest.approx(flow_m3_h)


def test_the_same_server_by_two_protocols_is_one_server(walked: Walk) -> None:
    found = walked("dmtf/public-rackmount1").all
    again = Reading(
        sensor="ipmi", channel="dcmi/power", quantity="power_w", kind=ReadingKind.GAUGE,
        value=380.0, event_ns=7, boot_ns=5, node=Node.CHASSIS,
    )  # fmt: skip
    assert whole([*found, again]).whole.value in (374.0, 380.0)
    other = replace(again, channel="dcmi/power")
    tree, _ = grow(
        node_powers([*found, other], {}, {"ipmi": "two"}), TreeState(), loads={}, boot_ns=0
    )
    assert tree.power and tree.power.whole.value == 374.0 + 380.0
