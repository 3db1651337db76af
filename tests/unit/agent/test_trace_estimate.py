"""Laws of an estimate from a trace: whatever the log holds, figures are whole or absent."""

from dataclasses import replace
from math import isfinite

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool.sample import QualityClass
from heatpool_agent.core.estimate import LoopPriors
from heatpool_agent.core.loop_sample import LoopModel
from heatpool_agent.core.trace import read
from heatpool_agent.core.trace_columns import mapped
from heatpool_agent.core.trace_curve import Curve
from heatpool_agent.core.trace_document import band
from heatpool_agent.core.trace_estimate import Row, TraceEstimate
from heatpool_agent.core.trace_inputs import Asked, Inputs, inputs, period_s

HEAD = "time,power_w,volume_flow_m3_h,hot_c,cold_c,ambient_c\n"
PRIORS = LoopPriors(
    capture_frac=0.75,
    capture_frac_u=0.05,
    lag_s=60.0,
    flow_u_frac=0.015,
    flow_u_m3_h=0.0035,
    delta_k_u=0.07,
    unknown_side_u_frac=0.003,
)
MODEL = LoopModel(sensor_side="unknown", loss_frac=0.0)
CELLS = st.sampled_from(["", "N/A", "0", "1", "243", "-5", "1e4", "40", "30", "10", "1e8", "65535"])
SPANS_S = st.sampled_from([0, 1, 10, 10, 10, 10, 60, 300, 4000, 200_000, -15])


def run(
    lines: list[str], *, asked: Asked | None = None, length_s: int = 3600
) -> tuple[TraceEstimate, list[Row], Inputs]:
    found = inputs(read(lines), asked or Asked(priors=PRIORS, model=MODEL, cooling="dlc"))
    done = TraceEstimate(read(lines), found, period_s=length_s)
    return done, list(done.rows()), found


def steady(cells: str, times_s: list[float]) -> list[str]:
    return [HEAD, *(f"{time_s},{cells}\n" for time_s in times_s)]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SPANS_S, st.tuples(*[CELLS] * 5)), min_size=1, max_size=40))
def test_whatever_a_log_holds_figures_are_whole_or_absent(
    told: list[tuple[int, tuple[str, ...]]],
) -> None:
    time_s, lines = 1_000_000_000, [HEAD]
    for span_s, cells in told:
        time_s += span_s
        lines.append(f"{time_s},{','.join(cells)}\n")
    trace = read(lines)
    found = inputs(trace, Asked(priors=PRIORS, model=MODEL, cooling="dlc"))
    done = TraceEstimate(trace, found, period_s=3600)
    rows = list(done.rows()) if found.reason is None else []
    for row in rows:
        assert row.heat is None or (isfinite(row.heat.value) and row.heat.u >= 0)
    told_wh = [span.heat_wh for span in done.periods if span.heat_wh is not None]
    total_wh = done.total.heat_wh
    assert sum(told_wh) == pytest.approx(total_wh or 0.0, rel=1e-9, abs=1e-6)
    assert all(0.0 <= span.coverage_frac <= 1.0 for span in (*done.periods, done.total))
    assert all((span.heat_wh is None) == (span.coverage_frac == 0.0) for span in done.periods)


@pytest.mark.parametrize("length_s", [600, 900, 3600, 86_400])
def test_a_total_is_the_same_however_it_is_cut(length_s: int) -> None:
    lines = steady("100000,8.15,40,32,25", [10.0 * index for index in range(1500)])
    done, _, _ = run(lines, length_s=length_s)
    whole, _, _ = run(lines, length_s=7 * 86_400)
    assert done.total.heat_wh == pytest.approx(whole.total.heat_wh, rel=1e-3)
    assert done.total.heat_wh_u == pytest.approx(whole.total.heat_wh_u, rel=0.05)


@pytest.mark.parametrize("step_s", [1, 10, 60, 300, 900, 3600])
def test_any_sampling_period_tells_one_heat(step_s: int) -> None:
    lines = steady("100000,8.15,40,32,25", [float(step_s * index) for index in range(200)])
    done, rows, found = run(lines)
    assert found.period_s == step_s
    assert done.method == "fused"
    assert done.total.coverage_frac == pytest.approx(1.0)
    hours = 199 * step_s / 3600
    assert done.total.heat_wh == pytest.approx(75_000 * hours, rel=0.02)
    assert all(row.heat is not None for row in rows)


def test_a_log_that_changes_its_pace_has_no_gap() -> None:
    times = [10.0 * index for index in range(400)] + [4000.0 + 300.0 * i for i in range(400)]
    done, _, _ = run(steady("100000,,,,", times))
    # What the first slow rows are is not known until more of them came.
    assert done.total.coverage_frac > 0.98


def test_a_clock_that_once_was_wrong_lists_no_million_periods() -> None:
    done, _, _ = run(steady("100000,,,,", [0.0, 10.0, 20.0, 4e7, 4e7 + 10, 4e7 + 20]))
    assert len(done.periods) == 2
    assert done.total.heat_wh == pytest.approx(75_000 * 40 / 3600)
    assert "empty_periods_omitted" in done.total.flags


def test_more_heat_than_power_drops_the_power_that_misses_some() -> None:
    lines = steady("50000,8.15,40,32,25", [10.0 * index for index in range(200)])
    everything = replace(PRIORS, capture_frac=1.0, capture_frac_u=0.0)
    done, _, found = run(
        lines, asked=Asked(priors=everything, model=replace(MODEL, capture_frac=1.0))
    )
    assert found.power is None
    assert "electric_partial" in found.flags
    assert done.method == "computed"


