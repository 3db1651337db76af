"""A running site on simulated time: valve, watchdog, faults and registers."""

from dataclasses import replace

import pytest

from heatpool_sim import scenario
from heatpool_sim.loops import RunningSite
from heatpool_sim.plant import site as plants
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.faults import Fault
from heatpool_sim.plant.meter import MODULUS, MeterState

_S = 10**9


def running(mode: Mode = Mode.NETWORK, faults: tuple[Fault, ...] = ()) -> RunningSite:
    spec = scenario.load("demo").sites[1]
    state = plants.steady(
        spec.plant, at_ns=10**18, meter=spec.meter, metered=MeterState(register_wh=1000)
    )
    state = replace(state, control=Control(mode=mode))
    return RunningSite(spec.plant, state, errors=spec.errors, planned=faults)


def advance(site: RunningSite, seconds: int, *, from_s: int = 0) -> None:
    for second in range(from_s, from_s + seconds):
        site.advance(1.0, boot_ns=(second + 1) * _S)


def test_a_local_unit_delivers_nothing() -> None:
    site = running(Mode.LOCAL)
    advance(site, 60)
    assert site.heat is not None
    assert site.state.metered.register_wh == 1000
    assert site.heat.rejected_j == site.heat.carried_j > 0


def test_a_setpoint_is_met_and_falls_back_when_nobody_renews_it() -> None:
    site = running(Mode.LOCAL)
    assert site.write([0, 12_000, 40, 1], at=0)
    advance(site, 39)
    delivered_w = site.state.network.heat_rate_w
    assert site.gauges().is_remote
    advance(site, 41, from_s=39)
    assert delivered_w == pytest.approx(12_000, rel=1e-6)
    assert site.state.network.heat_rate_w == 0.0
    assert site.gauges().is_expired
    assert site.cells()[3] == Mode.LOCAL


def test_the_network_gets_heat_at_the_temperature_it_was_promised() -> None:
    site = running()
    advance(site, 600)
    assert 41.0 < site.state.network.hot_c < 47.0


def test_the_reported_heat_is_near_the_truth_and_not_equal_to_it() -> None:
    site = running()
    advance(site, 120)
    reported_w = site.gauges().reported_heat_w
    assert reported_w == pytest.approx(site.state.carried_w, rel=0.06)
    assert abs(reported_w - site.state.carried_w) > 1.0


def test_a_planned_fault_lasts_as_long_as_it_says() -> None:
    site = running(faults=(Fault(id="offline", site_id="s02", at_s=10, length_s=5),))
    seen = []
    for second in range(20):
        site.advance(1.0, boot_ns=second * _S)
        seen.append("offline" in site.faults)
    assert seen.index(True) == 9
    assert sum(seen) == 5


def test_a_planned_exchange_brings_a_new_meter_once() -> None:
    site = running(faults=(Fault(id="meter_exchange", site_id="s02", at_s=2.5),))
    old = site.state.meter.number
    advance(site, 10)
    assert site.state.meter.number == old + 1
    assert site.state.metered.register_wh < 1000


def test_a_job_that_ends_takes_its_heat_with_it() -> None:
    site = running()
    advance(site, 60)
    before_w = site.state.carried_w
    site.inject("job_end", length_s=900)
    advance(site, 600, from_s=60)
    assert site.state.carried_w < 0.7 * before_w


def test_swapped_sensors_show_the_cold_pipe_as_hot() -> None:
    site = running()
    site.inject("sensor_swap", length_s=60)
    assert site.gauges().hot_c < site.gauges().cold_c
    assert site.gauges().reported_heat_w < 0
    site.clear("sensor_swap")
    assert site.gauges().hot_c > site.gauges().cold_c


def test_a_roll_over_keeps_counting_from_zero() -> None:
    site = running()
    site.inject("register_rollover", length_s=0)
    assert site.state.metered.register_wh > MODULUS - 100
    advance(site, 60)
    assert site.state.metered.register_wh < 1000


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="gremlin"):
        running().inject("gremlin", length_s=1)


def test_the_machines_counters_count_less_where_power_meters_show_less() -> None:
    sound, low = running(), running()
    low.inject("power_meter_low", length_s=1e9, size=0.2)
    for site in (sound, low):
        advance(site, 30)
    assert low.state.electric_j == sound.state.electric_j
    counted = [sum(site.fed.energy_j.values()) for site in (low, sound)]
    assert counted[0] / counted[1] == pytest.approx(0.8)


def test_a_fault_of_an_impossible_size_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        running().inject("air_in_loop", length_s=1, size=3.0)
