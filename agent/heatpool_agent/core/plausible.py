"""Admission: what is odd about one reading, seen by itself and against its own past.

Marks only: nothing is deleted or changed. Some marks keep a reading out of estimates
(`is_admitted`); the raw value stays visible with its marks. What readings say of each other is
`consistency` and `counter_check`, what the levels of a host say of each other is `tree`, and what
the heats of a loop say of each other is `heat_checks` and `crosscheck`. All marks: `FLAGS`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan

from heatpool.units import NS_PER_S, SUFFIXES, UNITLESS
from heatpool_agent.core.reading import Reading, ReadingKind

NOT_FINITE = "not_finite"
UNKNOWN_UNIT = "unknown_unit"
SENTINEL = "sentinel"
OUT_OF_RANGE = "out_of_range"
BEYOND_SITE = "beyond_site"
TOO_FAST = "too_fast"
STUCK = "stuck"
STALE = "stale"
PERCENT_AS_FRACTION = "percent_as_fraction"
COUNTER_DISAGREES = "counter_disagrees"
RATING_AS_READING = "rating_as_reading"
IN_EQUALS_OUT = "in_equals_out"
OUT_ABOVE_IN = "out_above_in"
ABOVE_VOLT_AMPERES = "above_volt_amperes"
IMPLAUSIBLE_K = "implausible_k"
IMPLAUSIBLE_ENERGY_PER_VOLUME = "implausible_energy_per_volume"
BELOW_CHILDREN = "below_children"
ABOVE_PARENTS = "above_parents"
FAR_ABOVE_CHILDREN = "far_above_children"
SWAPPED_SENSORS = "swapped_sensors"
NO_FLOW_FROZEN = "no_flow_frozen"

# What each mark says, and whether it keeps the reading out of every estimate.
FLAGS: dict[str, tuple[bool, str]] = {
    NOT_FINITE: (True, "no number"),
    UNKNOWN_UNIT: (True, "the quantity names no unit of ours"),
    SENTINEL: (True, "a word that devices send for no value"),
    OUT_OF_RANGE: (True, "more or less than the quantity, or its source's rating, can be"),
    BEYOND_SITE: (True, "ten times more than what its loop can reject"),
    TOO_FAST: (True, "moved faster than water can"),
    STUCK: (True, "the same for 20 samples while the site's power moved by more than 10 %"),
    STALE: (True, "older than three of its sensor's periods, or than it may stand"),
    PERCENT_AS_FRACTION: (True, "a share of 2 to 100: percent where a fraction belongs"),
    COUNTER_DISAGREES: (True, "an energy counter that its own channel's power contradicts"),
    RATING_AS_READING: (True, "constant and at or above the supply's capacity"),
    IN_EQUALS_OUT: (True, "a supply without loss: one figure was copied into both"),
    OUT_ABOVE_IN: (True, "more comes out of the supply than goes in"),
    ABOVE_VOLT_AMPERES: (True, "more watts than volts times amperes"),
    IMPLAUSIBLE_K: (False, "heat over flow and difference is not water's, 1.00 to 1.20"),
    IMPLAUSIBLE_ENERGY_PER_VOLUME: (False, "energy over volume needs more than 170 K"),
    BELOW_CHILDREN: (True, "for long less than what lies inside it"),
    ABOVE_PARENTS: (True, "for long more than what it lies inside of"),
    FAR_ABOVE_CHILDREN: (True, "for long a thousand times what lies inside it: mW taken for W"),
    SWAPPED_SENSORS: (False, "hot pipe colder than the cold one while power is drawn"),
    NO_FLOW_FROZEN: (False, "no flow and frozen temperatures while power is drawn"),
}
# What drivers find in their own documents; equal to the words of their rooms (tested).
REFUSED_BY_DRIVERS = frozenset(
    {"above_capacity", "counter_contradicted", "metrics_contradicted", "rating_as_reading"}
    | {"in_equals_out", "out_above_in"}
)
REJECTING = REFUSED_BY_DRIVERS | {flag for flag, (rejects, _) in FLAGS.items() if rejects}

# Words of 16 and 32 bits that devices send for "no value"; a real gauge hits one by a rare chance.
SENTINELS = frozenset({0xFFFF, 0x7FFF, -0x8000, 0xFFFF_FFFF, 0x7FFF_FFFF, -0x8000_0000})
# What the quantity can be at all; wider than any site of ours, narrow enough for a wrong scale.
RANGES: dict[str, tuple[float, float]] = {
    # Liquid water at the pressures of a coolant loop or a heat network.
    "hot_c": (0.0, 180.0),
    "cold_c": (0.0, 180.0),
    # Silicon is switched off by its own guard near 105 degC, some memory near 120.
    "cpu_c": (-20.0, 125.0),
    "power_w": (0.0, 1e8),
    "rated_w": (0.0, 1e8),
    # A site of 100 MW, in either direction.
    "heat_rate_w": (-1e8, 1e8),
    # The largest heat meters end at a few thousand; backward flow is a fault that must be seen.
    "volume_flow_m3_h": (-1e4, 1e4),
    "busy_frac": (0.0, 1.0),
    "frequency_frac": (0.0, 2.0),
    "energy_j": (0.0, float("inf")),
}
# Per second; a litre of water at full rack power warms by less than 20 K in one.
RATES: dict[str, float] = {"hot_c": 20.0, "cold_c": 20.0}
# A supply may carry its rating for long and overload for moments.
RATED_MARGIN = 1.2
# A loop is built for its load: ten times that is another scale or other words, no load.
SITE_MARGIN = 10.0
# Water, W per m3/h that it carries at a difference of 1 K, less than any loop is run with.
W_PER_M3_H = 1_160.0
# What noise keeps moving; a valve or a pump speed may honestly stand still for days.
STIRRED = frozenset({"hot_c", "cold_c", "volume_flow_m3_h", "power_w", "heat_rate_w"})
# Quantities whose past can say something of them.
REMEMBERED = STIRRED | RATES.keys()
STUCK_COUNT = 20
STUCK_POWER_FRAC = 0.10
STALE_PERIODS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is remembered of one channel: last value, and since when it has not moved."""

    value: float
    boot_ns: int
    equal_count: int = 1
    low_w: float | None = None
    high_w: float | None = None
    basis: tuple[str, ...] = ()


