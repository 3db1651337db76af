"""What the aggregator says on the telemetry stream, as plain values."""

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from heatpool.errors import WireError
from heatpool.v1 import telemetry_pb2 as pb

Range = tuple[int, int]  # first and last number, both included


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a stream is to keep; None is no limit of the aggregator's."""

    batch_rows: int | None = None
    unacked_batches: int | None = None
    message_period_s: float | None = None
    backlog_bytes_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReply:
    """Durable ranges by boot id, and what the stream is to keep."""

    durable: dict[str, list[Range]]
    limits: Limits
    reads_zlib: bool
    retry_after_s: float | None
    refused_schemas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a lane of a spool is durable."""

    boot_id: str
    is_backlog: bool
    durable_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A frame that was kept aside."""

    boot_id: str
    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What became durable, and what was kept aside."""

    marks: tuple[Mark, ...]
    refused: tuple[Refusal, ...]
    retry_after_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resend:
    """A range that is asked for again."""

    boot_id: str
    first_seq: int
    last_seq: int


Said = HelloReply | Ack | Resend | Limits | None


def said(data: bytes) -> Said:
    """What came down; None for a message of a later version.

    Raises:
        WireError: it is no message of this stream.
    """
    try:
        response = pb.TelemetryServiceStreamResponse.FromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are no message of this stream: {error}") from error
    which = response.WhichOneof("message")
    if which == "ack":
        return _ack(response.ack)
    if which == "hello_reply":
        return _reply(response.hello_reply)
    if which == "resend":
        wish = response.resend
        return Resend(boot_id=wish.boot_id, first_seq=wish.first_seq, last_seq=wish.last_seq)
    if which == "slow":
        return _limits(response.slow.limits)
    return None


def _ack(ack: pb.Ack) -> Ack:
    marks = tuple(
        Mark(
            boot_id=one.boot_id,
            is_backlog=one.lane == pb.LANE_BACKLOG,
            durable_seq=one.durable_seq,
        )
        for one in ack.spools
    )
    refused = tuple(
        Refusal(boot_id=one.boot_id, seq=one.seq, reason=reason_of(one.reason))
        for one in ack.refused
    )
    wait_s = ack.retry_after_s if ack.HasField("retry_after_s") else None
    return Ack(marks=marks, refused=refused, retry_after_s=wait_s)


def reason_of(number: int) -> str:
    """A reason in small letters; one that only a later version knows, as its number."""
    known = pb.RefusedReason.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("REFUSED_REASON_").lower() if known else str(number)


def _reply(reply: pb.HelloReply) -> HelloReply:
    durable: dict[str, list[Range]] = {}
    for one in reply.durable:
        durable.setdefault(one.boot_id, []).append((one.first_seq, one.last_seq))
    return HelloReply(
        durable=durable,
        limits=_limits(reply.limits),
        reads_zlib=pb.PAYLOAD_CODEC_ZLIB in reply.codecs,
        retry_after_s=reply.retry_after_s if reply.HasField("retry_after_s") else None,
        refused_schemas=tuple(one.reason for one in reply.refused_schemas),
    )


def _limits(limits: pb.Limits) -> Limits:
    """Zero, as the absence of a limit, is none: nobody wants batches of no rows."""
    return Limits(
        batch_rows=limits.batch_rows_count or None,
        unacked_batches=limits.unacked_batches_count or None,
        message_period_s=limits.message_period_s or None,
        backlog_bytes_s=limits.backlog_bytes_s if limits.HasField("backlog_bytes_s") else None,
    )
