"""A loop's sensors against power, and the three heats against each other, over time."""

from dataclasses import replace

import pytest

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.config import loop_priors
from heatpool_agent.core import crosscheck, heat_checks
from heatpool_agent.core.crosscheck import unit_slip
from heatpool_agent.core.estimate import LoopHeat, LoopInputs
from heatpool_agent.core.heat_checks import ChecksState, against_wall, sensor_flags, sensors_state

S = 1_000_000_000
PRIORS = loop_priors("dlc")[0]


def figure(value_w: float, u_w: float = 100.0, **more: object) -> Estimate:
    plain = Estimate(
        value=value_w, u=u_w, quality=QualityClass.B, provenance=Provenance.ELECTRIC
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


RIGHT = LoopInputs(electric=figure(20_000.0), volume_flow_m3_h=2.0, hot_c=45.0, cold_c=38.0)
SWAPPED = replace(RIGHT, hot_c=38.0, cold_c=45.0)


def after(
    seconds: int, inputs: LoopInputs, state: ChecksState | None = None, *, since_s: int = 0
) -> tuple[ChecksState, tuple[str, ...]]:
    state = state or ChecksState()
    for second in range(since_s, since_s + seconds + 1):
        state = sensors_state(state, inputs, PRIORS, boot_ns=second * S)
    return state, sensor_flags(state, boot_ns=(since_s + seconds) * S)


def test_pipes_the_wrong_way_round_are_swapped_after_three_minutes_and_until_mended() -> None:
    assert after(170, SWAPPED)[1] == ()
    state, flags = after(190, SWAPPED)
    assert flags == ("swapped_sensors",)
    state, flags = after(170, RIGHT, state, since_s=191)
    assert flags == ("swapped_sensors",)
    assert after(20, RIGHT, state, since_s=362)[1] == ()


@pytest.mark.parametrize(
    "odd",
    [
        replace(SWAPPED, electric=None),
        # Idle: heat may honestly flow back.
        replace(SWAPPED, electric=figure(50.0)),
        replace(SWAPPED, volume_flow_m3_h=0.0, hot_c=38.1),
        # Within what the pair of sensors may err.
        replace(SWAPPED, hot_c=44.99),
        RIGHT,
    ],
)
def test_what_may_honestly_be_is_not_swapped(odd: LoopInputs) -> None:
    assert "swapped_sensors" not in after(600, odd)[1]


def test_no_flow_and_frozen_temperatures_at_work_are_dead_sensors() -> None:
    dry = replace(RIGHT, volume_flow_m3_h=0.0)
    assert after(110, dry)[1] == ()
    state, flags = after(130, dry)
    assert flags == ("no_flow_frozen",)
    assert after(0, replace(dry, hot_c=45.1), state, since_s=131)[1] == ()


@pytest.mark.parametrize("alive", [RIGHT, replace(RIGHT, volume_flow_m3_h=0.0, electric=None)])
def test_a_loop_that_flows_or_rests_is_not_dead(alive: LoopInputs) -> None:
    assert after(600, alive)[1] == ()


def heat(computed_w: float) -> LoopHeat:
    computed = figure(computed_w, 500.0)
    return LoopHeat(electric=figure(15_000.0), computed=computed, fused=computed)


def against(
    seconds: int, computed_w: float, wall: Estimate | None, reported_w: float | None = None
) -> Estimate:
    state = ChecksState()
    reported = None if reported_w is None else (reported_w, 0.05 * reported_w)
    for second in range(0, seconds + 1, 10):
        shown, state = against_wall(
            heat(computed_w), state, wall=wall, reported=reported, boot_ns=second * S
        )
    assert shown.fused is not None
    return shown.fused


def test_more_heat_than_electricity_is_flagged_with_its_size_after_ten_minutes() -> None:
    assert against(590, 30_000.0, figure(20_000.0)).flags == ()
    fused = against(610, 30_000.0, figure(20_000.0))
    assert fused.flags == ("heat_above_electricity:+50%",)
    assert fused.quality is QualityClass.C


def test_reported_heat_is_held_to_it_too() -> None:
    fused = against(610, 15_000.0, figure(20_000.0), reported_w=40_000.0)
    assert fused.flags == ("heat_above_electricity:+100%",)


@pytest.mark.parametrize(
    ("computed_w", "wall"),
    [
        (21_000.0, figure(20_000.0)),
        (30_000.0, None),
        # One gateway's rating model is not what warms the loop.
        (30_000.0, figure(60.0, quality=QualityClass.E)),
    ],
)
def test_heat_that_may_be_is_not_flagged(computed_w: float, wall: Estimate | None) -> None:
    assert against(1200, computed_w, wall).flags == ()


def test_discredited_heat_stays_visible_beside_the_fused_one() -> None:
    bare = LoopHeat(electric=figure(15e3), computed=None, fused=figure(15e3))
    shown = heat_checks.with_flags(bare, figure(-9e3), ("swapped_sensors",))
    assert shown.computed and shown.computed.value == -9e3
    assert shown.fused and (shown.fused.value, shown.fused.flags) == (15e3, ("swapped_sensors",))


def quarrel(reported_w: float, seconds: int) -> tuple[Estimate, crosscheck.Quarrels]:
    state = crosscheck.Quarrels()
    for second in range(0, seconds + 1, 60):
        shown, state = crosscheck.compare(
            heat(20_000.0), reported_w, 0.05, state, boot_ns=second * S
        )
    assert shown.fused is not None
    return shown.fused, state


@pytest.mark.parametrize(
    ("seconds", "name", "quality"),
    [(0, "differs", QualityClass.B), (600, "mismatch", QualityClass.C)],
)
def test_a_disagreement_has_its_size_from_the_first_look(
    seconds: int, name: str, quality: QualityClass
) -> None:
    fused, state = quarrel(25_000.0, seconds)
    assert f"{name}:reported_vs_computed:+25%" in fused.flags
    assert fused.quality is quality
    (one,) = [d for d in state.sizes if d.pair == "reported_vs_computed"]
    assert one.size_frac == pytest.approx(0.25)
    assert one.is_lasting == (name == "mismatch")


def test_a_disagreement_that_ends_leaves_nothing() -> None:
    state = quarrel(25_000.0, 600)[1]
    close = replace(heat(20_000.0), electric=None)
    shown, state = crosscheck.compare(close, 20_100.0, 0.05, state, boot_ns=601 * S)
    assert state == crosscheck.Quarrels()
    assert shown == close


def test_a_factor_between_two_units_is_named() -> None:
    assert "unit_slip:reported_vs_computed:x1000" in quarrel(20.0, 0)[0].flags


def test_a_slip_of_units_is_told_between_two_devices_and_never_of_a_sum() -> None:
    close = replace(heat(20_000.0), electric=None)
    for single, is_told in (({"reported", "computed"}, True), ({"computed"}, False)):
        found = crosscheck.compare(
            close, 20_000.0 / 3.6, 0.05, crosscheck.Quarrels(), boot_ns=0, single=single
        )[1]
        assert [one.slip is not None for one in found.sizes] == [is_told]


@pytest.mark.parametrize(("u_frac", "slip"), [(0.02, None), (0.06, 3.6), (9.0, 3.6)])
def test_a_slip_lies_within_the_doubts_of_its_factor(u_frac: float, slip: float | None) -> None:
    assert unit_slip(3.6 * 1.1, u_frac) == slip
    assert unit_slip(3.6 * 1.2, u_frac) is None


@pytest.mark.parametrize(
    ("ratio", "slip"),
    [(3.6, 3.6), (1 / 3.6, 3.6), (16.7, 1000 / 60), (0.06, 1000 / 60), (58.0, 60.0),
     (1030.0, 1000.0), (0.001, 1000.0), (1.2, None), (2.0, None), (10.0, None), (-3.6, None),
     (0.0, None)],
)  # fmt: skip
def test_slips_are_known_by_their_ratio(ratio: float, slip: float | None) -> None:
    assert unit_slip(ratio) == slip
