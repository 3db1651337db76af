"""Servers whose every parameter is drawn anew, and hidden from what is to learn them."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from heatpool_agent.core import calibrate
from heatpool_agent.core.calibrate import Learner, Lesson
from heatpool_agent.core.coefficients import Coefficients, predicted

S = 1_000_000_000
BEGIN_NS = 1_760_000_000 * S
METER_U_FRAC = 0.02
SPAN_S = 60.0


@dataclass
class HiddenHost:
    """A server: its supply bends, counters and meter are off, and nobody sees its fans."""

    seed: int
    draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.draw = r = random.Random(self.seed)
        self.packages = r.choice([1, 2])
        self.idle_w, self.full_w = r.uniform(10, 40), r.uniform(80, 280)
        self.cards = r.choice([0, 0, 1, 4])
        self.base_w, self.fans_w = r.uniform(25, 120), r.uniform(5, 60)
        self.cpu_gain, self.gpu_gain = r.gauss(1, 0.05), r.gauss(1, 0.05)
        self.efficiency, self.bend = r.uniform(0.90, 0.95), r.uniform(0, 0.03)
        self.regulators = r.uniform(0.03, 0.10)
        self.meter_gain = 1 + r.gauss(0, METER_U_FRAC)

    @property
    def assumed_base_w(self) -> float:
        return self.packages * 55 / 0.93

    def spans(self, count: int) -> Iterator[tuple[float, tuple[float, float, float], float]]:
        """Load, what counters show, and the true power at the wall, span by span."""
        r, busy, cards, mood = self.draw, self.draw.random(), self.draw.random(), 0.0
        wish, wish_cards = r.random(), r.random()
        for _ in range(count):
            wish = r.random() if r.random() < 1 / 60 else wish
            wish_cards = r.random() if r.random() < 1 / 60 else wish_cards
            busy = min(1.0, max(0.0, busy + 0.2 * (wish - busy) + 0.02 * r.gauss(0, 1)))
            cards = min(1.0, max(0.0, cards + 0.2 * (wish_cards - cards) + 0.02 * r.gauss(0, 1)))
            mood = 0.9 * mood + 0.43 * r.gauss(0, 1)
            yield self._span(busy, cards, mood)

    def _span(
        self, busy: float, cards: float, mood: float
    ) -> tuple[float, tuple[float, float, float], float]:
        jitter = 1 + 0.01 * self.draw.gauss(0, 1)
        cpu_w = self.packages * (self.idle_w + (self.full_w - self.idle_w) * busy) * jitter
        gpu_w = self.cards * (50 + 350 * cards)
        speed = 0.4 + 0.5 * min(1.0, max(busy, cards) * 0.9 + 0.1 * mood)
        dram_w = self.packages * (5 + 10 * busy**0.7 * (1 + 0.2 * mood))
        dc_w = (cpu_w + gpu_w) * (1 + self.regulators) + self.base_w
        dc_w += self.fans_w * speed**3 + dram_w
        most_w = self.fans_w + self.base_w + 1.1 * (self.packages * self.full_w + self.cards * 400)
        efficiency = self.efficiency - 4 * self.bend * (dc_w / most_w - 0.5) ** 2
        return busy, (cpu_w * self.cpu_gain, gpu_w * self.gpu_gain, 0.0), dc_w / efficiency

    def lesson(self, at: int, inputs: tuple[float, ...], wall_w: float, prior_w: float) -> Lesson:
        return Lesson(
            event_ns=BEGIN_NS + round(at * SPAN_S * S),
            span_s=SPAN_S,
            inputs=inputs,
            measured_w=wall_w * self.meter_gain + self.draw.gauss(0, 2),
            measured_u_frac=METER_U_FRAC,
            reference="pdu",
            quality=2,
            prior_w=prior_w,
        )


@dataclass
class Errors:
    """What was foretold of spans that nobody had learnt: relative errors, and over their u."""

    frac: list[float] = field(default_factory=list)
    over_u: list[float] = field(default_factory=list)

    def add(self, known: Coefficients, inputs: Sequence[float], wall_w: float) -> None:
        told = predicted(known, inputs)
        self.frac.append(told.value_w / wall_w - 1)
        self.over_u.append((told.value_w - wall_w) / told.value_w_u)

    @property
    def mape(self) -> float:
        return sum(map(abs, self.frac)) / len(self.frac)

    @property
    def nees(self) -> float:
        return sum(one * one for one in self.over_u) / len(self.over_u)

    @property
    def covered(self) -> float:
        return sum(abs(one) < 1.96 for one in self.over_u) / len(self.over_u)


def by_components(host: HiddenHost, count: int) -> Learner:
    """The host after so many lessons of its counters."""
    basis = ("gpu", "package") if host.cards else ("package",)
    learner = calibrate.of_components("", basis, host.assumed_base_w)
    for at, (_, inputs, wall_w) in enumerate(host.spans(count)):
        prior_w = host.assumed_base_w + 1.237 * sum(inputs)
        learner = calibrate.observed(learner, host.lesson(at, inputs, wall_w, prior_w))
    return learner


def by_load(host: HiddenHost, count: int) -> Learner:
    """The host after so many lessons of its load alone."""
    learner = calibrate.of_load("", 0.63 * 40, 3.35 * 40)
    for at, (busy, _, wall_w) in enumerate(host.spans(count)):
        lesson = host.lesson(at, (busy,), wall_w, 40 * (0.63 + 2.72 * busy))
        learner = calibrate.observed(learner, lesson)
    return learner
