"""Energy is summed where it is measured: it adds up over any split, and gaps stay gaps."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.heat import energy_wh, heat_coefficient_kwh_m3_k
from heatpool_agent.core.integral import EnergyTold, VolumeSample, integrate_wh

SECOND_NS = 1_000_000_000


def sample(
    at_s: float,
    volume_m3: float | None = 0.01,
    hot_c: float | None = 40.0,
    cold_c: float | None = 30.0,
) -> VolumeSample:
    event_ns = round(at_s * SECOND_NS)
    return VolumeSample(event_ns=event_ns, volume_m3=volume_m3, hot_c=hot_c, cold_c=cold_c)


def told(samples: Sequence[VolumeSample], period_s: float = 60.0, side: str = "cold") -> EnergyTold:
    return integrate_wh(samples, period_s=period_s, sensor_side=side)


@st.composite
def traces(draw: st.DrawFn) -> list[VolumeSample]:
    at_s, found = 0.0, []
    for _ in range(draw(st.integers(2, 20))):
        # Up to five periods: some spans are gaps.
        at_s += draw(st.floats(1, 300))
        volume_m3 = draw(st.none() | st.floats(0, 10))
        hot_c, cold_c = draw(st.floats(20, 80)), draw(st.floats(20, 80))
        found.append(sample(at_s, volume_m3, hot_c, cold_c))
    return found


@given(traces(), st.data())
def test_energy_is_additive_over_any_split(trace: list[VolumeSample], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(trace) - 1))
    whole, first, last = told(trace), told(trace[: cut + 1]), told(trace[cut:])
    assert first.energy_wh + last.energy_wh == pytest.approx(whole.energy_wh, abs=1e-6)
    assert first.seen_s + last.seen_s == pytest.approx(whole.seen_s)
    assert first.volume_m3 + last.volume_m3 == pytest.approx(whole.volume_m3)


@given(traces(), st.floats(0, 50))
def test_scaling_the_flow_scales_the_energy(trace: list[VolumeSample], scale: float) -> None:
    scaled = [
        VolumeSample(
            event_ns=one.event_ns,
            volume_m3=None if one.volume_m3 is None else scale * one.volume_m3,
            hot_c=one.hot_c,
            cold_c=one.cold_c,
        )
        for one in trace
    ]
    assert told(scaled).energy_wh == pytest.approx(scale * told(trace).energy_wh, abs=1e-6)
    assert told(scaled).gaps == told(trace).gaps


@given(traces())
def test_seen_spans_and_gaps_cover_the_trace(trace: list[VolumeSample]) -> None:
    found = told(trace)
    gaps_ns = sum(gap.end_ns - gap.start_ns for gap in found.gaps)
    whole_ns = trace[-1].event_ns - trace[0].event_ns
    assert found.seen_s * SECOND_NS + gaps_ns == pytest.approx(whole_ns)


def test_means_would_lose_what_flow_and_difference_do_together() -> None:
    # physics.md 1: 2 m3/h at 9 K, then 4 m3/h at 3 K, half an hour each.
    samples = [sample(0.0), sample(1800.0, 1.0, 39.0, 30.0), sample(3600.0, 2.0, 33.0, 30.0)]
    found = told(samples, period_s=1800.0)
    k_kwh_m3_k = heat_coefficient_kwh_m3_k(36.0, 30.0, "cold")
    assert found.energy_wh / (1000 * k_kwh_m3_k) == pytest.approx(15.0, rel=1e-3)
    assert found.hot_mean_c is not None
    assert found.cold_mean_c is not None
    from_means = found.volume_m3 * (found.hot_mean_c - found.cold_mean_c)
    assert from_means == pytest.approx(18.0)


def test_temperatures_are_weighted_by_energy_and_their_plain_means_are_kept() -> None:
    samples = [sample(0.0), sample(60.0, 1.0, 60.0, 30.0), sample(120.0, 1.0, 40.0, 30.0)]
    found = told(samples)
    # Three times the heat at 60 degC; k differs by a few per mille.
    assert found.hot_c == pytest.approx(55.0, abs=0.05)
    assert found.hot_mean_c == pytest.approx(50.0)
    assert found.cold_c == found.cold_mean_c == pytest.approx(30.0)


def test_each_sample_carries_its_own_energy() -> None:
    found = told([sample(0.0, 99.0), sample(60.0, 0.5, 50.0, 40.0)], side="hot")
    assert found.energy_wh == pytest.approx(energy_wh(0.5, 50.0, 40.0, "hot"))


def test_hot_below_cold_counts_against() -> None:
    found = told([sample(0.0), sample(60.0, 1.0, 30.0, 40.0)])
    assert found.energy_wh == pytest.approx(energy_wh(1.0, 30.0, 40.0, "cold"))
    assert found.energy_wh < 0
    assert found.hot_c == pytest.approx(30.0)


def test_a_span_over_three_periods_is_a_gap_without_heat() -> None:
    found = told([sample(0.0), sample(180.0), sample(361.0, 5.0), sample(400.0)])
    assert found.seen_s == 219.0
    assert found.energy_wh == pytest.approx(2 * energy_wh(0.01, 40.0, 30.0, "cold"))
    (gap,) = found.gaps
    assert (gap.start_ns, gap.end_ns, gap.cause) == (180 * SECOND_NS, 361 * SECOND_NS, "silent")


@pytest.mark.parametrize(
    ("volume_m3", "hot_c", "cold_c", "cause"),
    [
        (None, 40.0, 30.0, "absent"),
        (0.01, None, 30.0, "absent"),
        (0.01, 40.0, float("nan"), "absent"),
        (-0.01, 40.0, 30.0, "impossible"),
        (0.01, 243.0, 30.0, "impossible"),
        (0.01, 40.0, -10.0, "impossible"),
        (float("inf"), 40.0, 30.0, "impossible"),
    ],
)
def test_what_cannot_be_is_a_gap(
    volume_m3: float | None, hot_c: float | None, cold_c: float | None, cause: str
) -> None:
    bad = sample(120.0, volume_m3, hot_c, cold_c)
    found = told([sample(0.0), sample(60.0), bad, sample(180.0)])
    assert [gap.cause for gap in found.gaps] == [cause]
    assert found.seen_s == 120.0
    assert found.energy_wh == pytest.approx(2 * energy_wh(0.01, 40.0, 30.0, "cold"))


def test_gaps_of_one_cause_side_by_side_are_one() -> None:
    holes = [sample(60.0 * n, None) for n in range(1, 5)]
    (gap,) = told([sample(0.0), *holes, sample(300.0)]).gaps
    assert (gap.start_ns, gap.end_ns) == (0, 240 * SECOND_NS)


@pytest.mark.parametrize("samples", [[], [sample(0.0)]])
def test_nothing_seen_tells_nothing(samples: list[VolumeSample]) -> None:
    found = told(samples)
    assert (found.energy_wh, found.seen_s, found.hot_c, found.hot_mean_c) == (0.0, 0.0, None, None)


@pytest.mark.parametrize("later_s", [60.0, 59.0])
def test_samples_out_of_order_are_refused(later_s: float) -> None:
    with pytest.raises(ValueError, match="sort the samples"):
        told([sample(60.0), sample(later_s)])


@pytest.mark.parametrize("period_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_period_must_be_one(period_s: float) -> None:
    with pytest.raises(ValueError, match="period_s"):
        told([], period_s=period_s)


@pytest.mark.parametrize(("side", "fluid"), [("supply", "water"), ("hot", "oil")])
def test_unknown_settings_are_refused_even_without_samples(side: str, fluid: str) -> None:
    with pytest.raises(ValueError, match=r"side|fluid"):
        integrate_wh([], period_s=1.0, sensor_side=side, fluid=fluid)
