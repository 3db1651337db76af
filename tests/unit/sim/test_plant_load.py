"""Loads: the same seed gives the same day, and a trace is played as recorded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_sim.plant import noise
from heatpool_sim.plant.load import Daily, Trace

_S = 10**9


@given(at_ns=st.integers(0, 2**62))
def test_a_day_stays_between_idle_and_nominal(at_ns: int) -> None:
    it_w = Daily(nominal_w=4e4, seed="a").it_w(at_ns)
    assert 1e4 <= it_w <= 4e4


def test_the_same_seed_gives_the_same_day() -> None:
    instants = [k * 7 * _S for k in range(200)]
    one, twin, other = (Daily(nominal_w=4e4, seed=seed) for seed in ("a", "a", "b"))
    assert [one.it_w(t) for t in instants] == [twin.it_w(t) for t in instants]
    assert [one.it_w(t) for t in instants] != [other.it_w(t) for t in instants]


def test_a_load_changes_without_jumps() -> None:
    daily = Daily(nominal_w=1.0, seed="a")
    steps = [daily.it_w((k + 1) * _S) - daily.it_w(k * _S) for k in range(3600)]
    assert max(abs(step) for step in steps) < 0.03


def test_noise_has_mean_zero_and_deviation_one() -> None:
    draws = [noise.normal("seed", k) for k in range(20_000)]
    assert sum(draws) / len(draws) == pytest.approx(0.0, abs=0.03)
    assert sum(x * x for x in draws) / len(draws) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("at_s", "expected_w"), [(0, 10.0), (4.9, 10.0), (5, 20.0), (12, 10.0)])
def test_a_trace_is_held_between_points_and_repeats(at_s: float, expected_w: float) -> None:
    trace = Trace(times_s=(0.0, 5.0, 10.0), it_ws=(10.0, 20.0, 30.0))
    assert trace.it_w(round(at_s * _S)) == expected_w


@pytest.mark.parametrize(
    ("times_s", "it_ws"), [((0.0,), (1.0,)), ((0.0, 0.0), (1.0, 2.0)), ((0.0, 1.0), (1.0,))]
)
def test_a_trace_that_makes_no_sense_is_refused(
    times_s: tuple[float, ...], it_ws: tuple[float, ...]
) -> None:
    with pytest.raises(ValueError, match="trace"):
        Trace(times_s=times_s, it_ws=it_ws)
