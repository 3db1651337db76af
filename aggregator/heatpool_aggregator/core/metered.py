"""Energy that a metering point has moved: a sum over neighbouring register rows, exact.

The sum depends on the set of rows alone: who gets a row out of order counts all of them again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from heatpool.codec import registers_from_bytes, registers_to_bytes
from heatpool.counter import advance
from heatpool.sample import RegisterReason, RegisterRow

# The finest exponent that admission lets in is 10^-9 Wh: in this unit every step is whole.
NANO_EXPONENT = 9
NANO_PER_WH = 1_000_000_000

# Rows of one instant: what the old meter says last comes before what the new one says first.
_ORDER = {
    RegisterReason.START: 0,
    RegisterReason.PERIODIC: 1,
    RegisterReason.STOP: 2,
    RegisterReason.METER_CLOSING: 3,
    RegisterReason.METER_OPENING: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """The newest row of a metering point, and all that came before it, in 10^-9 Wh."""

    row: RegisterRow
    energy_nano_wh: int = 0

    @property
    def energy_wh(self) -> int:
        """Whole Wh moved since the first row."""
        return self.energy_nano_wh // NANO_PER_WH

    def to_list(self) -> list[object]:
        """The same as a list, for a snapshot; the count as text, it may pass int64."""
        return [registers_to_bytes([self.row]), str(self.energy_nano_wh)]


def order(row: RegisterRow) -> tuple[int, int, str, int]:
    """The place of a row among those of its metering point."""
    return (row.event_ns, _ORDER[row.reason], row.meter_id, row.raw)


def step_nano_wh(before: RegisterRow, after: RegisterRow) -> int:
    """Energy between two neighbouring rows, 10^-9 Wh; 0 over an exchange or a reset.

    Another exponent is another map of the same meter: treated as a reset, never guessed.

    Source: physics.md 3.4.
    """
    if before.meter_id != after.meter_id or before.exponent != after.exponent:
        return 0
    delta = advance(before.raw, after.raw, after.modulus).delta
    nano_wh: int = 10 ** (NANO_EXPONENT + after.exponent)
    return (delta or 0) * nano_wh


def followed_by(metered: Metered | None, row: RegisterRow) -> Metered | None:
    """The point after one more row; None if the row belongs before the newest one."""
    if metered is None:
        return Metered(row=row)
    if order(row) < order(metered.row):
        return None
    energy = metered.energy_nano_wh + step_nano_wh(metered.row, row)
    return Metered(row=row, energy_nano_wh=energy)


def counted(rows: Iterable[RegisterRow]) -> Metered | None:
    """The point after these rows, whatever their order; None without a row."""
    metered: Metered | None = None
    for row in sorted(rows, key=order):
        metered = followed_by(metered, row)
    return metered


def metered_from_list(fields: Sequence[Any]) -> Metered:
    """The point out of a snapshot."""
    data, energy = fields
    return Metered(row=registers_from_bytes(data)[0], energy_nano_wh=int(energy))
