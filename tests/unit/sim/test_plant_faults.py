"""Faults of the plant: truth loses no joule, and each sensor fault leaves the truth alone."""

from dataclasses import replace
from statistics import fmean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatpool.water import density_kg_m3, heat_capacity_j_kg_k
from heatpool_sim.plant import faults, glycol, loop_gauges, probes, site, sizing
from heatpool_sim.plant.control import Control, Mode
from heatpool_sim.plant.faults import Fault, Lasting
from heatpool_sim.plant.gauges import gauges
from heatpool_sim.plant.load import Trace
from heatpool_sim.plant.loop import LoopState
from heatpool_sim.plant.loop_gauges import GaugeErrors, LoopGauges
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.probes import Probes
from heatpool_sim.plant.site import Plant, SiteHeat, SiteState

LOAD = Trace(times_s=(0.0, 300.0, 600.0, 900.0), it_ws=(20e3, 28e3, 24e3, 24e3))
STILL = {"meter_dead", "temperature_stuck", "flow_stuck"}
METER = Meter(manufacturer="HPS", number=1, version=1)


def plant(seed: str = "faults", cooling: str = "dlc") -> Plant:
    return sizing.plant("s", seed=seed, load=LOAD, it_w=30e3, cooling=cooling, hot_c=45, cold_c=35)


PLANT = plant()


def started(box: Plant = PLANT) -> SiteState:
    first = site.steady(box, at_ns=0, meter=METER, metered=MeterState(register_wh=0))
    return replace(first, control=Control(mode=Mode.NETWORK))


def one(name: str, *, size: float | None = None, for_s: float = 0.0) -> dict[str, Lasting]:
    fault = Fault(id=name, site_id="s", at_s=0.0, length_s=1e9, size=size)
    return faults.lasting((fault,), since_start_s=for_s)


def run(
    lasting: dict[str, Lasting], *, seconds: int = 600, box: Plant = PLANT
) -> tuple[list[SiteState], list[SiteHeat]]:
    states, heats = [started(box)], []
    for _ in range(seconds):
        state, heat = site.step(box, states[-1], dt_s=1.0, lasting=lasting)
        states.append(state)
        heats.append(heat)
    return states, heats


def shown(state: SiteState, lasting: dict[str, Lasting]) -> LoopGauges:
    return loop_gauges.loop_gauges(PLANT, state, GaugeErrors(), lasting=lasting, noise_scale=0.0)


def closes(total_j: float, parts_j: list[float]) -> bool:
    scale_j = max(abs(total_j), *(abs(part) for part in parts_j), 1e-3)
    return abs(total_j - sum(parts_j)) <= 1e-9 * scale_j


@settings(deadline=None, max_examples=60)
@given(
    names=st.sets(st.sampled_from(sorted(faults.PLANT))),
    size_frac=st.floats(0, 1),
    seed=st.integers(0, 10**6),
    cooling=st.sampled_from(sorted(sizing.COOLING)),
    dt_s=st.floats(0.05, 5.0),
)
def test_no_fault_makes_or_loses_a_joule(
    names: set[str], size_frac: float, seed: int, cooling: str, dt_s: float
) -> None:
    box = plant(str(seed), cooling)
    sizes = {
        name: bounds.least + size_frac * (bounds.most - bounds.least)
        for name, bounds in faults.SIZES.items()
    }
    lasting = {name: Lasting(size=sizes.get(name, 0.0), for_s=1e4) for name in names}
    state = started(box)
    for turn in range(20):
        state, heat = site.step(box, state, dt_s=dt_s, lasting=lasting if turn % 10 > 4 else {})
        assert closes(heat.electric_j, [heat.liquid_j, heat.air_j, heat.held_j])
        assert closes(heat.liquid_j, [heat.carried_j, heat.lost_j, heat.stored_j])
        assert closes(heat.carried_j, [heat.network_j, heat.rejected_j])


@pytest.mark.parametrize("name", sorted(faults.GAUGES))
def test_a_sensors_fault_leaves_the_truth_as_it_is(name: str) -> None:
    (states, heats), (well, true) = run(one(name), seconds=60), run({}, seconds=60)
    assert heats == true
    assert states[-1].loop == well[-1].loop
    if name != "meter_dead":
        assert states[-1].metered == well[-1].metered


@pytest.mark.parametrize("name", sorted(faults.GAUGES - STILL))
def test_a_sensors_fault_shows_at_once_or_with_time(name: str) -> None:
    state = run({}, seconds=60)[0][-1]
    assert shown(state, one(name, for_s=7200.0)) != shown(state, {})


def test_swapped_sensors_show_a_spread_below_zero() -> None:
    state = run({}, seconds=60)[0][-1]
    well, ill = shown(state, {}), shown(state, one("sensor_swap"))
    assert (ill.hot_c, ill.cold_c) == (well.cold_c, well.hot_c)


