"""Faults of a loop from the residual of its heats, its sensors and its registers."""

import json
import tomllib
from dataclasses import replace
from importlib.resources import files
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.agent.loop_story import DAY, HOUR, MODEL, NS, START_NS, Change, begun, fixed, scaled

from heatpool.heat import heat_coefficient_kwh_m3_k
from heatpool_agent.core import (
    diagnosis,
    gross,
    loop_window,
    meter_registers,
    residual,
    residual_baseline,
    still_sensors,
    watch,
)
from heatpool_agent.core.fault import FAULTS
from heatpool_agent.core.loop_sample import LoopModel, LoopSample
from heatpool_agent.core.meter_registers import Meter, Registers

ROOMS = {
    "loop_window": loop_window,
    "residual_baseline": residual_baseline,
    "residual": residual,
    "watch": watch,
    "gross": gross,
    "still_sensors": still_sensors,
    "meter_registers": meter_registers,
    "diagnosis": diagnosis,
}

VALUES = st.one_of(
    st.none(), st.floats(-1e6, 1e6), st.sampled_from([0.0, nan, inf, -inf, 30.0, 8.0])
)
SAMPLES = st.builds(
    LoopSample,
    span_s=st.sampled_from([0.0, 1.0, 10.0, 300.0, 900.0, 7200.0]),
    power_w=VALUES,
    volume_flow_m3_h=VALUES,
    hot_c=VALUES,
    cold_c=VALUES,
)


def swapped(_: int, sample: LoopSample) -> LoopSample:
    return replace(sample, hot_c=sample.cold_c, cold_c=sample.hot_c)


def offset(minute: int, sample: LoopSample) -> LoopSample:
    assert sample.hot_c is not None
    return replace(sample, hot_c=sample.hot_c + 0.4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SAMPLES, VALUES, VALUES), max_size=60))
def test_no_input_makes_it_fail_and_every_fault_has_a_name_and_an_order(
    told: list[tuple[LoopSample, float | None, float | None]],
) -> None:
    seen, event_ns = residual.begin(MODEL), START_NS
    for sample, computed_w, electric_w in told:
        event_ns += round(sample.span_s * NS)
        residual.observe(
            seen, sample, computed_w=computed_w, electric_lagged_w=electric_w, event_ns=event_ns
        )
    for fault in residual.faults(seen):
        assert fault.fault in FAULTS
        assert fault.evidence
        assert fault.end_ns is None or fault.end_ns >= fault.start_ns
    text = json.dumps(residual.saved(seen), allow_nan=False)
    again = residual.restored(json.loads(text), MODEL)
    assert again is not None
    assert residual.faults(again) == residual.faults(seen)


def test_a_span_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="span_s is -1"):
        residual.observe(
            residual.begin(MODEL), LoopSample(span_s=-1.0), computed_w=None,
            electric_lagged_w=None, event_ns=START_NS,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "fault", "within_h"),
    [
        (swapped, "swapped_sensors", 0.25),
        (scaled(power_w=0.9), "power_meter", 1.2),
        (scaled(volume_flow_m3_h=0.95), "fouling", 3.7),
        (offset, "pair_offset", 12.0),
        (scaled(volume_flow_m3_h=1000 / 60), "unit_error", 0.5),
        (scaled(volume_flow_m3_h=1 / 3.6), "unit_error", 0.5),
        (scaled(power_w=1e-3), "unit_error", 2.0),
        (fixed(hot_c=38.05), "stuck_sensor", 1.2),
        (fixed(cold_c=30.05), "stuck_sensor", 1.2),
        (fixed(volume_flow_m3_h=8.01), "stuck_sensor", 1.2),
        (fixed(hot_c=38.0, cold_c=30.0, volume_flow_m3_h=8.0), "dead_meter", 1.2),
        (fixed(volume_flow_m3_h=0.0), "dead_meter", 1.2),
    ],
)
def test_a_fault_after_three_clean_days_is_told_by_its_name_and_alone(
    change: Change, fault: str, within_h: float
) -> None:
    story = begun().goes_on(3 * DAY + 2 * HOUR)
    assert residual.faults(story.watch) == ()
    began_ns = story.now_ns
    story.goes_on(round(within_h * HOUR), change)
    story.goes_on(3 * HOUR, change)
    (found,) = residual.faults(story.watch)
    assert (found.fault, found.end_ns) == (fault, None)
    assert abs(found.start_ns - began_ns) <= 3 * 3600 * NS


def test_a_fault_ends_once_the_loop_is_as_before() -> None:
    story = begun().goes_on(3 * DAY + HOUR).goes_on(4 * HOUR, scaled(volume_flow_m3_h=0.93))
    mended_ns = story.now_ns
    story.goes_on(4 * HOUR)
    (found,) = residual.faults(story.watch)
    assert found.fault == "fouling"
    assert found.end_ns is not None
    assert 0 <= found.end_ns - mended_ns <= 2 * 3600 * NS
    assert residual.faults(story.goes_on(26 * HOUR).watch) == ()


