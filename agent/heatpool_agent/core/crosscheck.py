"""Reported, computed and electric heat side by side: all stay visible, their quarrel is flagged.

A flag says who quarrels and by how much: `mismatch:reported_vs_computed:+18%`, the first against
the second. A factor between two units of one thing is named as such, where each figure is one
device's own: a sum that counts too much or too little can come near any factor.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import hypot, log

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.core.estimate import LoopHeat, differs

_NS = 1_000_000_000
PERSISTS_S = 600.0  # physics.md 3.6: ten minutes, longer than any loop's transient

# kJ and Wh or m/s and km/h; L/min and m3/h; minutes and hours; kilo and milli.
SLIPS = (3.6, 1000 / 60, 60.0, 1000.0)
# Most that doubts may excuse: narrow enough to keep any two of them, and doubling, apart.
SLIP_FRAC = 0.15
SLIP_U = 2.0

HEATS = frozenset({"reported", "computed", "electric"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Two heats further apart than their doubts allow: the first's excess over the second."""

    pair: str
    size_frac: float
    since_boot_ns: int
    is_lasting: bool
    slip: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarrels:
    """Pairs that disagree, each with the boot time at which it began, ns."""

    since_boot_ns: tuple[tuple[str, int], ...] = ()
    sizes: tuple[Disagreement, ...] = ()


def compare(
    heat: LoopHeat,
    reported_w: float | None,
    reported_u_frac: float,
    quarrels: Quarrels,
    *,
    boot_ns: int,
    single: Collection[str] = HEATS,
) -> tuple[LoopHeat, Quarrels]:
    """The same heats, the fused one flagged and below class B while a pair disagrees for long.

    `single` are the heats that one device shows; a slip of units is told between such alone.
    """
    reported = None if reported_w is None else (reported_w, abs(reported_w) * reported_u_frac)
    named = {
        "reported": reported,
        "computed": heat.computed and (heat.computed.value, heat.computed.u),
        "electric": heat.electric and (heat.electric.value, heat.electric.u),
    }
    shown = {name: value for name, value in named.items() if value}
    found = _disagreeing(shown)
    if not found:
        return heat, Quarrels()
    known = dict(quarrels.since_boot_ns)
    sizes = tuple(
        Disagreement(
            pair=pair,
            size_frac=size_frac,
            since_boot_ns=known.get(pair, boot_ns),
            is_lasting=boot_ns - known.get(pair, boot_ns) >= PERSISTS_S * _NS,
            slip=_slip(pair, shown, single),
        )
        for pair, size_frac in found.items()
    )
    fused = heat.fused and _marked(heat.fused, sizes)
    since_boot_ns = tuple((one.pair, one.since_boot_ns) for one in sizes)
    return replace(heat, fused=fused), Quarrels(since_boot_ns=since_boot_ns, sizes=sizes)


def unit_slip(ratio: float, u_frac: float = SLIP_FRAC / SLIP_U) -> float | None:
    """The factor between two units that a ratio of two figures meets within its doubt; or None."""
    if ratio <= 0:
        return None
    above = max(ratio, 1 / ratio)
    most_frac = min(SLIP_FRAC, SLIP_U * u_frac)
    return next((slip for slip in SLIPS if abs(log(above / slip)) <= most_frac), None)


def _slip(
    pair: str, shown: dict[str, tuple[float, float]], single: Collection[str]
) -> float | None:
    names = pair.split("_vs_")
    if any(name not in single or shown[name][0] == 0 for name in names):
        return None
    (value_w, value_w_u), (other_w, other_w_u) = (shown[name] for name in names)
    return unit_slip(value_w / other_w, hypot(value_w_u / value_w, other_w_u / other_w))


def _disagreeing(named: dict[str, tuple[float, float]]) -> dict[str, float]:
    names = list(named)
    return {
        f"{first}_vs_{second}": _size_frac(named[first][0], named[second][0])
        for i, first in enumerate(names)
        for second in names[i + 1 :]
        if differs(*named[first], *named[second])
    }


def _size_frac(value_w: float, other_w: float) -> float:
    # One watt is below every meter's resolution, and no ratio can be made with nothing.
    return (value_w - other_w) / max(abs(other_w), 1.0)


def _marked(fused: Estimate, found: tuple[Disagreement, ...]) -> Estimate:
    is_lasting = any(one.is_lasting for one in found)
    quality = max(fused.quality, QualityClass.C) if is_lasting else fused.quality
    flags = (*fused.flags, *(flag for one in found for flag in _flags(one)))
    return replace(fused, quality=quality, flags=tuple(dict.fromkeys(flags)))


def _flags(one: Disagreement) -> list[str]:
    named = "mismatch" if one.is_lasting else "differs"
    flags = [f"{named}:{one.pair}:{one.size_frac:+.0%}"]
    if one.slip:
        factor = f"{one.slip:.1f}".removesuffix(".0")
        flags.append(f"unit_slip:{one.pair}:x{factor}")
    return flags
