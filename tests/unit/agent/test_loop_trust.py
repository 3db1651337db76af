"""Whom the runner believes: faults that void the water, the clearest class, a filter astray."""

from dataclasses import replace

import pytest

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core.estimate import LoopHeat
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_filter import LoopFilter
from heatpool_agent.core.loop_quarrel import Quarrel, doubt_w
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.watch import end, tell

S = 1_000_000_000
MODEL = LoopModel()
RIGHT = LoopSample(
    span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0, ambient_c=25.0
)
# Flow and temperatures tell a third less.
LESS = replace(RIGHT, volume_flow_m3_h=5.3)


class Site:
    """One loop and its estimator, ten seconds by ten seconds."""

    def __init__(self) -> None:
        self.estimator = LoopEstimator(MODEL)
        self.count = 0

    def run(self, sample: LoopSample, times: int, power: Estimate | None = None) -> LoopHeat:
        heat = LoopHeat(electric=None, computed=None, fused=None)
        for _ in range(times):
            self.count += 1
            heat = self.estimator.observe(sample, event_ns=self.count * 10 * S, power=power)
        return heat

    def tell(self, fault: str, kind: str = "sensor") -> None:
        tell(self.estimator._watch, kind, fault, start_ns=self.count * 10 * S, text="seen")


def fused(heat: LoopHeat) -> Estimate:
    assert heat.fused is not None
    return heat.fused


# Faults that last


@pytest.mark.parametrize("kind_of", ["stuck_sensor", "dead_meter", "unit_error"])
def test_while_its_sensors_are_broken_a_loop_s_heat_rests_on_power_alone(kind_of: str) -> None:
    site = Site()
    site.run(LESS, 360)
    # `heat`: the watch itself takes back what a sensor does not show any more.
    site.tell(kind_of, "heat")
    found = fused(site.run(LESS, 12))
    assert found.provenance is Provenance.ELECTRIC
    # What the broken ones taught is forgotten with them.
    assert found.value == pytest.approx(75e3, rel=0.03)


@pytest.mark.parametrize("kind_of", ["pair_offset", "fouling", "power_meter", "residual"])
def test_a_shift_takes_no_trust_and_leaves_both_heats(kind_of: str) -> None:
    site = Site()
    site.run(RIGHT, 360)
    site.tell(kind_of, "heat")
    assert fused(site.run(RIGHT, 12)).provenance is Provenance.FUSED


def test_broken_sensors_are_believed_where_nothing_else_shows_the_heat() -> None:
    site, alone = Site(), replace(RIGHT, power_w=None)
    site.run(alone, 60)
    site.tell("stuck_sensor", "heat")
    found = fused(site.run(alone, 12))
    assert found.provenance is Provenance.COMPUTED
    assert found.value == pytest.approx(75e3, rel=0.03)


def test_trust_is_back_when_the_fault_has_ended() -> None:
    site = Site()
    site.run(RIGHT, 360)
    site.tell("dead_meter", "heat")
    assert fused(site.run(RIGHT, 12)).provenance is Provenance.ELECTRIC
    end(site.estimator._watch, "heat", site.count * 10 * S)
    assert [fault.end_ns is None for fault in site.estimator.faults] == [False]
    assert fused(site.run(RIGHT, 12)).provenance is Provenance.FUSED


# Classes


def power_of(quality: QualityClass, u_frac: float) -> Estimate:
    return Estimate(
        value=100e3, u=100e3 * u_frac, quality=quality, provenance=Provenance.ELECTRIC, flags=("p",)
    )


@pytest.mark.parametrize(
    ("quality", "u_frac", "is_electric"),
    [(QualityClass.E, 0.4, False), (QualityClass.D, 0.15, False), (QualityClass.A, 0.001, True)],
)
def test_a_fused_heat_has_the_class_of_the_clearer_one_and_the_marks_of_both(
    quality: QualityClass, u_frac: float, *, is_electric: bool
) -> None:
    # With a share that is known to a thousandth power is the clearer one where its meter is.
    estimator = LoopEstimator(replace(MODEL, gain_u_frac=0.001))
    heat = LoopHeat(electric=None, computed=None, fused=None)
    for number in range(30):
        event_ns = number * 10 * S
        heat = estimator.observe(RIGHT, event_ns=event_ns, power=power_of(quality, u_frac))
    assert heat.electric is not None and heat.computed is not None
    assert (heat.electric.u < heat.computed.u) is is_electric
    clearer = heat.electric if is_electric else heat.computed
    assert fused(heat).quality is clearer.quality
    assert heat.electric.quality is not heat.computed.quality
    assert "p" in fused(heat).flags


# Doubt of a quarrel


def figure(value_w: float, u_w: float) -> Estimate:
    return Estimate(value=value_w, u=u_w, quality=QualityClass.B, provenance=Provenance.ELECTRIC)


@pytest.mark.parametrize(
    ("quarrel", "apart_w", "least_w", "most_w"),
    [
        # No quarrel: what the filter says.
        (Quarrel(ratio=1.0, lasts_s=0.0), 1e3, 500.0, 500.0),
        # A lasting one: by the Birge ratio, and never more than the doubt of both.
        (Quarrel(ratio=4.0, lasts_s=3600.0), 5.6e3, 2000.0, 2000.0),
        (Quarrel(ratio=40.0, lasts_s=3600.0), 5.6e3, 2900.0, 3100.0),
        # Further apart than any bias: at once.
        (Quarrel(), 50e3, 24e3, 26e3),
    ],
)
def test_a_fused_doubt_is_no_less_than_the_filter_s_and_no_more_than_that_of_both(
    quarrel: Quarrel, apart_w: float, least_w: float, most_w: float
) -> None:
    one, other = figure(75e3 + apart_w / 2, 1e3), figure(75e3 - apart_w / 2, 1e3)
    assert least_w <= doubt_w(quarrel, 75e3, 500.0, None, one, other) <= most_w


# A filter that is begun anew


def test_accounts_of_two_lives_add_their_heat_and_their_doubts() -> None:
    found = LoopFilter(MODEL)
    found.start_energy("day")
    for _ in range(180):
        found.advance(RIGHT, MODEL)
    first = found.energy("day")
    found.begin_anew(MODEL)
    for _ in range(180):
        found.advance(RIGHT, MODEL)
    both = found.energy("day")
    assert both.heat_wh == pytest.approx(2.0 * first.heat_wh, rel=0.02)
    # What one life errs the next one errs, too.
    assert both.heat_wh_u == pytest.approx(2.0 * first.heat_wh_u, rel=0.1)


@pytest.mark.parametrize("times", [16.67, 1 / 16.67, 1 / 60, 60.0])
def test_a_filter_that_both_heats_contradict_is_given_up_at_once(times: float) -> None:
    site = Site()
    before = site.run(RIGHT, 60).fused
    site.run(replace(RIGHT, volume_flow_m3_h=8.0 * times), 12)
    # The first update may hold the end of it.
    site.run(RIGHT, 1)
    for _ in range(30):
        after = site.run(RIGHT, 1)
        assert before and after.fused and after.computed
        assert after.fused.value == pytest.approx(before.value, abs=3 * after.fused.u)
        assert after.fused.value == pytest.approx(before.value, rel=0.25)
