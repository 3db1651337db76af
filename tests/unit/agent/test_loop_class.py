"""A figure of large doubt is of no good class, and a small load of a large loop is not punished."""

from dataclasses import replace
from typing import Any

import pytest

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core.estimate import LoopHeat
from heatpool_agent.core.loop_class import Usual, best_class, usual_after
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

S = 1_000_000_000
RIGHT = LoopSample(
    span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0, ambient_c=25.0
)
SLIPPED = replace(RIGHT, volume_flow_m3_h=8.0 * 1000 / 60)


def heat(value: float, u: float) -> Estimate:
    return Estimate(
        value=value, u=u, quality=QualityClass.B, provenance=Provenance.COMPUTED, flags=()
    )


class Site:
    """One loop and its estimator, ten seconds by ten seconds."""

    def __init__(self) -> None:
        self.estimator = LoopEstimator(LoopModel())
        self.count = 0

    def run(self, sample: LoopSample, times: int) -> list[Estimate]:
        told: list[LoopHeat] = []
        for _ in range(times):
            self.count += 1
            told.append(self.estimator.observe(sample, event_ns=self.count * 10 * S))
        return [one.fused for one in told if one.fused is not None]


@pytest.mark.parametrize(
    ("u_w", "quality"),
    [
        (4e3, QualityClass.A),
        (6e3, QualityClass.B),
        (8e3, QualityClass.B),
        (9e3, QualityClass.C),
        (16e3, QualityClass.D),
        (41e3, QualityClass.E),
        (float("nan"), QualityClass.E),
    ],
)
def test_a_class_holds_until_the_usual_doubt_of_the_next(u_w: float, quality: QualityClass) -> None:
    assert best_class(100e3, u_w, Usual()) is quality
    assert best_class(-100e3, u_w, Usual()) is quality


def test_an_idle_hour_of_a_large_loop_keeps_its_class() -> None:
    usual = Usual(level_w=70e3, seen_s=3600.0)
    assert best_class(2e3, 0.4e3, usual) is QualityClass.A
    assert best_class(2e3, 0.4e3, Usual(level_w=2e3)) is QualityClass.D
    assert best_class(0.0, 0.4e3, Usual()) is QualityClass.E


def test_what_is_usual_is_the_clearest_heat_over_a_day() -> None:
    usual = Usual()
    for _ in range(60):
        usual = usual_after(usual, heat(70e3, 4e3), heat(1.2e6, 50e3), span_s=60.0)
    assert usual.level_w == pytest.approx(70e3)
    for _ in range(10 * 1440):
        usual = usual_after(usual, heat(2e3, 1e2), None, span_s=60.0)
    assert usual.level_w == pytest.approx(2e3, rel=0.01)
    assert usual_after(usual, None, None, span_s=60.0) == usual
    assert usual_after(usual, heat(5.0, 1.0), None, span_s=0.0) == usual
    assert usual_after(usual, heat(float("nan"), 1.0), None, span_s=60.0) == usual


def test_while_a_reading_is_off_by_a_unit_no_figure_of_large_doubt_is_class_b() -> None:
    site = Site()
    assert {one.quality for one in site.run(RIGHT, 180)[90:]} == {QualityClass.B}
    slipped = site.run(SLIPPED, 60)
    assert any(one.u > 0.4 * abs(one.value) for one in slipped)
    for one in slipped:
        allowed = best_class(one.value, one.u, site.estimator._fusion._usual)
        assert one.quality >= allowed
        if one.u > 0.4 * max(abs(one.value), 80e3):
            assert one.quality is QualityClass.E


def test_what_is_usual_outlives_a_restart() -> None:
    site = Site()
    site.run(RIGHT, 10)
    saved = site.estimator.saved()
    again = LoopEstimator(LoopModel(), saved)
    assert again._fusion._usual == site.estimator._fusion._usual
    assert again._fusion._usual.level_w > 0


def test_a_state_of_before_it_was_kept_loses_nothing_else() -> None:
    site = Site()
    site.estimator.start_energy("day")
    site.run(RIGHT, 180)
    saved = site.estimator.saved()
    del saved["fusion"]["usual"]
    again = LoopEstimator(LoopModel(), saved)
    assert again.is_restored
    assert again.energy("day") == site.estimator.energy("day")
    assert again.capture == site.estimator.capture
    assert again._fusion._usual == Usual()


@pytest.mark.parametrize(
    "kept",
    [
        {"level": 70e3},
        {"level_w": "much"},
        {"level_w": None},
        {"level_w": float("nan")},
        {"level_w": 70e3, "seen_s": float("inf")},
        {"level_w": -70e3},
    ],
)
def test_a_damaged_one_begins_anew(kept: dict[str, Any]) -> None:
    site = Site()
    site.run(RIGHT, 10)
    saved = site.estimator.saved()
    saved["fusion"]["usual"] = kept
    again = LoopEstimator(LoopModel(), saved)
    assert not again.is_restored
    assert again._fusion._usual == Usual()
