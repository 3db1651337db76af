"""Contract values <-> protobuf messages of the agent; nothing else imports the message stubs."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from heatpool.codec import columns_from_bytes, registers_from_bytes
from heatpool.errors import WireError
from heatpool.sample import BootId, RegisterRow, Schema, SiteId, SpoolKind
from heatpool.setpoint import Heartbeat, Setpoint, SetpointReport
from heatpool.v1 import control_pb2, telemetry_pb2
from heatpool_agent.core.line import boundary_of
from heatpool_agent.ports import (
    Durable,
    Lane,
    LineLimits,
    Resend,
    Sent,
    Seq,
    Speaker,
    SpoolFrame,
    SpoolLoss,
    SpoolMark,
)

WIRE_VERSION = 1
TELEMETRY_METHOD = "/heatpool.v1.TelemetryService/Stream"
CONTROL_METHOD = "/heatpool.v1.ControlService/Stream"
# One agent speaks for one site; a gateway for several would number them in Hello.
SITE_INDEX = 0

M = TypeVar("M", bound=Message)


# No word of the other end may silence a site for longer.
SPAN_MOST_S = 3_600.0
# What a message costs on the line beside itself: gRPC's prefix and the head of an HTTP/2 frame.
FRAMING_BYTES = 5 + 9
# Below, what zlib saves is less than what it adds.
ZLIB_ROWS_LEAST = 60
ZLIB_LEVEL = 1
_LANES = {telemetry_pb2.LANE_LIVE: Lane.LIVE, telemetry_pb2.LANE_BACKLOG: Lane.BACKLOG}


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloAnswer:
    """What the aggregator knows of this site, how much it wants at a time, and when."""

    durable: tuple[Durable, ...]
    limits: LineLimits
    reads_zlib: bool
    wait_s: float | None
    refused_schemas: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneMark:
    """Watermarks of one lane of a queue; no lane: of the whole queue, as older ones say it."""

    boot_id: BootId
    lane: Lane | None
    received_seq: Seq
    durable_seq: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class AckAnswer:
    """What became durable, and what is kept aside because it cannot be used."""

    marks: tuple[LaneMark, ...]
    refused: tuple[str, ...]
    wait_s: float | None


def hello(speaker: Speaker, *, agent_version: str, sent_ns: int) -> bytes:
    """The message that opens a telemetry stream."""
    site = telemetry_pb2.HelloSite(
        site_id=speaker.site_id,
        spools=[_spool_state(mark) for mark in speaker.marks],
        schemas=[_schema(schema) for schema in speaker.schemas],
        capability=telemetry_pb2.SiteCapability(
            rejection_capacity_w=speaker.rejection_capacity_w, loop_ids=speaker.loop_ids
        ),
    )
    message = telemetry_pb2.Hello(
        wire_version=WIRE_VERSION,
        agent_version=agent_version,
        sites=[site],
        codecs=[telemetry_pb2.PAYLOAD_CODEC_NONE, telemetry_pb2.PAYLOAD_CODEC_ZLIB],
        sent_ns=sent_ns,
    )
    return telemetry_pb2.TelemetryServiceStreamRequest(hello=message).SerializeToString()


def _spool_state(mark: SpoolMark) -> telemetry_pb2.SpoolState:
    return telemetry_pb2.SpoolState(
        kind=telemetry_pb2.SpoolKind.ValueType(mark.kind),
        boot_id=mark.boot_id,
        first_seq=mark.first_seq,
        next_seq=mark.next_seq,
        boundary_seq=boundary_of(mark.kind, first_seq=mark.first_seq, next_seq=mark.next_seq),
    )


def _schema(schema: Schema) -> telemetry_pb2.Schema:
    channels = [
        telemetry_pb2.Channel(
            loop_id=channel.loop_id, quantity=channel.quantity, exponent=channel.exponent
        )
        for channel in schema.channels
    ]
    return telemetry_pb2.Schema(
        schema_id=schema.schema_id, boot_id=schema.boot_id, channels=channels
    )


def batch(
    frame: SpoolFrame, *, sent_ns: int, reads_zlib: bool = False, most_bytes: int | None = None
) -> tuple[bytes, Sent]:
    """One spooled frame as a message of the telemetry stream, and what it takes along.

    It is packed where the other end reads zlib and that saves bytes, or must.

    Raises:
        WireError: the spool holds bytes that are no frame, or figures that the message cannot hold.
    """
    try:
        request = _request(frame, sent_ns)
        n_rows = request.telemetry.n_rows
        data = request.SerializeToString()
        is_large = most_bytes is not None and len(data) > most_bytes
        if reads_zlib and request.telemetry.cells and (n_rows >= ZLIB_ROWS_LEAST or is_large):
            _pack(request.telemetry)
            data = min(data, request.SerializeToString(), key=len)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"frame {frame.seq} does not fit its message: {error}") from error
    size_bytes = len(data) + FRAMING_BYTES
    return data, Sent(size_bytes=size_bytes, rows_count=n_rows or len(request.registers.rows))


def _pack(message: telemetry_pb2.TelemetryBatch) -> None:
    """Moves the cells into the payload: their varints as protobuf packs them, then zlib."""
    packed = telemetry_pb2.TelemetryBatch(cells=message.cells).SerializeToString()
    # One byte of tag, then the length: its last byte has no bit that says "more".
    head = 2
    while packed[head - 1] & 0x80:
        head += 1
    del message.cells[:]
    message.codec = telemetry_pb2.PAYLOAD_CODEC_ZLIB
    message.payload = zlib.compress(packed[head:], ZLIB_LEVEL)


def _request(frame: SpoolFrame, sent_ns: int) -> telemetry_pb2.TelemetryServiceStreamRequest:
    request = telemetry_pb2.TelemetryServiceStreamRequest()
    if frame.kind is SpoolKind.TELEMETRY:
        _fill_columns(request.telemetry, frame, sent_ns)
    else:
        rows = [_register(row) for row in registers_from_bytes(frame.payload)]
        request.registers.site_index = SITE_INDEX
        request.registers.seq = frame.seq
        request.registers.rows.extend(rows)
        request.registers.sent_ns = sent_ns
    return request


def _fill_columns(message: telemetry_pb2.TelemetryBatch, frame: SpoolFrame, sent_ns: int) -> None:
    columns = columns_from_bytes(frame.payload)
    message.site_index = SITE_INDEX
    message.seq = frame.seq
    message.schema_id = columns.schema_id
    message.start_ns = columns.start_ns
    message.step_ns = columns.step_ns
    message.n_rows = columns.n_rows
    message.cells.extend(columns.cells)
    message.dt_ns.extend(columns.dt_ns)
    message.valid_bits = columns.valid_bits
    message.sent_ns = sent_ns
    message.codec = telemetry_pb2.PAYLOAD_CODEC_NONE


def _register(row: RegisterRow) -> telemetry_pb2.RegisterRow:
    return telemetry_pb2.RegisterRow(
        metering_point_id=row.metering_point_id,
        meter_id=row.meter_id,
        event_ns=row.event_ns,
        meter_ns=row.meter_ns,
        raw=row.raw,
        exponent=row.exponent,
        modulus=row.modulus or 0,
        status_bits=row.status_bits,
        reason=telemetry_pb2.RegisterReason.ValueType(row.reason),
        chain_sha256=row.chain_sha256,
    )


def gap(loss: SpoolLoss) -> bytes:
    """Rows that will never come, as a message of the telemetry stream."""
    message = telemetry_pb2.Gap(
        site_index=SITE_INDEX,
        boot_id=loss.boot_id,
        first_seq=loss.first_seq,
        last_seq=loss.last_seq,
        start_ns=loss.start_ns,
        end_ns=loss.end_ns,
        reason=telemetry_pb2.GapReason.ValueType(loss.reason),
    )
    return telemetry_pb2.TelemetryServiceStreamRequest(gap=message).SerializeToString()


def answer(data: bytes) -> HelloAnswer | AckAnswer | Resend | LineLimits | None:
    """What came down the telemetry stream; None for what this version does not act on.

    Raises:
        WireError: not a message of this stream.
    """
    response = _parsed(data, telemetry_pb2.TelemetryServiceStreamResponse.FromString)
    which = response.WhichOneof("message")
    if which == "hello_reply":
        return _hello_answer(response.hello_reply)
    if which == "ack":
        return _ack_answer(response.ack)
    if which == "resend":
        wish = response.resend
        return Resend(
            boot_id=BootId(wish.boot_id),
            first_seq=Seq(wish.first_seq),
            last_seq=Seq(wish.last_seq),
        )
    if which == "slow":
        return _limits(response.slow.limits)
    return None


def _hello_answer(reply: telemetry_pb2.HelloReply) -> HelloAnswer:
    return HelloAnswer(
        durable=tuple(
            Durable(
                boot_id=BootId(known.boot_id),
                first_seq=Seq(known.first_seq),
                last_seq=Seq(known.last_seq),
            )
            for known in reply.durable
            if 0 < known.first_seq <= known.last_seq
        ),
        limits=_limits(reply.limits),
        reads_zlib=telemetry_pb2.PAYLOAD_CODEC_ZLIB in reply.codecs,
        wait_s=_span_s(reply.retry_after_s) if reply.HasField("retry_after_s") else None,
        refused_schemas=tuple(
            f"schema {refused.schema_id}: {refused.reason}" for refused in reply.refused_schemas
        ),
    )


def _limits(limits: telemetry_pb2.Limits) -> LineLimits:
    """Zero, as the absence of a limit, is none: nobody wants batches of no rows."""
    return LineLimits(
        batch_rows_count=limits.batch_rows_count or None,
        batch_bytes=limits.batch_bytes or None,
        unacked_count=limits.unacked_batches_count or None,
        report_period_s=_span_s(limits.report_period_s) or None,
        message_period_s=_span_s(limits.message_period_s) or None,
        backlog_bytes_s=_rate(limits.backlog_bytes_s)
        if limits.HasField("backlog_bytes_s")
        else None,
    )


def _span_s(told_s: float) -> float:
    """A length of time that somebody else named, s: never longer than one can wait for."""
    return min(told_s, SPAN_MOST_S) if told_s > 0 else 0.0


def _rate(told_bytes_s: float) -> float | None:
    return told_bytes_s if isfinite(told_bytes_s) and told_bytes_s >= 0 else None


def _ack_answer(ack: telemetry_pb2.Ack) -> AckAnswer:
    return AckAnswer(
        marks=tuple(
            LaneMark(
                boot_id=BootId(acked.boot_id),
                lane=_LANES.get(acked.lane),
                received_seq=Seq(max(acked.received_seq, acked.durable_seq)),
                durable_seq=Seq(acked.durable_seq),
            )
            for acked in ack.spools
        ),
        refused=tuple(
            f"{refused.boot_id}/{refused.seq}: {_refused_reason(refused.reason)} {refused.detail}"
            for refused in ack.refused
        ),
        wait_s=_span_s(ack.retry_after_s) if ack.HasField("retry_after_s") else None,
    )


def _refused_reason(reason: int) -> str:
    """Its name; a reason that only a newer aggregator knows is shown as its number."""
    known = telemetry_pb2.RefusedReason.DESCRIPTOR.values_by_number.get(reason)
    return known.name if known else f"reason {reason}"


def control_hello(site_ids: Sequence[SiteId], *, sent_ns: int) -> bytes:
    """The message that opens a control stream."""
    message = control_pb2.ControlHello(site_ids=site_ids, sent_ns=sent_ns)
    return control_pb2.ControlServiceStreamRequest(hello=message).SerializeToString()


def setpoint_report(report: SetpointReport) -> bytes:
    """What became of a setpoint, as a message of the control stream."""
    message = control_pb2.SetpointStateReport(
        site_id=report.site_id,
        setpoint_seq=report.setpoint_seq,
        state=control_pb2.SetpointState.ValueType(report.state),
        event_ns=report.event_ns,
        applied_heat_rate_w=report.applied_heat_rate_w,
        detail=report.detail,
    )
    return control_pb2.ControlServiceStreamRequest(state=message).SerializeToString()


def wish(data: bytes) -> Setpoint | Heartbeat | None:
    """What came down the control stream; None for what this version does not know.

    Raises:
        WireError: not a message of this stream.
    """
    response = _parsed(data, control_pb2.ControlServiceStreamResponse.FromString)
    which = response.WhichOneof("message")
    if which == "setpoint":
        return _setpoint(response.setpoint)
    if which == "heartbeat":
        beat = response.heartbeat
        return Heartbeat(plan_id=beat.plan_id, server_ns=beat.server_ns)
    return None


def _setpoint(message: control_pb2.Setpoint) -> Setpoint:
    return Setpoint(
        setpoint_id=message.setpoint_id,
        setpoint_seq=message.setpoint_seq,
        plan_id=message.plan_id,
        site_id=SiteId(message.site_id),
        loop_id=message.loop_id,
        heat_rate_w=message.heat_rate_w,
        heat_rate_lower_w=_optional(message, "heat_rate_lower_w"),
        heat_rate_upper_w=_optional(message, "heat_rate_upper_w"),
        hot_c=_optional(message, "hot_c"),
        valid_from_ns=message.valid_from_ns,
        lease_s=message.lease_s,
        ramp_w_s=_optional(message, "ramp_w_s"),
        priority=message.priority,
        reason=message.reason,
        dry_run=message.dry_run,
    )


def _optional(message: control_pb2.Setpoint, name: str) -> float | None:
    value: float | None = getattr(message, name) if message.HasField(name) else None  # type: ignore[arg-type]
    return value


def _parsed(data: bytes, parse: Callable[[bytes], M]) -> M:
    try:
        return parse(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no message of this stream: {error}") from error
