"""Readings that came and may enter no estimate: how many of each sensor, and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.verdict import reasons
from heatpool_agent.http.seen import Seen

# A sensor with everything wrong shall not fill the page.
_MOST_REASONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How many readings of one sensor were refused at the last tick, and the reasons in words."""

    count: int
    told: str


def refusals(seen: Seen) -> Mapping[str, Refusals]:
    """By sensor; sensors of which all is admitted are not in it, and none while figures are old."""
    found: dict[str, list[str]] = {}
    for reading in () if seen.is_stale else seen.board.judged:
        if not is_admitted(reading):
            found.setdefault(reading.sensor, []).append("; ".join(reasons(reading)))
    return {sensor: _told(whys) for sensor, whys in found.items()}


def _told(whys: list[str]) -> Refusals:
    counts = Counter(whys).most_common(_MOST_REASONS)
    told = ", ".join(f"{count} × {why}" for why, count in counts)
    return Refusals(count=len(whys), told=f"refused: {told}")
