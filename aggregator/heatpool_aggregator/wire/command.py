"""Messages of the command service: orders, what became of them, and the audit log.

An unset field is absent, never zero.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from heatpool.errors import WireError
from heatpool.sample import SiteId
from heatpool.setpoint import SetpointState
from heatpool.v1 import command_pb2 as pb
from heatpool.v1 import control_pb2
from heatpool_aggregator.core.audit import AuditEntry
from heatpool_aggregator.core.orders import Ask, Commanded, Step

SERVICE = "heatpool.v1.CommandService"
LIMIT_DEFAULT, LIMIT_MOST = 100, 1_000

MessageT = TypeVar("MessageT", bound=Message)


def ask_to_bytes(ask: Ask) -> bytes:
    """An order."""
    return pb.SetSetpointRequest(
        site_id=ask.site_id,
        loop_id=ask.loop_id,
        heat_rate_w=ask.heat_rate_w,
        lease_s=ask.lease_s,
        hot_c=ask.hot_c,
        reason=ask.reason,
        dry_run=ask.dry_run,
        until_ns=ask.until_ns,
    ).SerializeToString()


def ask_from_bytes(data: bytes) -> Ask:
    """An order.

    Raises:
        WireError: these bytes are no such message.
    """
    request = _message(pb.SetSetpointRequest, data)
    return Ask(
        site_id=SiteId(request.site_id),
        loop_id=request.loop_id,
        heat_rate_w=request.heat_rate_w,
        lease_s=request.lease_s,
        hot_c=request.hot_c if request.HasField("hot_c") else None,
        reason=request.reason,
        dry_run=request.dry_run,
        until_ns=request.until_ns if request.HasField("until_ns") else None,
    )


def end_to_bytes(site_id: str, reason: str) -> bytes:
    """Takes a site's order back."""
    return pb.EndSetpointRequest(site_id=site_id, reason=reason).SerializeToString()


def end_from_bytes(data: bytes) -> tuple[SiteId, str]:
    """The site whose order is taken back, and why.

    Raises:
        WireError: these bytes are no such message.
    """
    request = _message(pb.EndSetpointRequest, data)
    return SiteId(request.site_id), request.reason


def set_to_bytes(row: Commanded) -> bytes:
    """Where a new order stands."""
    return pb.SetSetpointResponse(setpoint=_row(row)).SerializeToString()


def set_from_bytes(data: bytes) -> Commanded:
    """Where a new order stands.

    Raises:
        WireError: these bytes are no such message.
    """
    return _row_view(_message(pb.SetSetpointResponse, data).setpoint)


def ended_to_bytes(row: Commanded | None) -> bytes:
    """What was taken back; None: there was nothing."""
    return pb.EndSetpointResponse(setpoint=None if row is None else _row(row)).SerializeToString()


def ended_from_bytes(data: bytes) -> Commanded | None:
    """What was taken back; None: there was nothing.

    Raises:
        WireError: these bytes are no such message.
    """
    response = _message(pb.EndSetpointResponse, data)
    return _row_view(response.setpoint) if response.HasField("setpoint") else None


def list_to_bytes(site_id: str, limit: int) -> bytes:
    """Asks for orders; an empty id: of all sites, 0: the usual count."""
    return pb.ListSetpointsRequest(site_id=site_id, limit=limit).SerializeToString()


def list_from_bytes(data: bytes) -> tuple[SiteId, int]:
    """Whose orders, and how many at most.

    Raises:
        WireError: these bytes are no such message.
    """
    request = _message(pb.ListSetpointsRequest, data)
    return SiteId(request.site_id), _limit(request.limit)


def listed_to_bytes(rows: Iterable[Commanded]) -> bytes:
    """Orders, newest first."""
    return pb.ListSetpointsResponse(setpoints=[_row(row) for row in rows]).SerializeToString()


def listed_from_bytes(data: bytes) -> tuple[Commanded, ...]:
    """Orders, newest first.

    Raises:
        WireError: these bytes are no such message.
    """
    return tuple(_row_view(row) for row in _message(pb.ListSetpointsResponse, data).setpoints)


