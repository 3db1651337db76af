"""What a run counts, and the quantiles of what it times."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from heatpool.sample import SpoolKind

_PER_E = 50  # classes of 2 %


class Times:
    """Durations in classes of 2 %: thousands of agents, and no list that grows."""

    __slots__ = ("_classes", "count", "most_s")

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0
        self.most_s = 0.0

    def add(self, length_s: float) -> None:
        """Counts one."""
        self._classes[math.floor(math.log(max(length_s, 1e-6)) * _PER_E)] += 1
        self.count += 1
        self.most_s = max(self.most_s, length_s)

    def quantile_s(self, frac: float) -> float | None:
        """The length that this share does not exceed, s; None without any."""
        wanted, seen = math.ceil(frac * self.count), 0
        for number, count in sorted(self._classes.items()):
            seen += count
            if seen >= wanted:
                return min(math.exp((number + 1) / _PER_E), self.most_s)
        return None

    def tree(self) -> dict[str, float | int | None]:
        """The same for a report, ms."""
        names = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        found: dict[str, float | int | None] = {"count": self.count}
        for name, frac in names.items():
            length_s = self.quantile_s(frac)
            found[name] = None if length_s is None else round(length_s * 1e3, 3)
        return found | {"most": round(self.most_s * 1e3, 3) if self.count else None}


LANES = ("live", "live_while_backlog", "backlog", "billing")


@dataclass(slots=True)
class Tally:
    """All agents of a run together."""

    connected: int = 0
    connected_most: int = 0
    greeted: int = 0
    backlogs_open: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    refused_for_good: Counter[str] = field(default_factory=Counter)
    frames_of_garbage: Counter[str] = field(default_factory=Counter)
    enders: Counter[str] = field(default_factory=Counter)
    latencies: Mapping[str, Times] = field(
        default_factory=lambda: {name: Times() for name in LANES}
    )
    drains: Times = field(default_factory=Times)
    lags: Times = field(default_factory=Times)

    def greet(self) -> None:
        """An agent is in."""
        self.connected += 1
        self.connected_most = max(self.connected_most, self.connected)
        self.greeted += 1

    def ended(self, code: str) -> None:
        """A stream of an agent that was in, or never got in, is gone."""
        self.ends[code] += 1

    def sent(self, kind: SpoolKind, *, n_rows: int, n_bytes: int) -> None:
        """A frame of rows or registers goes up for the first time."""
        names = ("batches", "rows", "row_bytes")
        if kind is SpoolKind.BILLING:
            names = ("register_batches", "registers", "register_bytes")
        for name, amount in zip(names, (1, n_rows, n_bytes), strict=True):
            self.counts[name] += amount
        self.counts["bytes"] += n_bytes

    def repeated(self, n_bytes: int) -> None:
        """A frame goes up once more."""
        self.counts["repeats"] += 1
        self.counts["bytes"] += n_bytes

    def garbage(self, kind: str, n_bytes: int) -> None:
        """A frame that cannot be used goes up for the first time."""
        self.frames_of_garbage[kind] += 1
        self.counts["bytes"] += n_bytes

    def acked(self, lane: str, length_s: float) -> None:
        """A frame is durable so long after it was sent."""
        self.counts["acked"] += 1
        self.latencies[lane].add(length_s)
        if lane == "live" and self.backlogs_open:
            self.latencies["live_while_backlog"].add(length_s)
