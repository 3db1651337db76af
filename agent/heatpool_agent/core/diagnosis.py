"""Why flow and power tell different heats: the one cause that fits best, in a sentence.

Each cause leaves another trace beside the shift of the residual: restless flow, a flow that fell by
as much, a step of power by as much, a shift that grows as 1/ΔT, a ramp. Each trace is weighed as a
logarithm of likelihoods, with against without; where none stands out, none is told.
Source: physics.md 9.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log

from heatpool_agent.core.median import median

# Air makes the variance of flow three to ten times the usual one (logarithms of 5 and 12), and one
# window tells no more of it than a dozen samples would.
RESTLESS_LOG = 1.6
RESTLESS_MOST_LOG = 2.5
RESTLESS_LEAST_U = 0.4
# What a cause must score more than "no cause stands out".
LEAST_SCORE = 0.5
# No single trace decides alone against all others.
MOST_SCORE = 8.0
# Flow of a pump wanders for a quarter of an hour: so many windows tell as much as one.
FLOW_CORRELATED_COUNT = 6.0
FLOW_FLOOR_FRAC = 0.004
# Doubt of the shift that a step of power is to fit, and how near two steps are the same.
STEP_U = 0.03
STEP_SAME = 0.02
# A shift so large would be seen as a step of flow or temperatures; what its absence tells.
STEP_SEEN = 0.06
STEP_SCORE = 1.5
# Residuals wander: their squares count for less than independent ones.
WANDER_SHARE = 0.5
# A ramp takes half a day to be one.
RAMP_BLOCKS = 10
NEAR_WINDOWS = 1
_S = 1_000_000_000
# Hours end an hour apart by their making, whatever the clock on the wall was set to.
_LEAST_BLOCK_NS = 1800 * _S


@dataclass(frozen=True, slots=True)
class Point:
    """What one window, or an hour of them, showed; `None` is absent."""

    end_ns: int
    excess: float
    u: float
    inverse_k: float
    flow_excess_frac: float | None = None
    noise_ratio: float | None = None
    power_step_frac: float = 0.0
    heat_step_frac: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What is known when the residual has shifted: its windows, hours, and what is usual."""

    points: Sequence[Point]
    blocks: Sequence[Point]
    onset_ns: int
    flow_spread_frac: float
    noise_spread: float


@dataclass(frozen=True, slots=True)
class Cause:
    """The cause that fits best, the evidence in one sentence, and how well each cause fits."""

    fault: str
    evidence: str
    scores: Mapping[str, float]


def cause(traces: Traces) -> Cause:
    """What shifted the residual; "residual" where no cause stands out."""
    since = [point for point in traces.points if point.end_ns > traces.onset_ns]
    since = since or list(traces.points[-1:])
    shift = mean_excess(since)
    ramp_score, slope_day = _ramp(traces)
    grows = _pair(since)
    scores = {
        "residual": LEAST_SCORE,
        "air_in_loop": _air(since, shift, traces.noise_spread),
        "fouling": _fouled(since, shift, traces) if shift < 0 else -MOST_SCORE,
        "power_meter": _step(traces, median(point.excess for point in since)),
        "pair_offset": grows,
        "sensor_drift": grows + ramp_score,
    }
    best = max(scores, key=lambda name: scores[name])
    text = _sentence(best, since, shift, slope_day)
    return Cause(best, text, scores)


def mean_excess(points: Sequence[Point]) -> float:
    """Mean of the unexpected residual, weighed by its doubt, relative to electric heat."""
    weights = [1.0 / (point.u * point.u) for point in points]
    pairs = zip(weights, points, strict=True)
    return sum(w * point.excess for w, point in pairs) / sum(weights)


def _bounded(score: float) -> float:
    return max(-MOST_SCORE, min(MOST_SCORE, score))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _air(since: Sequence[Point], shift: float, noise_spread: float) -> float:
    """How much better a flow five times as restless explains its noise than a usual one."""
    # The window in which the level of flow fell is restless, whatever the cause.
    seen = [point.noise_ratio for point in since[1:][-24:] if point.noise_ratio is not None]
    if shift > 0 or not seen:
        return -MOST_SCORE
    restless = sum(min(ratio, RESTLESS_MOST_LOG) for ratio in seen) / len(seen)
    variance = max(noise_spread, RESTLESS_LEAST_U) ** 2 / len(seen)
    missed = max(0.0, RESTLESS_LOG - restless)
    score = (restless * abs(restless) - missed * missed) / (2.0 * variance)
    return min(2.0 * MOST_SCORE, max(-MOST_SCORE, score))


def _fouled(since: Sequence[Point], shift: float, traces: Traces) -> float:
    """How much better a flow sensor that shows less explains the level of flow than a sound one."""
    fell = _mean([point.flow_excess_frac for point in since])
    if fell is None:
        return -1.0
    target = log(max(1.0 + shift, 0.05))
    count = sum(point.flow_excess_frac is not None for point in since)
    part = min(1.0, FLOW_CORRELATED_COUNT / count)
    variance = traces.flow_spread_frac**2 * part + FLOW_FLOOR_FRAC**2
    return _bounded((fell * fell - (fell - target) ** 2) / (2.0 * variance))


