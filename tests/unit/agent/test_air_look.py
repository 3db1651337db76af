"""A loop that no sensor can look into: electric power is its heat, and no more is loaded."""

import subprocess
import sys

import pytest

from heatpool.sample import SiteId
from heatpool_agent.assembly import SystemClock, loop_settings
from heatpool_agent.board import Board
from heatpool_agent.config import Config, Loop
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.loops.air_look import AirLook, look_of
from heatpool_agent.loops.heat_look import HeatLook
from heatpool_agent.loops.sense import Sense

CDU = ({"id": "cdu", "kind": "modbus"},)


def test_all_power_of_a_site_without_a_loop_leaves_with_the_air() -> None:
    board = Board(site_id=SiteId("s"))
    sense = Sense(
        loop_settings(Config()),
        board,
        SystemClock(),
        spooling=None,
        period_s=1.0,
        report_period_s=10.0,
    )
    board.latest["pdu"] = (
        Reading(
            sensor="pdu",
            channel="total",
            quantity="power_w",
            kind=ReadingKind.GAUGE,
            value=2_000.0,
            event_ns=0,
            boot_ns=0,
            node=Node.PDU,
        ),
    )
    sense.tick(0, 0)
    (view,) = board.loops
    assert view.air == view.fused == view.electric
    assert view.fused is not None and view.fused.value == pytest.approx(2_000.0)
    assert (view.phase, view.capture, view.faults, view.has_coolant) == ("air", None, (), False)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (Config(), AirLook),
        (Config(loop=(Loop(id="rack"),)), AirLook),
        (Config(loop=(Loop(id="rack"),), sensor=({"id": "a", "kind": "rapl"},)), AirLook),
        (Config(sensor=({"id": "a", "kind": "modbus"},)), AirLook),
        # A loop that is named may have pipes, whatever its name and its cooling.
        (Config(loop=(Loop(id="site", cooling="air"),), sensor=CDU), HeatLook),
        (Config(loop=(Loop(id="rack"),), sensor=({"id": "a", "kind": "rapl"}, *CDU)), HeatLook),
    ],
)
def test_a_loop_has_pipes_where_a_sensor_may_see_coolant(config: Config, kind: type) -> None:
    (loop,) = loop_settings(config)
    assert isinstance(look_of(loop, saved=None, boot_id=""), kind)


def test_an_agent_loads_no_filter_before_it_has_a_loop() -> None:
    code = "import sys, heatpool_agent.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("heatpool_agent.core.") for name in done.stdout.split()}
    assert "loop_told" in loaded
    assert not loaded & {"kalman", "residual", "loop_estimator", "statistics"}
