"""Ticks of a loop as one sample: means over the span that they make up together."""

from heatpool.sample import Estimate, QualityClass
from heatpool.water import FLUIDS
from heatpool_agent.core.loop_sample import LoopSample

# A first tick has no span: it counts beside others as if it had none, and alone as itself.
_LEAST_S = 1e-9
# What no loop shows is no value: one such tick would spoil the mean of ten.
POWERS_W, FLOWS_M3_H = (0.0, 1e10), (0.0, 1e6)
ROOMS_C = (-60.0, 80.0)
_POWER, _VOLUME, _HOT, _COLD, _AMBIENT = range(5)


class Gather:
    """Sums of ticks by time; an absent value is left out of its own mean alone.

    `fluid` tells which temperatures its pipes can have.
    """

    __slots__ = (
        "_carried",
        "_carried_s",
        "_firsts",
        "_last",
        "_pipes_c",
        "_quality",
        "_sums",
        "_u_w",
        "_weights_s",
        "span_s",
    )

    def __init__(self, fluid: str = "water") -> None:
        known = FLUIDS.get(fluid)
        self._pipes_c = known.range_c if known is not None else ROOMS_C
        self._clear()

    def _clear(self) -> None:
        self.span_s = 0.0
        # Sums are of differences from the first value: the mean of equal values is that value to
        # the last digit, by which a sensor that stands still is known.
        self._firsts = [0.0] * 5
        self._sums = [0.0] * 5
        self._weights_s = [0.0] * 5
        # Flow, flow times hot and flow times cold, over the ticks that have all three.
        self._carried = [0.0] * 3
        self._carried_s = 0.0
        self._u_w = 0.0
        self._quality = QualityClass.A
        self._last: Estimate | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added since the last sample."""
        return not self.span_s and not any(self._weights_s)

    def add(self, sample: LoopSample, power: Estimate | None) -> None:
        """Adds one tick; `power` is its electric power with doubt and class, where known."""
        weight_s = max(sample.span_s, _LEAST_S)
        self.span_s += sample.span_s
        flow_m3_h = _possible(sample.volume_flow_m3_h, *FLOWS_M3_H)
        hot_c, cold_c = (
            _possible(sample.hot_c, *self._pipes_c),
            _possible(sample.cold_c, *self._pipes_c),
        )
        self._put(_POWER, _possible(sample.power_w, *POWERS_W), weight_s)
        if flow_m3_h is not None or hot_c is not None or cold_c is not None:
            self._put(_VOLUME, flow_m3_h, weight_s)
            self._put(_HOT, hot_c, weight_s)
            self._put(_COLD, cold_c, weight_s)
        if flow_m3_h is not None and hot_c is not None and cold_c is not None:
            self._carried_s += weight_s
            self._carried[0] += weight_s * flow_m3_h
            self._carried[1] += weight_s * flow_m3_h * (hot_c - self._firsts[_HOT])
            self._carried[2] += weight_s * flow_m3_h * (cold_c - self._firsts[_COLD])
        if sample.ambient_c is not None:
            self._put(_AMBIENT, _possible(sample.ambient_c, *ROOMS_C), weight_s)
        if power is not None:
            self._u_w += weight_s * power.u
            self._quality = max(self._quality, power.quality)
            self._last = power

    def _put(self, at: int, value: float | None, weight_s: float) -> None:
        if value is not None:
            if not self._weights_s[at]:
                self._firsts[at] = value
            self._sums[at] += weight_s * (value - self._firsts[at])
            self._weights_s[at] += weight_s

    def taken(self) -> tuple[LoopSample, Estimate | None]:
        """The means since the last call, and the power among them with its doubt and class."""
        sample, power = self._sample(), self._power()
        self._clear()
        return sample, power

    def _sample(self) -> LoopSample:
        hot_c, cold_c = self._mean(_HOT), self._mean(_COLD)
        # Heat is a product: means weighed by the flow leave the heat of the span as it was, also
        # where flow and temperatures move together.
        is_whole = {self._carried_s} == set(self._weights_s[_VOLUME : _COLD + 1])
        if is_whole and self._carried[0] > 0:
            hot_c = self._firsts[_HOT] + self._carried[1] / self._carried[0]
            cold_c = self._firsts[_COLD] + self._carried[2] / self._carried[0]
        return LoopSample(
            span_s=self.span_s,
            power_w=self._mean(_POWER),
            volume_flow_m3_h=self._mean(_VOLUME),
            hot_c=hot_c,
            cold_c=cold_c,
            ambient_c=self._mean(_AMBIENT),
        )

    def _power(self) -> Estimate | None:
        last, value_w = self._last, self._mean(_POWER)
        if last is None or value_w is None:
            return None
        # A meter's doubt is the same at every tick: it does not average out.
        return Estimate(
            value=value_w,
            u=self._u_w / self._weights_s[_POWER],
            quality=self._quality,
            provenance=last.provenance,
            flags=last.flags,
        )

    def _mean(self, at: int) -> float | None:
        weight_s = self._weights_s[at]
        return self._firsts[at] + self._sums[at] / weight_s if weight_s else None


def _possible(value: float | None, least: float, most: float) -> float | None:
    """The value, or None for one that cannot be; NaN is no number within any bounds."""
    return value if value is not None and least <= value <= most else None
