"""What nobody should say: frames that cannot be used, and messages that end a stream.

Frames have an identity, so the aggregator keeps, acknowledges and refuses them; the others have
none, or name what their sender may not.
"""

import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from heatpool.v1 import telemetry_pb2 as pb
from heatpool_sim.wire import up

STRANGER = "stranger-of-load"
_TOO_LARGE_BYTES = (1 << 20) + (1 << 16)  # beyond a batch, below a message
_BEYOND_GRPC_BYTES = (4 << 20) + 1_000
_BOMB_BYTES = 64 << 20
_ROWS_MOST = 1_000
_STEP_NS = 10**10
_TAG_TELEMETRY = b"\x12"

# seq, start_ns, sent_ns, number of channels -> one message
Frame = Callable[[int, int, int, int], bytes]


def _batch(seq: int, start_ns: int, sent_ns: int) -> pb.TelemetryBatch:
    return pb.TelemetryBatch(
        seq=seq,
        schema_id=up.SCHEMA_ID,
        start_ns=start_ns,
        step_ns=_STEP_NS,
        n_rows=1,
        sent_ns=sent_ns,
        codec=pb.PAYLOAD_CODEC_NONE,
    )


def _said(batch: pb.TelemetryBatch) -> bytes:
    return pb.TelemetryServiceStreamRequest(telemetry=batch).SerializeToString()


def _broken(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    """A field whose wire type does not exist, behind the number."""
    return up.around(_TAG_TELEMETRY, b"\x10" + up.varint(seq) + b"\x1f\xff\xff")


def _too_few(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    batch = _batch(seq, start_ns, sent_ns)
    batch.cells.extend([1] * (n_channels - 1))
    return _said(batch)


def _too_large(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    batch = _batch(seq, start_ns, sent_ns)
    batch.payload = b"\0" * _TOO_LARGE_BYTES
    return _said(batch)


def _wrong_schema(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    batch = _batch(seq, start_ns, sent_ns)
    batch.schema_id = up.SCHEMA_ID + 76
    batch.cells.extend([1] * n_channels)
    return _said(batch)


def _zip_bomb(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    batch = _batch(seq, start_ns, sent_ns)
    batch.n_rows = _ROWS_MOST
    batch.codec = pb.PAYLOAD_CODEC_ZLIB
    batch.payload = _bomb()
    return _said(batch)


def _absurd(seq: int, start_ns: int, sent_ns: int, n_channels: int) -> bytes:
    """Values far beyond anything that is."""
    batch = _batch(seq, start_ns, sent_ns)
    batch.cells.extend([2**60] * n_channels)
    return _said(batch)


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    return zlib.compress(bytes(_BOMB_BYTES), 9)


# Each with the reason for which it is refused.
FRAMES: Mapping[str, tuple[Frame, str]] = MappingProxyType(
    {
        "broken": (_broken, "malformed"),
        "too_few_cells": (_too_few, "malformed"),
        "too_large": (_too_large, "too_large"),
        "wrong_schema": (_wrong_schema, "unknown_schema"),
        "zip_bomb": (_zip_bomb, "malformed"),
        "absurd": (_absurd, "out_of_range"),
    }
)


def _nothing() -> bytes:
    return b""


def _noise() -> bytes:
    return bytes(range(255, 0, -1))


def _no_such_site() -> bytes:
    batch = _batch(1, 1, 1)
    batch.site_index = 7
    return _said(batch)


def _other_site() -> bytes:
    spool = pb.SpoolState(kind=pb.SPOOL_KIND_TELEMETRY, boot_id=STRANGER, first_seq=1, next_seq=1)
    hello = pb.Hello(
        wire_version=up.WIRE_VERSION,
        sites=[pb.HelloSite(site_id=STRANGER, spools=[spool])],
    )
    return pb.TelemetryServiceStreamRequest(hello=hello).SerializeToString()


def _beyond_grpc() -> bytes:
    batch = _batch(1, 1, 1)
    batch.payload = bytes(_BEYOND_GRPC_BYTES)
    return _said(batch)


# Each ends its stream.
ENDERS: Mapping[str, Callable[[], bytes]] = MappingProxyType(
    {
        "nothing": _nothing,
        "noise": _noise,
        "no_such_site": _no_such_site,
        "other_site": _other_site,
        "beyond_grpc": _beyond_grpc,
    }
)
