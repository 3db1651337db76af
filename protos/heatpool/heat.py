"""Heat from volume, the two pipes' temperatures and the side on which the flow sensor sits.

One step at a time: who integrates calls this per sample, never on means.
"""

from sys import float_info
from typing import Any, overload

from heatpool.units import J_PER_WH, ColumnT, within
from heatpool.water import CALCULATOR_WATER, Fluid, fluid_named, polynomial

# Gauss-Legendre on [-1, 1] with four points: exact up to degree 7, and the polynomials have 6.
_NODES = (
    (-0.8611363115940526, 0.17392742256872692),
    (-0.3399810435848563, 0.3260725774312731),
    (0.3399810435848563, 0.3260725774312731),
    (0.8611363115940526, 0.17392742256872692),
)


def _calculator_fluid(name: str) -> Fluid:
    # A heat meter's calculator takes water at 16 bar, whatever the loop's pressure.
    return CALCULATOR_WATER if name == "water" else fluid_named(name)


def _mean_heat_capacity_j_kg_k(hot_c: Any, cold_c: Any, fluid: Fluid) -> Any:
    middle_c = (hot_c + cold_c) / 2
    half_k = (hot_c - cold_c) / 2
    return sum(
        weight * polynomial(fluid.heat_capacity, middle_c + node * half_k)
        for node, weight in _NODES
    )


@overload
def heat_coefficient_kwh_m3_k(  # type: ignore[overload-overlap]
    hot_c: float, cold_c: float, sensor_side: str, fluid: str = ...
) -> float: ...
@overload
def heat_coefficient_kwh_m3_k(
    hot_c: ColumnT | float, cold_c: ColumnT | float, sensor_side: str, fluid: str = ...
) -> ColumnT: ...
def heat_coefficient_kwh_m3_k(
    hot_c: Any, cold_c: Any, sensor_side: str, fluid: str = "water"
) -> Any:
    """Heat per volume and kelvin, kWh/(m3 K), with the flow sensor in the "hot" or "cold" pipe.

    Water is IAPWS-IF97 at 16 bar, within 1.2e-4 (3.2e-4 below 5 degC). NaN outside 0..150 degC
    (water) or -5..100 degC (glycols); defined at hot = cold.
    Raises: ValueError for an unknown fluid or side. Source: EN 1434-1; physics.md 3.2.
    """
    if sensor_side not in ("hot", "cold"):
        raise ValueError(f"heat: sensor_side is {sensor_side!r}; say 'hot' or 'cold'")
    properties = _calculator_fluid(fluid)
    hot_c, cold_c = (within(temp_c, *properties.range_c) for temp_c in (hot_c, cold_c))
    density_kg_m3 = polynomial(properties.density, hot_c if sensor_side == "hot" else cold_c)
    capacity_j_kg_k = _mean_heat_capacity_j_kg_k(hot_c, cold_c, properties)
    return density_kg_m3 * capacity_j_kg_k / (1000 * J_PER_WH)


@overload
def energy_wh(  # type: ignore[overload-overlap]
    volume_m3: float, hot_c: float, cold_c: float, sensor_side: str, fluid: str = ...
) -> float: ...
@overload
def energy_wh(
    volume_m3: ColumnT | float,
    hot_c: ColumnT | float,
    cold_c: ColumnT | float,
    sensor_side: str,
    fluid: str = ...,
) -> ColumnT: ...
def energy_wh(
    volume_m3: Any, hot_c: Any, cold_c: Any, sensor_side: str, fluid: str = "water"
) -> Any:
    """Heat carried by a volume, Wh, negative if hot < cold; range as the heat coefficient's.

    NaN for a volume below 0: in water that runs backwards the pipes have swapped their parts.
    Raises: ValueError for an unknown fluid or side. Source: physics.md 3.1.
    """
    coefficient = heat_coefficient_kwh_m3_k(hot_c, cold_c, sensor_side, fluid)
    return 1000 * coefficient * within(volume_m3, 0.0, float_info.max) * (hot_c - cold_c)


@overload
def heat_rate_w(  # type: ignore[overload-overlap]
    volume_flow_m3_h: float, hot_c: float, cold_c: float, sensor_side: str, fluid: str = ...
) -> float: ...
@overload
def heat_rate_w(
    volume_flow_m3_h: ColumnT | float,
    hot_c: ColumnT | float,
    cold_c: ColumnT | float,
    sensor_side: str,
    fluid: str = ...,
) -> ColumnT: ...
def heat_rate_w(
    volume_flow_m3_h: Any, hot_c: Any, cold_c: Any, sensor_side: str, fluid: str = "water"
) -> Any:
    """Heat rate of a volume flow, W, negative if hot < cold; range as the heat coefficient's.

    NaN for a flow below 0. Raises: ValueError for an unknown fluid or side. Source: physics.md 3.1.
    """
    # A flow in m3/h carries in one hour what the same number of m3 holds: Wh/h = W.
    return energy_wh(volume_flow_m3_h, hot_c, cold_c, sensor_side, fluid)
