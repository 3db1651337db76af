"""Energy that a metering point has moved: a sum over neighbouring register rows, exact.

The sum depends on the set of rows alone: who gets a row out of order counts all of them again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from heatpool.codec import registers_from_bytes, registers_to_bytes
from heatpool.errors import LedgerError
from heatpool.sample import RegisterRow
from heatpool_aggregator.core.registers import place, step_wh

# Snapshots keep their unit of 10^-9 Wh; steps are whole Wh, as the accounts have them.
NANO_PER_WH = 1_000_000_000


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


def order(row: RegisterRow) -> tuple[tuple[int, int, str], int, int]:
    """The place of a row among those of its metering point."""
    return place(row), row.raw, row.reason


def step_nano_wh(before: RegisterRow, after: RegisterRow) -> int:
    """Energy between two neighbouring rows, 10^-9 Wh; 0 over an exchange.

    What the accounts refuse, a reset or a leap, is 0 here: never guessed.
    Source: physics.md 3.4.
    """
    if before.meter_id != after.meter_id or before.event_ns == after.event_ns:
        return 0
    try:
        return step_wh(before, after) * NANO_PER_WH
    except LedgerError:
        return 0


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
