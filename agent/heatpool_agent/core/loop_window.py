"""Samples of a loop as windows of five minutes: means, and what moved inside of them.

A window ends with the first sample that fills it, so that samples of 15 min are windows of 15 min.
"""

from dataclasses import dataclass, field, fields
from math import log

from heatpool_agent.core.loop_sample import LoopSample

WINDOW_S = 300.0
# Of a window with less than this share of both heats nothing is made.
LEAST_SHARE = 0.6
# What a sample may be late against the grid.
_SLACK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """One window: means over the samples that have both heats, and what moved; None is absent.

    `flow_variance_frac` is the variance of flow from sample to sample, relative. `power_step_frac`
    and `heat_step_frac` are the largest steps of power and of computed heat over two samples,
    logarithmic and signed. `sway_w` is by how much the electric heat rose, `hot_sway_k` and
    `cold_sway_k` either pipe.
    """

    end_ns: int
    span_s: float
    power_w: float | None
    electric_w: float | None
    computed_w: float | None
    delta_k: float | None
    hot_c: float | None
    cold_c: float | None
    volume_flow_m3_h: float | None
    flow_variance_frac: float | None
    power_step_frac: float
    heat_step_frac: float
    sway_w: float
    hot_sway_k: float
    cold_sway_k: float


@dataclass(slots=True)
class _Sum:
    """A mean over time, and the first and last value."""

    total: float = 0.0
    span_s: float = 0.0
    first: float | None = None
    last: float | None = None
    step: float = 0.0
    old_log: float | None = None
    older_log: float | None = None

    def add(self, value: float, span_s: float) -> None:
        self.total += value * span_s
        self.span_s += span_s
        self.last = value
        if self.first is None:
            self.first = value

    def jump(self, value: float) -> None:
        """Keeps the largest logarithmic step over two values."""
        now = log(value) if value > 0 else None
        if now is not None and self.older_log is not None:
            step = now - self.older_log
            if abs(step) > abs(self.step):
                self.step = step
        self.older_log, self.old_log = self.old_log, now

    @property
    def mean(self) -> float | None:
        return self.total / self.span_s if self.span_s > 0 else None

    @property
    def sway(self) -> float:
        """By how much the last value lies above the one before the first."""
        if self.first is None or self.last is None:
            return 0.0
        return self.last - self.first

    def emptied(self) -> "_Sum":
        """The sum of the next window, which begins where this one ends."""
        return _Sum(first=self.last, last=self.last, old_log=self.old_log, older_log=self.older_log)


@dataclass(slots=True)
class Window:
    """The samples of the window that is not full yet."""

    span_s: float = 0.0
    paired_s: float = 0.0
    power: _Sum = field(default_factory=_Sum)
    hot: _Sum = field(default_factory=_Sum)
    cold: _Sum = field(default_factory=_Sum)
    volume_flow: _Sum = field(default_factory=_Sum)
    electric: _Sum = field(default_factory=_Sum)
    computed: _Sum = field(default_factory=_Sum)
    delta: _Sum = field(default_factory=_Sum)
    flow_squares_frac: float = 0.0
    flow_count: int = 0
    # Logarithm of the newest flow; it outlives the window.
    last_log: float | None = None

    @property
    def is_full(self) -> bool:
        """Whether the samples added make a window."""
        return self.span_s >= WINDOW_S - _SLACK_S

    @property
    def ripple_frac(self) -> float | None:
        """Variance of flow from sample to sample, relative."""
        return self.flow_squares_frac / (2 * self.flow_count) if self.flow_count else None

    def add(
        self, sample: LoopSample, *, computed_w: float | None, electric_w: float | None
    ) -> None:
        """Adds one sample that lasted."""
        span_s = sample.span_s
        self.span_s += span_s
        power_w, hot_c, cold_c = sample.power_w, sample.hot_c, sample.cold_c
        if power_w is not None:
            self.power.add(power_w, span_s)
            self.power.jump(power_w)
        if hot_c is not None:
            self.hot.add(hot_c, span_s)
        if cold_c is not None:
            self.cold.add(cold_c, span_s)
        if sample.volume_flow_m3_h is not None:
            self.volume_flow.add(sample.volume_flow_m3_h, span_s)
            self._ripple(sample.volume_flow_m3_h)
        if hot_c is not None and cold_c is not None:
            self.delta.add(hot_c - cold_c, span_s)
        if computed_w is not None and electric_w is not None:
            self.paired_s += span_s
            self.electric.add(electric_w, span_s)
            self.computed.add(computed_w, span_s)
            self.computed.jump(computed_w)

    def _ripple(self, volume_flow_m3_h: float) -> None:
        now = log(volume_flow_m3_h) if volume_flow_m3_h > 0 else None
        if now is not None and self.last_log is not None:
            step = now - self.last_log
            self.flow_squares_frac += step * step
            self.flow_count += 1
        self.last_log = now

    def taken(self, end_ns: int) -> Means:
        """The window that ends now; the next one begins."""
        is_paired = self.paired_s >= LEAST_SHARE * self.span_s
        means = Means(
            end_ns=end_ns,
            span_s=self.span_s,
            power_w=self.power.mean,
            electric_w=self.electric.mean if is_paired else None,
            computed_w=self.computed.mean if is_paired else None,
            delta_k=self.delta.mean,
            hot_c=self.hot.mean,
            cold_c=self.cold.mean,
            volume_flow_m3_h=self.volume_flow.mean,
            flow_variance_frac=self.ripple_frac,
            power_step_frac=self.power.step,
            heat_step_frac=self.computed.step,
            sway_w=self.electric.sway,
            hot_sway_k=self.hot.sway,
            cold_sway_k=self.cold.sway,
        )
        self._empty()
        return means

    def _empty(self) -> None:
        fresh = Window(
            power=self.power.emptied(),
            computed=self.computed.emptied(),
            electric=self.electric.emptied(),
            hot=self.hot.emptied(),
            cold=self.cold.emptied(),
            last_log=self.last_log,
        )
        for one in fields(self):
            setattr(self, one.name, getattr(fresh, one.name))

    def clear(self) -> None:
        """Forgets the samples of a window that a gap broke, and what came before them."""
        self.last_log = None
        self.power, self.computed, self.electric = _Sum(), _Sum(), _Sum()
        self.hot, self.cold = _Sum(), _Sum()
        self._empty()
