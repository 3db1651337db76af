"""Wrap and reset of a cumulative count: what one step of a register or raw counter is worth.

Callers add the deltas of each zone or meter; raw counts of several zones are never added.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar, overload

from heatpool.units import ColumnT, array_namespace

KindT = TypeVar("KindT")
DeltaT = TypeVar("DeltaT")

# Absent in an int64 array, as no count is negative; scalars use None.
ABSENT = -1


class AdvanceKind(IntEnum):
    """What a step was; only NORMAL and WRAPPED carry a delta."""

    FIRST = 1
    NORMAL = 2
    WRAPPED = 3
    RESET = 4


@dataclass(frozen=True, slots=True)
class Advance(Generic[KindT, DeltaT]):
    """One step, in units of the count: no delta is None for scalars, -1 in arrays, never 0."""

    kind: KindT
    delta: DeltaT


@overload
def advance(  # type: ignore[overload-overlap]
    previous: int | None, current: int, modulus: int | None, *, max_step: float | None = ...
) -> Advance[AdvanceKind, int | None]: ...
@overload
def advance(
    previous: ColumnT | int | None,
    current: ColumnT | int,
    modulus: ColumnT | int | None,
    *,
    max_step: ColumnT | float | None = ...,
) -> Advance[ColumnT, ColumnT]: ...
def advance(previous: Any, current: Any, modulus: Any, *, max_step: Any = None) -> Any:
    """What the step from previous to current means and is worth, in units of the count.

    modulus None, 0 (or -1 in arrays): the count never wraps and a decrease is RESET.
    A decrease is WRAPPED if its step is at most max_step, by default half the modulus.
    int64 arrays: absent is -1; kind holds AdvanceKind's numbers, and kind and delta are both -1
    where current is absent (the caller then keeps its previous count).
    Raises: ValueError if a scalar current is None. Source: physics.md 3.4.
    """
    xp = array_namespace(previous, current, modulus, max_step)
    if xp is not None:
        return _advance_columns(xp, previous, current, modulus, max_step=max_step)
    if current is None:
        raise ValueError("counter: current is None; call again when there is a count")
    if previous is None or previous < 0:
        return Advance(AdvanceKind.FIRST, None)
    # A count below 0 or beyond its own modulus comes from a wrong map: no energy is made of it.
    if current < 0 or (modulus and max(previous, current) > modulus):
        return Advance(AdvanceKind.RESET, None)
    if current >= previous:
        return Advance(AdvanceKind.NORMAL, current - previous)
    if modulus:
        step = current - previous + modulus
        if step <= (modulus // 2 if max_step is None else max_step):
            return Advance(AdvanceKind.WRAPPED, step)
    return Advance(AdvanceKind.RESET, None)


def _advance_columns(
    xp: Any, previous: Any, current: Any, modulus: Any, *, max_step: Any
) -> Advance[Any, Any]:
    if current is None:
        raise ValueError("counter: current is None; absent in an array is -1")
    previous = xp.asarray(ABSENT if previous is None else previous)
    current = xp.asarray(current)
    modulus = xp.asarray(0 if modulus is None else modulus)
    limit = modulus // 2 if max_step is None else max_step
    # Read only where the count fell; elsewhere the sum may pass the end of int64.
    step = current - previous + modulus
    beyond = (modulus > 0) & (xp.maximum(previous, current) > modulus)
    is_normal = (current >= previous) & ~beyond
    is_wrapped = (current < previous) & (modulus > 0) & (step <= limit) & ~beyond
    kind = xp.where(is_wrapped, int(AdvanceKind.WRAPPED), int(AdvanceKind.RESET))
    kind = xp.where(is_normal, int(AdvanceKind.NORMAL), kind)
    kind = xp.where(previous < 0, int(AdvanceKind.FIRST), kind)
    kind = xp.where(current < 0, ABSENT, kind)
    delta = xp.where(kind == int(AdvanceKind.WRAPPED), step, ABSENT)
    delta = xp.where(kind == int(AdvanceKind.NORMAL), current - previous, delta)
    return Advance(kind[()], delta[()])  # [()] makes a scalar of an array without axes
