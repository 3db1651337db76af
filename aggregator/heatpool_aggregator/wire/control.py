"""Messages of the control stream: setpoints and heartbeats down, their states up."""

from dataclasses import dataclass
from math import isfinite

from google.protobuf.message import DecodeError

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport, SetpointState
from heatpool.v1 import control_pb2 as pb

SERVICE = "heatpool.v1.ControlService"
DETAIL_LIMIT = 500  # signs of a reason for people
SEQ_LIMIT = 2**62  # numbers are ns since 1970; this is beyond all that will be given
SITES_LIMIT = 1_000  # of one stream, as on the telemetry stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlHello:
    """Sites that listen on this stream."""

    site_ids: tuple[SiteId, ...]
    sent_ns: int


def request_from_bytes(data: bytes) -> ControlHello | SetpointReport:
    """What came up.

    Raises:
        WireError: these bytes are no message, or name a state that does not exist.
    """
    try:
        request = pb.ControlServiceStreamRequest.FromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are not a message: {error}") from error
    if request.WhichOneof("message") == "hello":
        return _hello(request.hello)
    if request.WhichOneof("message") == "state":
        return _report(request.state)
    raise WireError("a message holds neither hello nor state")


def _hello(hello: pb.ControlHello) -> ControlHello:
    if not 1 <= len(hello.site_ids) <= SITES_LIMIT:
        raise WireError(f"hello names {len(hello.site_ids)} sites, allowed is 1 to {SITES_LIMIT}")
    return ControlHello(
        site_ids=tuple(SiteId(site_id) for site_id in hello.site_ids), sent_ns=hello.sent_ns
    )


def _report(report: pb.SetpointStateReport) -> SetpointReport:
    try:
        state = SetpointState(report.state)
    except ValueError as error:
        raise WireError(f"setpoint state {report.state} does not exist") from error
    has_applied = report.HasField("applied_heat_rate_w")
    if has_applied and not isfinite(report.applied_heat_rate_w):
        raise WireError("applied_heat_rate_w is no number")
    if report.setpoint_seq > SEQ_LIMIT:
        raise WireError(f"setpoint_seq {report.setpoint_seq} was never given to any site")
    return SetpointReport(
        site_id=SiteId(report.site_id),
        setpoint_seq=report.setpoint_seq,
        state=state,
        event_ns=report.event_ns,
        applied_heat_rate_w=report.applied_heat_rate_w if has_applied else None,
        detail=report.detail[:DETAIL_LIMIT],
    )


def report_to_bytes(report: SetpointReport) -> bytes:
    """A state as the site would send it: what the aggregator itself records of a setpoint."""
    return pb.ControlServiceStreamRequest(
        state=pb.SetpointStateReport(
            site_id=report.site_id,
            setpoint_seq=report.setpoint_seq,
            state=pb.SetpointState.ValueType(int(report.state)),
            event_ns=report.event_ns,
            applied_heat_rate_w=report.applied_heat_rate_w,
            detail=report.detail,
        )
    ).SerializeToString()


def setpoint_to_bytes(setpoint: Setpoint) -> bytes:
    """A wished heat rate."""
    return pb.ControlServiceStreamResponse(
        setpoint=pb.Setpoint(
            setpoint_id=setpoint.setpoint_id,
            setpoint_seq=setpoint.setpoint_seq,
            plan_id=setpoint.plan_id,
            site_id=setpoint.site_id,
            loop_id=setpoint.loop_id,
            heat_rate_w=setpoint.heat_rate_w,
            heat_rate_lower_w=setpoint.heat_rate_lower_w,
            heat_rate_upper_w=setpoint.heat_rate_upper_w,
            hot_c=setpoint.hot_c,
            valid_from_ns=setpoint.valid_from_ns,
            lease_s=setpoint.lease_s,
            ramp_w_s=setpoint.ramp_w_s,
            priority=setpoint.priority,
            reason=setpoint.reason,
            dry_run=setpoint.dry_run,
        )
    ).SerializeToString()


def heartbeat_to_bytes(heartbeat: Heartbeat) -> bytes:
    """Renews the lease of what the site holds under this plan."""
    return pb.ControlServiceStreamResponse(
        heartbeat=pb.Heartbeat(plan_id=heartbeat.plan_id, server_ns=heartbeat.server_ns)
    ).SerializeToString()