ALL = Asked(
    priors=replace(PRIORS, capture_frac=1.0, capture_frac_u=0.0),
    model=replace(MODEL, capture_frac=1.0),
)


def test_a_small_loop_s_share_is_not_all_heat_of_its_servers() -> None:
    # At 0.09 m3/h the floor of any flow meter is 22 %, and would excuse the quarter that lacks.
    lines = steady("1400,0.0905,41.58,31.58,22", [60.0 * index for index in range(300)])
    everything = replace(PRIORS, capture_frac=1.0, capture_frac_u=0.0)
    done, _, _ = run(lines, asked=Asked(priors=everything, model=replace(MODEL, capture_frac=1.0)))
    assert done.method == "electric"
    assert done.total.heat_wh == pytest.approx(1400 * 299 / 60, rel=1e-3)


def test_a_unit_error_hides_behind_no_share_of_the_coolant() -> None:
    # Litres a minute, said to be m3/h, of which the coolant carries 0.78: 13 times the power.
    lines = steady("50000,56,40,30,25", [10.0 * index for index in range(200)])
    done, _, found = run(lines, asked=ALL)
    assert found.ratio == pytest.approx(13, rel=0.02)
    assert "unit_error:16.6667" in found.flags
    assert done.method == "electric"
    assert [fault.fault for fault in done.faults] == ["unit_error"]


def test_a_few_cells_of_another_world_do_not_choose_the_method() -> None:
    cells = [("50000,4.3,40,30,25", "50000,900,40,30,25")[index % 9 == 0] for index in range(200)]
    lines = [HEAD, *(f"{10 * index},{told}\n" for index, told in enumerate(cells))]
    _, _, found = run(lines, asked=ALL)
    assert found.ratio == pytest.approx(1.0, rel=0.02)
    assert found.is_fused


def test_one_wild_cell_of_flow_moves_no_total() -> None:
    lines = steady("50000,3.2,40,30,25", [300.0 * index for index in range(288)])
    wild = [*lines[:100], lines[100].replace(",3.2,", ",243,"), *lines[101:]]
    plain_wh, wild_wh = (run(told)[0].total.heat_wh for told in (lines, wild))
    assert plain_wh is not None
    assert wild_wh == pytest.approx(plain_wh, rel=1e-3)


def test_water_alone_is_never_said_to_be_all_heat() -> None:
    _, _, found = run(steady(",4.3,40,30,25", [10.0 * index for index in range(20)]), asked=ALL)
    assert found.flags == ("coolant_only",)


def test_electric_heat_follows_power_after_the_loops_mass() -> None:
    lines = [HEAD] + [f"{10 * i},{100000 if i < 30 else 0},,,,\n" for i in range(100)]
    _, rows, _ = run(lines)
    heats = [row.heat.value for row in rows if row.heat is not None]
    assert heats[29] == pytest.approx(75_000)
    assert heats[30] == pytest.approx(75_000, rel=0.2)
    assert heats[36] == pytest.approx(75_000 * 0.31, rel=0.1)
    assert heats[99] < 100


def test_a_facility_below_its_it_is_told() -> None:
    lines = ["time,it_w,facility_w\n", *(f"{10 * i},1000,800\n" for i in range(5))]
    found = inputs(read(lines), Asked(priors=PRIORS, model=MODEL))
    assert found.flags == ("it_above_facility:5",)


def test_a_header_with_a_factor_in_another_order_is_still_found() -> None:
    trace = read(
        ["Title of a plant\n", "T;IT kW\n", "0;1,5\n"],
        [mapped("time=T"), mapped("it_w=IT kW*1000")],
    )
    assert trace.reason is None
    assert list(trace.values["it_w"]) == [1500.0]


def test_a_curve_leaves_gaps_open_and_stays_small() -> None:
    done, rows, _ = run(
        steady("100000,,,,", [10.0 * i + (9000 if i > 50 else 0) for i in range(99)])
    )
    curve = Curve(len(rows))
    for row in rows:
        curve.add(row)
    points = curve.points()
    assert points.heat_w.count(None) == 1
    assert len(points.at_ns) == len(rows) + 1
    small = Curve(10_000_000)
    for row in rows:
        small.add(row)
    assert len(small.points().at_ns) == 3
    assert done.total.quality is QualityClass.B


def test_the_median_of_spans_is_how_often_rows_come() -> None:
    assert period_s([0, 10**10, 2 * 10**10, 9 * 10**10]) == 10.0
    assert period_s([5]) == 0.0


def test_a_band_is_as_wide_as_95_of_100() -> None:
    assert band(100.0, 10.0) == pytest.approx((80.4, 119.6))


@pytest.mark.parametrize(
    ("shown", "faults"),
    [
        (["1.4"] * 300 + ["23.3"] * 12 + ["1.4"] * 100, ["unit_error"]),
        # Three rows are a spike; a factor between no two units is left out and not named.
        (["1.4"] * 300 + ["23.3"] * 3 + ["1.4"] * 100, []),
        (["1.4"] * 300 + ["14"] * 12 + ["1.4"] * 100, []),
    ],
)
def test_a_flow_in_another_unit_for_a_while_is_left_out_and_told(
    shown: list[str], faults: list[str]
) -> None:
    rows = [f"{10 * at},20000,{one},41,31.8,\n" for at, one in enumerate(shown)]
    done, told, _ = run([HEAD, *rows])
    assert [fault.fault for fault in done.faults] == faults
    starts_ns = [(one.start_ns, one.end_ns) for one in done.faults]
    assert starts_ns in ([], [(3000 * 10**9, 3120 * 10**9)])
    assert max(row.heat.value for row in told if row.heat) < 20_000
