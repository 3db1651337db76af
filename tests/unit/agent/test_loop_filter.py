"""The filter of record under guard: late meters, other meters, and figures that are none."""

from dataclasses import replace

import pytest

from heatpool_agent.core import kalman, loop_filter
from heatpool_agent.core.kalman import Figure
from heatpool_agent.core.loop_filter import LATE_S, LoopFilter
from heatpool_agent.core.loop_sample import LoopModel, LoopSample

MODEL = LoopModel(gain_u_frac=0.07)
RIGHT = LoopSample(span_s=10.0, power_w=100e3, volume_flow_m3_h=8.0, hot_c=48.2, cold_c=40.0)


def run(own: LoopFilter, spans: int, model: LoopModel = MODEL) -> Figure | None:
    for _ in range(spans):
        figure = own.advance(RIGHT, model)
    return figure


def learnt(own: LoopFilter) -> float:
    capture = own.capture
    assert capture is not None
    return capture.value_u / capture.value


@pytest.fixture
def old() -> LoopFilter:
    own = LoopFilter(MODEL)
    assert run(own, 360) is not None
    return own


@pytest.mark.parametrize(
    "other",
    [
        {"gain_u_frac": 0.15},
        {"gain_u_frac": 0.02},
        {"delta_k_u": 0.1},
        {"flow_u_frac": 0.03},
        {"sensor_side": "hot"},
    ],
)
def test_a_meter_that_answers_late_costs_nothing_that_was_learnt(
    old: LoopFilter, other: dict[str, float]
) -> None:
    before = learnt(old)
    assert run(old, 5, replace(MODEL, **other)) is None  # type: ignore[arg-type]
    assert old.phase == "fallback"
    assert run(old, 1) is not None
    assert learnt(old) == pytest.approx(before, rel=0.1)


def test_another_meter_is_learnt_anew_after_a_minute(old: LoopFilter) -> None:
    before, other = learnt(old), replace(MODEL, gain_u_frac=0.15)
    spans = round(LATE_S / RIGHT.span_s)
    assert run(old, spans - 1, other) is None
    assert run(old, 1, other) is not None
    assert learnt(old) > 2 * before


def test_a_meter_of_nearly_the_same_doubt_is_the_same_meter(old: LoopFilter) -> None:
    assert run(old, 1, replace(MODEL, gain_u_frac=0.08)) is not None


def test_what_is_learnt_of_the_share_is_no_other_meter(old: LoopFilter) -> None:
    assert run(old, 1, replace(MODEL, capture_frac=0.77, loss_frac=0.01)) is not None


def test_a_young_filter_takes_another_meter_at_once() -> None:
    own = LoopFilter(MODEL)
    run(own, 2)
    assert run(own, 1, replace(MODEL, gain_u_frac=0.15)) is not None


def test_a_filter_that_keeps_away_from_the_plain_fusion_is_given_up(old: LoopFilter) -> None:
    spans = 0
    while spans < 200:
        spans += 1
        figure = run(old, 1)
        if figure is None:
            break
        old.compare(figure.value + 30.0 * figure.value_u, figure.value_u, span_s=10.0)
        if old.figure is None:
            break
    assert 2 < spans < 60


def test_a_transient_of_the_plain_fusion_is_no_reason(old: LoopFilter) -> None:
    figure = run(old, 1)
    assert figure is not None
    for _ in range(9):
        old.compare(figure.value + 10.0 * figure.value_u, figure.value_u, span_s=10.0)
    assert old.figure is not None


@pytest.mark.parametrize("error", [OverflowError, ZeroDivisionError, ValueError])
def test_a_filter_that_cannot_compute_begins_anew_and_keeps_its_accounts(
    old: LoopFilter, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    old.start_energy("day")
    run(old, 360)
    before = old.energy("day")

    def broken(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(kalman, "advance", broken)
        assert run(old, 1) is None
    assert old.energy("day") == before
    assert run(old, 2) is not None
    assert old.energy("day").heat_wh > before.heat_wh


def test_it_comes_back_as_it_was_saved(old: LoopFilter) -> None:
    old.start_energy("day")
    run(old, 10)
    again = loop_filter.restored(old.saved())
    assert again is not None
    assert (again.energy("day"), again.capture) == (old.energy("day"), old.capture)
    assert run(again, 1) == run(old, 1)
