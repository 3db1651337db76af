"""Circuits, pumps and the server's feed: energy is kept, and settings act within their limits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_sim.plant import feed, hydraulics, site, sizing, steering
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.load import Trace
from heatpool_sim.plant.loop import Loop, LoopState
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.server import Server
from heatpool_sim.plant.steering import COMMISSIONED, Wished, Wishes
from heatpool_sim.plant.unit_gauges import CircuitGauges, unit_gauges
from heatpool_sim.plant.water import density_kg_m3, enthalpy_j_kg

LOOP = Loop(
    heat_capacity_j_k=4e5,
    loss_w_k=12.0,
    room_c=24.0,
    cold_c=36.0,
    delta_k=10.0,
    volume_flow_m3_h=4.0,
)
BOX = Server(overhead_frac=0.07, capture_frac=0.8, tau_s=20.0)
PLANT = sizing.plant(
    "s",
    seed="panel/s",
    load=Trace(times_s=(0.0, 1e6), it_ws=(20e3, 20e3)),
    it_w=30e3,
    cooling="dlc",
    hot_c=45.0,
    cold_c=35.0,
)


def started() -> site.SiteState:
    meter = Meter(manufacturer="HPS", number=1, version=1)
    first = site.steady(PLANT, at_ns=0, meter=meter, metered=MeterState(register_wh=0))
    return replace(first, control=Control(mode=Mode.NETWORK))


@given(electric_w=st.floats(1.0, 1e6), at_ns=st.integers(0, 2**61), seed=st.text(max_size=8))
def test_a_feed_s_parts_add_up(electric_w: float, at_ns: int, seed: str) -> None:
    split = feed.feed(BOX, electric_w, seed=seed, at_ns=at_ns)
    parts_w = [*split.cpu_w, *split.gpu_w, split.memory_w, split.board_w, split.fan_w]
    assert min(parts_w) >= 0.0
    assert sum(parts_w) == pytest.approx(sum(split.output_w), rel=1e-9)
    assert split.electric_w == pytest.approx(electric_w, rel=1e-9)
    assert all(0 < out < in_ for in_, out in zip(split.input_w, split.output_w, strict=True))


def test_a_server_without_load_has_no_parts() -> None:
    split = feed.feed(BOX, 0.0, seed="x", at_ns=0)
    assert split.electric_w == split.board_w == sum(split.gpu_w) == 0.0


@given(
    rejected_w=st.floats(-1.0, 1e6),
    hot_c=st.floats(20, 70),
    cold_c=st.floats(20, 45),
    approach_k=st.floats(0, 5),
)
def test_the_cooler_s_stream_carries_what_is_rejected(
    rejected_w: float, hot_c: float, cold_c: float, approach_k: float
) -> None:
    loop = LoopState(hot_c=hot_c, cold_c=cold_c, volume_flow_m3_h=4.0)
    stream = hydraulics.cooler_stream(loop, rejected_w=rejected_w, approach_k=approach_k)
    rise_j_kg = enthalpy_j_kg(stream.hot_c) - enthalpy_j_kg(stream.cold_c)
    mass_flow_kg_s = stream.volume_flow_m3_h * density_kg_m3(stream.cold_c) / 3600.0
    assert mass_flow_kg_s * rise_j_kg == pytest.approx(max(rejected_w, 0.0), rel=1e-9)
    assert stream.hot_c >= stream.cold_c


@given(flow_m3_h=st.floats(0, 4))
def test_a_pump_s_work_is_no_more_than_its_power(flow_m3_h: float) -> None:
    pressed = hydraulics.loop_pressures(LOOP, flow_m3_h, is_leaking=False)
    work_w = flow_m3_h / 3600.0 * (pressed.cold_kpa - pressed.hot_kpa) * 1000.0
    assert 0.0 <= work_w < hydraulics.unit_w(LOOP, flow_m3_h)


def test_a_leak_takes_pressure_and_water() -> None:
    tight, leaking = (
        hydraulics.loop_pressures(LOOP, 2.0, is_leaking=is_leaking) for is_leaking in (False, True)
    )
    assert leaking.hot_kpa < tight.hot_kpa
    assert leaking.cold_kpa - leaking.hot_kpa == pytest.approx(tight.cold_kpa - tight.hot_kpa)
    assert hydraulics.fill_frac(40.0, is_leaking=True) < hydraulics.fill_frac(
        40.0, is_leaking=False
    )


@pytest.mark.parametrize("name", ["cold_c", "volume_flow_m3_h"])
def test_a_setting_beyond_its_limits_is_not_taken(name: Wished) -> None:
    least, most = steering.limits(LOOP)[name]
    for taken in (least, most, None):
        wishes = steering.adjusted(LOOP, COMMISSIONED, name, taken)
        assert wishes is not None
        assert getattr(wishes, name) == taken
    for beyond in (least - 0.01, most + 0.01, float("nan")):
        assert steering.adjusted(LOOP, COMMISSIONED, name, beyond) is None


@given(
    cold_c=st.none() | st.floats(*steering.limits(PLANT.loop)["cold_c"]),
    flow_m3_h=st.none() | st.floats(*steering.limits(PLANT.loop)["volume_flow_m3_h"]),
    dt_s=st.floats(0.05, 1.0),
)
def test_energy_is_kept_whatever_is_set(
    cold_c: float | None, flow_m3_h: float | None, dt_s: float
) -> None:
    wishes = Wishes(cold_c=cold_c, volume_flow_m3_h=flow_m3_h)
    state = replace(started(), wishes=wishes)
    for _ in range(3):
        state, heat = site.step(PLANT, state, dt_s=dt_s)
        parts_j = heat.carried_j + heat.lost_j + heat.stored_j
        assert heat.liquid_j == pytest.approx(parts_j, rel=1e-6)
        assert heat.carried_j == pytest.approx(heat.network_j + heat.rejected_j, rel=1e-9)


def test_energies_count_every_step() -> None:
    state, electric_j = started(), 0.0
    for _ in range(100):
        before_j = state.unit_j
        state, heat = site.step(PLANT, state, dt_s=0.5)
        electric_j += heat.electric_j
        assert state.unit_j > before_j
    assert state.electric_j == pytest.approx(electric_j, rel=1e-12)


@given(at_ns=st.integers(0, 2**61), kind=st.sampled_from(["network", "cooler"]))
def test_no_circuit_s_return_presses_above_its_supply(at_ns: int, kind: str) -> None:
    panel = unit_gauges(PLANT, replace(started(), at_ns=at_ns), faults=frozenset())
    circuit: CircuitGauges = getattr(panel, kind)
    assert circuit.hot_kpa <= circuit.cold_kpa