def test_swapped_sensors_are_told_in_the_first_window_of_a_loop_never_seen() -> None:
    story = begun().goes_on(5, swapped)
    assert set(story.faults) == {"swapped_sensors"}


@pytest.mark.parametrize("offset_min", range(5))
def test_sensors_swapped_for_seven_minutes_are_told_wherever_windows_end(offset_min: int) -> None:
    story = begun().goes_on(4 * HOUR + offset_min)
    began_ns = story.now_ns
    story.goes_on(7, swapped).goes_on(2 * HOUR)
    (found,) = residual.faults(story.watch)
    assert (found.fault, found.end_ns is None) == ("swapped_sensors", False)
    assert abs(found.start_ns - began_ns) <= 300 * NS


@pytest.mark.parametrize("offset_min", range(5))
@pytest.mark.parametrize("late_min", [1, 3])
def test_a_hot_pipe_that_follows_a_cold_one_late_is_not_swapped(
    offset_min: int, late_min: int
) -> None:
    began = 4 * HOUR + offset_min

    def jumps(minute: int, sample: LoopSample) -> LoopSample:
        # At a twentieth of the load the cold pipe rises by 3 K, and the hot one later.
        assert sample.power_w and sample.hot_c and sample.cold_c
        hot_c = sample.cold_c + 0.05 * (sample.hot_c - sample.cold_c)
        return replace(
            sample,
            power_w=0.05 * sample.power_w,
            cold_c=sample.cold_c + 3.0 * (minute >= began),
            hot_c=hot_c + 3.0 * (minute >= began + late_min),
        )

    story = begun().goes_on(began, jumps)
    assert story.goes_on(2 * HOUR, jumps).faults == {}


def test_a_wrong_unit_from_the_start_is_told_without_training() -> None:
    story = begun().goes_on(HOUR, scaled(volume_flow_m3_h=60.0))
    assert "minutes and hours" in story.faults["unit_error"].evidence


def test_a_load_that_collapses_is_no_fault() -> None:
    def idle(minute: int, sample: LoopSample) -> LoopSample:
        assert sample.power_w and sample.hot_c and sample.cold_c
        delta_k = 0.05 * (sample.hot_c - sample.cold_c) + 0.05
        return replace(sample, power_w=0.05 * sample.power_w, hot_c=sample.cold_c + delta_k)

    story = begun().goes_on(3 * DAY).goes_on(12 * HOUR, idle).goes_on(12 * HOUR)
    assert residual.faults(story.watch) == ()


@pytest.mark.parametrize("absent", [{"power_w": None}, {"volume_flow_m3_h": None}])
def test_without_one_input_a_loop_is_quiet_and_its_sensors_are_still_watched(
    absent: dict[str, None],
) -> None:
    story = begun().goes_on(DAY, fixed(**absent))
    assert residual.faults(story.watch) == ()
    story.goes_on(HOUR, fixed(hot_c=38.0, **absent))
    assert "hot sensor shows 38 degC" in story.faults["stuck_sensor"].evidence


@pytest.mark.parametrize("period_s", [10.0, 300.0, 900.0])
def test_any_period_will_do(period_s: float) -> None:
    story = begun(period_s=period_s)
    story.goes_on(round(3.2 * 86_400 / period_s))
    assert residual.faults(story.watch) == ()
    story.goes_on(round(6 * 3600 / period_s), scaled(volume_flow_m3_h=0.93))
    assert set(story.faults) == {"fouling"}


def test_a_season_is_no_fault() -> None:
    story = begun(period_s=300.0).goes_on(4 * 288)
    for _ in range(60):
        story.gain -= 0.0005
        story.goes_on(288)
    assert residual.faults(story.watch) == ()


def test_a_coarse_sensor_in_a_calm_pipe_is_not_stuck() -> None:
    def coarse(minute: int, sample: LoopSample) -> LoopSample:
        assert sample.cold_c is not None
        return replace(sample, cold_c=30.0 if minute % 400 else 30.5)

    assert "stuck_sensor" not in begun().goes_on(2 * DAY, coarse).faults


def test_over_a_gap_nothing_is_concluded() -> None:
    story = begun().goes_on(3 * DAY + HOUR)
    before = [replace(one) for one in story.watch.sums]
    story.minute += 3 * HOUR
    story.goes_on(10, scaled(power_w=0.5))
    assert story.watch.sums == before


def test_a_restart_forgets_neither_what_was_learnt_nor_a_fault() -> None:
    story = begun().goes_on(3 * DAY + HOUR).goes_on(4 * HOUR, scaled(volume_flow_m3_h=0.93))
    text = json.dumps(residual.saved(story.watch))
    assert len(text) < 20_000
    again = residual.restored(json.loads(text), MODEL)
    assert again is not None
    assert again.baseline == story.watch.baseline
    assert residual.faults(again) == residual.faults(story.watch) != ()
    story.watch = again
    story.goes_on(3 * HOUR, scaled(volume_flow_m3_h=0.93))
    assert set(story.faults) == {"fouling"}


