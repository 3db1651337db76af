"""The same law for what comes over the wire and lies in a spool: read, or refused as declared."""

import zlib
from collections.abc import Callable
from contextlib import suppress

from heatpool import codec
from heatpool.errors import WireError
from heatpool.v1 import telemetry_pb2
from heatpool_aggregator.core import orders
from heatpool_aggregator.wire import command, control, peek, query, registry, telemetry
from heatpool_aggregator.wire.bulk import bulk_from_bytes

NOW_NS = 1_750_000_000_000_000_000
# Between the parts of one input.
CUT = b"\n--\n"

_UPWARDS: tuple[Callable[[bytes], object], ...] = (
    telemetry.hello_from_bytes,
    telemetry.batch_from_bytes,
    telemetry.registers_from_bytes,
    telemetry.gap_from_bytes,
    peek.peek,
)


def stream_message(data: bytes) -> None:
    """What a site sends on its telemetry stream: read by one of its decoders, or refused."""
    for read in _UPWARDS:
        with suppress(WireError):
            read(data)
    assert 0 <= peek.content_crc32(data) < 2**32


def bulk_batches(data: bytes) -> None:
    """Batches of a commit mean together what each means alone, and none fails the others."""
    payloads = data.split(CUT)
    heads, cells = bulk_from_bytes(payloads)
    for payload, head in zip(payloads, heads, strict=True):
        if head is None:
            continue
        batch = telemetry.batch_from_bytes(payload)
        assert tuple(cells[head.first : head.last].tolist()) == batch.columns.cells
        assert (head.start_ns, head.n_rows) == (batch.columns.start_ns, batch.columns.n_rows)


def zlib_payload(data: bytes) -> None:
    """Any bytes as the packed cells of a batch, and what they are packed from."""
    for payload in (data, zlib.compress(data, 1), zlib.compress(data, 1)[:-1]):
        batch = telemetry_pb2.TelemetryBatch(
            seq=1, step_ns=1, n_rows=60, codec=telemetry_pb2.PAYLOAD_CODEC_ZLIB, payload=payload
        )
        bulk_batches(
            telemetry_pb2.TelemetryServiceStreamRequest(telemetry=batch).SerializeToString()
        )


_REQUESTS: tuple[Callable[[bytes], object], ...] = (
    control.request_from_bytes,
    command.ask_from_bytes,
    command.end_from_bytes,
    command.list_from_bytes,
    command.audit_from_bytes,
    query.statement_request_from_bytes,
    query.gaps_request_from_bytes,
    registry.renew_request_from_bytes,
)


def order_requests(data: bytes) -> None:
    """Requests of people and reports of sites: read and judged, or refused."""
    for read in _REQUESTS:
        with suppress(WireError):
            found = read(data)
            if isinstance(found, orders.Ask):
                orders.ask_mistake(found, now_ns=NOW_NS)


def spooled_frames(data: bytes) -> None:
    """What lies in a spool or a file of orders, however it was spoilt: read, or refused."""
    with suppress(WireError):
        columns = codec.columns_from_bytes(data)
        codec.check(columns, 1)
    with suppress(WireError):
        codec.registers_from_bytes(data)
