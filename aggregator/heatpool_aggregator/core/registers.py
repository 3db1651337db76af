"""Readings of one metering point -> what its registers showed at an instant, whole Wh.

Blind to order and repetition. A roll-over is bridged, a meter exchange opens a new stretch with
no energy between, a reset or a leap stops: money is never guessed. Source: physics.md 3.4 and 17.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise

from heatpool.counter import AdvanceKind, advance
from heatpool.errors import LedgerError
from heatpool.period import Period, register_at_wh, share_wh
from heatpool.sample import MeterId, RegisterReason, RegisterRow

# A step counts only if the heat behind it could have passed one meter. Meters of 10 MW and more
# lie outside legal metrology (`physics.md` 3.5), so no site is billed by one.
METER_MAX_W = 10_000_000
# A meter shows a new count up to a minute after the heat passed: two readings may lie closer.
REFRESH_NS = 60 * 10**9
_NS_PER_H = 3600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedRow(RegisterRow):
    """A reading under a clock that was far off: `offset_ns` was added to what the site said."""

    offset_ns: int

    @classmethod
    def of(cls, row: RegisterRow, offset_ns: int) -> "CorrectedRow":
        """The same reading, at its time on our clock."""
        fields = asdict(row) | {"event_ns": row.event_ns + offset_ns}
        return cls(**fields, offset_ns=offset_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Readings of one meter while it was in place, by time; at least one, one per instant."""

    meter_id: MeterId
    rows: tuple[RegisterRow, ...]

    @property
    def first_ns(self) -> int:
        """Event time of its first reading."""
        return self.rows[0].event_ns

    @property
    def last_ns(self) -> int:
        """Event time of its last reading."""
        return self.rows[-1].event_ns

    @property
    def is_closed(self) -> bool:
        """The meter left: no reading of it follows."""
        return self.rows[-1].reason is RegisterReason.METER_CLOSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """What one register moved between two instants; it may have rolled over on the way."""

    register_open_wh: int
    register_close_wh: int
    energy_wh: int
    is_rolled_over: bool
    longest_step_ns: int  # the longest stretch without a reading that touches it
    is_corrected: bool = False  # a reading that bounds it had its time from a clock far off


def shown_wh(raw: int, exponent: int) -> int:
    """What a register of `raw`·10^exponent Wh shows, whole Wh, rounded down."""
    scale: int = 10 ** abs(exponent)
    return raw * scale if exponent >= 0 else raw // scale


def stretches(rows: Iterable[RegisterRow]) -> tuple[Stretch, ...]:
    """The meters that were in place, in order of time, whatever the order of the rows.

    Raises: LedgerError if one meter shows two counts at one instant, or returns after another.
    """
    found = tuple(
        Stretch(meter_id=meter_id, rows=tuple(group))
        for meter_id, group in groupby(_in_order(rows), key=lambda row: row.meter_id)
    )
    seen = set()
    for stretch in found:
        if stretch.meter_id in seen:
            raise LedgerError(
                f"meter {stretch.meter_id} returns at {stretch.first_ns} ns after another one at "
                "the same point; give each meter a metering point of its own"
            )
        seen.add(stretch.meter_id)
    return found


def moved(stretch: Stretch, start_ns: int, end_ns: int) -> Movement | None:
    """What the register of the stretch moved in [start, end), cut to its readings.

    None if the meter was not in place. Readings off the ends are apportioned linearly with the
    remainder carried, so that movements over neighbouring spans add up exactly.
    Raises: LedgerError if the register was reset or leapt on the way.
    """
    lo_ns, hi_ns = max(start_ns, stretch.first_ns), min(end_ns, stretch.last_ns)
    if lo_ns >= hi_ns:
        return None
    # A step that only touches an end lies outside: what happened there is not ours to judge.
    steps = [
        (before, after)
        for before, after in pairwise(stretch.rows)
        if before.event_ns < hi_ns and after.event_ns > lo_ns
    ]
    open_step, close_step = steps[0], steps[-1]
    opening_wh = _at_wh(*open_step, lo_ns)
    closing_wh = _at_wh(*close_step, hi_ns)
    # Everything up to the last step, then that step's share, less what came before the start.
    energy_wh = (
        sum(step_wh(*step) for step in steps[:-1])
        + (closing_wh - _register_wh(close_step[0]))
        - (opening_wh - _register_wh(open_step[0]))
    )
    open_wh = _wrapped_wh(opening_wh, open_step)
    close_wh = _wrapped_wh(closing_wh, close_step)
    return Movement(
        register_open_wh=open_wh,
        register_close_wh=close_wh,
        energy_wh=energy_wh,
        is_rolled_over=energy_wh != close_wh - open_wh,
        longest_step_ns=max(after.event_ns - before.event_ns for before, after in steps),
        is_corrected=any(isinstance(row, CorrectedRow) for row in (*open_step, *close_step)),
    )


