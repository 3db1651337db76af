"""Energy per counter: laws over any wraps, then restarts, gaps and spans nobody can count."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import PowerSpan, Step, StepKind, Total, advance, energy_j

RANGE_UJ = 262_143_328_850
S = 1_000_000_000


def rapl(raw: int, boot_s: float, *, generation: str = "boot-1", **more: object) -> Reading:
    reading = Reading(
        sensor="cpu",
        channel="powercap/intel-rapl:0",
        quantity="energy_j",
        kind=ReadingKind.COUNTER,
        value=raw / 1e6,
        event_ns=round(boot_s * S) + 1_750_000_000 * S,
        boot_ns=round(boot_s * S),
        node=Node.PACKAGE,
        raw=raw,
        exponent=-6,
        modulus=RANGE_UJ,
        generation=generation,
    )
    return replace(reading, **more)  # type: ignore[arg-type]


def meter(raw: int, boot_s: float, *, digits: int = 8) -> Reading:
    return rapl(raw, boot_s, generation="LUG.1.2.4", channel="meter/energy", quantity="energy_wh",
                exponent=0, modulus=10**digits)  # fmt: skip


def walk(*readings: Reading, span: PowerSpan | None = None) -> tuple[Total, list[Step]]:
    state, steps = None, []
    for reading in readings:
        state, step = advance(state, reading, span=span)
        steps.append(step)
    assert state is not None
    return state, steps


# One read per 200 s and at most 1 kW per zone: steps beyond half the range, never two wraps.
@given(
    start=st.integers(0, RANGE_UJ - 1),
    deltas=st.lists(st.integers(0, 199 * 10**9), min_size=1, max_size=50),
)
@example(start=RANGE_UJ - 1, deltas=[190 * 10**9] * 7)
def test_deltas_add_up_to_the_truth_over_any_wraps(start: int, deltas: list[int]) -> None:
    counts = [start]
    for delta in deltas:
        counts.append(counts[-1] + delta)
    state, steps = walk(*(rapl(n % RANGE_UJ, 200.0 * (i + 1)) for i, n in enumerate(counts)))
    assert state.total_j * 10**6 + state.total_uj == sum(deltas)
    assert sum(round((s.delta_j or 0) * 1e6) for s in steps) == sum(deltas)
    assert {s.kind for s in steps[1:]} <= {StepKind.COUNTED, StepKind.WRAPPED}


@given(st.lists(st.integers(0, RANGE_UJ), max_size=30), st.data())
def test_a_total_never_falls_and_never_shows_negative_energy(
    counts: list[int], data: st.DataObject
) -> None:
    state: Total | None = None
    before_j = 0.0
    for number, raw in enumerate(counts):
        boot_s = data.draw(st.floats(0, 1e5)) + number
        state, step = advance(state, rapl(raw, boot_s))
        assert (step.delta_j or 0) >= 0
        assert energy_j(state) >= before_j
        assert 0 <= state.total_uj < 10**6
        before_j = energy_j(state)


def test_a_first_reading_carries_no_energy() -> None:
    state, [step] = walk(rapl(240_422_366_267, 1.0))
    assert step == Step(kind=StepKind.FIRST)
    assert energy_j(state) == 0.0


def test_power_is_the_mean_over_boot_time_whatever_the_wall_clock_does() -> None:
    before, after = rapl(0, 10.0), rapl(50_000_000, 11.0)
    _, [_, step] = walk(before, replace(after, event_ns=before.event_ns - 3600 * S))
    assert step.power_w == pytest.approx(50.0)


def test_a_lower_count_in_one_boot_is_one_range_more() -> None:
    _, [_, step] = walk(rapl(RANGE_UJ - 1_000_000, 1.0), rapl(2_000_000, 11.0))
    assert (step.kind, step.delta_j) == (StepKind.WRAPPED, 3.0)
    assert step.power_w == pytest.approx(0.3)


def test_wraps_of_zones_are_counted_apart() -> None:
    one, _ = walk(rapl(RANGE_UJ - 1_000_000, 1.0), rapl(2_000_000, 11.0))
    other, _ = walk(rapl(5_000_000, 1.0), rapl(9_000_000, 11.0))
    assert energy_j(one) + energy_j(other) == pytest.approx(7.0)


def test_a_restart_of_the_agent_in_one_boot_loses_nothing() -> None:
    saved, _ = walk(rapl(1_000_000, 1.0), rapl(2_000_000, 2.0))
    resumed, step = advance(saved, rapl(42_000_000, 62.0))
    assert step.kind is StepKind.COUNTED
    assert energy_j(resumed) == pytest.approx(41.0)


def test_a_new_kernel_boot_is_a_gap_without_energy() -> None:
    state, [_, step, after] = walk(
        rapl(5_000_000, 100.0),
        rapl(9_000_000, 3.0, generation="boot-2"),
        rapl(10_000_000, 4.0, generation="boot-2"),
    )
    assert step == Step(kind=StepKind.GAP)
    assert after.delta_j == pytest.approx(1.0)
    assert energy_j(state) == pytest.approx(1.0)


def test_a_counter_whose_boot_is_unknown_may_have_restarted() -> None:
    _, [_, step] = walk(
        rapl(RANGE_UJ - RANGE_UJ // 4, 1.0, generation=""), rapl(0, 2.0, generation="")
    )
    assert step.kind is StepKind.WRAPPED
    _, [_, fall] = walk(rapl(RANGE_UJ // 4, 1.0, generation=""), rapl(0, 2.0, generation=""))
    assert fall == Step(kind=StepKind.RESET)


def test_a_gpu_count_that_falls_after_a_driver_load_carries_no_energy() -> None:
    counts = (rapl(9_000, 1.0), rapl(100, 2.0), rapl(1_100, 3.0))
    gpu = [replace(one, channel="nvml/0000:3b:00.0", exponent=-3, modulus=None) for one in counts]
    state, [_, step, after] = walk(*gpu)
    assert step == Step(kind=StepKind.RESET)
    assert after.delta_j == pytest.approx(1.0)
    assert energy_j(state) == pytest.approx(1.0)


@pytest.mark.parametrize("modulus", [None, 0])
def test_without_a_range_a_fall_is_no_wrap(modulus: int | None) -> None:
    _, [_, step] = walk(rapl(9, 1.0, modulus=modulus), rapl(1, 2.0, modulus=modulus))
    assert step.kind is StepKind.RESET


def test_a_count_above_its_own_range_makes_no_energy() -> None:
    _, [_, step] = walk(rapl(1, 1.0), rapl(RANGE_UJ + 1, 2.0))
    assert step.kind is StepKind.RESET


@pytest.mark.parametrize("boot_s", [10.0, 9.0])
def test_a_repeated_or_late_reading_changes_nothing(boot_s: float) -> None:
    state, _ = walk(rapl(5, 10.0))
    assert advance(state, rapl(4, boot_s)) == (state, Step(kind=StepKind.REPEATED))


def test_a_heat_meter_counts_on_through_our_reboots_and_rolls_over() -> None:
    state, [_, wrapped, rebooted] = walk(
        meter(99_999_990, 50.0), meter(10, 60.0), meter(12, 5.0)
    )  # fmt: skip
    assert (wrapped.kind, wrapped.delta_j) == (StepKind.WRAPPED, 20 * 3600.0)
    assert wrapped.power_w == pytest.approx(20 * 3600 / 10)
    assert (rebooted.kind, rebooted.delta_j) == (StepKind.COUNTED, 2 * 3600.0)
    assert rebooted.power_w is None
    assert state.total_j == 22 * 3600


def test_totals_pass_the_end_of_64_bits_of_microjoules() -> None:
    state, _ = walk(meter(0, 1.0, digits=14), meter(10**11, 2.0, digits=14))
    assert state.total_j == 3600 * 10**11
    assert state.total_j * 10**6 > 2**63


def test_a_count_finer_than_a_microjoule_keeps_what_lies_above_it() -> None:
    fine: dict[str, Any] = {"exponent": -9, "modulus": None, "channel": "mqtt/t"}
    total, _ = walk(rapl(0, 1.0, **fine), rapl(2_500_000_999, 2.0, **fine))
    assert (total.total_j, total.total_uj) == (2, 500_000)


def test_several_possible_wraps_without_a_model_are_a_gap() -> None:
    state, [_, step] = walk(rapl(0, 1.0), rapl(10_000_000, 3601.0))
    assert step == Step(kind=StepKind.GAP)
    assert energy_j(state) == 0.0


def test_a_model_that_fits_one_number_of_wraps_measures_the_span() -> None:
    # 205 W for an hour wraps twice: 738 kJ = 2 ranges and 213.7 kJ.
    left_uj = 738_000_000_000 - 2 * RANGE_UJ
    span = PowerSpan(low_w=180.0, high_w=230.0)
    state, [_, step] = walk(rapl(0, 0.0), rapl(left_uj, 3600.0), span=span)
    assert step.kind is StepKind.WRAPPED
    assert step.power_w == pytest.approx(205.0)
    assert energy_j(state) == pytest.approx(738_000.0)


def test_a_model_that_fits_several_wraps_estimates_and_leaves_the_total_alone() -> None:
    left_uj = 738_000_000_000 - 2 * RANGE_UJ
    span = PowerSpan(low_w=110.0, high_w=290.0)
    state, [_, step] = walk(rapl(0, 0.0), rapl(left_uj, 3600.0), span=span)
    assert step.kind is StepKind.ESTIMATED
    assert step.delta_j == pytest.approx(738_000.0)
    assert step.delta_j_u is not None and step.delta_j_u >= RANGE_UJ / 1e6 / 12**0.5
    assert energy_j(state) == 0.0


@pytest.mark.parametrize(
    ("low_w", "high_w", "kind"),
    [
        # 150 kJ in 1000 s; one wrap more would be 412 kJ.
        (50.0, 450.0, StepKind.ESTIMATED),
        (50.0, 400.0, StepKind.COUNTED),
        (200.0, 450.0, StepKind.WRAPPED),
    ],
)
def test_no_wrap_is_one_of_the_possible_numbers(
    low_w: float, high_w: float, kind: StepKind
) -> None:
    span = PowerSpan(low_w=low_w, high_w=high_w)
    _, [_, step] = walk(rapl(0, 0.0), rapl(150 * 10**9, 1000.0), span=span)
    assert step.kind is kind


def test_a_counter_is_believed_against_a_model_that_allows_nothing() -> None:
    span = PowerSpan(low_w=100.0, high_w=200.0)
    _, [_, step] = walk(rapl(0, 0.0), rapl(5_000_000, 1.0), span=span)
    assert step.kind is StepKind.COUNTED
    assert step.power_w == pytest.approx(5.0)


@given(
    power_w=st.floats(20.0, 400.0),
    span_s=st.floats(60.0, 20_000.0),
    doubt=st.floats(0.02, 0.5),
)
def test_a_resolved_span_is_right_and_an_estimated_one_is_within_its_doubt(
    power_w: float, span_s: float, doubt: float
) -> None:
    truth_uj = round(power_w * span_s * 1e6)
    span = PowerSpan(low_w=power_w * (1 - doubt), high_w=power_w * (1 + doubt))
    _, [_, step] = walk(rapl(0, 0.0), rapl(truth_uj % RANGE_UJ, span_s), span=span)
    assert step.delta_j is not None
    assert abs(step.delta_j - truth_uj / 1e6) <= 2 * (step.delta_j_u or 1e-6)


def test_a_reading_that_is_no_energy_counter_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="no energy counter"):
        advance(None, rapl(1, 1.0, kind=ReadingKind.GAUGE))
    with pytest.raises(ValueError, match="no energy counter"):
        advance(None, rapl(1, 1.0, quantity="volume_m3"))
