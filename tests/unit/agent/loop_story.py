"""A loop told minute by minute, sound or with a fault, to a watch; seeded, without thermal mass."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sin
from random import Random

from heatpool.heat import heat_rate_w
from heatpool_agent.core import residual
from heatpool_agent.core.fault import Fault
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.residual import Watch

NS = 1_000_000_000
START_NS = 1_800_000_000 * NS
HOUR = 60
DAY = 24 * HOUR
MODEL = LoopModel()

# What becomes of a sound sample: minute since the story began, and the sample.
Change = Callable[[int, LoopSample], LoopSample]


def sound(_: int, sample: LoopSample) -> LoopSample:
    return sample


@dataclass(slots=True)
class Story:
    """One loop and the watch over it; a bias of its own that nobody was told."""

    watch: Watch
    random: Random
    minute: int = 0
    gain: float = 1.02
    period_s: float = 60.0

    @property
    def faults(self) -> dict[str, Fault]:
        return {fault.fault: fault for fault in residual.faults(self.watch)}

    @property
    def now_ns(self) -> int:
        return START_NS + round(self.minute * self.period_s * NS)

    def sample(self) -> LoopSample:
        """What a sound loop shows over the next period."""
        normal, hours = self.random.gauss, self.minute * self.period_s / 3600
        load = 1.0 + 0.10 * sin(hours * 2.1) + 0.05 * sin(hours * 9.0)
        flow_m3_h = 8.0 * (1.0 + 0.005 * normal(0, 1))
        cold_c = 30.0 + 0.5 * sin(hours) + 0.01 * normal(0, 1)
        power_w = 100e3 * load * (1.0 + 0.004 * normal(0, 1))
        wander = 1.0 + 0.01 * normal(0, 1)
        delta_k = self.gain * wander * 75e3 * load / heat_rate_w(flow_m3_h, 38.0, 37.0, "cold")
        return LoopSample(
            span_s=self.period_s,
            power_w=power_w,
            volume_flow_m3_h=flow_m3_h,
            hot_c=cold_c + delta_k,
            cold_c=cold_c,
        )

    def goes_on(self, minutes: int, change: Change = sound) -> "Story":
        """Tells so many samples more."""
        for _ in range(minutes):
            self.tells(change(self.minute, self.sample()))
        return self

    def tells(self, sample: LoopSample) -> None:
        """Tells one sample."""
        self.minute += 1
        flow_m3_h, hot_c, cold_c = sample.volume_flow_m3_h, sample.hot_c, sample.cold_c
        is_whole = flow_m3_h is not None and hot_c is not None and cold_c is not None
        residual.observe(
            self.watch,
            sample,
            computed_w=heat_rate_w(flow_m3_h, hot_c, cold_c, "cold") if is_whole else None,  # type: ignore[arg-type]
            electric_lagged_w=None if sample.power_w is None else 0.75 * sample.power_w,
            event_ns=self.now_ns,
        )


def begun(seed: int = 1, *, period_s: float = 60.0) -> Story:
    """A story that begins."""
    return Story(watch=residual.begin(MODEL), random=Random(seed), period_s=period_s)


def scaled(**factors: float) -> Change:
    """Fields of every sample times a factor."""

    def change(_: int, sample: LoopSample) -> LoopSample:
        return replace(sample, **{name: getattr(sample, name) * f for name, f in factors.items()})

    return change


def fixed(**values: float | None) -> Change:
    """Fields of every sample held at a value, or absent."""
    return lambda _, sample: replace(sample, **values)  # type: ignore[arg-type]
