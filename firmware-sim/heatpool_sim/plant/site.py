"""One site: load, servers, loop, exchanger and meter stepped together, energy counted at each."""

from dataclasses import dataclass, replace
from math import inf

from heatpool_sim.plant import exchanger as exchange
from heatpool_sim.plant import loop as coolant
from heatpool_sim.plant import meter as metering
from heatpool_sim.plant import server as computing
from heatpool_sim.plant import steering
from heatpool_sim.plant.control import Control, wish_w
from heatpool_sim.plant.exchanger import Exchanger, NetworkStream
from heatpool_sim.plant.hydraulics import unit_w
from heatpool_sim.plant.load import Load
from heatpool_sim.plant.loop import Loop, LoopState
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.noise import wander
from heatpool_sim.plant.server import Server
from heatpool_sim.plant.steering import COMMISSIONED, Wishes

_NETWORK_NS = 90 * 10**9  # the network's cold pipe changes over minutes
_JOB_END_FRAC = 0.3  # what still runs when the big job has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """What is bolted down at a site."""

    site_id: str
    seed: str
    load: Load
    server: Server
    loop: Loop
    exchanger: Exchanger
    network_cold_c: float
    network_wander_k: float = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """What changes at a site."""

    at_ns: int
    meter: Meter
    metered: MeterState
    control: Control
    loop: LoopState
    network: NetworkStream
    held_j: float
    valve_frac: float
    electric_w: float
    carried_w: float
    wishes: Wishes = COMMISSIONED
    electric_j: float = 0.0  # since the start, at the computers' feed
    unit_j: float = 0.0  # the same of the coolant unit's own feed


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteHeat:
    """Energies of one step, J.

    electric = liquid + air + held; liquid = carried + lost + stored; carried = network + rejected.
    """

    electric_j: float
    liquid_j: float
    air_j: float
    held_j: float
    carried_j: float
    lost_j: float
    stored_j: float
    network_j: float
    rejected_j: float


def steady(plant: Plant, *, at_ns: int, meter: Meter, metered: MeterState) -> SiteState:
    """The state of a site whose load has long been what it is at this instant."""
    it_w = plant.load.it_w(at_ns)
    electric_w = computing.electric_w(plant.server, it_w)
    liquid_w = plant.server.capture_frac * electric_w
    loop = plant.loop
    flow_m3_h = coolant.pumped_m3_h(loop, loop.volume_flow_m3_h, liquid_w=liquid_w, dt_s=inf)
    cold_c = plant.network_cold_c
    return SiteState(
        at_ns=at_ns,
        meter=meter,
        metered=metered,
        control=Control(),
        loop=LoopState(
            hot_c=loop.cold_c + loop.delta_k, cold_c=loop.cold_c, volume_flow_m3_h=flow_m3_h
        ),
        network=NetworkStream(heat_rate_w=0.0, volume_flow_m3_h=0.0, hot_c=cold_c, cold_c=cold_c),
        held_j=computing.steady_j(plant.server, it_w),
        valve_frac=0.0,
        electric_w=electric_w,
        carried_w=liquid_w,
    )


def step(
    plant: Plant, state: SiteState, *, dt_s: float, faults: frozenset[str] = frozenset()
) -> tuple[SiteState, SiteHeat]:
    """The site after `dt_s` seconds and the step's energies, J; inputs are held over the step."""
    it_w = plant.load.it_w(state.at_ns) * (_JOB_END_FRAC if "job_end" in faults else 1.0)
    held_j, served = computing.step(plant.server, state.held_j, it_w=it_w, dt_s=dt_s)
    steered = steering.steered(plant.loop, state.wishes)
    loop, carried = coolant.step(steered, state.loop, liquid_j=served.liquid_j, dt_s=dt_s)
    # A leak interlocks the valve: water that may be lost is not sent through the exchanger.
    wished_w = 0.0 if "leak" in faults else wish_w(state.control)
    valve_frac = exchange.valve_frac(
        plant.exchanger,
        state.valve_frac,
        wish_w=wished_w,
        carried_w=carried.carried_j / dt_s,
        dt_s=dt_s,
    )
    network, given = exchange.split(
        plant.exchanger,
        carried_j=carried.carried_j,
        valve_frac=valve_frac,
        hot_c=loop.hot_c,
        network_cold_c=network_cold_c(plant, state.at_ns),
        dt_s=dt_s,
    )
    after = replace(
        state,
        at_ns=state.at_ns + round(dt_s * 1e9),
        metered=metering.step(state.meter, state.metered, network, dt_s=dt_s),
        loop=loop,
        network=network,
        held_j=held_j,
        valve_frac=valve_frac,
        electric_w=computing.electric_w(plant.server, it_w),
        carried_w=carried.carried_j / dt_s,
        electric_j=state.electric_j + served.electric_j,
        unit_j=state.unit_j + unit_w(plant.loop, loop.volume_flow_m3_h) * dt_s,
    )
    heat = SiteHeat(
        electric_j=served.electric_j,
        liquid_j=served.liquid_j,
        air_j=served.air_j,
        held_j=served.stored_j,
        carried_j=carried.carried_j,
        lost_j=carried.lost_j,
        stored_j=carried.stored_j,
        network_j=given.network_j,
        rejected_j=given.rejected_j,
    )
    return after, heat


def network_cold_c(plant: Plant, at_ns: int) -> float:
    """Temperature that the network sends back, degC."""
    drift_k = plant.network_wander_k * wander(f"{plant.seed}/network", at_ns, every_ns=_NETWORK_NS)
    return plant.network_cold_c + drift_k
