"""What flow, temperature and power sensors of a coolant unit show, faults of theirs included."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot

from heatpool_sim.plant.faults import Lasting
from heatpool_sim.plant.loop import density_kg_m3
from heatpool_sim.plant.noise import between, normal
from heatpool_sim.plant.probes import standing
from heatpool_sim.plant.site import Plant, SiteState

_NOISE_C = 0.02
_NOISE_FRAC = 0.003
_DAY_S = 86_400.0
_FOULED_S = 6 * 3600.0  # dirt comes slowly: the share grows over this time, then stays
# Bubbles make the flow flutter, differently at each site: from one 10-s sample to the next its
# variance grows 3 to 10 times, as a load that wanders shakes a sound flow by 1.2 % already.
_AIR_FRAC = (0.013, 0.026)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeErrors:
    """Calibration errors of one unit's sensors: constant, unknown to the outside."""

    hot_offset_k: float = 0.0
    cold_offset_k: float = 0.0
    flow_scale: float = 1.0
    electric_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopGauges:
    """The four figures of a loop; hot and cold name the pipes, whatever the sensors say."""

    volume_flow_m3_h: float
    hot_c: float
    cold_c: float
    electric_w: float


def loop_gauges(
    plant: Plant,
    state: SiteState,
    errors: GaugeErrors,
    *,
    lasting: Mapping[str, Lasting],
    noise_scale: float = 1.0,
) -> LoopGauges:
    """What the sensors show now; the same instant shows the same figures.

    `noise_scale` 0 leaves out what differs from look to look.
    """
    seed, at_ns, felt = plant.seed, state.at_ns, state.felt

    def shaken(name: str) -> float:
        return noise_scale * normal(f"{seed}/{name}", at_ns) if noise_scale else 0.0

    still = standing(lasting)
    hot_c = felt.hot_c + errors.hot_offset_k
    cold_c = felt.cold_c + errors.cold_offset_k
    # What a sensor that stands still shows does not even flicker.
    hot_c += _NOISE_C * shaken("hot") + _off_k(lasting, "hot") if "hot" not in still else 0.0
    cold_c += _NOISE_C * shaken("cold") + _off_k(lasting, "cold") if "cold" not in still else 0.0
    flow_m3_h = felt.volume_flow_m3_h * errors.flow_scale * _flow_frac(plant, state, lasting)
    if "flow" not in still:
        flow_m3_h *= 1.0 + _flow_noise_frac(seed, lasting) * shaken("flow")
    if "sensor_swap" in lasting:
        hot_c, cold_c = cold_c, hot_c
    power_frac = errors.electric_scale * shown_power_frac(lasting)
    return LoopGauges(
        volume_flow_m3_h=flow_m3_h,
        hot_c=hot_c,
        cold_c=cold_c,
        electric_w=state.electric_w * power_frac * (1.0 + _NOISE_FRAC * shaken("rack")),
    )


def shown_power_frac(lasting: Mapping[str, Lasting]) -> float:
    """Share of the power that the site's power meters show."""
    low = lasting.get("power_meter_low")
    return 1.0 - low.size if low else 1.0


def _off_k(lasting: Mapping[str, Lasting], pipe: str) -> float:
    """By how much the sensor in this pipe has come to be off, K."""
    off_k = 0.0
    offset, drift = lasting.get("pair_offset"), lasting.get("temperature_drift")
    if offset and offset.pipe == pipe:
        off_k += offset.size
    if drift and drift.pipe == pipe:
        off_k += drift.size * drift.for_s / _DAY_S
    return off_k


def _flow_frac(plant: Plant, state: SiteState, lasting: Mapping[str, Lasting]) -> float:
    """What the flow sensor shows, over the flow in the cold pipe."""
    frac = 1.0
    if fouling := lasting.get("fouling"):
        frac *= 1.0 - fouling.size * min(fouling.for_s / _FOULED_S, 1.0)
    if unit := lasting.get("flow_unit"):
        frac *= unit.size
    if "wrong_sensor_side" in lasting:
        fluid, loop = plant.loop.fluid, state.loop
        frac *= density_kg_m3(fluid, loop.cold_c) / density_kg_m3(fluid, loop.hot_c)
    return frac


def _flow_noise_frac(seed: str, lasting: Mapping[str, Lasting]) -> float:
    if "air_in_loop" not in lasting:
        return _NOISE_FRAC
    return hypot(_NOISE_FRAC, between(*_AIR_FRAC, seed=f"{seed}/air"))
