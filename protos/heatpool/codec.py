"""Rows <-> fixed-point columns: the same integers in spool and on the wire.

A column is its first cell, then differences. An absent cell repeats its predecessor and is 0 in
`valid_bits`. Nothing here knows protobuf: each program's `wire` copies these fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import TypeVar

import msgpack

from heatpool.errors import WireError
from heatpool.sample import Channel, MeterId, MeteringPointId, RegisterReason, RegisterRow, Row

T = TypeVar("T")
INT64_LIMIT = 2**63
CELL_LIMIT = 2**62  # differences of two cells must still fit int64
ROWS_LIMIT = 1_000  # one message stays far below gRPC's 4 MiB
CHANNELS_LIMIT = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Rows of one schema as integers, channel after channel.

    `cells` has n_channels * n_rows entries (first cell, then differences); `dt_ns` holds
    n_rows - 1 differences of event time when `step_ns` is 0 and there is more than one row.
    """

    schema_id: int
    start_ns: int
    step_ns: int
    n_rows: int
    cells: tuple[int, ...]
    dt_ns: tuple[int, ...]
    valid_bits: bytes


def pack(rows: Sequence[Row], channels: Sequence[Channel], *, schema_id: int) -> Columns:
    """Columns of these rows, in the order given.

    Raises:
        ValueError: no row, or more than `ROWS_LIMIT`.
    """
    if not 1 <= len(rows) <= ROWS_LIMIT:
        raise ValueError(f"a batch holds 1 to {ROWS_LIMIT} rows, not {len(rows)}")
    times_ns = [row.event_ns for row in rows]
    dt_ns = [after - before for before, after in pairwise(times_ns)]
    is_regular = len(set(dt_ns)) == 1 and dt_ns[0] > 0
    cells: list[int] = []
    valid: list[bool] = []
    for channel in channels:
        _pack_column([row.cells.get(channel) for row in rows], channel.exponent, cells, valid)
    return Columns(
        schema_id=schema_id,
        start_ns=times_ns[0],
        step_ns=dt_ns[0] if is_regular else 0,
        n_rows=len(rows),
        cells=tuple(cells),
        dt_ns=() if is_regular else tuple(dt_ns),
        valid_bits=b"" if all(valid) else _bits(valid),
    )


def _pack_column(
    values: Sequence[float | None], exponent: int, cells: list[int], valid: list[bool]
) -> None:
    scale = 10.0**-exponent
    previous = 0
    for value in values:
        cell = _cell(value, scale)
        valid.append(cell is not None)
        current = previous if cell is None else cell
        cells.append(current - previous)
        previous = current


def _cell(value: float | None, scale: float) -> int | None:
    """The fixed-point integer; a value that does not fit is absent, not clipped."""
    if value is None or not isfinite(value):
        return None
    cell = round(value * scale)
    return cell if abs(cell) < CELL_LIMIT else None


