"""Three heats stay three, their fusion never claims more than its parts, absent stays absent."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool.heat import heat_rate_w
from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core import complementary, crosscheck, estimate, integral, loop_law
from heatpool_agent.core.estimate import LoopHeat, LoopInputs

PRIORS, REPORTED_U_FRAC = loop_priors("dlc")
SECOND_NS = 1_000_000_000


def power(value: float, u_frac: float = 0.03) -> Estimate:
    return Estimate(
        value=value,
        u=u_frac * value,
        quality=QualityClass.B,
        provenance=Provenance.ELECTRIC,
        flags=("nodes:pdu",),
    )


def inputs(**changes: object) -> LoopInputs:
    base = LoopInputs(
        electric=power(40_000.0),
        volume_flow_m3_h=3.0,
        hot_c=45.0,
        cold_c=36.5,
        sensor_side="cold",
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def heats(seen: LoopInputs) -> LoopHeat:
    electric = estimate.electric_heat(seen.electric, PRIORS)
    computed = estimate.computed_heat(seen, PRIORS)
    fused = estimate.fused_heat(electric, computed)
    return LoopHeat(electric=electric, computed=computed, fused=fused)


@given(
    st.floats(1_000, 200_000),
    st.floats(0.1, 20.0),
    st.floats(20.0, 60.0),
    st.floats(0.0, 20.0),
)
def test_fused_heat_lies_between_its_parts_and_doubts_no_more(
    electric_w: float, flow_m3_h: float, cold_c: float, delta_k: float
) -> None:
    seen = inputs(
        electric=power(electric_w),
        volume_flow_m3_h=flow_m3_h,
        hot_c=cold_c + delta_k,
        cold_c=cold_c,
    )
    heat = heats(seen)
    assert heat.electric and heat.computed and heat.fused
    low, high = sorted((heat.electric.value, heat.computed.value))
    assert low - 1e-6 <= heat.fused.value <= high + 1e-6
    apart = abs(heat.electric.value - heat.computed.value)
    stretch = max(1.0, apart / math.hypot(heat.electric.u, heat.computed.u))
    assert heat.fused.u <= stretch * max(1.0, min(heat.electric.u, heat.computed.u)) + 1e-6
    assert heat.fused.provenance is Provenance.FUSED


@pytest.mark.parametrize("missing", ["volume_flow_m3_h", "hot_c", "cold_c"])
def test_without_one_of_its_three_readings_there_is_no_computed_heat(missing: str) -> None:
    heat = heats(inputs(**{missing: None}))
    assert heat.computed is None
    assert heat.fused == heat.electric


def test_heats_that_contradict_each_other_leave_the_fused_one_in_doubt() -> None:
    quarrel = inputs(electric=power(1_000.0, 0.01))
    heat = heats(quarrel)
    assert heat.electric and heat.computed and heat.fused
    weaker, stronger = sorted((heat.electric, heat.computed), key=lambda figure: -figure.u)
    assert heat.fused.u > stronger.u
    assert abs(heat.fused.value - weaker.value) > 2 * weaker.u, "no quarrel, no test"


def test_without_power_the_computed_heat_stands_alone() -> None:
    heat = heats(inputs(electric=None))
    assert (heat.electric, heat.fused) == (None, heat.computed)


def test_nothing_in_is_nothing_out() -> None:
    nothing = LoopInputs(electric=None)
    heat = heats(nothing)
    assert (heat.electric, heat.computed, heat.fused) == (None, None, None)


def test_out_of_the_fluid_s_range_is_absent() -> None:
    assert estimate.computed_heat(inputs(hot_c=400.0), PRIORS) is None


def test_swapped_sensors_give_negative_heat_and_a_flag() -> None:
    swapped = estimate.computed_heat(inputs(hot_c=36.5, cold_c=45.0), PRIORS)
    assert swapped is not None
    assert swapped.value < 0
    assert swapped.flags == ("swapped_sensors",)


def test_an_unknown_side_costs_certainty_and_lies_between_both() -> None:
    unknown, hot, cold = (
        estimate.computed_heat(inputs(sensor_side=side), PRIORS)
        for side in ("unknown", "hot", "cold")
    )
    assert unknown and hot and cold
    assert hot.value < unknown.value < cold.value
    assert unknown.u / unknown.value > cold.u / cold.value


def test_at_no_difference_the_doubt_of_the_pair_is_left() -> None:
    level = estimate.computed_heat(inputs(hot_c=40.0, cold_c=40.0), PRIORS)
    assert level is not None
    assert level.value == 0
    assert level.u == pytest.approx(heat_rate_w(3.0, 40.07, 40.0, "cold"), rel=1e-3)


def compared(reported_w: float | None, seconds: int) -> tuple[Estimate | None, tuple[str, ...]]:
    heat = heats(inputs())
    quarrels = crosscheck.Quarrels()
    for second in range(0, seconds + 1, 60):
        shown, quarrels = crosscheck.compare(
            heat, reported_w, REPORTED_U_FRAC, quarrels, boot_ns=second * SECOND_NS
        )
    return shown.fused, shown.fused.flags if shown.fused else ()


def test_a_lasting_quarrel_is_flagged_and_the_class_falls_below_b() -> None:
    fused, flags = compared(12_000.0, 660)
    assert fused is not None
    assert fused.quality is QualityClass.C
    sizes = dict(flag.rsplit(":", 1) for flag in flags if flag.startswith("mismatch:"))
    assert sizes.keys() == {"mismatch:reported_vs_computed", "mismatch:reported_vs_electric"}
    assert sizes["mismatch:reported_vs_computed"] == f"{12_000.0 / 29_462.0 - 1:+.0%}"


@pytest.mark.parametrize(("reported_w", "seconds"), [(12_000.0, 540), (29_500.0, 660), (None, 660)])
def test_a_short_quarrel_or_none_changes_nothing(reported_w: float | None, seconds: int) -> None:
    fused, flags = compared(reported_w, seconds)
    assert fused is not None
    assert fused.quality is QualityClass.B
    assert not [flag for flag in flags if flag.startswith("mismatch")]


@pytest.mark.parametrize("cooling", ["dlc", "dlc_full", "immersion", "air_coil", "air"])
def test_every_cooling_has_its_prior(cooling: str) -> None:
    priors, _ = loop_priors(cooling)
    assert 0 < priors.capture_frac <= 1


def test_the_laws_that_the_design_names_are_found_here() -> None:
    assert estimate.loop_step is loop_law.loop_step
    assert estimate.electric_heat_w is loop_law.electric_heat_w
    assert estimate.integrate_wh is integral.integrate_wh
    assert estimate.complementary_step is complementary.complementary_step
