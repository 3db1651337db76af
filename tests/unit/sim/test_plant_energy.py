"""Energy balance of the simulated plant: nothing is made, nothing is lost, at any step length."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatpool_sim.plant import exchanger, loop, server, site, sizing
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.load import Trace
from heatpool_sim.plant.loop import Loop, LoopState
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.server import Server

LOOP = Loop(
    heat_capacity_j_k=4e5,
    loss_w_k=12.0,
    room_c=24.0,
    cold_c=36.0,
    delta_k=10.0,
    volume_flow_m3_h=4.0,
)
dt_s = st.floats(1e-3, 30.0)


def closes(total_j: float, parts_j: list[float]) -> bool:
    scale_j = max(abs(total_j), *(abs(part) for part in parts_j), 1e-3)
    return abs(total_j - sum(parts_j)) <= 1e-9 * scale_j


@given(
    it_w=st.floats(0, 1e5),
    held_j=st.floats(0, 1e7),
    capture_frac=st.floats(0, 1),
    tau_s=st.floats(1, 300),
    dt_s=dt_s,
)
def test_electric_is_liquid_and_air_and_stored(
    it_w: float, held_j: float, capture_frac: float, tau_s: float, dt_s: float
) -> None:
    box = Server(overhead_frac=0.07, capture_frac=capture_frac, tau_s=tau_s)
    after_j, heat = server.step(box, held_j, it_w=it_w, dt_s=dt_s)
    assert closes(heat.electric_j, [heat.liquid_j, heat.air_j, heat.stored_j])
    assert after_j - held_j == pytest.approx(heat.stored_j, rel=1e-6, abs=1e-6)
    assert heat.liquid_j >= -1e-6


@given(
    hot_c=st.floats(5, 95),
    flow_m3_h=st.floats(0, 4),
    liquid_w=st.floats(0, 1e5),
    dt_s=dt_s,
)
def test_liquid_is_carried_and_lost_and_stored(
    hot_c: float, flow_m3_h: float, liquid_w: float, dt_s: float
) -> None:
    state = LoopState(hot_c=hot_c, cold_c=min(hot_c, LOOP.cold_c), volume_flow_m3_h=flow_m3_h)
    liquid_j = liquid_w * dt_s
    after, heat = loop.step(LOOP, state, liquid_j=liquid_j, dt_s=dt_s)
    assert closes(liquid_j, [heat.carried_j, heat.lost_j, heat.stored_j])
    assert heat.carried_j >= 0.0
    assert (after.hot_c - hot_c) * LOOP.heat_capacity_j_k == pytest.approx(
        heat.stored_j, rel=1e-6, abs=1e-3
    )


@given(carried_j=st.floats(0, 1e6), valve_frac=st.floats(0, 1), hot_c=st.floats(30, 70), dt_s=dt_s)
def test_what_the_network_does_not_take_is_rejected(
    carried_j: float, valve_frac: float, hot_c: float, dt_s: float
) -> None:
    box = exchanger.Exchanger(
        capacity_w=3e4, approach_k=2.0, travel_s=15.0, rejection_capacity_w=6e4
    )
    stream, heat = exchanger.split(
        box,
        carried_j=carried_j,
        valve_frac=valve_frac,
        hot_c=hot_c,
        network_cold_c=36.0,
        dt_s=dt_s,
    )
    assert closes(carried_j, [heat.network_j, heat.rejected_j])
    assert heat.network_j >= 0.0
    assert heat.rejected_j >= 0.0
    assert stream.heat_rate_w * dt_s == pytest.approx(heat.network_j, rel=1e-12)


@given(
    seed=st.integers(0, 10**6),
    cooling=st.sampled_from(sorted(sizing.COOLING)),
    it_ws=st.lists(st.floats(0, 5e4), min_size=2, max_size=6),
    mode=st.sampled_from([Mode.LOCAL, Mode.NETWORK]),
    dt_s=st.floats(0.05, 5.0),
)
def test_a_whole_site_keeps_every_joule(
    seed: int, cooling: str, it_ws: list[float], mode: Mode, dt_s: float
) -> None:
    load = Trace(times_s=tuple(float(i * 3) for i in range(len(it_ws))), it_ws=tuple(it_ws))
    plant = sizing.plant(
        "s", seed=str(seed), load=load, it_w=5e4, cooling=cooling, hot_c=45.0, cold_c=35.0
    )
    meter = Meter(manufacturer="HPS", number=1, version=1)
    state = site.steady(plant, at_ns=0, meter=meter, metered=MeterState(register_wh=0))
    state = replace(state, control=Control(mode=mode))
    for _ in range(20):
        state, heat = site.step(plant, state, dt_s=dt_s)
        assert closes(heat.electric_j, [heat.liquid_j, heat.air_j, heat.held_j])
        assert closes(heat.liquid_j, [heat.carried_j, heat.lost_j, heat.stored_j])
        assert closes(heat.carried_j, [heat.network_j, heat.rejected_j])
        assert heat.rejected_j / dt_s <= plant.exchanger.rejection_capacity_w


def test_a_step_equals_its_halves_while_inputs_hold() -> None:
    box = Server(overhead_frac=0.05, capture_frac=0.8, tau_s=20.0)
    whole_j, heat = server.step(box, 1000.0, it_w=2e4, dt_s=8.0)
    half_j, first = server.step(box, 1000.0, it_w=2e4, dt_s=4.0)
    end_j, second = server.step(box, half_j, it_w=2e4, dt_s=4.0)
    assert end_j == pytest.approx(whole_j, rel=1e-12)
    assert first.liquid_j + second.liquid_j == pytest.approx(heat.liquid_j, rel=1e-12)
