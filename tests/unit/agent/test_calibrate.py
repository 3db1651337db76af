"""What is learnt beside a meter: within priors, never from a still load, with an honest doubt."""

import random
from dataclasses import replace
from math import inf, nan, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.agent.hidden_host import BEGIN_NS, Errors, HiddenHost, S, by_components

from heatpool_agent.core import calibrate, least_squares
from heatpool_agent.core.calibrate import Learner, Lesson
from heatpool_agent.core.coefficients import (
    EXPIRES_S,
    Coefficients,
    chosen,
    mistakes,
    predicted,
)

BASE_W = 60.0


def lesson(at: int, cpu_w: float, wall_w: float, **more: object) -> Lesson:
    plain = Lesson(
        event_ns=BEGIN_NS + at * 10 * S,
        span_s=10.0,
        inputs=(cpu_w, 0.0, 0.0),
        measured_w=wall_w,
        measured_u_frac=0.02,
        reference="pdu",
        quality=2,
        prior_w=BASE_W + 1.24 * cpu_w,
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def fresh() -> Learner:
    return calibrate.of_components("", ("package",), BASE_W)


def taught(*lessons: Lesson) -> Learner:
    learner = fresh()
    for one in lessons:
        learner = calibrate.observed(learner, one)
    return learner


def known(learner: Learner) -> Coefficients:
    found = calibrate.coefficients(learner)
    assert found is not None
    return found


def line(count: int, base_w: float = 80.0, gain: float = 1.1, *, begin: int = 0) -> list[Lesson]:
    cpus_w = [40.0 + 13.0 * ((7 * at) % 13) for at in range(begin, begin + count)]
    return [lesson(begin + at, w, base_w + gain * w) for at, w in enumerate(cpus_w)]


@settings(max_examples=40, deadline=None)
@given(base_w=st.floats(10, 150), gain=st.floats(0.9, 1.6))
def test_a_host_that_is_a_line_is_learnt_as_that_line(base_w: float, gain: float) -> None:
    found = known(taught(*line(300, base_w, gain)))
    for cpu_w in (40.0, 100.0, 190.0):
        told = predicted(found, (cpu_w, 0.0, 0.0))
        assert told.value_w == pytest.approx(base_w + gain * cpu_w, rel=0.01)
    assert found.after_mape_frac is not None and found.after_mape_frac < 0.02


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(1e-3, 1e7)), min_size=2, max_size=12))
def test_no_lesson_leads_a_coefficient_out_of_its_prior(points: list[tuple[float, float]]) -> None:
    learner = taught(*(lesson(at, *point) for at, point in enumerate(points)))
    found = calibrate.coefficients(learner)
    if found is None:
        return
    for at, value in enumerate(found.values):
        low, high = learner.prior.bounds(at)
        assert low - 1e-9 <= value <= high + 1e-9
    assert predicted(found, (50.0, 0.0, 0.0)).value_w_u > 0


@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("field", ["measured_w", "measured_u_frac", "prior_w", "inputs"])
def test_what_is_no_number_teaches_nothing(bad: float, field: str) -> None:
    learner = taught(*line(10))
    value = (bad, 0.0, 0.0) if field == "inputs" else bad
    assert calibrate.observed(learner, lesson(11, 50.0, 100.0, **{field: value})) is learner


@pytest.mark.parametrize("wall_w", [0.0, -5.0])
def test_a_meter_that_shows_no_power_teaches_nothing(wall_w: float) -> None:
    learner = taught(*line(10))
    assert calibrate.observed(learner, lesson(11, 50.0, wall_w)) is learner


def test_a_load_that_does_not_move_teaches_nothing() -> None:
    learner = taught(*(lesson(at, 100.0 + 0.05 * (at % 3), 200.0) for at in range(500)))
    assert calibrate.coefficients(learner) is None
    assert not calibrate.has_moved(learner)


def test_a_steady_loop_teaches_its_share_and_keeps_the_doubt_of_its_loss() -> None:
    learner = calibrate.of_loop("rack", 0.80, 0.10, 10e3)
    loss_w_k, loss_w_k_u = learner.prior.means[1], learner.prior.means_u[1]
    for at in range(100):
        measured_w = 0.70 * 10e3 - loss_w_k * 15.0 + (at % 3)
        steady = lesson(at, 0.0, measured_w, prior_w=7.5e3, inputs=(10e3, 15.0))
        learner = calibrate.observed(learner, steady)
    found = known(learner)
    assert found.count == 100
    assert found.values[0] == pytest.approx(0.70, abs=0.02)
    assert found.covariance[1][1] > (0.5 * loss_w_k_u) ** 2


def test_a_long_rest_counts_once_when_the_load_moves_at_last() -> None:
    rest = [lesson(at, 40.0, 124.0) for at in range(200)]
    learner = taught(*rest, lesson(200, 160.0, 256.0))
    assert learner.count == 2
    assert learner.lows == (40.0, 0.0, 0.0)


def test_after_four_hours_the_load_must_move_again() -> None:
    learner = taught(*line(50))
    day = 24 * 360
    still = [lesson(day + at, 90.0, 500.0) for at in range(400)]
    for one in still:
        learner = calibrate.observed(learner, one)
    assert learner.count == 50


def test_a_worse_meter_teaches_nothing_and_a_better_one_begins_anew() -> None:
    learner = taught(*line(50))
    assert calibrate.observed(learner, lesson(51, 50.0, 500.0, quality=3)) is learner
    better = calibrate.observed(learner, lesson(52, 50.0, 130.0, quality=1))
    assert (better.count, better.quality) == (0, 1)


