"""Energy counters against their own channel's power: frozen ones, and ones of another unit.

The first window is short, since a wrong counter should not lead for an hour; later ones are long.
A counter that failed is refused until several windows in a row were good.
Source: agent.md 5.2, 5.3, 6 A.
"""

from dataclasses import dataclass, replace

from heatpool.units import NS_PER_S

FIRST_S = 30.0
LATER_S = 3600.0
# While it is refused it is looked at more often than once an hour.
REFUSED_S = 300.0
GOOD_COUNT = 3
# Power of A100 and H100 is sampled during a quarter of the time: load in step with the sampling
# shows a gauge far from the truth, so only gross contradictions count.
ALLOWED_FRAC = 0.25
ALLOWED_W = 5.0
# Fewer points make no integral, and fewer counts no energy.
LEAST_COUNT = 10
LEAST_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pass over a channel: its power, W, and what its counter moved since the last, J.

    `delta_j` is None where the counter's step is no measurement; `resolution_j` is one count.
    """

    boot_ns: int
    power_w: float
    delta_j: float | None
    resolution_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterCheck:
    """What is known of one counter: its open window, and the verdict of the last closed one."""

    since_ns: int = 0
    last_ns: int = 0
    last_w: float = 0.0
    count: int = 0
    gauge_j: float = 0.0
    counter_j: float = 0.0
    due_s: float = FIRST_S
    good_count: int = 0
    is_refused: bool = False
    # Counter over integrated power, less one, of the last closed window.
    size_frac: float | None = None


def advance(state: CounterCheck | None, sample: Sample) -> CounterCheck:
    """The check after one sample; a window that is long enough is closed and judged."""
    if state is None or state.count == 0:
        return _opened(state or CounterCheck(), sample)
    if sample.boot_ns <= state.last_ns:
        return state
    if sample.delta_j is None:
        return _opened(state, sample)
    span_s = (sample.boot_ns - state.last_ns) / NS_PER_S
    state = replace(
        state,
        last_ns=sample.boot_ns,
        last_w=sample.power_w,
        count=state.count + 1,
        gauge_j=state.gauge_j + (state.last_w + sample.power_w) / 2 * span_s,
        counter_j=state.counter_j + sample.delta_j,
    )
    is_long = sample.boot_ns - state.since_ns >= state.due_s * NS_PER_S
    is_told = state.gauge_j >= LEAST_STEPS * sample.resolution_j
    if state.count <= LEAST_COUNT or not is_long or not is_told:
        return state
    return _opened(_judged(state, sample.resolution_j), sample)


def _opened(state: CounterCheck, sample: Sample) -> CounterCheck:
    return replace(
        state,
        since_ns=sample.boot_ns,
        last_ns=sample.boot_ns,
        last_w=sample.power_w,
        count=1,
        gauge_j=0.0,
        counter_j=0.0,
    )


def _judged(state: CounterCheck, resolution_j: float) -> CounterCheck:
    span_s = (state.last_ns - state.since_ns) / NS_PER_S
    allowed_j = ALLOWED_FRAC * state.gauge_j + ALLOWED_W * span_s + 2 * resolution_j
    is_good = abs(state.counter_j - state.gauge_j) <= allowed_j
    good_count = state.good_count + 1 if is_good else 0
    is_refused = not is_good or (state.is_refused and good_count < GOOD_COUNT)
    return replace(
        state,
        good_count=good_count,
        is_refused=is_refused,
        due_s=REFUSED_S if is_refused else LATER_S,
        size_frac=state.counter_j / state.gauge_j - 1 if state.gauge_j > 0 else None,
    )
