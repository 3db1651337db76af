"""Reported, computed and electric heat side by side: all stay visible, their quarrel is flagged."""

from dataclasses import dataclass, replace

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.core.estimate import LoopHeat, differs

_NS = 1_000_000_000
PERSISTS_S = 600.0  # physics.md 3.6: ten minutes, longer than any loop's transient


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarrels:
    """Pairs that disagree, each with the boot time at which it began, ns."""

    since_boot_ns: tuple[tuple[str, int], ...] = ()


def compare(
    heat: LoopHeat,
    reported_w: float | None,
    reported_u_frac: float,
    quarrels: Quarrels,
    *,
    boot_ns: int,
) -> tuple[LoopHeat, Quarrels]:
    """The same heats, the fused one flagged and below class B while a pair disagrees for long."""
    reported = None if reported_w is None else (reported_w, abs(reported_w) * reported_u_frac)
    named = {
        "reported": reported,
        "computed": heat.computed and (heat.computed.value, heat.computed.u),
        "electric": heat.electric and (heat.electric.value, heat.electric.u),
    }
    known = dict(quarrels.since_boot_ns)
    began = {
        pair: known.get(pair, boot_ns)
        for pair in _disagreeing({name: value for name, value in named.items() if value})
    }
    lasting = [pair for pair, at_ns in began.items() if boot_ns - at_ns >= PERSISTS_S * _NS]
    fused = _downgraded(heat.fused, lasting) if lasting and heat.fused else heat.fused
    return replace(heat, fused=fused), Quarrels(since_boot_ns=tuple(began.items()))


def _disagreeing(named: dict[str, tuple[float, float]]) -> list[str]:
    names = list(named)
    return [
        f"{first}_vs_{second}"
        for i, first in enumerate(names)
        for second in names[i + 1 :]
        if differs(*named[first], *named[second])
    ]


def _downgraded(fused: Estimate, pairs: list[str]) -> Estimate:
    flags = tuple(dict.fromkeys((*fused.flags, *(f"mismatch:{pair}" for pair in pairs))))
    return replace(fused, quality=max(fused.quality, QualityClass.C), flags=flags)
