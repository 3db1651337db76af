"""Batches of telemetry of a whole commit at once: heads field by field for all, cells in one array.

What is not written as our agents write it is left to `telemetry.batch_from_bytes`: that decoder
says what is wrong with it, or reads it after all. So a frame means the same whoever reads it.
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from heatpool.codec import CHANNELS_LIMIT, ROWS_LIMIT
from heatpool_aggregator.core.varints import (
    LAST_BIT,
    LENGTH_LIMIT,
    Scattered,
    ends_of,
    signed_at,
    values_at,
)
from heatpool_aggregator.wire.telemetry import CELL_BYTES_LIMIT

TELEMETRY_TAG = 0x12
_SITE, _SCHEMA, _START, _STEP, _ROWS, _CELLS = 1, 3, 4, 5, 6, 7
_DT, _VALID, _SENT, _CODEC, _PAYLOAD = 8, 9, 10, 11, 12
_PACKED = (_CELLS, _DT, _VALID, _PAYLOAD)
_FIELDS_COUNT = 13
_NONE, _ZLIB = 1, 2
# Field of each tag that a batch may have, 0 for any other byte.
_FIELD_OF_TAG = np.zeros(256, np.int64)
for _field in range(1, _FIELDS_COUNT):
    _FIELD_OF_TAG[_field << 3 | (2 if _field in _PACKED else 0)] = _field
_BITS_32 = 2**32
# Longer steps are read one by one: sums of these stay far inside int64.
_DT_LIMIT_NS = 2**52
# Of all batches at once; those for which there is no room left are unpacked one by one.
UNPACKED_LIMIT = 16 << 20

Ints = NDArray[np.int64]


class Head(NamedTuple):
    """What a batch says beside its cells; times in ns. `packed` are the cells as varints.

    The first seven are the fields of `codec.Columns`, with varints for the cells. `end_ns` is the
    event time of the last row, which is the newest. `first` and `last` bound the cells in the array
    that they share with others.
    """

    schema_id: int
    start_ns: int
    step_ns: int
    n_rows: int
    packed: bytes
    dt_ns: tuple[int, ...]
    valid_bits: bytes
    end_ns: int
    sent_ns: int
    content_crc32: int
    first: int
    last: int


class Bulk(NamedTuple):
    """Batches of many frames: a head for each, None where it is to be read alone; all cells."""

    heads: list[Head | None]
    cells: Ints


def bulk_from_bytes(payloads: Sequence[bytes]) -> Bulk:
    """Heads and cells of messages; none of them is trusted, and none can fail the others."""
    fields = _Fields(payloads)
    fields.read()
    return _assembled(payloads, fields)


class _Fields:
    """Fields of all messages, read in step: the first of each, then the second of each.

    `values`, `tags`, `bodies`, `afters` are (n_fields, n_messages): a number, where its tag, its
    content and the next field begin. Field 0 holds what is not known.
    """

    def __init__(self, payloads: Sequence[bytes]) -> None:
        count = len(payloads)
        lengths = np.fromiter(map(len, payloads), np.int64, count)
        self._numbers = Scattered(b"".join(payloads))
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.is_odd = lengths == 0
        self.heads = np.zeros(count, np.int64)
        shape = (_FIELDS_COUNT, count)
        self.values = np.zeros(shape, np.uint64)
        self.tags, self.bodies, self.afters = (np.zeros(shape, np.int64) for _ in range(3))

    def read(self) -> None:
        """All fields; what is out of the ordinary is marked as odd."""
        which = np.flatnonzero(~self.is_odd)
        at = self.starts[which]
        length, body, is_long = self._numbers.read(at + 1)
        is_whole = body + length.astype(np.int64) == self.ends[which]
        is_whole &= (self._numbers.data[at] == TELEMETRY_TAG) & ~is_long
        self.is_odd[which[~is_whole]] = True
        at = body
        self.heads[which] = body
        for _ in range(_FIELDS_COUNT):
            is_open = (at < self.ends[which]) & ~self.is_odd[which]
            if not is_open.all():
                which, at = which[is_open], at[is_open]
            if not len(which):
                return
            at = self._field(which, at)
        self.is_odd[which[at < self.ends[which]]] = True

    def _field(self, which: Ints, at: Ints) -> Ints:
        """One field of each of these messages; where the next one begins."""
        tag = self._numbers.data[at]
        value, body, is_long = self._numbers.read(at + 1)
        field = _FIELD_OF_TAG[tag]
        flat = field * len(self.is_odd) + which
        # A length is compared before it is added: it may be as long as it likes.
        lasting = np.where(tag & 2, value, np.uint64(0))
        is_odd = lasting > self.ends[which].astype(np.uint64)
        after = body + np.where(is_odd, 0, lasting).astype(np.int64)
        is_odd |= (field == 0) | is_long | (self.afters.ravel()[flat] != 0)
        is_odd |= after > self.ends[which]
        if is_odd.any():
            self.is_odd[which[is_odd]] = True
        for side, found in (
            (self.values, value),
            (self.tags, at),
            (self.bodies, body),
            (self.afters, after),
        ):
            side.reshape(-1)[flat] = found
        return after


def _assembled(payloads: Sequence[bytes], fields: _Fields) -> Bulk:
    plain = np.stack([fields.values[f] for f in (_SCHEMA, _START, _STEP, _ROWS, _SENT, _CODEC)])
    table = np.vstack([plain.view(np.int64), _spans(fields)]).T.tolist()
    is_odd = fields.is_odd.tolist()
    rough: list[tuple[int, list[int], bytes]] = []
    room = UNPACKED_LIMIT
    for number, (payload, row) in enumerate(zip(payloads, table, strict=True)):
        packed = None if is_odd[number] else _packed(payload, row, room)
        # Cells of a message end with it: a last one that goes on would take from the next message.
        if packed and packed[-1] < LAST_BIT:
            rough.append((number, row, packed))
            room -= len(packed)
    heads: list[Head | None] = [None] * len(payloads)
    data = np.frombuffer(b"".join([packed for _, _, packed in rough]), np.uint8)
    bounds = np.cumsum([0, *(len(packed) for _, _, packed in rough)])
    cells, counts, too_long = signed_at(data, bounds)
    cells_at = counts.tolist()
    # None is longer than a decoder may argue about.
    long_at = np.searchsorted(too_long, cells_at).tolist()
    for place, (number, row, packed) in enumerate(rough):
        if long_at[place] == long_at[place + 1]:
            first, last = cells_at[place], cells_at[place + 1]
            heads[number] = _head(payloads[number], row, packed, (first, last))
    return Bulk(heads=heads, cells=cells)


def _spans(fields: _Fields) -> Ints:
    """Where the packed fields lie in their own messages, and the two that change when resent."""
    rows = [side[field] for field in _PACKED for side in (fields.bodies, fields.afters)]
    rows += [side[field] for field in (_SITE, _SENT) for side in (fields.tags, fields.afters)]
    found = np.stack([*rows, fields.heads])
    return np.where(found == 0, 0, found - fields.starts)


def _packed(payload: bytes, row: list[int], room: int) -> bytes | None:
    """The cells as varints; None if there are none to be had here, or none in this room."""
    n_rows, codec = row[3], row[5]
    if not 1 <= n_rows <= ROWS_LIMIT:
        return None
    if codec == _NONE:
        return None if row[13] else payload[row[6] : row[7]]
    if codec != _ZLIB or row[7] or not row[13]:
        return None
    limit = n_rows * CHANNELS_LIMIT * CELL_BYTES_LIMIT
    unpacker = zlib.decompressobj()
    try:
        # A limit of 0 would be none.
        packed = unpacker.decompress(payload[row[12] : row[13]], max(1, min(limit, room)))
    except zlib.error:
        return None
    return packed if unpacker.eof and not unpacker.unused_data else None


def _head(payload: bytes, row: list[int], packed: bytes, cells: tuple[int, int]) -> Head | None:
    schema_id, start_ns, step_ns, n_rows, sent_ns = row[:5]
    dt_ns = _steps_ns(payload[row[8] : row[9]]) if row[9] else ()
    if not 0 <= schema_id < _BITS_32 or step_ns < 0 or dt_ns is None:
        return None
    # A message without a time of sending has none that could be left out of its checksum.
    if not row[17] or (step_ns and dt_ns) or len(dt_ns) != (0 if step_ns else n_rows - 1):
        return None
    return Head(
        schema_id,
        start_ns,
        step_ns,
        n_rows,
        packed,
        dt_ns,
        payload[row[10] : row[11]],
        start_ns + ((n_rows - 1) * step_ns if step_ns else sum(dt_ns)),
        sent_ns,
        _content_crc32(payload, row),
        *cells,
    )


def _steps_ns(packed: bytes) -> tuple[int, ...] | None:
    """Differences of time, ns; None if they are backwards, too long or broken."""
    data = np.frombuffer(packed, np.uint8)
    if not len(data) or data[-1] >= LAST_BIT:
        return None
    values, lengths = values_at(data, ends_of(data))
    if lengths.max() >= LENGTH_LIMIT or values.max() >= _DT_LIMIT_NS:
        return None
    steps: list[int] = values.tolist()
    return tuple(steps)


def _content_crc32(payload: bytes, row: list[int]) -> int:
    """The checksum of `peek.content_crc32`: all fields but site index and time of sending."""
    site_at, site_after, sent_at, sent_after, at = row[14:19]
    if not site_after:
        return crc32(payload[sent_after:], crc32(payload[at:sent_at]))
    first, last = sorted(((site_at, site_after), (sent_at, sent_after)))
    crc = crc32(payload[first[1] : last[0]], crc32(payload[at : first[0]]))
    return crc32(payload[last[1] :], crc)
