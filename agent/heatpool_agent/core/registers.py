"""Which register rows a reading of a billing meter makes; a meter exchange is two of them."""

from dataclasses import replace

from heatpool.codec import INT64_LIMIT
from heatpool.sample import MeterId, MeteringPointId, RegisterReason, RegisterRow
from heatpool_agent.core.reading import Reading


def register_rows(
    reading: Reading, previous: RegisterRow | None, *, is_first_read: bool
) -> tuple[RegisterRow, ...]:
    """Rows for the billing spool: one, or closing and opening row when the meter is another.

    No row where the count is below zero or beyond int64: no meter shows that, and no book holds it.

    The closing row repeats the old meter's last count just before the new one's first reading:
    what it counted after its last reading is on its display, and not in our books.
    """
    reason = RegisterReason.START if is_first_read else RegisterReason.PERIODIC
    if reading.raw is not None and not 0 <= reading.raw < INT64_LIMIT:
        return ()
    row = _row(reading, reason)
    if previous is None:
        return (replace(row, reason=RegisterReason.METER_OPENING),)
    if previous.meter_id == row.meter_id:
        return (row,)
    closing = replace(
        previous, event_ns=row.event_ns - 1, reason=RegisterReason.METER_CLOSING, chain_sha256=b""
    )
    return closing, replace(row, reason=RegisterReason.METER_OPENING)


def _row(reading: Reading, reason: RegisterReason) -> RegisterRow:
    assert reading.raw is not None, "only counters become registers"
    return RegisterRow(
        metering_point_id=MeteringPointId(reading.sensor),
        meter_id=MeterId(reading.meter_id),
        event_ns=reading.event_ns,
        raw=reading.raw,
        exponent=reading.exponent,
        # Where a count turns over beyond int64 it does so in nobody's lifetime: not known.
        modulus=reading.modulus if (reading.modulus or 0) < INT64_LIMIT else None,
        reason=reason,
        meter_ns=reading.meter_ns,
        status_bits=reading.status_bits,
    )