def judge(
    reading: Reading,
    past: Past | None = None,
    *,
    boot_ns: int,
    period_s: float,
    rated_w: float | None = None,
    capacity_w: float | None = None,
) -> Reading:
    """The reading with a flag for each oddity.

    `boot_ns` is now, `period_s` how often this sensor should speak, `rated_w` the most that its
    source can deliver, `capacity_w` what its loop can reject (absent: unknown). Source: agent.md
    6 A.
    """
    found = [
        NOT_FINITE if not isfinite(reading.value) else None,
        UNKNOWN_UNIT if not _has_unit(reading) else None,
        SENTINEL if _is_sentinel(reading) else None,
        PERCENT_AS_FRACTION if _is_hundredfold(reading) else None,
        OUT_OF_RANGE if _is_outside(reading, rated_w) else None,
        BEYOND_SITE if capacity_w and _is_beyond(reading, capacity_w) else None,
        TOO_FAST if past and _is_too_fast(reading, past) else None,
        STUCK if past and _is_stuck(reading, past) else None,
        STALE if _is_stale(reading, boot_ns, period_s) else None,
    ]
    return marked(reading, [flag for flag in found if flag])


def marked(reading: Reading, flags: Sequence[str]) -> Reading:
    """The reading with these flags beside its own, each once."""
    fresh = tuple(flag for flag in flags if flag not in reading.flags)
    return replace(reading, flags=reading.flags + fresh) if fresh else reading


