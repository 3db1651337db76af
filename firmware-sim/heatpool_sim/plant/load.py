"""What the computers of a site ask for, W: a day with noise and jobs, or a recorded trace."""

from bisect import bisect_right
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

from heatpool_sim.plant.noise import uniform, wander

_DAY_NS = 86_400 * 10**9
_PEAK_NS = 15 * 3600 * 10**9  # mid-afternoon
_NOISE_NS = 45 * 10**9  # requests come and go within a minute
_JOB_NS = 240 * 10**9  # a batch job runs some minutes


class Load(Protocol):
    """IT load over time, W."""

    def it_w(self, at_ns: int) -> float:
        """IT load, W, at an instant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """A day's wave around a base, batch jobs on top, and noise; never below idle."""

    nominal_w: float
    seed: str
    base_frac: float = 0.6
    day_frac: float = 0.12
    job_frac: float = 0.2
    noise_frac: float = 0.03
    idle_frac: float = 0.25

    def it_w(self, at_ns: int) -> float:
        """IT load, W, at an instant."""
        day = self.day_frac * cos(2.0 * pi * ((at_ns - _PEAK_NS) % _DAY_NS) / _DAY_NS)
        job = self.job_frac * _ramped(f"{self.seed}/job", at_ns)
        noise = self.noise_frac * wander(f"{self.seed}/noise", at_ns, every_ns=_NOISE_NS)
        return self.nominal_w * min(max(self.base_frac + day + job + noise, self.idle_frac), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A recorded load, held between its points and played again from the start at its end."""

    times_s: tuple[float, ...]
    it_ws: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times_s) < 2 or len(self.times_s) != len(self.it_ws):
            raise ValueError("a trace needs two points or more, and one value for each time")
        if any(b <= a for a, b in zip(self.times_s, self.times_s[1:], strict=False)):
            raise ValueError("the times of a trace must rise")

    def it_w(self, at_ns: int) -> float:
        """IT load, W, at an instant."""
        length_s = self.times_s[-1] - self.times_s[0]
        at_s = self.times_s[0] + (at_ns / 1e9) % length_s
        return self.it_ws[bisect_right(self.times_s, at_s) - 1]


def _ramped(seed: str, at_ns: int) -> float:
    """0..1: jobs of different size, each entered over the first tenth of its time."""
    index, rest_ns = divmod(at_ns, _JOB_NS)
    share = min(rest_ns / (_JOB_NS / 10), 1.0)
    return uniform(seed, index - 1) * (1.0 - share) + uniform(seed, index) * share