@pytest.mark.parametrize("pipe", ["hot", "cold"])
def test_a_stuck_sensor_shows_the_same_to_the_last_digit_and_the_other_moves(
    pipe: faults.Pipe,
) -> None:
    lasting = {"temperature_stuck": Lasting(pipe=pipe)}
    looks = [
        gauges(PLANT, state, GaugeErrors(), lasting=lasting) for state in run(lasting)[0][::10]
    ]
    kinds = {"hot": {look.hot_c for look in looks}, "cold": {look.cold_c for look in looks}}
    assert len(kinds.pop(pipe)) == 1
    (moving,) = kinds.values()
    assert len(moving) == len(looks)


def test_a_dead_meter_stands_still_while_heat_flows_and_never_catches_up() -> None:
    states, heats = run({}, seconds=60)
    lasting, dead = one("meter_dead"), states[-1]
    for _ in range(120):
        dead, heat = site.step(PLANT, dead, dt_s=1.0, lasting=lasting)
        assert heat.network_j > 0.0
    assert dead.metered == states[-1].metered
    looks = {
        gauges(PLANT, look, GaugeErrors(), lasting=lasting).hot_c for look in (dead, states[-1])
    }
    assert len(looks) == 1
    for name in ("volume_flow_m3_h", "hot_c", "cold_c"):
        assert getattr(shown(dead, lasting), name) == getattr(states[-1].felt, name)
    later = site.step(PLANT, dead, dt_s=1.0)[0]
    counted_wh = later.metered.register_wh - dead.metered.register_wh
    assert counted_wh <= 1 + heats[-1].network_j / 3600.0


def test_a_stuck_flow_sensor_stands_while_the_temperatures_move() -> None:
    lasting = one("flow_stuck")
    looks = [
        gauges(PLANT, state, GaugeErrors(), lasting=lasting) for state in run(lasting)[0][::10]
    ]
    assert len({look.volume_flow_m3_h for look in looks}) == 1
    assert len({look.hot_c for look in looks}) == len(looks)


def test_a_drift_grows_by_the_day() -> None:
    state = run({}, seconds=10)[0][-1]
    well = shown(state, {})
    half = shown(state, one("temperature_drift", size=0.1, for_s=43_200.0))
    assert half.hot_c - well.hot_c == pytest.approx(0.05)
    assert half.cold_c == well.cold_c


def test_an_offset_sits_in_its_pipe() -> None:
    state = run({}, seconds=10)[0][-1]
    off = shown(state, {"pair_offset": Lasting(size=-0.4, pipe="cold")})
    assert off.cold_c - shown(state, {}).cold_c == pytest.approx(-0.4)


@pytest.mark.parametrize(
    ("name", "for_s", "factor"),
    [
        ("fouling", 0.0, 1.0),
        ("fouling", 3 * 3600.0, 0.975),
        ("fouling", 1e6, 0.95),
        ("flow_unit", 0.0, 1000.0 / 60.0),
    ],
)
def test_the_flow_is_shown_off_by(name: str, for_s: float, factor: float) -> None:
    state = run({}, seconds=10)[0][-1]
    ill = shown(state, one(name, for_s=for_s)).volume_flow_m3_h
    assert ill / shown(state, {}).volume_flow_m3_h == pytest.approx(factor)


def test_the_wrong_side_shows_more_as_the_spread_grows() -> None:
    state = run({}, seconds=10)[0][-1]
    excess = []
    for hot_c in (45.0, 55.0):
        wide = replace(state, loop=replace(state.loop, hot_c=hot_c, cold_c=35.0))
        ill = shown(wide, one("wrong_sensor_side")).volume_flow_m3_h
        excess.append(ill / shown(wide, {}).volume_flow_m3_h - 1.0)
    # Ratio of the densities of physics.md 4.2: 994.03 over 990.21 and 985.69 kg/m3.
    assert excess == pytest.approx([0.0039, 0.0085], abs=3e-4)


def test_air_takes_heat_from_the_coolant_and_shakes_the_flow() -> None:
    (_, well), (states, ill) = run({}), run(one("air_in_loop"))
    late = slice(400, 600)
    shares = [fmean(heat.liquid_j for heat in heats[late]) for heats in (well, ill)]
    assert shares[1] / shares[0] == pytest.approx(0.85, abs=0.01)
    assert fmean(heat.air_j for heat in ill) > fmean(heat.air_j for heat in well)

    looks = [replace(states[-1], at_ns=number) for number in range(400)]
    flows_m3_h = [
        gauges(PLANT, look, GaugeErrors(), lasting=one("air_in_loop")).volume_flow_m3_h
        for look in looks
    ]
    assert 0.012 < stdev(flows_m3_h) / fmean(flows_m3_h) < 0.028
    pumps_w = [
        gauges(PLANT, states[-1], GaugeErrors(), lasting=lasting).unit.electric_w
        for lasting in ({}, one("air_in_loop"))
    ]
    assert pumps_w[1] < pumps_w[0]


def test_every_power_meter_shows_less_and_the_power_is_as_before() -> None:
    state = run({}, seconds=10)[0][-1]
    well = gauges(PLANT, state, GaugeErrors())
    ill = gauges(PLANT, state, GaugeErrors(), lasting=one("power_meter_low"))
    assert ill.rack_electric_w / well.rack_electric_w == pytest.approx(0.9)
    assert ill.server.shown.electric_w / well.server.shown.electric_w == pytest.approx(0.9)


