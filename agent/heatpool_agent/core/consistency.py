"""What the readings of one pass of one sensor say of each other.

Supplies: a rating shown as a reading, one figure copied into input and output, more out than in.
Meters: watts against volts and amperes. Heat meters: heat against flow and difference, energy
against volume. One odd sample is chance; a mark comes after several in a row.
Source: agent.md 5.5, 6 A.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from heatpool_agent.core import plausible
from heatpool_agent.core.reading import Node, Reading, ReadingKind

# Samples in a row before a mark stands. Idle supplies do show equal figures for a while.
LEAST_COUNT = {
    plausible.RATING_AS_READING: 20,
    plausible.IN_EQUALS_OUT: 5,
    plausible.OUT_ABOVE_IN: 5,
    plausible.ABOVE_VOLT_AMPERES: 5,
    plausible.IMPLAUSIBLE_K: 1,
    plausible.IMPLAUSIBLE_ENERGY_PER_VOLUME: 1,
}
# Both gauges of a supply resolve 1 W and are read one after the other.
OUT_ABOVE_IN_FRAC = 0.03
OUT_ABOVE_IN_W = 5.0
# Amperes are shown in tenths at best.
ABOVE_VOLT_AMPERES_FRAC = 0.15
AMPERES_STEP_A = 0.1
# Water between 0 and 180 degC; the codec of telegrams has the same bounds (tested).
K_LOW_KWH_M3_K, K_HIGH_KWH_M3_K = 1.00, 1.20
MOST_KWH_M3 = 180 * K_HIGH_KWH_M3_K
# Rounding of shown figures: below this difference k says nothing.
LEAST_CHECKED_K = 3.0
LEAST_CHECKED_M3_H = 0.1

_SUPPLIES = (Node.PSU_IN, Node.PSU_OUT, Node.CHASSIS)
_KEYED = frozenset({Node.HEAT_METER, *_SUPPLIES})

Key = tuple[str, str]
Mark = tuple[Key, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """How often in a row each channel and quantity earned each mark, its last value, and when.

    `seen_ns` is the newest boot time of each thing: what is shown again is no other sample.
    """

    counts: Mapping[Mark, int] = field(default_factory=dict)
    values: Mapping[Key, float] = field(default_factory=dict)
    seen_ns: Mapping[str, int] = field(default_factory=dict)


def observe(state: Doubts, readings: Sequence[Reading]) -> Doubts:
    """The state after one pass of one sensor."""
    if not any(r.node in _KEYED or r.quantity.endswith("_a") for r in readings):
        return state
    groups = _groups(readings)
    seen_ns = {name: max(r.boot_ns for r in group) for name, group in groups.items()}
    fresh = {name for name, at_ns in seen_ns.items() if at_ns > state.seen_ns.get(name, -1)}
    marks = {
        mark
        for name in fresh
        for check in (_psu, _volt_amperes, _heat_meter)
        for mark in check(groups[name], state.values)
    }
    again = seen_ns.keys() - fresh
    kept = {mark: n for mark, n in state.counts.items() if stem(mark[0][0]) in again}
    return Doubts(
        counts={**kept, **{mark: state.counts.get(mark, 0) + 1 for mark in marks}},
        values={_key(r): r.value for r in readings if r.node in _SUPPLIES},
        seen_ns=seen_ns,
    )


def flags(state: Doubts) -> dict[Key, tuple[str, ...]]:
    """The marks that stand, by channel and quantity."""
    found: dict[Key, tuple[str, ...]] = {}
    for (key, flag), count in state.counts.items():
        if count >= LEAST_COUNT[flag]:
            found[key] = (*found.get(key, ()), flag)
    return found


def stem(channel: str) -> str:
    """The thing that a channel belongs to: its path without the last step."""
    return channel.rpartition("/")[0] or channel


def _key(reading: Reading) -> Key:
    return reading.channel, reading.quantity


def _groups(readings: Sequence[Reading]) -> dict[str, list[Reading]]:
    groups: dict[str, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(stem(reading.channel), []).append(reading)
    return groups


def _only(group: Sequence[Reading], quantity: str, node: Node | None = None) -> Reading | None:
    found = [
        r
        for r in group
        if r.quantity.endswith(quantity)
        and r.kind is ReadingKind.GAUGE
        and (node is None or r.node is node)
    ]
    return found[0] if len(found) == 1 else None


def _psu(group: Sequence[Reading], values: Mapping[Key, float]) -> Iterator[Mark]:
    rated_w = min((r.value for r in group if r.quantity == "rated_w"), default=None)
    for reading in group:
        is_input = reading.node in (Node.PSU_IN, Node.CHASSIS) and reading.quantity == "power_w"
        is_constant = values.get(_key(reading)) == reading.value
        if rated_w and is_input and is_constant and reading.value >= rated_w:
            yield _key(reading), plausible.RATING_AS_READING
    into, out = (_only(group, "power_w", node) for node in (Node.PSU_IN, Node.PSU_OUT))
    if into is None or out is None or out.value <= 0:
        return
    if into.value == out.value:
        yield _key(into), plausible.IN_EQUALS_OUT
    if out.value > (1 + OUT_ABOVE_IN_FRAC) * into.value + OUT_ABOVE_IN_W:
        # Nobody knows which of the two is wrong.
        yield _key(into), plausible.OUT_ABOVE_IN
        yield _key(out), plausible.OUT_ABOVE_IN


def _volt_amperes(group: Sequence[Reading], values: Mapping[Key, float]) -> Iterator[Mark]:
    power = _only(group, "power_w")
    volts, amperes = _phases(group, "_v"), _phases(group, "_a")
    if power is None or not amperes or len(volts) != len(amperes):
        return
    # Volts between phases instead of to neutral only raise the bound.
    pairs = zip(volts, amperes, strict=True)
    most_va = sum(abs(v.value) * (abs(a.value) + AMPERES_STEP_A) for v, a in pairs)
    # Less is a power factor.
    if power.value > (1 + ABOVE_VOLT_AMPERES_FRAC) * most_va:
        yield _key(power), plausible.ABOVE_VOLT_AMPERES


def _phases(group: Sequence[Reading], suffix: str) -> list[Reading]:
    found = [r for r in group if r.quantity.endswith(suffix) and r.kind is ReadingKind.GAUGE]
    return sorted(found, key=lambda r: (r.quantity, r.channel))


def _heat_meter(group: Sequence[Reading], values: Mapping[Key, float]) -> Iterator[Mark]:
    at = {r.quantity: r for r in group if r.node is Node.HEAT_METER}
    heat, streams = at.get("delivered_heat_w"), at.get("volume_flow_m3_h")
    hot, cold = at.get("hot_c"), at.get("cold_c")
    if heat and streams and hot and cold:
        delta_k = hot.value - cold.value
        if abs(delta_k) >= LEAST_CHECKED_K and abs(streams.value) >= LEAST_CHECKED_M3_H:
            k = heat.value / (1000 * streams.value * delta_k)
            if not K_LOW_KWH_M3_K <= k <= K_HIGH_KWH_M3_K:
                yield _key(heat), plausible.IMPLAUSIBLE_K
    energy, volume = at.get("energy_wh"), at.get("volume_m3")
    if energy and volume and volume.value > 0:
        if energy.value > 1000 * MOST_KWH_M3 * volume.value:
            yield _key(energy), plausible.IMPLAUSIBLE_ENERGY_PER_VOLUME