def movement_wh(rows: Sequence[RegisterRow], span: Period) -> int:
    """What all registers of the point moved in the span, whole Wh: the second way of counting.

    Adds up the share of every step between neighbouring readings; `moved` subtracts two ends.
    Raises: LedgerError as `moved` and `stretches`.
    """
    return sum(
        share_wh(
            span,
            before_ns=before.event_ns,
            before_wh=0,
            after_ns=after.event_ns,
            after_wh=step_wh(before, after),
        )
        for before, after in pairwise(_in_order(rows))
        if before.meter_id == after.meter_id
        if before.event_ns < span.end_ns and after.event_ns > span.start_ns
    )


def _in_order(rows: Iterable[RegisterRow]) -> list[RegisterRow]:
    """By time, one row per meter and instant; at an exchange the closing one comes first."""
    rows = list(rows)
    if all(before.event_ns < after.event_ns for before, after in pairwise(rows)):
        return rows  # as a store gives them: no two rows of one instant
    found: dict[tuple[int, MeterId], RegisterRow] = {}
    for row in rows:
        key = (row.event_ns, row.meter_id)
        held = found.setdefault(key, row)
        if (held.raw, held.exponent) != (row.raw, row.exponent):
            shown = sorted((held.raw, row.raw))
            raise LedgerError(
                f"meter {row.meter_id} shows {shown[0]} and {shown[1]} at {row.event_ns} ns; "
                "read it on site and say which one holds"
            )
        # Of two rows of one reading the telling one counts, whichever came first.
        found[key] = max(held, row, key=lambda row: (abs(_rank(row)), row.reason, _modulus_wh(row)))
    return sorted(found.values(), key=place)


def place(row: RegisterRow) -> tuple[int, int, str]:
    """The place of a row among those of its metering point, whatever its count."""
    return (row.event_ns, _rank(row), row.meter_id)


def _rank(row: RegisterRow) -> int:
    ranks = {RegisterReason.METER_CLOSING: -1, RegisterReason.METER_OPENING: 1}
    return ranks.get(row.reason, 0)


def _register_wh(row: RegisterRow) -> int:
    return shown_wh(row.raw, row.exponent)


def _modulus_wh(row: RegisterRow) -> int:
    return shown_wh(row.modulus or 0, row.exponent)


def _step(before: RegisterRow, after: RegisterRow) -> tuple[int, int]:
    """Whole Wh from one reading to the next of the same meter, and what was turned over, Wh.

    Each step is the difference of what the register shows, so that steps add up to it exactly.
    """
    turning = after if after.modulus else before
    exponent = min(before.exponent, after.exponent, turning.exponent)
    previous, current, modulus = (
        count * 10 ** (own - exponent)
        for count, own in (
            (before.raw, before.exponent),
            (after.raw, after.exponent),
            (turning.modulus or 0, turning.exponent),
        )
    )
    # Two counts rounded down, each by less than one of its own units.
    rounded = 10 ** (max(before.exponent, after.exponent) - exponent)
    pause_ns = after.event_ns - before.event_ns + REFRESH_NS
    passable = shown_wh(METER_MAX_W * pause_ns // _NS_PER_H + 1, -exponent) + rounded
    step = advance(previous, current, modulus, max_step=min(modulus // 2, passable))
    if step.kind is AdvanceKind.RESET:
        raise LedgerError(
            f"register of meter {after.meter_id} falls from {_register_wh(before)} to "
            f"{_register_wh(after)} Wh at {after.event_ns} ns and that is no roll-over; "
            "settle it by hand with a closing and an opening register"
        )
    if current - previous > passable:
        raise LedgerError(
            f"register of meter {after.meter_id} rises from {_register_wh(before)} to "
            f"{_register_wh(after)} Wh at {after.event_ns} ns, more than {METER_MAX_W} W can move; "
            "read it on site and settle it by hand with a closing and an opening register"
        )
    turned_wh = _modulus_wh(turning) if step.kind is AdvanceKind.WRAPPED else 0
    return _register_wh(after) - _register_wh(before) + turned_wh, turned_wh


def step_wh(before: RegisterRow, after: RegisterRow) -> int:
    """Whole Wh from one reading to the next of the same meter, for live sums and accounts alike.

    Raises: LedgerError over a reset, or a rise above what one meter can move.
    """
    return _step(before, after)[0]


def _at_wh(before: RegisterRow, after: RegisterRow, at_ns: int) -> int:
    """The register at an instant of the step, not yet turned over, whole Wh."""
    return register_at_wh(
        before_ns=before.event_ns,
        before_wh=_register_wh(before),
        after_ns=after.event_ns,
        after_wh=_register_wh(before) + step_wh(before, after),
        at_ns=at_ns,
    )


def _wrapped_wh(register_wh: int, step: tuple[RegisterRow, RegisterRow]) -> int:
    turned_wh = _step(*step)[1]
    return register_wh - turned_wh if register_wh >= turned_wh else register_wh
