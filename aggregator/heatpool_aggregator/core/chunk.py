"""Columns of one frame: decoded for live state, and as the blob that history keeps.

The blob is msgpack of `[[loop_id, quantity, exponent], ...]` and the columns: those of
`heatpool.codec` as bytes, or a list with the cells as the varints that came over the wire.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from heatpool.codec import Columns, check, columns_from_bytes, columns_to_bytes, event_times_ns
from heatpool.errors import WireError
from heatpool.sample import Channel
from heatpool_aggregator.core.admission import EVENT_LIMIT_NS
from heatpool_aggregator.core.varints import ends_of, values_at, zigzag

_PAIR = b"\x92"  # msgpack: a list of two
# Making one is dearer than packing with it; history is written by one loop.
_PACKER = msgpack.Packer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one frame: times (n_rows,), values (n_channels, n_rows) with NaN for absent."""

    channels: tuple[Channel, ...]
    times_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def rows_from_columns(columns: Columns, channels: tuple[Channel, ...]) -> Rows:
    """Values in the units of their quantities, and event times.

    Raises:
        WireError: counts do not fit each other, or a time is not since 1970.
    """
    check(columns, len(channels))
    cells = np.array(columns.cells, dtype=np.int64).reshape(len(channels), columns.n_rows)
    values = cells.cumsum(axis=1).astype(np.float64)
    for place, channel in enumerate(channels):
        # Dividing by an exact power of ten gives the nearest float, as `codec.unpack` does.
        if channel.exponent < 0:
            values[place] /= 10.0**-channel.exponent
        else:
            values[place] *= 10.0**channel.exponent
    if columns.valid_bits:
        bits = np.unpackbits(np.frombuffer(columns.valid_bits, np.uint8), bitorder="little")
        values[bits[: values.size].reshape(values.shape) == 0] = np.nan
    return Rows(channels=channels, times_ns=_times_ns(columns), values=values)


def _times_ns(columns: Columns) -> NDArray[np.int64]:
    # In Python's integers first: a wild step would wrap around in int64 without a word.
    times_ns = event_times_ns(columns)
    if not 0 < min(times_ns) <= max(times_ns) < EVENT_LIMIT_NS:
        raise WireError(
            f"event times from {min(times_ns)} to {max(times_ns)} ns are not since 1970"
        )
    return np.array(times_ns, dtype=np.int64)


def chunk_to_bytes(columns: Columns, channels: Sequence[Channel]) -> bytes:
    """The blob of one frame."""
    names = [(channel.loop_id, channel.quantity, channel.exponent) for channel in channels]
    blob: bytes = msgpack.packb([names, columns_to_bytes(columns)])
    return blob


def chunk_from_bytes(blob: bytes) -> Rows:
    """The rows of one blob.

    Raises:
        WireError: this is no chunk.
    """
    try:
        names, packed = msgpack.unpackb(blob)
        channels = tuple(Channel(*name) for name in names)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"{len(blob)} bytes are not a chunk: {error}") from error
    if isinstance(packed, bytes):
        return rows_from_columns(columns_from_bytes(packed), channels)
    return rows_from_columns(_columns(packed), channels)


def chunk_of_varints(names: bytes, columns: tuple[object, ...]) -> bytes:
    """The blob of a frame whose cells stay the varints that they are; `names` is packed already.

    `columns` are the fields of `Columns` in their order, with varints as bytes for the cells.
    """
    packed: bytes = _PACKER.pack(columns)
    return _PAIR + names + packed


def _columns(fields: Any) -> Columns:
    try:
        schema_id, start_ns, step_ns, n_rows, packed, dt_ns, bits = fields
        data = np.frombuffer(packed, np.uint8)
        values, _ = values_at(data, ends_of(data))
        return Columns(
            schema_id=schema_id,
            start_ns=start_ns,
            step_ns=step_ns,
            n_rows=n_rows,
            cells=tuple(zigzag(values).tolist()),
            dt_ns=tuple(dt_ns),
            valid_bits=bits,
        )
    except (ValueError, TypeError) as error:
        raise WireError(f"a chunk of {type(fields).__name__} is none: {error}") from error
