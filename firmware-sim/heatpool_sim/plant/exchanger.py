"""Where the loop's heat leaves: through a valve into the heat network, the rest to a dry cooler."""

from dataclasses import dataclass
from math import inf

from heatpool_sim.plant.water import density_kg_m3, enthalpy_j_kg

_USEFUL_K = 2.0  # a stream that can warm the network by less is not worth pumping


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanger:
    """The plate exchanger with its valve, and the dry cooler beside it.

    The cooler is sized for all heat that the site can make; the network is never needed to cool.
    """

    capacity_w: float
    approach_k: float
    travel_s: float
    rejection_capacity_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStream:
    """The water that carries heat away on the network's side, flow measured in its cold pipe."""

    heat_rate_w: float
    volume_flow_m3_h: float
    hot_c: float
    cold_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangerHeat:
    """One step, J: carried = network + rejected."""

    network_j: float
    rejected_j: float


def valve_frac(
    exchanger: Exchanger, now_frac: float, *, wish_w: float, carried_w: float, dt_s: float
) -> float:
    """Position of the network valve after the step, 0..1; it travels at its own pace."""
    open_frac = 1.0 if wish_w == inf else min(wish_w / carried_w, 1.0) if carried_w > 0 else 0.0
    reach_frac = dt_s / exchanger.travel_s
    return min(max(open_frac, now_frac - reach_frac), now_frac + reach_frac, 1.0)


def split(
    exchanger: Exchanger,
    *,
    carried_j: float,
    valve_frac: float,
    hot_c: float,
    network_cold_c: float,
    dt_s: float,
) -> tuple[NetworkStream, ExchangerHeat]:
    """The network's stream and the step's energies, J; whatever it does not take is rejected."""
    network_hot_c = hot_c - exchanger.approach_k
    is_useful = network_hot_c - network_cold_c >= _USEFUL_K
    network_j = min(carried_j * valve_frac, exchanger.capacity_w * dt_s) if is_useful else 0.0
    heat = ExchangerHeat(network_j=network_j, rejected_j=carried_j - network_j)
    return _stream(network_j / dt_s, network_hot_c, network_cold_c), heat


def _stream(heat_rate_w: float, hot_c: float, cold_c: float) -> NetworkStream:
    """The flow that carries this heat at these temperatures; at rest hot is cold."""
    if heat_rate_w <= 0.0:
        return NetworkStream(heat_rate_w=0.0, volume_flow_m3_h=0.0, hot_c=cold_c, cold_c=cold_c)
    mass_flow_kg_s = heat_rate_w / (enthalpy_j_kg(hot_c) - enthalpy_j_kg(cold_c))
    return NetworkStream(
        heat_rate_w=heat_rate_w,
        volume_flow_m3_h=mass_flow_kg_s * 3600.0 / density_kg_m3(cold_c),
        hot_c=hot_c,
        cold_c=cold_c,
    )
