"""A site's equipment from a few nameplate figures, each drawn a little off its nominal.

No two sites are alike and none is what a drawing would say, so an estimate cannot be right by luck.
"""

from dataclasses import dataclass

from heatpool_sim.plant.exchanger import Exchanger
from heatpool_sim.plant.load import Load
from heatpool_sim.plant.loop import Loop
from heatpool_sim.plant.loop_gauges import GaugeErrors
from heatpool_sim.plant.meter import MODULUS, Meter
from heatpool_sim.plant.noise import between, normal
from heatpool_sim.plant.probes import Probes
from heatpool_sim.plant.server import Server
from heatpool_sim.plant.site import Plant
from heatpool_sim.plant.water import density_kg_m3, heat_capacity_j_kg_k

# Standard deviations over many units: flow sensor, matched pair of temperatures, power meter.
_FLOW_U_FRAC, _PAIR_U_K, _POWER_U_FRAC = 0.012, 0.05, 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooling:
    """Ranges in which a way of cooling lies: [low, high) of each figure."""

    capture_frac: tuple[float, float]
    server_tau_s: tuple[float, float]
    loop_tau_s: tuple[float, float]


# physics.md 5 and 6.3: capture by cold plates and by immersion, orders of size of time constants.
COOLING = {
    "dlc": Cooling(capture_frac=(0.72, 0.82), server_tau_s=(8.0, 25.0), loop_tau_s=(60.0, 150.0)),
    "immersion": Cooling(
        capture_frac=(0.93, 0.97), server_tau_s=(40.0, 90.0), loop_tau_s=(240.0, 500.0)
    ),
}


def plant(
    site_id: str, *, seed: str, load: Load, it_w: float, cooling: str, hot_c: float, cold_c: float
) -> Plant:
    """A site able to warm a network from `cold_c` to `hot_c` with the heat of `it_w` watts."""
    ways = COOLING[cooling]
    server = Server(
        overhead_frac=between(0.05, 0.09, seed=f"{seed}/overhead"),
        capture_frac=between(*ways.capture_frac, seed=f"{seed}/capture"),
        tau_s=between(*ways.server_tau_s, seed=f"{seed}/server_tau"),
    )
    most_w = it_w * (1.0 + server.overhead_frac)
    approach_k = between(1.5, 2.5, seed=f"{seed}/approach")
    loop = _loop(
        seed,
        liquid_w=most_w * server.capture_frac,
        hot_c=hot_c + approach_k,
        cold_c=cold_c + between(1.0, 2.0, seed=f"{seed}/pinch"),
        tau_s=between(*ways.loop_tau_s, seed=f"{seed}/loop_tau"),
    )
    exchanger = Exchanger(
        capacity_w=most_w * between(1.05, 1.2, seed=f"{seed}/exchanger"),
        approach_k=approach_k,
        travel_s=between(10.0, 20.0, seed=f"{seed}/travel"),
        rejection_capacity_w=most_w * between(1.2, 1.5, seed=f"{seed}/cooler"),
    )
    return Plant(
        site_id=site_id,
        seed=seed,
        load=load,
        server=server,
        loop=loop,
        exchanger=exchanger,
        network_cold_c=cold_c,
        probes=Probes(
            delay_s=between(12.0, 28.0, seed=f"{seed}/pipe_delay"),
            lag_s=between(6.0, 10.0, seed=f"{seed}/sensor_lag"),
        ),
    )


def gauge_errors(seed: str) -> GaugeErrors:
    """Calibration errors of a coolant unit of the usual quality. Source: physics.md 7.4.

    What a matched pair has in common cancels in every difference; what it has not is its offset.
    """
    alike_k = between(-0.08, 0.08, seed=f"{seed}/pair_alike")
    apart_k = _PAIR_U_K * normal(f"{seed}/pair_offset")
    return GaugeErrors(
        hot_offset_k=alike_k + apart_k / 2.0,
        cold_offset_k=alike_k - apart_k / 2.0,
        flow_scale=1.0 + _FLOW_U_FRAC * normal(f"{seed}/flow_scale"),
        electric_scale=1.0 + _POWER_U_FRAC * normal(f"{seed}/electric_scale"),
    )


def meter(seed: str, *, manufacturer: str, number: int | None, version: int) -> Meter:
    """A meter well inside its class; without a number on the plate one is drawn."""
    drawn = int(between(10_000_000, 99_999_999, seed=f"{seed}/meter_number"))
    return Meter(
        manufacturer=manufacturer,
        number=drawn if number is None else number,
        version=version,
        volume_scale=between(0.993, 1.007, seed=f"{seed}/volume_scale"),
        delta_offset_k=between(-0.03, 0.03, seed=f"{seed}/delta_offset"),
    )


def register_wh(seed: str) -> int:
    """What a meter that has run for years happens to show, Wh."""
    return int(between(0, MODULUS, seed=f"{seed}/register"))


def register_l(seed: str) -> int:
    """The same for its volume, L."""
    return int(between(0, MODULUS, seed=f"{seed}/volume"))


def _loop(seed: str, *, liquid_w: float, hot_c: float, cold_c: float, tau_s: float) -> Loop:
    delta_k = hot_c - cold_c
    joule_m3_k = density_kg_m3(cold_c) * heat_capacity_j_kg_k(hot_c, cold_c)
    room_c = between(22.0, 28.0, seed=f"{seed}/room")
    oversize = between(1.08, 1.25, seed=f"{seed}/pump")
    return Loop(
        heat_capacity_j_k=tau_s * liquid_w / delta_k,
        loss_w_k=liquid_w * between(0.005, 0.015, seed=f"{seed}/loss") / (hot_c - room_c),
        room_c=room_c,
        cold_c=cold_c,
        delta_k=delta_k,
        volume_flow_m3_h=oversize * liquid_w * 3600.0 / (joule_m3_k * delta_k),
        cold_wander_k=between(0.1, 0.3, seed=f"{seed}/cold_wander"),
    )
