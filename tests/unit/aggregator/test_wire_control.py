"""Messages of the control stream: what goes in comes out, nothing is invented."""

import pytest

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool.v1 import control_pb2
from heatpool_aggregator.wire import control

SETPOINT = Setpoint(
    setpoint_id="s",
    setpoint_seq=5,
    plan_id="p",
    site_id=SiteId("site-a"),
    heat_rate_w=2000.0,
    valid_from_ns=1,
    lease_s=60.0,
    reason="winter",
)


def test_a_setpoint_leaves_with_its_lease_and_without_invented_bounds() -> None:
    data = control.setpoint_to_bytes(SETPOINT)
    found = control_pb2.ControlServiceStreamResponse.FromString(data).setpoint
    assert (found.setpoint_seq, found.heat_rate_w, found.lease_s) == (5, 2000.0, 60.0)
    assert not any(found.HasField(name) for name in ("heat_rate_upper_w", "hot_c", "ramp_w_s"))


def test_a_heartbeat_names_its_plan() -> None:
    data = control.heartbeat_to_bytes(Heartbeat(plan_id="p", server_ns=3))
    found = control_pb2.ControlServiceStreamResponse.FromString(data).heartbeat
    assert (found.plan_id, found.server_ns) == ("p", 3)


@pytest.mark.parametrize("applied_heat_rate_w", [None, 0.0, 1500.0])
def test_a_report_comes_out_as_it_went_in(applied_heat_rate_w: float | None) -> None:
    report = SetpointReport(
        site_id=SiteId("site-a"),
        setpoint_seq=5,
        state=SetpointState.APPLIED,
        event_ns=9,
        applied_heat_rate_w=applied_heat_rate_w,
        detail="clamped",
    )
    assert control.request_from_bytes(control.report_to_bytes(report)) == report


def test_a_state_that_does_not_exist_is_refused() -> None:
    state = control_pb2.SetpointStateReport(site_id="a", setpoint_seq=1)
    data = control_pb2.ControlServiceStreamRequest(state=state).SerializeToString()
    with pytest.raises(WireError, match="state 0"):
        control.request_from_bytes(data)