def _bits(valid: Sequence[bool]) -> bytes:
    bits = bytearray((len(valid) + 7) // 8)
    for position, is_valid in enumerate(valid):
        if is_valid:
            bits[position >> 3] |= 1 << (position & 7)
    return bytes(bits)


def check(columns: Columns, n_channels: int) -> None:
    """Refuses columns whose counts do not fit each other.

    Raises:
        WireError: with the counts seen.
    """
    n_rows, wanted = columns.n_rows, columns.n_rows * n_channels
    if not 1 <= n_rows <= ROWS_LIMIT:
        raise WireError(f"n_rows is {n_rows}, allowed is 1 to {ROWS_LIMIT}")
    if len(columns.cells) != wanted:
        raise WireError(f"{len(columns.cells)} cells for {n_rows} rows x {n_channels} channels")
    if columns.valid_bits and len(columns.valid_bits) != (wanted + 7) // 8:
        raise WireError(f"{len(columns.valid_bits)} bytes of valid_bits for {wanted} cells")
    if not 0 <= columns.step_ns < INT64_LIMIT:
        # One row has no use for it, but history keeps it.
        raise WireError(f"step_ns is {columns.step_ns}, allowed is 0 to {INT64_LIMIT - 1}")
    if columns.step_ns == 0 and len(columns.dt_ns) != n_rows - 1:
        raise WireError(f"{len(columns.dt_ns)} time differences for {n_rows} rows")


def event_times_ns(columns: Columns) -> list[int]:
    """Event time of each row, ns."""
    if columns.step_ns:
        return [columns.start_ns + i * columns.step_ns for i in range(columns.n_rows)]
    times_ns = [columns.start_ns]
    for dt_ns in columns.dt_ns:
        times_ns.append(times_ns[-1] + dt_ns)
    return times_ns


def unpack(columns: Columns, channels: Sequence[Channel]) -> list[list[float | None]]:
    """One list per channel with one value or None per row, in the unit of its quantity.

    Raises:
        WireError: the counts do not fit.
    """
    check(columns, len(channels))
    n_rows, bits = columns.n_rows, columns.valid_bits
    result: list[list[float | None]] = []
    for index, channel in enumerate(channels):
        values: list[float | None] = []
        cell = 0
        for position in range(index * n_rows, (index + 1) * n_rows):
            cell += columns.cells[position]
            is_valid = not bits or bits[position >> 3] >> (position & 7) & 1
            values.append(_value(cell, channel.exponent) if is_valid else None)
        result.append(values)
    return result


def _value(cell: int, exponent: int) -> float:
    # Dividing by an exact power of ten gives the nearest float; multiplying by 0.1 would not.
    return cell / 10.0**-exponent if exponent < 0 else float(cell * 10**exponent)


def columns_to_bytes(columns: Columns) -> bytes:
    """The columns as they lie in the spool, msgpack."""
    packed: bytes = msgpack.packb(
        (
            columns.schema_id,
            columns.start_ns,
            columns.step_ns,
            columns.n_rows,
            columns.cells,
            columns.dt_ns,
            columns.valid_bits,
        )
    )
    return packed


def columns_from_bytes(data: bytes) -> Columns:
    """The columns out of the spool.

    Raises:
        WireError: these are not columns.
    """
    try:
        schema_id, start_ns, step_ns, n_rows, cells, dt_ns, bits = msgpack.unpackb(data)
        return Columns(
            schema_id=_int(schema_id),
            start_ns=_int(start_ns),
            step_ns=_int(step_ns),
            n_rows=_int(n_rows),
            cells=_ints(cells),
            dt_ns=_ints(dt_ns),
            valid_bits=_of(bytes, bits),
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"{len(data)} bytes are not columns: {error}") from error


def _of(kind: type[T], value: object) -> T:
    # Exactly: True is no 1 here, though Python takes it for one.
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value


def _int(value: object) -> int:
    number = _of(int, value)
    if not -INT64_LIMIT <= number < INT64_LIMIT:
        raise ValueError(f"{number} does not fit int64")
    return number


def _ints(value: object) -> tuple[int, ...]:
    return tuple(_int(number) for number in _of(list, value))


def register_to_list(row: RegisterRow) -> list[object]:
    """The fields of a register row in a fixed order, for the spool and its hash chain."""
    return [
        row.metering_point_id,
        row.meter_id,
        row.event_ns,
        row.raw,
        row.exponent,
        row.modulus,
        int(row.reason),
        row.meter_ns,
        row.status_bits,
        row.chain_sha256,
    ]


def registers_to_bytes(rows: Sequence[RegisterRow]) -> bytes:
    """Register rows as they lie in the spool, msgpack."""
    packed: bytes = msgpack.packb([register_to_list(row) for row in rows])
    return packed


def registers_from_bytes(data: bytes) -> tuple[RegisterRow, ...]:
    """Register rows out of the spool.

    Raises:
        WireError: these are not register rows.
    """
    try:
        return tuple(_register(_of(list, row)) for row in _of(list, msgpack.unpackb(data)))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"{len(data)} bytes are not register rows: {error}") from error


def _register(fields: Sequence[object]) -> RegisterRow:
    point, meter, event_ns, raw, exponent, modulus, reason, meter_ns, status, chain = fields
    return RegisterRow(
        metering_point_id=MeteringPointId(_of(str, point)),
        meter_id=MeterId(_of(str, meter)),
        event_ns=_int(event_ns),
        raw=_int(raw),
        exponent=_int(exponent),
        modulus=None if modulus is None else _int(modulus),
        reason=RegisterReason(_int(reason)),
        meter_ns=None if meter_ns is None else _int(meter_ns),
        status_bits=_int(status),
        chain_sha256=_of(bytes, chain),
    )
