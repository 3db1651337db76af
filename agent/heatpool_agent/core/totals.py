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
    # Another life or unit of the counter, or more wraps than anyone could count: nothing is known.
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
    quantity: str
    exponent: int
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
    """Between which mean powers, W, a span lies, and which of them is expected most."""

    low_w: float
    high_w: float
    expected_w: float | None = None

    @property
    def middle_w(self) -> float:
        """The power to expect, W."""
        return (self.low_w + self.high_w) / 2 if self.expected_w is None else self.expected_w


def is_energy(reading: Reading) -> bool:
    """Whether a total can be kept of this reading."""
    return (
        reading.kind is ReadingKind.COUNTER
        and reading.raw is not None
        and reading.quantity in _UNIT_J
    )


def advance(
    state: Total | None,
    reading: Reading,
    *,
    span: PowerSpan | None = None,
    likely: PowerSpan | None = None,
) -> tuple[Total, Step]:
    """The channel after this reading, and what the step was.

    `span` bounds the mean power: where one number of wraps fits, it is measured. `likely` only
    tells among several that fit; without it, `span` does.
    Raises: ValueError for a reading that is no energy counter.
    Source: physics.md 3.4; agent.md 5.1, 7.
    """
    raw = reading.raw
    if raw is None or not is_energy(reading):
        raise ValueError(f"totals: {reading.channel} {reading.quantity} is no energy counter")
    if state is None:
        return _begun(reading, raw), Step(kind=StepKind.FIRST)
    if _life(reading) != _life(state):
        return _moved(state, reading, raw), Step(kind=StepKind.GAP)
    if lives_one_boot(reading) and reading.boot_ns <= state.boot_ns:
        return state, Step(kind=StepKind.REPEATED)
    moved = _moved(state, reading, raw)
    # The kernel starts these counters at boot and never again: any decrease is a wrap.
    max_step = reading.modulus if lives_one_boot(reading) else None
    found = counter.advance(state.raw, raw, reading.modulus, max_step=max_step)
    if found.delta is None:
        return moved, Step(kind=StepKind.RESET)
    span_ns = reading.boot_ns - state.boot_ns
    delta_uj = _microjoules(reading, found.delta)
    if reading.modulus and lives_one_boot(reading):
        range_uj = _microjoules(reading, reading.modulus)
        fits = _fits_uj(delta_uj, range_uj, span_s=span_ns / NS_PER_S, span=span)
        if len(fits) > 1:
            # Another number of wraps than the counter's own is no measurement.
            return moved, _estimated(delta_uj, range_uj, span_ns=span_ns, likely=likely or span)
        is_wrapped = found.kind is AdvanceKind.WRAPPED or fits[0] != delta_uj
        return _measured(moved, fits[0], span_ns=span_ns, is_wrapped=is_wrapped)
    is_wrapped = found.kind is AdvanceKind.WRAPPED
    return _measured(moved, delta_uj, span_ns=span_ns, is_wrapped=is_wrapped)


def energy_j(total: Total) -> float:
    """Measured energy of the channel since its first reading, J."""
    return total.total_j + total.total_uj / UJ_PER_J


def _measured(moved: Total, delta_uj: int, *, span_ns: int, is_wrapped: bool) -> tuple[Total, Step]:
    kind = StepKind.WRAPPED if is_wrapped else StepKind.COUNTED
    delta_j = delta_uj / UJ_PER_J
    step = Step(kind=kind, delta_j=delta_j, power_w=_mean_w(delta_j, span_ns))
    return _added(moved, delta_uj), step


def _fits_uj(
    delta_uj: int, range_uj: int, *, span_s: float, span: PowerSpan | None
) -> range | tuple[int]:
    """Every energy, uJ, that the counter may have seen and the powers allow; never empty."""
    fits = _between_uj(delta_uj, range_uj, span_s, span or PowerSpan(low_w=0.0, high_w=MAX_ZONE_W))
    # The powers allow nothing: the counter is the better witness, and it shows one wrap.
    return fits or (delta_uj,)


def _between_uj(delta_uj: int, range_uj: int, span_s: float, span: PowerSpan) -> range:
    low_uj, high_uj = span.low_w * span_s * UJ_PER_J, span.high_w * span_s * UJ_PER_J
    first = max(0, -int((delta_uj - low_uj) // range_uj))
    last = int((high_uj - delta_uj) // range_uj)
    return range(delta_uj + first * range_uj, delta_uj + last * range_uj + 1, range_uj)


def _estimated(delta_uj: int, range_uj: int, *, span_ns: int, likely: PowerSpan | None) -> Step:
    """The number of wraps that fits best, with the spread of all that fit alike."""
    if likely is None:
        return Step(kind=StepKind.GAP)
    span_s = span_ns / NS_PER_S
    best = max(0, round((likely.middle_w * span_s * UJ_PER_J - delta_uj) / range_uj))
    fits = _between_uj(delta_uj, range_uj, span_s, likely)
    delta_j = (delta_uj + best * range_uj) / UJ_PER_J
    off = ((fits[0] + fits[-1]) / 2 - delta_uj) / range_uj - best if fits else 0.0
    # Wrong by whole ranges: that many equal steps, seen from the best one. Source: agent.md 5.1.
    delta_j_u = range_uj / UJ_PER_J * (max(1, len(fits)) ** 2 / 12 + off**2) ** 0.5
    return Step(
        kind=StepKind.ESTIMATED,
        delta_j=delta_j,
        power_w=_mean_w(delta_j, span_ns),
        delta_j_u=delta_j_u,
    )


def _life(of: Reading | Total) -> tuple[str, str, int]:
    # A count in another unit is another count: a device or a map was changed.
    return of.generation, of.quantity, of.exponent


def lives_one_boot(reading: Reading) -> bool:
    """Whether this is a powercap counter of one known kernel boot: it wraps and never restarts."""
    return is_zone(reading) and bool(reading.generation)


def is_zone(reading: Reading) -> bool:
    """Whether this is a counter of powercap."""
    return reading.channel.startswith("powercap/")


def _microjoules(reading: Reading, count: int) -> int:
    energy, power = count * _UNIT_J[reading.quantity], reading.exponent + 6
    # Who counts finer loses what lies below a microjoule, not its sensor.
    return int(energy * 10**power) if power >= 0 else int(energy // 10**-power)


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
        quantity=reading.quantity,
        exponent=reading.exponent,
    )


def _moved(state: Total, reading: Reading, raw: int) -> Total:
    return replace(
        state,
        raw=raw,
        boot_ns=reading.boot_ns,
        event_ns=reading.event_ns,
        generation=reading.generation,
        quantity=reading.quantity,
        exponent=reading.exponent,
    )


def _added(state: Total, delta_uj: int) -> Total:
    carry_j, total_uj = divmod(state.total_uj + delta_uj, UJ_PER_J)
    return replace(state, total_j=state.total_j + carry_j, total_uj=total_uj)
