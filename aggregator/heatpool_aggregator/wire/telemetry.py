"""Messages of the telemetry stream: bytes -> values on the way up, values -> bytes on the way down.

Enum value 0 is refused on input; no number is guessed.
"""

import zlib
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import TypeVar

from google.protobuf.message import DecodeError

from heatpool.codec import CHANNELS_LIMIT, ROWS_LIMIT, Columns
from heatpool.errors import WireError
from heatpool.sample import (
    BootId,
    Channel,
    GapReason,
    LoopId,
    MeterId,
    MeteringPointId,
    RegisterReason,
    RegisterRow,
    Schema,
    SiteId,
    SpoolKind,
)
from heatpool.v1 import telemetry_pb2 as pb
from heatpool_aggregator.core.quotas import STEADY, Limits
from heatpool_aggregator.wire.messages import (
    BATCH_BYTES_LIMIT,
    UNACKED_LIMIT,
    Batch,
    DurableRange,
    Gap,
    Hello,
    HelloSite,
    Refusal,
    RefusedSchema,
    Registers,
    SpoolState,
)

SERVICE = "heatpool.v1.TelemetryService"
ID_LENGTH_LIMIT = 64
SITES_LIMIT = 1_000  # of one stream: a rack's gateway, not a fleet

# In one hello: what its handler reads one by one, while all other streams wait.
SCHEMAS_LIMIT, COLUMNS_LIMIT, LOOPS_LIMIT = 4_096, 65_536, 256
SPOOLS_LIMIT = len(SpoolKind)

# A varint has 10 bytes at most: what more comes out of a payload is a bomb.
CELL_BYTES_LIMIT = 10
CHANNELS_CACHED = 4_096
_CELLS_TAG = bytes([7 << 3 | 2])

EnumT = TypeVar("EnumT", bound=IntEnum)


def _request(data: bytes, kind: str) -> pb.TelemetryServiceStreamRequest:
    try:
        request = pb.TelemetryServiceStreamRequest.FromString(data)
    except DecodeError as error:
        raise WireError(f"{len(data)} bytes are not a message: {error}") from error
    if (found := request.WhichOneof("message")) != kind:
        raise WireError(f"a message holds {found or 'nothing'}, expected is {kind}")
    return request


def _known(kind: type[EnumT], number: int, name: str) -> EnumT:
    try:
        return kind(number)
    except ValueError as error:
        allowed = ", ".join(str(int(member)) for member in kind)
        raise WireError(f"{name} is {number}, allowed is {allowed}") from error


def _id(text: str, name: str) -> str:
    if not 0 < len(text) <= ID_LENGTH_LIMIT or not text.isprintable():
        allowed = f"1 to {ID_LENGTH_LIMIT} signs that can be printed"
        raise WireError(f"{name} is {text[:80]!r}, allowed is {allowed}")
    return text


def hello_from_bytes(data: bytes) -> Hello:
    """Who speaks.

    Raises:
        WireError: it is no hello, or names something that cannot be.
    """
    hello = _request(data, "hello").hello
    if not 1 <= len(hello.sites) <= SITES_LIMIT:
        raise WireError(f"hello names {len(hello.sites)} sites, allowed is 1 to {SITES_LIMIT}")
    _check_size(hello)
    sites = tuple(_site(site) for site in hello.sites)
    if len({site.site_id for site in sites}) < len(sites):
        raise WireError("hello names a site twice")
    return Hello(
        wire_version=hello.wire_version,
        agent_version=hello.agent_version,
        sites=sites,
        sent_ns=hello.sent_ns,
    )


def _check_size(hello: pb.Hello) -> None:
    """Refuses a hello that would take long to read; counts alone are looked at."""
    schemas = sum(len(site.schemas) for site in hello.sites)
    if schemas > SCHEMAS_LIMIT:
        raise WireError(f"hello names {schemas} schemas, allowed is {SCHEMAS_LIMIT}")
    columns = sum(len(schema.channels) for site in hello.sites for schema in site.schemas)
    if columns > COLUMNS_LIMIT:
        raise WireError(f"hello names {columns} channels, allowed is {COLUMNS_LIMIT}")
    for site in hello.sites:
        if len(site.spools) > SPOOLS_LIMIT or len(site.capability.loop_ids) > LOOPS_LIMIT:
            raise WireError(
                f"site {site.site_id[:ID_LENGTH_LIMIT]!r} names {len(site.spools)} spools and "
                f"{len(site.capability.loop_ids)} loops, allowed is {SPOOLS_LIMIT} and "
                f"{LOOPS_LIMIT}"
            )