def test_a_water_calculator_reads_too_much_of_glycol() -> None:
    states, heats = run(one("wrong_fluid"))
    end = states[-1].loop
    # As a calculator that takes the loop for water would have it.
    k_j_m3_k = density_kg_m3(end.cold_c) * (
        heat_capacity_j_kg_k(end.hot_c) + heat_capacity_j_kg_k(end.cold_c)
    ) / 2  # fmt: skip
    told_w = end.volume_flow_m3_h / 3600.0 * k_j_m3_k * (end.hot_c - end.cold_c)
    assert told_w / heats[-1].carried_j == pytest.approx(1.03, abs=0.006)


@pytest.mark.parametrize("temp_c", [20.0, 35.0, 47.5, 65.0])
def test_the_simulators_glycol_agrees_with_the_contracts(temp_c: float) -> None:
    assert glycol.density_kg_m3(temp_c) == pytest.approx(
        density_kg_m3(temp_c, "pg25_vol"), rel=2e-4
    )
    assert glycol.heat_capacity_j_kg_k(temp_c + 5.0, temp_c - 5.0) == pytest.approx(
        heat_capacity_j_kg_k(temp_c, "pg25_vol"), rel=2e-4
    )


def test_a_sensor_feels_a_step_after_its_delay_and_then_slowly() -> None:
    where, before = Probes(delay_s=20.0, lag_s=8.0), LoopState(
        hot_c=40.0, cold_c=30.0, volume_flow_m3_h=1.0
    )  # fmt: skip
    after = replace(before, hot_c=50.0)
    felt, hot_c = probes.steady(before, at_ns=0), [40.0]
    for second in range(1, 61):
        felt = probes.step(where, felt, after, at_ns=second * 10**9, dt_s=1.0, lasting={})
        hot_c.append(felt.hot_c)
    assert hot_c[20] == pytest.approx(40.0, abs=0.2)
    assert hot_c[28] - 40.0 == pytest.approx(6.3, abs=0.5)
    assert hot_c[60] == pytest.approx(50.0, abs=0.1)
    assert len(felt.pipe) <= 23


def test_short_steps_feel_the_same_as_long_ones() -> None:
    where = Probes(delay_s=15.0, lag_s=7.0)
    ends = []
    for dt_s in (0.05, 0.5):
        felt = probes.steady(LoopState(hot_c=40, cold_c=30, volume_flow_m3_h=1), at_ns=0)
        for turn in range(1, round(40 / dt_s) + 1):
            now = LoopState(hot_c=40 + turn * dt_s / 10, cold_c=30, volume_flow_m3_h=1)
            at_ns = round(turn * dt_s * 1e9)
            felt = probes.step(where, felt, now, at_ns=at_ns, dt_s=dt_s, lasting={})
        ends.append(felt.hot_c)
    assert ends[0] == pytest.approx(ends[1], abs=0.03)


def test_sites_differ_as_makers_say() -> None:
    drawn = [sizing.gauge_errors(f"{number}/s") for number in range(600)]
    assert stdev(errors.flow_scale for errors in drawn) == pytest.approx(0.012, rel=0.1)
    assert stdev(errors.electric_scale for errors in drawn) == pytest.approx(0.02, rel=0.1)
    pairs_k = [errors.hot_offset_k - errors.cold_offset_k for errors in drawn]
    assert stdev(pairs_k) == pytest.approx(0.05, rel=0.1)
    assert abs(fmean(pairs_k)) < 0.01


def test_sites_differ_in_what_no_nameplate_says() -> None:
    boxes = [plant(str(number)) for number in range(20)]
    for hidden in (
        {box.loop.heat_capacity_j_k for box in boxes},
        {box.loop.loss_w_k for box in boxes},
        {box.loop.volume_flow_m3_h for box in boxes},
        {box.loop.cold_c for box in boxes},
        {box.server.capture_frac for box in boxes},
        {box.probes for box in boxes},
    ):
        assert len(hidden) == 20


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(id="gremlin", site_id="s", at_s=0, length_s=1), "unknown"),
        (Fault(id="fouling", site_id="s", at_s=0), "length_s is missing"),
        (Fault(id="leak", site_id="s", at_s=0, length_s=1, size=0.1), "takes no size"),
        (Fault(id="air_in_loop", site_id="s", at_s=0, length_s=1, size=2), "outside 0..0.5"),
        (Fault(id="fouling", site_id="s", at_s=0, length_s=1, pipe="cold"), "takes no pipe"),
    ],
)
def test_a_fault_that_cannot_be_is_named(fault: Fault, said: str) -> None:
    (mistake,) = faults.mistakes(fault)
    assert said in mistake


def test_every_usual_size_is_within_its_bounds() -> None:
    planned = [
        Fault(id=name, site_id="s", at_s=0, length_s=1, size=bounds.usual)
        for name, bounds in faults.SIZES.items()
    ]
    assert [faults.mistakes(fault) for fault in planned] == [[]] * len(planned)
