"""Energy that each part of the computers has used: what the counters behind the parts count."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from heatpool_sim.plant.feed import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """Energy by part, J, over the seconds since the start."""

    energy_j: Mapping[str, float] = field(default_factory=dict)
    spent_s: float = 0.0


def parts_w(feed: Feed) -> dict[str, float]:
    """Power of each part, W; together all that the supplies take."""
    return {
        **{f"cpu{index}": power_w for index, power_w in enumerate(feed.cpu_w)},
        **{f"gpu{index}": power_w for index, power_w in enumerate(feed.gpu_w)},
        "memory": feed.memory_w,
        "board": feed.board_w,
        "fan": feed.fan_w,
        "loss": sum(feed.input_w) - sum(feed.output_w),
    }


def grown(fed: Fed, feed: Feed, *, dt_s: float, power_frac: float = 1.0) -> Fed:
    """The energies after the feed was held for so many seconds, counted as this share of it."""
    energy_j = {
        part: fed.energy_j.get(part, 0.0) + power_w * power_frac * dt_s
        for part, power_w in parts_w(feed).items()
    }
    return Fed(energy_j=energy_j, spent_s=fed.spent_s + dt_s)


def means_w(before: Fed, after: Fed) -> dict[str, float]:
    """Mean power of each part between two looks, W; nothing where no time passed."""
    span_s = after.spent_s - before.spent_s
    if span_s <= 0.0:
        return {}
    return {
        part: (energy_j - before.energy_j.get(part, 0.0)) / span_s
        for part, energy_j in after.energy_j.items()
    }