def test_what_is_out_of_date_gives_way_to_any_meter() -> None:
    learner = taught(*line(50))
    late = round(EXPIRES_S / 10) + 100
    assert calibrate.observed(learner, lesson(late, 50.0, 500.0, quality=3)).quality == 3


def test_a_machine_that_was_changed_is_learnt_anew_within_hours() -> None:
    learner = taught(*line(3000))
    for one in line(720, 140.0, begin=3000):
        learner = calibrate.observed(learner, one)
    told = predicted(known(learner), (100.0, 0.0, 0.0))
    assert told.value_w == pytest.approx(140 + 110, rel=0.03)


def test_lessons_that_follow_each_other_are_worth_fewer() -> None:
    r = random.Random(7)

    def u_w(memory: float) -> float:
        learner, mood = fresh(), 0.0
        for at, one in enumerate(line(600)):
            mood = memory * mood + (1 - memory**2) ** 0.5 * r.gauss(0, 0.03)
            noisy = replace(one, measured_w=one.measured_w * (1 + mood), event_ns=BEGIN_NS + at)
            learner = calibrate.observed(learner, noisy)
        return sqrt(known(learner).covariance[0][0])

    assert u_w(0.95) > 2 * u_w(0.0)


def test_outside_the_range_that_was_seen_the_doubt_grows() -> None:
    found = known(taught(*line(300)))
    inside, outside = predicted(found, (190.0, 0.0, 0.0)), predicted(found, (600.0, 0.0, 0.0))
    assert inside.is_inside and not outside.is_inside
    assert outside.value_w_u / outside.value_w > 3 * inside.value_w_u / inside.value_w


def test_the_doubt_is_never_less_than_that_of_the_meter_that_taught() -> None:
    found = known(taught(*line(3000)))
    told = predicted(found, (100.0, 0.0, 0.0))
    assert told.value_w_u >= 0.02 * told.value_w


def test_coefficients_expire_after_ninety_days_and_three_lessons_are_an_anecdote() -> None:
    found = known(taught(*line(50)))
    assert found.is_valid(found.learned_ns + 89 * 86_400 * S)
    assert not found.is_valid(found.learned_ns + 90 * 86_400 * S)
    assert not replace(found, count=3).is_valid(found.learned_ns)


def test_of_two_the_better_meter_s_is_used_and_then_the_newer() -> None:
    found = known(taught(*line(50)))
    worse = replace(found, quality=3, learned_ns=found.learned_ns + S)
    newer = replace(found, learned_ns=found.learned_ns + S)
    used = chosen([found, worse, newer], newer.learned_ns)[""].components["package",]
    assert used is newer
    assert chosen([worse], found.expires_ns + 2 * S) == {}


def test_a_record_of_ours_has_no_mistake_and_a_bent_one_says_where() -> None:
    found = known(taught(*line(50)))
    assert mistakes(found) == []
    told = mistakes(replace(found, values=(1.0,), quality=9, residual_u_frac=-1.0))
    assert [text.partition(":")[0] for text in told] == ["values", "residual_u_frac", "quality"]


def test_a_loop_s_capture_and_loss_are_learnt() -> None:
    r = random.Random(3)
    learner = calibrate.of_loop("rack", 0.75, 0.05, 50_000.0)
    for at in range(2000):
        power_w, excess_k = r.uniform(20_000, 80_000), r.uniform(5, 35)
        heat_w = (0.80 * power_w - 70.0 * excess_k) * (1 + r.gauss(0, 0.01))
        told = lesson(at, 0.0, heat_w, inputs=(power_w, excess_k), prior_w=0.75 * power_w)
        learner = calibrate.observed(learner, told)
    capture, loss_w_k = known(learner).values
    assert capture == pytest.approx(0.80, abs=0.01)
    assert loss_w_k == pytest.approx(70.0, rel=0.2)


def test_a_matrix_without_an_inverse_is_told() -> None:
    with pytest.raises(ValueError, match="apart"):
        least_squares.inverted([[1.0, 1.0], [1.0, 1.0]])


def test_sums_that_no_host_can_leave_end_nothing_and_say_what_was_assumed() -> None:
    prior = fresh().prior
    odd = replace(least_squares.blank(4), count=9.0, row=(nan,) * 4, products=((nan,) * 4,) * 4)
    assert least_squares.solved(odd, prior).values == prior.means


@pytest.mark.parametrize("count", [12, 240])
def test_hidden_hosts_are_foretold_within_the_doubt_that_is_claimed(count: int) -> None:
    errors, before, after = Errors(), [], []
    for seed in range(40):
        host = HiddenHost(seed)
        learner = by_components(host, count)
        if learner.count < 4:
            continue
        found = known(learner)
        for _, inputs, wall_w in host.spans(40):
            errors.add(found, inputs, wall_w)
        if found.before_mape_frac is not None and found.after_mape_frac is not None:
            before.append(found.before_mape_frac)
            after.append(found.after_mape_frac)
    assert errors.covered >= 0.92
    assert errors.nees <= 1.3
    assert errors.mape < 0.045
    assert sum(after) < 0.25 * sum(before)
    if count == 240:
        # A doubt that covers everything is no doubt.
        assert errors.covered <= 0.99 and errors.nees >= 0.5
