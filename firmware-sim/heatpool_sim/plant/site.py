"""One site: load, servers, loop, exchanger and meter stepped together, energy counted at each."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from heatpool_sim.plant import exchanger as exchange
from heatpool_sim.plant import loop as coolant
from heatpool_sim.plant import meter as metering
from heatpool_sim.plant import probes as sensing
from heatpool_sim.plant import server as computing
from heatpool_sim.plant import steering
from heatpool_sim.plant.control import Control, wish_w
from heatpool_sim.plant.exchanger import Exchanger, ExchangerHeat, NetworkStream
from heatpool_sim.plant.faults import Lasting
from heatpool_sim.plant.hydraulics import unit_w
from heatpool_sim.plant.load import Load
from heatpool_sim.plant.loop import Loop, LoopHeat, LoopState
from heatpool_sim.plant.meter import Meter, MeterState
from heatpool_sim.plant.noise import wander
from heatpool_sim.plant.probes import AT_ONCE, Felt, Probes
from heatpool_sim.plant.server import Server, ServerHeat
from heatpool_sim.plant.steering import COMMISSIONED, Wishes

_NETWORK_NS = 90 * 10**9  # the network's cold pipe changes over minutes
_COLD_NS = 900 * 10**9  # the dry cooler's water follows the weather and its fans
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
    probes: Probes = AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteState:
    """What changes at a site."""

    at_ns: int
    meter: Meter
    metered: MeterState
    control: Control
    loop: LoopState
    felt: Felt
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
    steered = _steered(plant, COMMISSIONED, at_ns, {})
    flow_m3_h = coolant.pumped_m3_h(steered, 0.0, liquid_w=liquid_w, dt_s=inf)
    loop = LoopState(
        hot_c=steered.cold_c + steered.delta_k, cold_c=steered.cold_c, volume_flow_m3_h=flow_m3_h
    )
    cold_c = plant.network_cold_c
    return SiteState(
        at_ns=at_ns,
        meter=meter,
        metered=metered,
        control=Control(),
        loop=loop,
        felt=sensing.steady(loop, at_ns=at_ns),
        network=NetworkStream(heat_rate_w=0.0, volume_flow_m3_h=0.0, hot_c=cold_c, cold_c=cold_c),
        held_j=computing.steady_j(plant.server, it_w),
        valve_frac=0.0,
        electric_w=electric_w,
        carried_w=liquid_w,
    )


def step(
    plant: Plant, state: SiteState, *, dt_s: float, lasting: Mapping[str, Lasting] | None = None
) -> tuple[SiteState, SiteHeat]:
    """The site after `dt_s` seconds and the step's energies, J; inputs are held over the step."""
    faults = lasting or {}
    it_w = plant.load.it_w(state.at_ns) * (_JOB_END_FRAC if "job_end" in faults else 1.0)
    server = _aired(plant.server, faults)
    held_j, served = computing.step(server, state.held_j, it_w=it_w, dt_s=dt_s)
    steered = _steered(plant, state.wishes, state.at_ns, faults)
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
    at_ns = state.at_ns + round(dt_s * 1e9)
    own_w = unit_w(plant.loop, loop.volume_flow_m3_h, has_air="air_in_loop" in faults)
    after = replace(
        state,
        at_ns=at_ns,
        metered=_metered(state, network, dt_s=dt_s, faults=faults),
        loop=loop,
        felt=sensing.step(plant.probes, state.felt, loop, at_ns=at_ns, dt_s=dt_s, lasting=faults),
        network=network,
        held_j=held_j,
        valve_frac=valve_frac,
        electric_w=computing.electric_w(plant.server, it_w),
        carried_w=carried.carried_j / dt_s,
        electric_j=state.electric_j + served.electric_j,
        unit_j=state.unit_j + own_w * dt_s,
    )
    return after, _heat(served, carried, given)


def _heat(served: ServerHeat, carried: LoopHeat, given: ExchangerHeat) -> SiteHeat:
    return SiteHeat(
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


def _metered(
    state: SiteState, stream: NetworkStream, *, dt_s: float, faults: Mapping[str, Lasting]
) -> MeterState:
    """The meter after the step; a dead one shows what it last showed, and never catches up."""
    if "meter_dead" in faults:
        return state.metered
    return metering.step(state.meter, state.metered, stream, dt_s=dt_s)


def _aired(server: Server, faults: Mapping[str, Lasting]) -> Server:
    """Where air keeps the coolant from the chips, the heat that it misses goes to the room."""
    air = faults.get("air_in_loop")
    return replace(server, capture_frac=server.capture_frac * (1.0 - air.size)) if air else server


def _steered(plant: Plant, wishes: Wishes, at_ns: int, faults: Mapping[str, Lasting]) -> Loop:
    """The loop as it is now: as steered, as warm as its cooler is, with what was filled in."""
    loop = steering.steered(plant.loop, wishes)
    drift_k = loop.cold_wander_k * wander(f"{plant.seed}/cold_pipe", at_ns, every_ns=_COLD_NS)
    return replace(
        loop,
        cold_c=loop.cold_c + drift_k,
        fluid="pg25_vol" if "wrong_fluid" in faults else loop.fluid,
    )


def network_cold_c(plant: Plant, at_ns: int) -> float:
    """Temperature that the network sends back, degC."""
    drift_k = plant.network_wander_k * wander(f"{plant.seed}/network", at_ns, every_ns=_NETWORK_NS)
    return plant.network_cold_c + drift_k
