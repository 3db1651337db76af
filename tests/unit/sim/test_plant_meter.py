"""The simulated heat meter: whole Wh, remainder kept, wraps at eight digits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_sim.plant import meter, water
from heatpool_sim.plant.exchanger import NetworkStream
from heatpool_sim.plant.meter import MODULUS, Meter, MeterState

PLATE = Meter(manufacturer="HPS", number=12345678, version=1)


def stream(heat_rate_w: float, hot_c: float = 45.0, cold_c: float = 35.0) -> NetworkStream:
    rise_j_kg = water.enthalpy_j_kg(hot_c) - water.enthalpy_j_kg(cold_c)
    flow_m3_h = heat_rate_w / rise_j_kg * 3600.0 / water.density_kg_m3(cold_c)
    return NetworkStream(
        heat_rate_w=heat_rate_w, volume_flow_m3_h=flow_m3_h, hot_c=hot_c, cold_c=cold_c
    )


@given(
    rates_w=st.lists(st.floats(0, 1e5), min_size=1, max_size=60),
    dt_s=st.floats(0.05, 5.0),
    start_wh=st.integers(0, MODULUS - 1),
)
def test_the_register_holds_the_energy_of_all_steps(
    rates_w: list[float], dt_s: float, start_wh: int
) -> None:
    state = MeterState(register_wh=start_wh)
    for rate_w in rates_w:
        state = meter.step(PLATE, state, stream(rate_w), dt_s=dt_s)
    counted_wh = (state.register_wh - start_wh) % MODULUS + state.remainder_wh
    assert counted_wh == pytest.approx(sum(rates_w) * dt_s / 3600.0, rel=1e-9, abs=1e-6)
    assert 0.0 <= state.remainder_wh < 1.0


def test_a_wrap_loses_no_energy() -> None:
    state = meter.step(PLATE, MeterState(register_wh=MODULUS - 3), stream(3.6e4), dt_s=1.0)
    assert state.register_wh == 7


def test_energy_below_a_watt_hour_is_kept_until_it_is_one() -> None:
    state = MeterState(register_wh=0)
    for _ in range(10):
        state = meter.step(PLATE, state, stream(1800.0), dt_s=1.0)
    assert state.register_wh == 5 or state.remainder_wh == pytest.approx(1.0)


def test_heat_that_flows_backwards_is_not_counted() -> None:
    backwards = NetworkStream(heat_rate_w=0.0, volume_flow_m3_h=1.0, hot_c=30.0, cold_c=35.0)
    state = meter.step(PLATE, MeterState(register_wh=5), backwards, dt_s=3600.0)
    assert (state.register_wh, state.heat_rate_w) == (5, 0.0)


@pytest.mark.parametrize(
    ("hot_c", "cold_c", "expected_j_m3_k"),
    # EN 1434-1 heat coefficients of water, flow sensor in the cold pipe.
    [(50.0, 30.0, 4.160e6), (70.0, 50.0, 4.139e6), (95.0, 60.0, 4.124e6)],
)
def test_the_heat_coefficient_is_that_of_water(
    hot_c: float, cold_c: float, expected_j_m3_k: float
) -> None:
    found = meter.heat_coefficient_j_m3_k(hot_c, cold_c)
    assert found == pytest.approx(expected_j_m3_k, rel=2e-3)


def test_an_exchanged_meter_has_another_number_and_the_same_make() -> None:
    new = meter.exchanged(PLATE, number=12345679)
    assert (new.manufacturer, new.number) == ("HPS", 12345679)
    with pytest.raises(ValueError, match="new number"):
        meter.exchanged(PLATE, number=PLATE.number)