def audit_to_bytes(limit: int, before_number: int) -> bytes:
    """Asks for entries of the audit log."""
    request = pb.ListAuditRequest(limit=limit, before_number=before_number)
    return request.SerializeToString()


def audit_from_bytes(data: bytes) -> tuple[int, int]:
    """How many entries at most, and below which number; 0: from the newest.

    Raises:
        WireError: these bytes are no such message.
    """
    request = _message(pb.ListAuditRequest, data)
    if request.before_number >= 2**63:
        raise WireError(f"before_number is {request.before_number}, no entry has it")
    return _limit(request.limit), request.before_number


def entries_to_bytes(entries: Iterable[AuditEntry]) -> bytes:
    """Entries of the audit log, newest first."""
    return pb.ListAuditResponse(entries=[_entry(entry) for entry in entries]).SerializeToString()


def entries_from_bytes(data: bytes) -> tuple[AuditEntry, ...]:
    """Entries of the audit log, newest first.

    Raises:
        WireError: these bytes are no such message.
    """
    return tuple(
        AuditEntry(
            number=entry.number,
            at_ns=entry.at_ns,
            who=entry.who,
            action=entry.action,
            subject=entry.subject,
            reason=entry.reason,
            detail=entry.detail,
            chain_sha256=entry.chain_sha256,
        )
        for entry in _message(pb.ListAuditResponse, data).entries
    )


def _message(kind: type[MessageT], data: bytes) -> MessageT:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no {kind.DESCRIPTOR.name}: {error}") from error


def _limit(limit: int) -> int:
    return min(limit or LIMIT_DEFAULT, LIMIT_MOST)


def _state(state: SetpointState) -> control_pb2.SetpointState.ValueType:
    return control_pb2.SetpointState.ValueType(int(state))


def _entry(entry: AuditEntry) -> pb.AuditEntry:
    return pb.AuditEntry(
        number=entry.number,
        at_ns=entry.at_ns,
        who=entry.who,
        action=entry.action,
        subject=entry.subject,
        reason=entry.reason,
        detail=entry.detail,
        chain_sha256=entry.chain_sha256,
    )


def _row(row: Commanded) -> pb.CommandedSetpoint:
    newest = row.newest
    return pb.CommandedSetpoint(
        site_id=row.site_id,
        loop_id=row.loop_id,
        setpoint_seq=row.setpoint_seq,
        heat_rate_w=row.heat_rate_w,
        lease_s=row.lease_s,
        asked_by=row.asked_by,
        reason=row.reason,
        state=control_pb2.SETPOINT_STATE_UNSPECIFIED if newest is None else _state(newest.state),
        detail="" if newest is None else newest.detail,
        applied_heat_rate_w=row.applied_heat_rate_w,
        steps=[
            pb.SetpointStep(
                state=_state(step.state),
                event_ns=step.event_ns,
                received_ns=step.received_ns,
                detail=step.detail,
            )
            for step in row.steps
        ],
        dry_run=row.dry_run,
    )


def _row_view(row: pb.CommandedSetpoint) -> Commanded:
    applied = row.applied_heat_rate_w if row.HasField("applied_heat_rate_w") else None
    steps = _steps(row.steps)
    if steps and applied is not None:
        last = steps[-1]
        steps[-1] = Step(
            state=last.state,
            event_ns=last.event_ns,
            received_ns=last.received_ns,
            detail=last.detail,
            applied_heat_rate_w=applied,
        )
    return Commanded(
        site_id=SiteId(row.site_id),
        loop_id=row.loop_id,
        setpoint_seq=row.setpoint_seq,
        heat_rate_w=row.heat_rate_w,
        lease_s=row.lease_s,
        asked_by=row.asked_by,
        reason=row.reason,
        dry_run=row.dry_run,
        steps=tuple(steps),
    )


def _steps(steps: Sequence[pb.SetpointStep]) -> list[Step]:
    try:
        return [
            Step(
                state=SetpointState(step.state),
                event_ns=step.event_ns,
                received_ns=step.received_ns,
                detail=step.detail,
            )
            for step in steps
        ]
    except ValueError as error:
        raise WireError(f"a step names a state that does not exist: {error}") from error
