"""One cause for a shifted residual, by the trace that it leaves."""

from collections.abc import Callable
from math import log, sin
from random import Random

import pytest

from heatpool_agent.core.diagnosis import Cause, Point, Traces, cause, mean_excess
from heatpool_agent.core.fault import FAULTS

NS = 1_000_000_000
WINDOW_NS = 300 * NS
NOISE = 0.012
# Windows before the shift, and since.
BEFORE, SINCE = 24, 48

Mark = Callable[[int, Point], Point]


def point(index: int, random: Random, excess: float) -> Point:
    """A window of a loop whose difference moves between 6 and 10 K."""
    return Point(
        end_ns=index * WINDOW_NS,
        excess=excess + NOISE * random.gauss(0, 1),
        u=NOISE,
        inverse_k=1.0 / (8.0 + 2.0 * sin(index * 0.8)),
        flow_excess_frac=0.005 * random.gauss(0, 1),
        noise_ratio=0.4 * random.gauss(0, 1),
        power_step_frac=0.01 * random.gauss(0, 1),
    )


def told(
    shift: Callable[[Point], float],
    *,
    flow_frac: float = 0.0,
    noise: float = 0.0,
    step: float = 0.0,
    heat_step_frac: float = 0.0,
    hours: Callable[[int], float] = lambda _: 0.0,
) -> Cause:
    """The cause of a shift with these traces beside it."""
    random, points = Random(3), []
    for index in range(BEFORE + SINCE):
        sound = point(index, random, 0.0)
        is_on = index >= BEFORE
        points.append(
            Point(
                end_ns=sound.end_ns,
                excess=sound.excess + (shift(sound) if is_on else 0.0),
                u=sound.u,
                inverse_k=sound.inverse_k,
                flow_excess_frac=(sound.flow_excess_frac or 0.0) + (flow_frac if is_on else 0.0),
                noise_ratio=(sound.noise_ratio or 0.0) + (noise if is_on else 0.0),
                power_step_frac=sound.power_step_frac + (step if index == BEFORE else 0.0),
                heat_step_frac=heat_step_frac if index == BEFORE else 0.0,
            )
        )
    blocks = [
        Point(hour * 12 * WINDOW_NS, hours(hour) + 0.004 * random.gauss(0, 1), 0.006, 0.125)
        for hour in range(72)
    ]
    return cause(
        Traces(
            points=points,
            blocks=blocks,
            onset_ns=(BEFORE - 1) * WINDOW_NS,
            flow_spread_frac=0.02,
            noise_spread=0.6,
        )
    )


def stepped(hour: int) -> float:
    return 0.04 if hour > 66 else 0.0


def risen(hour: int) -> float:
    return 0.0006 * max(0, hour - 20)


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("power_meter", told(lambda _: 0.11, step=log(0.9))),
        ("power_meter", told(lambda _: -0.09, step=log(1.1))),
        ("fouling", told(lambda _: -0.05, flow_frac=-0.05)),
        ("air_in_loop", told(lambda _: -0.15, noise=1.5)),
        ("pair_offset", told(lambda p: 0.3 * p.inverse_k, hours=stepped)),
        ("pair_offset", told(lambda p: -0.3 * p.inverse_k, hours=stepped)),
        ("sensor_drift", told(lambda p: 0.2 * p.inverse_k, hours=risen)),
        ("residual", told(lambda _: 0.05)),
        # A flow sensor that shows more is no dirt.
        ("residual", told(lambda _: 0.05, flow_frac=0.05)),
    ],
)  # fmt: skip
def test_each_trace_leads_to_its_cause(fault: str, found: Cause) -> None:
    assert found.fault == fault
    assert fault in FAULTS


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (told(lambda _: -0.05, flow_frac=-0.05), ("-5.", "same load: clean the flow sensor")),
        (told(lambda _: -0.15, noise=1.5), ("as restless", "vent")),
        (told(lambda p: 0.3 * p.inverse_k, hours=stepped), (" K between the sensors", "bath")),
        (told(lambda _: 0.05), ("+4.9%", "check flow meter")),
    ],
)
def test_the_evidence_has_figures_and_says_what_to_do(found: Cause, words: tuple[str, str]) -> None:
    assert all(word in found.evidence for word in words)


def test_a_step_of_power_that_does_not_fit_the_shift_is_no_cause() -> None:
    assert told(lambda _: 0.11, step=log(1.3)).fault == "residual"
    with_heat = told(lambda _: 0.11, step=log(0.9), heat_step_frac=log(1.11))
    assert with_heat.fault == "residual"


def test_without_traces_of_flow_nothing_is_concluded_from_them() -> None:
    random = Random(1)
    points = [
        Point(index * WINDOW_NS, -0.05 + NOISE * random.gauss(0, 1), NOISE, 0.125)
        for index in range(1, 30)
    ]
    found = cause(
        Traces(
            points=points,
            blocks=[],
            onset_ns=0,
            flow_spread_frac=0.02,
            noise_spread=0.0,
        )
    )
    assert found.fault == "residual"


def test_the_mean_excess_trusts_what_is_surer() -> None:
    points = [Point(0, 0.10, 0.01, 0.1), Point(0, 0.0, 0.1, 0.1)]
    assert mean_excess(points) == pytest.approx(0.10 / 1.01)