def _step(traces: Traces, shift: float) -> float:
    """How much better a step of the power meter explains the onset than none."""
    points = list(traces.points)
    first = next((i for i, p in enumerate(points) if p.end_ns > traces.onset_ns), 0)
    if first == 0:
        return -1.0
    near = range(max(0, first - NEAR_WINDOWS), min(len(points), first + NEAR_WINDOWS + 1))
    target = log(max(1.0 + shift, 0.05))
    best, chance = _fit([point.power_step_frac for point in points], near, -target)
    score = -log(chance) - best * best / (2.0 * STEP_U**2)
    if abs(shift) < STEP_SEEN:
        return _bounded(score)
    # Flow and temperatures would have stepped themselves.
    best, chance = _fit([point.heat_step_frac for point in points], near, target)
    return _bounded(score + (log(chance) if best <= STEP_SAME else STEP_SCORE))


def _fit(steps: Sequence[float], near: range, target: float) -> tuple[float, float]:
    """How far the best of these few windows is from a step, and how often chance does as well."""
    misfits = [abs(step - target) for step in steps]
    best = min(misfits[i] for i in near)
    least = max(best, STEP_SAME)
    alike = sum(misfit <= least for i, misfit in enumerate(misfits) if i not in near)
    return best, 1.0 - (1.0 - (alike + 0.5) / (len(steps) + 1.0)) ** len(near)


def _pair(since: Sequence[Point]) -> float:
    """How much better a shift that grows as 1/ΔT fits than one that does not."""
    flat = growing = 0.0
    weights = [1.0 / (p.u * p.u) for p in since]
    total = sum(weights)
    level = sum(w * p.excess for w, p in zip(weights, since, strict=True)) / total
    square = sum(w * p.inverse_k**2 for w, p in zip(weights, since, strict=True))
    offset_k = sum(w * p.excess * p.inverse_k for w, p in zip(weights, since, strict=True)) / square
    for weight, point in zip(weights, since, strict=True):
        flat += weight * (point.excess - level) ** 2
        growing += weight * (point.excess - offset_k * point.inverse_k) ** 2
    return _bounded(WANDER_SHARE * (flat - growing) / 2.0)


def _ramp(traces: Traces) -> tuple[float, float]:
    """How much better a ramp fits the hours than a step, and its slope per day."""
    blocks = traces.blocks
    if len(blocks) < 2 * RAMP_BLOCKS:
        return -MOST_SCORE, 0.0
    days = _days(blocks)
    values = [block.excess for block in blocks]
    step = min(_step_misfit(values, i) for i in range(1, len(values) - 2))
    ramps = [_ramp_misfit(days, values, i) for i in range(0, len(values) - RAMP_BLOCKS, 3)]
    misfit, slope_day = min(ramps)
    gain = log(max(step, 1e-12) / max(misfit, 1e-12))
    return _bounded(WANDER_SHARE * len(values) / 2.0 * gain), slope_day


def _days(blocks: Sequence[Point]) -> list[float]:
    """When each hour ended, in days since the first; a clock that was set back moves none back."""
    days = [0.0]
    for before, block in pairwise(blocks):
        passed_ns = max(block.end_ns - before.end_ns, _LEAST_BLOCK_NS)
        days.append(days[-1] + passed_ns / (86_400 * _S))
    return days


def _step_misfit(values: Sequence[float], first: int) -> float:
    after = values[first:]
    level = sum(after) / len(after)
    return sum(v * v for v in values[:first]) + sum((v - level) ** 2 for v in after)


def _ramp_misfit(days: Sequence[float], values: Sequence[float], first: int) -> tuple[float, float]:
    rises = [max(0.0, day - days[first]) for day in days]
    square = sum(rise * rise for rise in rises)
    slope = sum(rise * v for rise, v in zip(rises, values, strict=True)) / square
    misfit = sum((v - slope * rise) ** 2 for rise, v in zip(rises, values, strict=True))
    return misfit, slope


def _sentence(fault: str, since: Sequence[Point], shift: float, slope_day: float) -> str:
    hours = max(0, since[-1].end_ns - since[0].end_ns) / (3600 * _S)
    seen = f"flow and temperatures tell {shift:+.1%} against power for {hours:.1f} h"
    delta_k = 1.0 / max(_mean([point.inverse_k for point in since]) or 1.0, 1e-3)
    fell = _mean([point.flow_excess_frac for point in since])
    restless = _mean([point.noise_ratio for point in (since[1:] or since)[-24:]])
    match fault:
        case "air_in_loop":
            assert restless is not None
            return f"{seen} and flow is {exp(restless):.1f}x as restless as usual: vent the loop"
        case "fouling":
            assert fell is not None
            return (
                f"{seen} and flow shows {exp(fell) - 1.0:+.1%} at the same load: "
                "clean the flow sensor and the strainer"
            )
        case "power_meter":
            return (
                f"{seen}, since a step of power that heat did not follow: check current "
                "transformers and which hosts the meter counts"
            )
        case "pair_offset":
            return (
                f"{seen}, and more at a small difference, as {shift * delta_k:+.2f} K between the "
                "sensors would: compare both in one bath, or exchange the pair"
            )
        case "sensor_drift":
            return (
                f"{seen} and growing by {slope_day:+.2%} a day, as {slope_day * delta_k:+.2f} K a "
                "day would, whatever the load: compare both temperature sensors, exchange one"
            )
    level = "" if fell is None else f" (flow shows {exp(fell) - 1.0:+.1%} at the same load)"
    return f"{seen}{level}: check flow meter, both temperature sensors and power meter"
