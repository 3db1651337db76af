"""A heat meter in the network's pipes: whole Wh in a register that wraps, the rest kept inside."""

from dataclasses import dataclass, replace

from heatpool_sim.plant.exchanger import NetworkStream
from heatpool_sim.plant.water import density_kg_m3, enthalpy_j_kg

MODULUS = 10**8  # eight decimal digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What stands on the meter's plate, and the errors that its own calibration left."""

    manufacturer: str
    number: int
    version: int
    volume_scale: float = 1.0
    delta_offset_k: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterState:
    """Registers, their unshown remainders, and the last figures on the display."""

    register_wh: int
    remainder_wh: float = 0.0
    register_l: int = 0
    remainder_l: float = 0.0
    heat_rate_w: float = 0.0
    volume_flow_m3_h: float = 0.0
    hot_c: float = 20.0
    cold_c: float = 20.0


def heat_coefficient_j_m3_k(hot_c: float, cold_c: float) -> float:
    """Heat coefficient for a flow sensor in the cold pipe, J/(m3 K), from enthalpy and density."""
    if hot_c == cold_c:
        hot_c += 0.1
    rise_j_kg = enthalpy_j_kg(hot_c) - enthalpy_j_kg(cold_c)
    return density_kg_m3(cold_c) * rise_j_kg / (hot_c - cold_c)


def step(meter: Meter, state: MeterState, stream: NetworkStream, *, dt_s: float) -> MeterState:
    """The meter after the step: k * dV * dT added, in Wh; heat that flows backwards is not."""
    volume_m3 = stream.volume_flow_m3_h * meter.volume_scale * dt_s / 3600.0
    delta_k = stream.hot_c - stream.cold_c + (meter.delta_offset_k if volume_m3 else 0.0)
    added_j = heat_coefficient_j_m3_k(stream.hot_c, stream.cold_c) * volume_m3 * max(delta_k, 0.0)
    register_wh, remainder_wh = _count(state.register_wh, state.remainder_wh + added_j / 3600.0)
    register_l, remainder_l = _count(state.register_l, state.remainder_l + volume_m3 * 1000.0)
    return MeterState(
        register_wh=register_wh,
        remainder_wh=remainder_wh,
        register_l=register_l,
        remainder_l=remainder_l,
        heat_rate_w=added_j / dt_s,
        volume_flow_m3_h=stream.volume_flow_m3_h * meter.volume_scale,
        hot_c=stream.hot_c + (meter.delta_offset_k if volume_m3 else 0.0),
        cold_c=stream.cold_c,
    )


def exchanged(meter: Meter, *, number: int) -> Meter:
    """The meter that a fitter puts in the place of this one: same make, another number."""
    if number == meter.number:
        raise ValueError(f"a new meter needs a new number, not {number} again")
    return replace(meter, number=number)


def _count(register: int, pending: float) -> tuple[int, float]:
    """The register and what it does not show yet; the remainder is kept, never rounded away."""
    whole = int(pending)
    return (register + whole) % MODULUS, pending - whole