def hellos_of_sites(data: bytes) -> list[bytes]:
    """The same hello with each of its sites alone, as that site's frame for the log."""
    request = _request(data, "hello")
    sites = list(request.hello.sites)
    del request.hello.sites[:]
    found = []
    for site in sites:
        request.hello.sites.append(site)
        found.append(request.SerializeToString())
        del request.hello.sites[:]
    return found


def _site(site: pb.HelloSite) -> HelloSite:
    spools = tuple(_spool(spool) for spool in site.spools)
    if len({spool.kind for spool in spools}) < len(spools):
        raise WireError(f"site {site.site_id!r} has two spools of one kind")
    has_capacity = site.capability.HasField("rejection_capacity_w")
    return HelloSite(
        site_id=SiteId(_id(site.site_id, "site_id")),
        spools=spools,
        schemas=tuple(_schema(schema) for schema in site.schemas),
        rejection_capacity_w=site.capability.rejection_capacity_w if has_capacity else None,
        loop_ids=tuple(LoopId(_id(one, "loop_id")) for one in site.capability.loop_ids),
    )


def _spool(spool: pb.SpoolState) -> SpoolState:
    return SpoolState(
        kind=_known(SpoolKind, spool.kind, "spool kind"),
        boot_id=BootId(_id(spool.boot_id, "boot_id")),
        first_seq=spool.first_seq,
        next_seq=spool.next_seq,
        boundary_seq=spool.boundary_seq,
    )


def _schema(schema: pb.Schema) -> Schema:
    return Schema(
        schema_id=schema.schema_id,
        boot_id=BootId(_id(schema.boot_id, "schema boot_id")),
        channels=tuple(_channel(c.loop_id, c.quantity, c.exponent) for c in schema.channels),
    )


# Sites name the same channels: one object of each is a third of what a site costs.
_channel = lru_cache(maxsize=CHANNELS_CACHED)(Channel)


def batch_from_bytes(data: bytes) -> Batch:
    """Rows of telemetry, as columns; whether their counts fit is `codec.check`'s to say.

    Raises:
        WireError: it is no batch, or packed in a way that is not spoken here.
    """
    batch = _request(data, "telemetry").telemetry
    return Batch(
        site_index=batch.site_index,
        seq=batch.seq,
        sent_ns=batch.sent_ns,
        columns=Columns(
            schema_id=batch.schema_id,
            start_ns=batch.start_ns,
            step_ns=batch.step_ns,
            n_rows=batch.n_rows,
            cells=_cells(batch),
            dt_ns=tuple(batch.dt_ns),
            valid_bits=batch.valid_bits,
        ),
    )


def _cells(batch: pb.TelemetryBatch) -> tuple[int, ...]:
    if batch.codec == pb.PAYLOAD_CODEC_NONE:
        return tuple(batch.cells)
    if batch.codec != pb.PAYLOAD_CODEC_ZLIB:
        raise WireError(f"codec {batch.codec} is not spoken here, send NONE (1) or ZLIB (2)")
    varints = _unpacked(batch)
    try:
        length = pb.Limits(batch_bytes=len(varints)).SerializeToString()[1:] or b"\0"
        return tuple(pb.TelemetryBatch.FromString(_CELLS_TAG + length + varints).cells)
    except DecodeError as error:
        raise WireError(f"payload of {len(varints)} bytes holds no cells: {error}") from error


def _unpacked(batch: pb.TelemetryBatch) -> bytes:
    """The payload, never longer than the rows of a batch can be."""
    if not 1 <= batch.n_rows <= ROWS_LIMIT:
        raise WireError(f"n_rows is {batch.n_rows}, allowed is 1 to {ROWS_LIMIT}")
    limit, unpacker = batch.n_rows * CHANNELS_LIMIT * CELL_BYTES_LIMIT, zlib.decompressobj()
    try:
        varints = unpacker.decompress(batch.payload, limit)
    except zlib.error as error:
        raise WireError(f"payload of {len(batch.payload)} bytes is not zlib: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise WireError(
            f"payload of {len(batch.payload)} bytes does not end where its rows end, after "
            f"{limit} bytes at most"
        )
    return varints


def registers_from_bytes(data: bytes) -> Registers:
    """Rows of meters' registers.

    Raises:
        WireError: it is no such batch, or a row has no reason.
    """
    batch = _request(data, "registers").registers
    return Registers(
        site_index=batch.site_index,
        seq=batch.seq,
        sent_ns=batch.sent_ns,
        rows=tuple(_register(row) for row in batch.rows),
    )


