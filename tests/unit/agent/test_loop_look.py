"""One loop at one tick: whose flow and temperatures its heat is made of, and what may be a slip."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from heatpool_agent.board import LoopView
from heatpool_agent.config import loop_priors
from heatpool_agent.core import plausible
from heatpool_agent.core.heat_tree import MIXED_SENSORS
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.loop_look import LoopLook, LoopSettings, Pass

STREAM, HOT, COLD = "volume_flow_m3_h", "hot_c", "cold_c"


def read(sensor: str, values: Mapping[str, float], node: Node = Node.CDU) -> list[Reading]:
    return [
        Reading(
            sensor=sensor,
            channel=f"words/{name}",
            quantity=name,
            kind=ReadingKind.GAUGE,
            value=value,
            event_ns=0,
            boot_ns=0,
            node=node,
            loop="rack",
        )
        for name, value in values.items()
    ]


def looked(judged: Sequence[Reading]) -> LoopView:
    priors = loop_priors("dlc")[0]
    settings = LoopSettings(
        loop_id="rack",
        fluid="water",
        sensor_side="cold",
        priors=priors,
        reported_u_frac=0.05,
        rejection_capacity_w=None,
    )
    usable = [r for r in judged if plausible.is_admitted(r)]
    tick = Pass(judged=judged, usable=usable, steps={}, hosts={}, mirrored=(), boot_ns=0)
    look = LoopLook(settings, is_first=True)
    return look.view(tick, look.power(tick))


RIGHT = read("redfish", {STREAM: 0.5, HOT: 45.0, COLD: 40.0})
SHIFTED = read("modbus", {STREAM: 45.0, HOT: 40.0, COLD: 20.0})


@pytest.mark.parametrize("order", [1, -1])
def test_a_shifted_map_loses_its_flow_and_spoils_no_heat(order: int) -> None:
    refused = replace(SHIFTED[0], flags=(plausible.BEYOND_SITE,))
    # The shifted pair states its doubt, the right one does not.
    pair = [replace(r, u=0.01) for r in SHIFTED[1:]]
    # What else it says is from the same wrong places.
    judged = [*RIGHT, refused, *pair, *read("modbus", {"reported_heat_w": 9e3})]
    alone, found = looked(RIGHT), looked(judged[::order])
    assert found.computed == alone.computed is not None
    assert (found.hot_c, found.cold_c, found.reported_heat_w) == (45.0, 40.0, None)


def test_pieces_of_two_sensors_are_twice_as_doubtful_and_say_so() -> None:
    pieces = [*RIGHT[:2], *read("other", {HOT: 45.0, COLD: 40.0})[1:]]
    alone, found = looked(RIGHT).computed, looked(pieces).computed
    assert alone is not None and found is not None
    assert (found.value, found.flags) == (alone.value, (MIXED_SENSORS,))
    assert found.u == pytest.approx(2 * alone.u, rel=0.05)
    fused = looked(pieces).fused
    assert fused is not None and MIXED_SENSORS in fused.flags


def test_a_sum_of_meters_is_no_slip_of_units() -> None:
    heat_w = looked(RIGHT).computed
    assert heat_w is not None
    priors = loop_priors("dlc")[0]
    watts = 3.6 * heat_w.value / priors.capture_frac
    one = read("a", {"power_w": watts}, Node.SITE_METER)
    # Their own doubts keep the halves apart: they are two things.
    two = [*read("a", {"power_w": 0.7 * watts}, Node.SITE_METER)]
    two += read("b", {"power_w": 0.3 * watts}, Node.SITE_METER)
    slips = [
        {d.pair: d.slip for d in looked([*RIGHT, *meters]).disagreements} for meters in (one, two)
    ]
    assert slips == [{"computed_vs_electric": 3.6}, {"computed_vs_electric": None}]


def test_a_leak_that_a_board_tells_without_a_loop_reaches_the_interlock() -> None:
    told = replace(RIGHT[0], quantity="leak", kind=ReadingKind.STATE, value=1.0, loop="")
    leak = looked([*RIGHT, told]).safety.leak
    assert leak is not None and leak.value == 1.0


def test_a_detector_read_twice_a_minute_is_as_old_as_the_tick() -> None:
    told = replace(
        RIGHT[0], quantity="leak", kind=ReadingKind.STATE, value=0.0, boot_ns=-20 * 10**9
    )
    leak = looked([told]).safety.leak
    assert leak is not None and (leak.value, leak.boot_ns) == (0.0, 0)
