"""Energy out of samples of volume and temperatures, step by step and never from means.

The product of means is not the mean of products: 2 m3/h at 9 K and then 4 m3/h at 3 K carry
15 m3 K in an hour, their means say 18. Source: physics.md 1 and 3.3; EN 1434-1.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite

from heatpool.heat import energy_wh
from heatpool.units import NS_PER_S

GAP_PERIODS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSample:
    """A pulse or a look: the volume since the sample before and the temperatures now."""

    event_ns: int
    volume_m3: float | None
    hot_c: float | None
    cold_c: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyGap:
    """A span of which no heat is told, and why: `silent`, `absent` or `impossible` values."""

    start_ns: int
    end_ns: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTold:
    """Energy of the spans that were seen, Wh, signed, beside those that were not.

    `hot_c` and `cold_c` are weighted by energy, as heat of that grade was carried; `hot_mean_c`
    and `cold_mean_c` are plain means over time. None where nothing was carried or seen.
    """

    energy_wh: float
    volume_m3: float
    seen_s: float
    hot_c: float | None
    cold_c: float | None
    hot_mean_c: float | None
    cold_mean_c: float | None
    gaps: tuple[EnergyGap, ...]


@dataclass(slots=True)
class _Sums:
    energy_wh: float = 0.0
    volume_m3: float = 0.0
    seen_s: float = 0.0
    # By size: water that runs both ways would put a signed mean outside of both pipes.
    carried_wh: float = 0.0
    hot_wh_k: float = 0.0
    cold_wh_k: float = 0.0
    hot_k_s: float = 0.0
    cold_k_s: float = 0.0
    gaps: list[EnergyGap] = field(default_factory=list)


def integrate_wh(
    samples: Iterable[VolumeSample], *, period_s: float, sensor_side: str, fluid: str = "water"
) -> EnergyTold:
    """Energy that the samples' water carried, Wh, negative where hot < cold, and its gaps.

    The first sample only opens the first span. A span of over three periods, or one whose volume
    or temperature is absent, below 0 or outside of the fluid's range, is a gap and adds no heat.
    Spans cut at a sample add up exactly.
    Raises: ValueError for an unknown fluid or side, a period that is not positive, or a sample that
    is not later than the one before. Source: physics.md 3.1 and 3.3.
    """
    if not 0 < period_s < float("inf"):
        raise ValueError(f"integral: period_s is {period_s}; say how often samples come, in s")
    # Settings are judged even where no sample is.
    energy_wh(0.0, 20.0, 20.0, sensor_side, fluid)
    longest_ns = GAP_PERIODS * period_s * NS_PER_S
    sums, before_ns = _Sums(), None
    for sample in samples:
        if before_ns is not None:
            told_wh = energy_wh(*_values(sample), sensor_side, fluid)
            cause = _gap_cause(sample, told_wh, before_ns, longest_ns)
            if cause:
                _open_gap(sums, before_ns, sample.event_ns, cause)
            else:
                _add(sums, sample, told_wh, (sample.event_ns - before_ns) / NS_PER_S)
        before_ns = sample.event_ns
    return _told(sums)


def _values(sample: VolumeSample) -> tuple[float, float, float]:
    """Volume, hot and cold; NaN where absent."""
    absent = float("nan")
    volume_m3, hot_c, cold_c = (
        absent if value is None else value
        for value in (sample.volume_m3, sample.hot_c, sample.cold_c)
    )
    return volume_m3, hot_c, cold_c


def _gap_cause(
    sample: VolumeSample, told_wh: float, before_ns: int, longest_ns: float
) -> str | None:
    span_ns = sample.event_ns - before_ns
    if span_ns <= 0:
        raise ValueError(
            f"integral: the sample at {sample.event_ns} ns follows one at {before_ns} ns; "
            "sort the samples and leave out repeated ones"
        )
    if span_ns > longest_ns:
        return "silent"
    if any(value != value for value in _values(sample)):
        return "absent"
    return None if isfinite(told_wh) else "impossible"


def _open_gap(sums: _Sums, start_ns: int, end_ns: int, cause: str) -> None:
    last = sums.gaps[-1] if sums.gaps else None
    if last and last.end_ns == start_ns and last.cause == cause:
        start_ns = last.start_ns
        sums.gaps.pop()
    sums.gaps.append(EnergyGap(start_ns=start_ns, end_ns=end_ns, cause=cause))


def _add(sums: _Sums, sample: VolumeSample, told_wh: float, span_s: float) -> None:
    volume_m3, hot_c, cold_c = _values(sample)
    sums.energy_wh += told_wh
    sums.volume_m3 += volume_m3
    sums.seen_s += span_s
    sums.carried_wh += abs(told_wh)
    sums.hot_wh_k += abs(told_wh) * hot_c
    sums.cold_wh_k += abs(told_wh) * cold_c
    sums.hot_k_s += hot_c * span_s
    sums.cold_k_s += cold_c * span_s


def _told(sums: _Sums) -> EnergyTold:
    is_seen, is_carried = sums.seen_s > 0, sums.carried_wh > 0
    return EnergyTold(
        energy_wh=sums.energy_wh,
        volume_m3=sums.volume_m3,
        seen_s=sums.seen_s,
        hot_c=sums.hot_wh_k / sums.carried_wh if is_carried else None,
        cold_c=sums.cold_wh_k / sums.carried_wh if is_carried else None,
        hot_mean_c=sums.hot_k_s / sums.seen_s if is_seen else None,
        cold_mean_c=sums.cold_k_s / sums.seen_s if is_seen else None,
        gaps=tuple(sums.gaps),
    )
