"""What a light agent says on the telemetry stream, as bytes.

Batches are put together by hand around a prepared body, since thousands of agents share one
processor; a hello is rare, and made by protobuf.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heatpool.codec import Columns
from heatpool.sample import Channel, SpoolKind
from heatpool.v1 import telemetry_pb2 as pb

METHOD = "/heatpool.v1.TelemetryService/Stream"
WIRE_VERSION = 1
SCHEMA_ID = 1
VERSION = "load"
ZLIB_ROWS_LEAST = 60  # below, what zlib saves is less than what it adds
ZLIB_LEVEL = 1

_TELEMETRY, _REGISTERS = b"\x12", b"\x1a"  # of the request
_ROW = b"\x1a"  # of a batch of registers
_SEQ = b"\x10"  # field 2 of both batches
_SCHEMA = bytes([3 << 3, SCHEMA_ID])
_START, _SENT_TELEMETRY, _SENT_REGISTERS = b"\x20", b"\x50", b"\x20"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """State of one queue of a site, as hello says it."""

    kind: SpoolKind
    boot_id: str
    first_seq: int
    next_seq: int
    boundary_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of a heat meter's register, Wh."""

    metering_point_id: str
    meter_id: str
    event_ns: int
    raw_wh: int


def varint(value: int) -> bytes:
    """A number that is not negative, as protobuf writes it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def hello(site_id: str, spools: Sequence[Spool], channels: Sequence[Channel]) -> bytes:
    """Opens a stream for one site; its schema is of the first spool."""
    said = [
        pb.SpoolState(
            kind=pb.SpoolKind.ValueType(spool.kind),
            boot_id=spool.boot_id,
            first_seq=spool.first_seq,
            next_seq=spool.next_seq,
            boundary_seq=spool.boundary_seq,
        )
        for spool in spools
    ]
    columns = [
        pb.Channel(loop_id=one.loop_id, quantity=one.quantity, exponent=one.exponent)
        for one in channels
    ]
    schema = pb.Schema(schema_id=SCHEMA_ID, boot_id=spools[0].boot_id, channels=columns)
    message = pb.Hello(
        wire_version=WIRE_VERSION,
        agent_version=VERSION,
        sites=[pb.HelloSite(site_id=site_id, spools=said, schemas=[schema])],
        codecs=[pb.PAYLOAD_CODEC_NONE, pb.PAYLOAD_CODEC_ZLIB],
        sent_ns=time.time_ns(),
    )
    return pb.TelemetryServiceStreamRequest(hello=message).SerializeToString()


def body(columns: Columns, *, is_packed: bool) -> bytes:
    """Everything of a telemetry batch that does not change with site, number and time."""
    message = pb.TelemetryBatch(
        step_ns=columns.step_ns,
        n_rows=columns.n_rows,
        cells=columns.cells,
        dt_ns=columns.dt_ns,
        valid_bits=columns.valid_bits,
        codec=pb.PAYLOAD_CODEC_NONE,
    )
    if is_packed:
        message.payload = zlib.compress(cells_of(columns.cells), ZLIB_LEVEL)
        message.codec = pb.PAYLOAD_CODEC_ZLIB
        del message.cells[:]
    return message.SerializeToString()


def cells_of(cells: Sequence[int]) -> bytes:
    """The varints of these cells, without the field around them."""
    packed = pb.TelemetryBatch(cells=cells).SerializeToString()
    # One byte of tag, then the length: its last byte has no bit that says "more".
    head = 2
    while packed[head - 1] & 0x80:
        head += 1
    return packed[head:]


def telemetry(seq: int, prepared: bytes, *, start_ns: int, sent_ns: int) -> bytes:
    """A batch of site 0 around a prepared body; the order of its fields is free."""
    return around(
        _TELEMETRY,
        _SEQ
        + varint(seq)
        + _SCHEMA
        + _START
        + varint(start_ns)
        + prepared
        + _SENT_TELEMETRY
        + varint(sent_ns),
    )


def registers(seq: int, readings: Sequence[Reading], *, sent_ns: int) -> bytes:
    """Readings of site 0's meters."""
    rows = b"".join(_rows(readings))
    return around(_REGISTERS, _SEQ + varint(seq) + rows + _SENT_REGISTERS + varint(sent_ns))


def _rows(readings: Sequence[Reading]) -> Iterator[bytes]:
    for one in readings:
        row = pb.RegisterRow(
            metering_point_id=one.metering_point_id,
            meter_id=one.meter_id,
            event_ns=one.event_ns,
            raw=one.raw_wh,
            reason=pb.REGISTER_REASON_PERIODIC,
        ).SerializeToString()
        yield around(_ROW, row)


def gap(boot_id: str, first_seq: int, last_seq: int) -> bytes:
    """Frames of site 0 that were dropped for room and will never come."""
    message = pb.Gap(
        boot_id=boot_id,
        first_seq=first_seq,
        last_seq=last_seq,
        reason=pb.GAP_REASON_DROPPED,
    )
    return pb.TelemetryServiceStreamRequest(gap=message).SerializeToString()


def around(tag: bytes, inner: bytes) -> bytes:
    """A length-delimited field."""
    return tag + varint(len(inner)) + inner
