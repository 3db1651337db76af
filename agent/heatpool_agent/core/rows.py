"""What goes up of a tick: the site's channels with their exponents, and the mean over ticks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from heatpool.sample import Channel, Estimate

# Fixed point: a tenth of a watt, a thousandth of a degree, a tenth of a litre per hour.
EXPONENTS = {
    "electric_w": -1,
    "electric_w_u": -1,
    "electric_heat_w": -1,
    "electric_heat_w_u": -1,
    "computed_heat_w": -1,
    "computed_heat_w_u": -1,
    "reported_heat_w": -1,
    "heat_rate_w": -1,
    "heat_rate_w_u": -1,
    "delivered_heat_w": -1,
    "hot_c": -3,
    "cold_c": -3,
    "volume_flow_m3_h": -4,
    "quality": 0,
    "provenance": 0,
    "rejection_capacity_w": 0,
}
# Classes are not averaged: the worst of a row's ticks stands for it, origin the last.
WORST = frozenset({"quality"})
LAST = frozenset({"provenance"})
FUSED = frozenset({"heat_rate_w", "heat_rate_w_u"})
# A loop's first figure has no span yet: it stands alone, and counts for nothing beside others.
_LEAST_S = 1e-9
_NO_SPANS: Mapping[str, float] = {}


class LoopFigures(Protocol):
    """What a row says of one loop."""

    @property
    def loop_id(self) -> str: ...
    @property
    def electric(self) -> Estimate | None: ...
    @property
    def computed(self) -> Estimate | None: ...
    @property
    def fused(self) -> Estimate | None: ...
    @property
    def fused_s(self) -> float | None: ...
    @property
    def reported_heat_w(self) -> float | None: ...
    @property
    def delivered_heat_w(self) -> float | None: ...
    @property
    def hot_c(self) -> float | None: ...
    @property
    def cold_c(self) -> float | None: ...
    @property
    def volume_flow_m3_h(self) -> float | None: ...
    @property
    def rejection_capacity_w(self) -> float | None: ...


def cells_of(power: Estimate | None, loops: Sequence[LoopFigures]) -> dict[Channel, float]:
    """Every figure of one tick that is there, under its channel."""
    named = {("", name): value for name, value in _pair("electric_w", power)}
    for loop in loops:
        named |= {(loop.loop_id, name): value for name, value in _loop_cells(loop)}
    return {
        Channel(loop_id, name, EXPONENTS[name]): value
        for (loop_id, name), value in named.items()
        if value is not None
    }


def _loop_cells(loop: LoopFigures) -> Iterator[tuple[str, float | None]]:
    yield from _pair("electric_heat_w", loop.electric)
    yield from _pair("computed_heat_w", loop.computed)
    # A figure that still is the one of a tick before says nothing of this tick.
    if loop.fused_s is not None:
        yield from _pair("heat_rate_w", loop.fused)
    if loop.fused is not None:
        yield "quality", float(loop.fused.quality)
        yield "provenance", float(loop.fused.provenance)
    yield "reported_heat_w", loop.reported_heat_w
    yield "delivered_heat_w", loop.delivered_heat_w
    yield "hot_c", loop.hot_c
    yield "cold_c", loop.cold_c
    yield "volume_flow_m3_h", loop.volume_flow_m3_h
    yield "rejection_capacity_w", loop.rejection_capacity_w


def _pair(name: str, estimate: Estimate | None) -> Iterator[tuple[str, float | None]]:
    if estimate is not None:
        yield name, estimate.value
        yield f"{name}_u", estimate.u


def spans_s(loops: Sequence[LoopFigures]) -> dict[str, float]:
    """Over which span, s, each loop's fused heat is a mean, where it is new at this tick."""
    return {loop.loop_id: max(loop.fused_s, _LEAST_S) for loop in loops if loop.fused_s is not None}


class Mean:
    """Running mean by time of each channel over equal ticks; an absent tick is left out.

    Fused heat comes as means over spans of its own, of which the last one of a row ends with the
    row: it is weighed by them, so that the row's figure is the mean over the row's own span.
    """

    def __init__(self) -> None:
        self._sums: dict[Channel, float] = {}
        self._weights: dict[Channel, float] = {}

    def add(self, cells: Mapping[Channel, float], spans: Mapping[str, float] = _NO_SPANS) -> None:
        """Adds one tick; `spans` are those of the fused heats, s, by loop."""
        for channel, value in cells.items():
            before = self._sums.get(channel)
            if channel.quantity in FUSED:
                weight = spans.get(channel.loop_id, 1.0)
                self._sums[channel] = (before or 0.0) + weight * value
                self._weights[channel] = self._weights.get(channel, 0.0) + weight
            elif before is None or channel.quantity in LAST:
                self._sums[channel], self._weights[channel] = value, 1
            elif channel.quantity in WORST:
                self._sums[channel] = max(before, value)
            else:
                self._sums[channel] = before + value
                self._weights[channel] += 1

    def taken(self) -> dict[Channel, float]:
        """The means since the last call; empty if there was no tick."""
        means = {channel: total / self._weights[channel] for channel, total in self._sums.items()}
        self._sums, self._weights = {}, {}
        return means
