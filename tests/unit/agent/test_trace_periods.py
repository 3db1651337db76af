"""Accounts of a trace: doubts add up over a gap, and the worst class is the span's."""

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core.loop_estimator import LoopEstimator
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.trace_periods import Accounts

S = 1_000_000_000
SAMPLE = LoopSample(span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0)


def told(quality: QualityClass) -> Estimate:
    return Estimate(value=75e3, u=1e3, quality=quality, provenance=Provenance.FUSED, flags=())


def counted(*, gap: bool) -> Accounts:
    estimator = LoopEstimator(LoopModel())
    accounts = Accounts(estimator, period_s=3600)
    accounts.begin(0)
    for number in range(1, 181):
        if gap and number == 91:
            accounts.pause()
            accounts.resume((number - 1) * 10 * S)
        estimator.observe(SAMPLE, event_ns=number * 10 * S)
        quality = QualityClass.D if number == 50 else QualityClass.B
        accounts.cover(number * 10 * S, told(quality))
    accounts.close()
    return accounts


def test_what_errs_before_a_gap_errs_after_it_and_the_worst_class_stands() -> None:
    whole, parted = counted(gap=False).total, counted(gap=True).total
    assert whole.heat_wh_u is not None and parted.heat_wh_u is not None
    assert parted.heat_wh_u > 0.9 * whole.heat_wh_u
    assert whole.quality is parted.quality is QualityClass.D
