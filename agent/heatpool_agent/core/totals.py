"""Energy per counter over restarts, wraps and gaps: one state per channel, stepped by readings.

A total holds measured energy only. What a gap hides, or a step that may have wrapped more than
once, never enters it. Differences use boot time: no clock step touches them.
"""

from dataclasses import dataclass, replace
from enum import Enum

from heatpool import counter
from heatpool.counter import AdvanceKind
from heatpool.units import J_PER_WH, NS_PER_S
from heatpool_agent.core.reading import Reading, ReadingKind

UJ_PER_J = 1_000_000
# Joules per unit of the quantities that are energy.
_UNIT_J = {"energy_j": 1, "energy_wh": J_PER_WH}
# No CPU package is rated above 500 W today; twice that bounds the mean of any span.
MAX_ZONE_W = 1_000.0


class StepKind(Enum):
    """What lies between two readings of a counter; only COUNTED and WRAPPED are measured."""

    FIRST = "first"
    COUNTED = "counted"
    WRAPPED = "wrapped"
    # The count fell and no wrap explains it.
    RESET = "reset"
    # Another life of the counter, or more wraps than anyone could count: nothing is known.
    GAP = "gap"
    # Several numbers of wraps fit: `delta_j` is an estimate with its doubt, not in the total.
    ESTIMATED = "estimated"
    # Not newer than the last one: nothing changes.
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """One counter channel: last raw count, and its energy as two integers.

    One int64 of microjoules would overflow at 2.56 GWh.
    """

    channel: str
    raw: int
    boot_ns: int
    event_ns: int
    generation: str
    total_j: int = 0
    total_uj: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: energy, J, and its mean power, W; absent is None. `delta_j_u` for estimates."""

    kind: StepKind
    delta_j: float | None = None
    power_w: float | None = None
    delta_j_u: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSpan:
    """Between which mean powers, W, a span must lie; what resolves more than one wrap."""

    low_w: float
    high_w: float


def is_energy(reading: Reading) -> bool:
    """Whether a total can be kept of this reading."""
    return (
        reading.kind is ReadingKind.COUNTER
        and reading.raw is not None
        and reading.quantity in _UNIT_J
    )


def advance(
    state: Total | None, reading: Reading, *, span: PowerSpan | None = None
) -> tuple[Total, Step]:
    """The channel after this reading, and what the step was.

    Raises: ValueError for a reading that is no energy counter.
    Source: physics.md 3.4; agent.md 5.1, 7.
    """
    raw = reading.raw
    if raw is None or not is_energy(reading):
        raise ValueError(f"totals: {reading.channel} {reading.quantity} is no energy counter")
    if state is None:
        return _begun(reading, raw), Step(kind=StepKind.FIRST)
    if reading.generation != state.generation:
        return _moved(state, reading, raw), Step(kind=StepKind.GAP)
    if _lives_one_boot(reading) and reading.boot_ns <= state.boot_ns:
        return state, Step(kind=StepKind.REPEATED)
    moved = _moved(state, reading, raw)
    # The kernel starts these counters at boot and never again: any decrease is a wrap.
    max_step = reading.modulus if _lives_one_boot(reading) else None
    found = counter.advance(state.raw, raw, reading.modulus, max_step=max_step)
    if found.delta is None:
        return moved, Step(kind=StepKind.RESET)
    return _stepped(moved, reading, found, span_ns=reading.boot_ns - state.boot_ns, span=span)


def energy_j(total: Total) -> float:
    """Measured energy of the channel since its first reading, J."""
    return total.total_j + total.total_uj / UJ_PER_J


def _stepped(
    moved: Total,
    reading: Reading,
    found: counter.Advance[AdvanceKind, int | None],
    *,
    span_ns: int,
    span: PowerSpan | None,
) -> tuple[Total, Step]:
    delta_uj = _microjoules(reading, found.delta or 0)
    is_wrapped = found.kind is AdvanceKind.WRAPPED
    if reading.modulus and _lives_one_boot(reading):
        range_uj = _microjoules(reading, reading.modulus)
        fits = _fits_uj(delta_uj, range_uj, span_s=span_ns / NS_PER_S, span=span)
        if len(fits) > 1:
            return moved, _estimated(fits, range_uj, span_ns=span_ns, span=span)
        is_wrapped = is_wrapped or fits[0] != delta_uj
        delta_uj = fits[0]
    kind = StepKind.WRAPPED if is_wrapped else StepKind.COUNTED
    delta_j = delta_uj / UJ_PER_J
    return _added(moved, delta_uj), Step(
        kind=kind, delta_j=delta_j, power_w=_mean_w(delta_j, span_ns)
    )


def _fits_uj(
    delta_uj: int, range_uj: int, *, span_s: float, span: PowerSpan | None
) -> range | tuple[int]:
    """Every energy, uJ, that the counter may have seen and the powers allow; never empty."""
    span = span or PowerSpan(low_w=0.0, high_w=MAX_ZONE_W)
    low_uj, high_uj = span.low_w * span_s * UJ_PER_J, span.high_w * span_s * UJ_PER_J
    first = max(0, -int((delta_uj - low_uj) // range_uj))
    last = int((high_uj - delta_uj) // range_uj)
    if last < first:
        # The powers allow nothing: the counter is the better witness, and it shows one wrap.
        return (delta_uj,)
    return range(delta_uj + first * range_uj, delta_uj + last * range_uj + 1, range_uj)


def _estimated(
    fits: range | tuple[int], range_uj: int, *, span_ns: int, span: PowerSpan | None
) -> Step:
    if span is None:
        return Step(kind=StepKind.GAP)
    middle_uj = (span.low_w + span.high_w) / 2 * span_ns / NS_PER_S * UJ_PER_J
    delta_j = min(fits, key=lambda uj: abs(uj - middle_uj)) / UJ_PER_J
    # Wrong by whole ranges, all that fit alike: the spread of that many equal steps.
    delta_j_u = len(fits) * range_uj / UJ_PER_J / 12**0.5
    return Step(
        kind=StepKind.ESTIMATED,
        delta_j=delta_j,
        power_w=_mean_w(delta_j, span_ns),
        delta_j_u=delta_j_u,
    )


def _lives_one_boot(reading: Reading) -> bool:
    """Powercap counters of one known kernel boot: they wrap and never restart."""
    return reading.channel.startswith("powercap/") and bool(reading.generation)


def _microjoules(reading: Reading, count: int) -> int:
    power = reading.exponent + 6
    if power < 0:
        raise ValueError(f"totals: {reading.channel} counts finer than 1 uJ")
    return int(count * _UNIT_J[reading.quantity] * 10**power)


def _mean_w(delta_j: float, span_ns: int) -> float | None:
    # A meter that outlives our boots shows an earlier boot time: its span is not known here.
    return delta_j * NS_PER_S / span_ns if span_ns > 0 else None


def _begun(reading: Reading, raw: int) -> Total:
    return Total(
        channel=reading.channel,
        raw=raw,
        boot_ns=reading.boot_ns,
        event_ns=reading.event_ns,
        generation=reading.generation,
    )


def _moved(state: Total, reading: Reading, raw: int) -> Total:
    return replace(
        state,
        raw=raw,
        boot_ns=reading.boot_ns,
        event_ns=reading.event_ns,
        generation=reading.generation,
    )


def _added(state: Total, delta_uj: int) -> Total:
    carry_j, total_uj = divmod(state.total_uj + delta_uj, UJ_PER_J)
    return replace(state, total_j=state.total_j + carry_j, total_uj=total_uj)