def remember(
    past: Past | None,
    reading: Reading,
    *,
    power_w: float | None = None,
    basis: tuple[str, ...] = (),
) -> Past:
    """The channel's past including this reading; `power_w` is what is drawn meanwhile.

    Power seen from another `basis` is another figure: its jump moved nothing.
    """
    if past is None or past.value != reading.value or past.basis != basis:
        return Past(
            value=reading.value,
            boot_ns=reading.boot_ns,
            low_w=power_w,
            high_w=power_w,
            basis=basis,
        )
    seen = [w for w in (past.low_w, past.high_w, power_w) if w is not None]
    return Past(
        value=reading.value,
        boot_ns=reading.boot_ns,
        equal_count=past.equal_count + 1,
        low_w=min(seen, default=None),
        high_w=max(seen, default=None),
        basis=basis,
    )


def is_admitted(reading: Reading) -> bool:
    """Whether the reading may enter an estimate."""
    return REJECTING.isdisjoint(reading.flags)


def _has_unit(reading: Reading) -> bool:
    # A state (a leak, a pump that runs) is no amount of anything.
    if reading.kind is ReadingKind.STATE or reading.quantity in UNITLESS:
        return True
    return reading.quantity.endswith(SUFFIXES)


def _is_sentinel(reading: Reading) -> bool:
    # A counter passes through every number on its way.
    if reading.kind is not ReadingKind.GAUGE:
        return False
    return (reading.value if reading.raw is None else reading.raw) in SENTINELS


def _is_hundredfold(reading: Reading) -> bool:
    # Turbo is 1.4 of the nominal clock and an overload 1.2 of a rating; nothing is twice.
    return reading.quantity.endswith("_frac") and 2.0 < abs(reading.value) <= 100.0


def _is_outside(reading: Reading, rated_w: float | None) -> bool:
    if isnan(reading.value):
        return False
    low, high = RANGES.get(reading.quantity, (-float("inf"), float("inf")))
    if reading.quantity == "power_w" and rated_w:
        high = RATED_MARGIN * rated_w
    return not low <= reading.value <= high


def _is_beyond(reading: Reading, capacity_w: float) -> bool:
    # A plate may name anything; it carries nothing.
    if reading.quantity == "volume_flow_m3_h":
        power_w = reading.value * W_PER_M3_H
    elif reading.quantity.endswith("_w") and reading.quantity != "rated_w":
        power_w = reading.value
    else:
        return False
    return abs(power_w) > SITE_MARGIN * capacity_w


def _is_stale(reading: Reading, boot_ns: int, period_s: float) -> bool:
    # Who publishes every ten seconds is not late after three looks at its last word.
    holds_s = max(STALE_PERIODS * period_s, reading.holds_s or 0.0)
    return boot_ns - reading.boot_ns > holds_s * NS_PER_S


def _is_too_fast(reading: Reading, past: Past) -> bool:
    span_s = (reading.boot_ns - past.boot_ns) / NS_PER_S
    limit = RATES.get(reading.quantity)
    if limit is None or span_s <= 0:
        return False
    return abs(reading.value - past.value) > limit * max(span_s, 1.0)


def _is_stuck(reading: Reading, past: Past) -> bool:
    is_equal = reading.kind is ReadingKind.GAUGE and reading.value == past.value
    # The same reading looked at again is not another sample.
    count = past.equal_count + (reading.boot_ns != past.boot_ns)
    if reading.quantity not in STIRRED or not is_equal or count < STUCK_COUNT:
        return False
    # An idle loop may stand still honestly: only moving power makes equal samples suspicious.
    if past.low_w is None or past.high_w is None or past.high_w <= 0:
        return False
    # Of a whole server's meter no more can be asked than to see what it can resolve.
    whole_w = max(past.high_w, reading.value) if reading.quantity == "power_w" else past.high_w
    return past.high_w - past.low_w > STUCK_POWER_FRAC * whole_w
