"""Electricity becomes heat in the coolant, less what a warm loop loses; thermal mass delays it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_agent.core.loop_law import electric_heat_w, first_order_mean, loop_step

powers_w = st.floats(0, 1e6)
shares = st.floats(0, 1)
losses_w_k = st.floats(0, 1e3)
temps_c = st.floats(10, 70)


def test_a_warm_loop_loses_to_its_room() -> None:
    kept_w = electric_heat_w(100_000.0, 0.75, loss_w_k=150.0, loop_c=38.0, room_c=25.0)
    assert kept_w == pytest.approx(75_000.0 - 150.0 * 13.0)


def test_an_idle_warm_loop_gives_heat_to_its_room_and_a_cold_one_takes_it() -> None:
    assert electric_heat_w(0.0, 0.75, loss_w_k=100.0, loop_c=40.0, room_c=20.0) == -2000.0
    assert electric_heat_w(0.0, 0.75, loss_w_k=100.0, loop_c=15.0, room_c=20.0) == 500.0


@given(powers_w, shares, losses_w_k, temps_c, temps_c)
def test_the_hotter_the_coolant_the_less_it_captures(
    power_w: float, share: float, loss_w_k: float, loop_c: float, room_c: float
) -> None:
    cool_w = electric_heat_w(power_w, share, loss_w_k=loss_w_k, loop_c=loop_c, room_c=room_c)
    hot_w = electric_heat_w(power_w, share, loss_w_k=loss_w_k, loop_c=loop_c + 5, room_c=room_c)
    assert hot_w == pytest.approx(cool_w - 5 * loss_w_k, abs=1e-6)


@given(powers_w, shares, temps_c)
def test_a_loop_as_warm_as_its_room_keeps_all_it_captures(
    power_w: float, share: float, temp_c: float
) -> None:
    kept_w = electric_heat_w(power_w, share, loss_w_k=500.0, loop_c=temp_c, room_c=temp_c)
    assert kept_w == share * power_w <= power_w


@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_two_steps_of_the_loop_are_one_long_step(first_s: float, second_s: float) -> None:
    once = loop_step(10.0, 50.0, dt_s=first_s + second_s, tau_s=60.0)
    half = loop_step(10.0, 50.0, dt_s=first_s, tau_s=60.0)
    twice = loop_step(half, 50.0, dt_s=second_s, tau_s=60.0)
    assert math.isclose(once, twice, rel_tol=1e-9)


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.1, 1e4), st.floats(0.1, 1e4))
def test_the_mean_is_the_integral_of_the_steps(
    value: float, target: float, dt_s: float, tau_s: float
) -> None:
    # dx/dt = (target - x)/tau: what x moved by in dt is the mean distance times dt/tau.
    moved = loop_step(value, target, dt_s=dt_s, tau_s=tau_s) - value
    mean = first_order_mean(value, target, dt_s=dt_s, tau_s=tau_s)
    assert moved == pytest.approx((target - mean) * dt_s / tau_s, rel=1e-6, abs=1e-4)
    assert min(value, target) - 1e-6 <= mean <= max(value, target) + 1e-6


@pytest.mark.parametrize("law", [loop_step, first_order_mean])
def test_without_thermal_mass_the_target_is_there_at_once(law: object) -> None:
    assert callable(law)
    assert law(10.0, 50.0, dt_s=1.0, tau_s=0.0) == 50.0
    assert law(10.0, 50.0, dt_s=0.0, tau_s=60.0) == 10.0


def test_energy_of_a_loop_closes() -> None:
    # physics.md 6.2: in = out + stored, to 1e-9; here G = 9 kW/K, C = 810 kJ/K, no loss.
    conductance_w_k, tau_s, dt_s, in_w = 9_000.0, 90.0, 7.0, 80_000.0
    before_k, settled_k = 5.0, in_w / conductance_w_k
    after_k = loop_step(before_k, settled_k, dt_s=dt_s, tau_s=tau_s)
    mean_k = first_order_mean(before_k, settled_k, dt_s=dt_s, tau_s=tau_s)
    stored_j = conductance_w_k * tau_s * (after_k - before_k)
    out_j = conductance_w_k * mean_k * dt_s
    assert math.isclose(in_w * dt_s, out_j + stored_j, rel_tol=1e-9)