@pytest.mark.parametrize(
    "damage",
    [{"version": 0}, {"place": ["pg25_vol", "cold"]}, {"still": {}}, {"sums": [{"nonsense": 1}]}],
)
def test_a_damaged_or_foreign_state_is_refused(damage: dict[str, object]) -> None:
    state = json.loads(json.dumps(residual.saved(begun().goes_on(10).watch)))
    assert residual.restored(state, MODEL) is not None
    assert residual.restored(state | damage, MODEL) is None
    assert residual.restored("text", MODEL) is None


def test_a_leak_is_a_fault_as_long_as_the_safety_sees_it() -> None:
    seen = residual.begin(MODEL)
    for at, is_leaking in ((0, False), (60, True), (120, None), (180, False)):
        residual.observe(
            seen, LoopSample(span_s=60.0), computed_w=None, electric_lagged_w=None,
            event_ns=START_NS + at * NS, is_leaking=is_leaking,
        )  # fmt: skip
    (leak,) = residual.faults(seen)
    assert (leak.fault, leak.start_ns, leak.end_ns) == (
        "leak",
        START_NS + 60 * NS,
        START_NS + 180 * NS,
    )


def metered(
    model: LoopModel, pipes_c: tuple[float, float], coefficient: float, *, hours: int = 30
) -> Meter:
    """A meter whose calculator uses a coefficient of its own."""
    meter, wh, m3 = Meter(), 0.0, 0.0
    sample = LoopSample(span_s=60.0, volume_flow_m3_h=6.0, hot_c=pipes_c[0], cold_c=pipes_c[1])
    for minute in range(hours * 60):
        m3 += 0.1
        wh += 1000 * coefficient * 0.1 * (pipes_c[0] - pipes_c[1])
        registers = Registers(heat_wh=wh // 100 * 100, volume_m3=round(m3, 2))
        meter.add(sample, registers, computed_w=60e3, event_ns=START_NS + minute * 60 * NS)
    return meter


@pytest.mark.parametrize(
    ("pipes_c", "used", "told"),
    [
        ((60.0, 40.0), ("cold", "water"), []),
        ((60.0, 40.0), ("hot", "water"), ["wrong_sensor_side"]),
        ((40.0, 30.0), ("hot", "water"), []),
        ((60.0, 40.0), ("cold", "eg30_vol"), ["wrong_fluid"]),
        ((40.0, 30.0), ("cold", "pg25_vol"), ["wrong_fluid"]),
    ],
)
def test_registers_tell_another_fluid_or_side_where_they_can(
    pipes_c: tuple[float, float], used: tuple[str, str], told: list[str]
) -> None:
    meter = metered(MODEL, pipes_c, heat_coefficient_kwh_m3_k(*pipes_c, *used))
    assert [fault for fault, _, _ in meter.found(MODEL)] == told


def test_a_heat_register_that_stands_still_while_heat_flows_is_dead() -> None:
    meter = metered(MODEL, (60.0, 40.0), 1.15)
    held = Registers(heat_wh=meter.heat_wh, volume_m3=None)
    sample = LoopSample(span_s=60.0, volume_flow_m3_h=6.0, hot_c=60.0, cold_c=40.0)
    for _ in range(119):
        meter.add(sample, held, computed_w=60e3, event_ns=START_NS)
    assert meter.found(MODEL) == []
    meter.add(sample, held, computed_w=60e3, event_ns=START_NS)
    assert [fault for fault, _, _ in meter.found(MODEL)] == ["dead_meter"]


def test_a_glycol_beyond_what_the_priors_allow_is_told_from_the_start() -> None:
    model = replace(MODEL, gain_u_frac=0.01, flow_u_frac=0.005, loss_frac_u=0.005, delta_k_u=0.02)
    story = begun()
    story.gain, story.watch = 1.091, residual.begin(model)
    story.goes_on(3 * DAY)
    assert "eg30_vol" in story.faults["wrong_fluid"].evidence


def test_thresholds_are_those_of_the_data_file_each_with_its_source() -> None:
    text = files("heatpool_agent").joinpath("data/fault_thresholds.toml").read_text("utf-8")
    entries = {
        f"{room}.{name}": entry
        for room, named in tomllib.loads(text).items()
        for name, entry in named.items()
    }
    own = {
        f"{room}.{name.lower()}": value
        for room, module in ROOMS.items()
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and is_threshold(value)
    }
    # A room also sees what it imports from another one.
    own = {key: value for key, value in own.items() if key in entries or is_own(key, entries)}
    assert {key: listed(entry["value"]) for key, entry in entries.items()} == own
    needed = {"value", "unit", "source", "valid_from", "verified"}
    assert all(entry.keys() == needed for entry in entries.values())


def is_threshold(value: object) -> bool:
    is_list = isinstance(value, tuple) and not any(isinstance(part, str) for part in value)
    return isinstance(value, float) or (is_list and value != (2, 5))


def is_own(key: str, entries: dict[str, object]) -> bool:
    name = key.split(".")[1]
    return not any(other.endswith(f".{name}") for other in entries)


def listed(value: object) -> object:
    return tuple(listed(part) for part in value) if isinstance(value, list) else value