def _register(row: pb.RegisterRow) -> RegisterRow:
    return RegisterRow(
        metering_point_id=MeteringPointId(row.metering_point_id),
        meter_id=MeterId(row.meter_id),
        event_ns=row.event_ns,
        raw=row.raw,
        exponent=row.exponent,
        modulus=row.modulus or None,
        reason=_known(RegisterReason, row.reason, "register reason"),
        meter_ns=row.meter_ns if row.HasField("meter_ns") else None,
        status_bits=row.status_bits,
        chain_sha256=row.chain_sha256,
    )


def gap_from_bytes(data: bytes) -> Gap:
    """Numbers that will never come.

    Raises:
        WireError: it is no gap, or ends before it starts.
    """
    gap = _request(data, "gap").gap
    if gap.last_seq < gap.first_seq:
        raise WireError(f"gap from {gap.first_seq} to {gap.last_seq} ends before it starts")
    return Gap(
        site_index=gap.site_index,
        boot_id=BootId(_id(gap.boot_id, "boot_id")),
        first_seq=gap.first_seq,
        last_seq=gap.last_seq,
        reason=_gap_reason(gap.reason),
        start_ns=gap.start_ns if gap.HasField("start_ns") else None,
        end_ns=gap.end_ns if gap.HasField("end_ns") else None,
    )


def _gap_reason(number: int) -> GapReason:
    # A newer agent's reason: its rows are gone all the same, and its stream must not end over it.
    return GapReason.DROPPED if number > max(GapReason) else _known(GapReason, number, "gap reason")


def _limits(limits: Limits) -> pb.Limits:
    message = pb.Limits(
        batch_rows_count=ROWS_LIMIT,
        batch_bytes=BATCH_BYTES_LIMIT,
        unacked_batches_count=UNACKED_LIMIT,
    )
    if limits.message_period_s is not None:
        message.message_period_s = limits.message_period_s
    if limits.backlog_bytes_s is not None:
        message.backlog_bytes_s = limits.backlog_bytes_s
    return message


def hello_reply_to_bytes(
    durable: Sequence[DurableRange],
    refused: Sequence[RefusedSchema],
    *,
    server_ns: int,
    limits: Limits = STEADY,
    retry_after_s: float | None = None,
) -> bytes:
    """The answer to hello: what is durable, what is not understood, the limits, or when again."""
    return pb.TelemetryServiceStreamResponse(
        hello_reply=pb.HelloReply(
            durable=[
                pb.DurableRange(
                    site_index=known.site_index,
                    boot_id=known.boot_id,
                    first_seq=known.first_seq,
                    last_seq=known.last_seq,
                )
                for known in durable
            ],
            refused_schemas=[
                pb.RefusedSchema(
                    site_index=schema.site_index,
                    schema_id=schema.schema_id,
                    reason=schema.reason,
                )
                for schema in refused
            ],
            server_ns=server_ns,
            limits=_limits(limits),
            retry_after_s=retry_after_s,
            codecs=[pb.PAYLOAD_CODEC_NONE, pb.PAYLOAD_CODEC_ZLIB],
        )
    ).SerializeToString()


def refused_in_ack(refused: Sequence[tuple[int, Refusal]]) -> list[bytes]:
    """Each refusal, with the index of its site in this stream, as a field of an Ack."""
    return [
        pb.Ack(refused=[_refused(index, refusal)]).SerializeToString() for index, refusal in refused
    ]


def later_in_ack(retry_after_s: float) -> bytes:
    """When to send again, s, as a field of an Ack."""
    return pb.Ack(retry_after_s=retry_after_s).SerializeToString()


def _refused(index: int, refusal: Refusal) -> pb.RefusedFrame:
    return pb.RefusedFrame(
        site_index=index,
        boot_id=refusal.boot_id,
        seq=refusal.seq,
        reason=pb.RefusedReason.ValueType(int(refusal.reason)),
        detail=refusal.detail,
    )


def resend_to_bytes(wanted: DurableRange) -> bytes:
    """Asks for a range again."""
    return pb.TelemetryServiceStreamResponse(
        resend=pb.Resend(
            site_index=wanted.site_index,
            boot_id=wanted.boot_id,
            first_seq=wanted.first_seq,
            last_seq=wanted.last_seq,
        )
    ).SerializeToString()


def slow_to_bytes(limits: Limits) -> bytes:
    """The limits that a stream is to keep from now on."""
    return pb.TelemetryServiceStreamResponse(
        slow=pb.Slow(limits=_limits(limits))
    ).SerializeToString()
