"""Density and heat capacity of water and of the glycols that coolant loops carry.

Heat made of them is in `heat`. Oracles never run here: the polynomials were fitted to them once,
and tests compare with their committed table.
"""

from dataclasses import dataclass
from typing import Any, overload

from heatpool.units import ColumnT, within


@dataclass(frozen=True, slots=True)
class Fluid:
    """Two polynomials in degC, lowest power first, and the range in which they hold."""

    density: tuple[float, ...]
    heat_capacity: tuple[float, ...]
    range_c: tuple[float, float] = (-5.0, 100.0)


# Glycols: CoolProp 8.0.0 (APG, AEG volume percent; MPG, MEG mass percent), 3 bar, to 5e-8.
# Water: IAPWS-95 at 3 bar, density to 2e-5, heat capacity to 1.5e-4. Source: physics.md 4.1.
# fmt: off
FLUIDS: dict[str, Fluid] = {
    "water": Fluid(
        (999.95804, 0.061300829, -8.4197097e-3, 6.9978388e-5,
         -5.2073266e-7, 2.3161164e-9, -4.5167033e-12),
        (4217.9105, -3.1913897, 0.099945104, -1.6133653e-3,
         1.5258617e-5, -7.4526102e-8, 1.4981494e-10),
        range_c=(0.0, 130.0),
    ),
    "pg25_vol": Fluid((1031.2405, -0.31768369, -2.5369841e-3, -2.7758215e-9),
                      (3863.5126, 2.4678527, 4.6426e-7, 5.646e-8)),
    "pg30_vol": Fluid((1036.2357, -0.34323475, -2.5542286e-3, -4.8188073e-9),
                      (3792.987, 2.7442364, 6.3222103e-5, -2.7571673e-7)),
    "pg25_mass": Fluid((1025.8133, -0.24449246, -4.40142e-3, 1.4345732e-5),
                       (3872.1504, 2.4027679, 1.0661163e-3, -2.0584103e-5)),
    "pg30_mass": Fluid((1031.5598, -0.31344095, -4.0363266e-3, 1.3566095e-5),
                       (3802.641, 2.7327116, -4.9970054e-4, -1.1414193e-5)),
    "eg25_mass": Fluid((1037.0196, -0.23169209, -3.4408078e-3, 4.7964743e-6),
                       (3762.8511, 2.4073159, -3.8603762e-4, -1.7409423e-5)),
    "eg30_mass": Fluid((1044.9718, -0.28456761, -3.1816617e-3, 4.7142666e-6),
                       (3658.0889, 3.073316, -2.9784756e-3, -1.4097405e-5)),
    "eg25_vol": Fluid((1043.8678, -0.26366929, -2.411774e-3, -1.5211549e-7),
                      (3679.5878, 2.5763822, -1.2447365e-4, 7.048187e-7)),
    "eg30_vol": Fluid((1051.7762, -0.27781229, -2.4242376e-3, -6.694256e-8),
                      (3588.6233, 2.8404978, -9.54824e-5, 4.7548572e-7)),
}

# The convention of heat meter calculators: IAPWS-IF97 at 16 bar. For the heat coefficient only.
CALCULATOR_WATER = Fluid(
    (1000.6307, 0.052855241, -8.0773223e-3, 6.2129172e-5,
     -4.2069244e-7, 1.6775518e-9, -2.9219056e-12),
    (4210.2873, -2.6830036, 0.079263967, -1.2542639e-3,
     1.2052331e-5, -5.8703410e-8, 1.1459113e-10),
    range_c=(0.0, 150.0),
)
# fmt: on


def fluid_named(name: str) -> Fluid:
    """The fluid of that name. Raises ValueError for a name not in FLUIDS."""
    try:
        return FLUIDS[name]
    except KeyError:
        known = ", ".join(FLUIDS)
        raise ValueError(f"water: fluid {name!r} is not known; use one of {known}") from None


def polynomial(coefficients: tuple[float, ...], temp_c: Any) -> Any:
    """The polynomial's value at temp_c, by Horner's rule, in the coefficients' unit."""
    result = 0.0
    for coefficient in reversed(coefficients):
        result = result * temp_c + coefficient
    return result


@overload
def density_kg_m3(temp_c: float, fluid: str = ...) -> float: ...
@overload
def density_kg_m3(temp_c: ColumnT, fluid: str = ...) -> ColumnT: ...
def density_kg_m3(temp_c: Any, fluid: str = "water") -> Any:
    """Density at 3 bar, kg/m3; NaN outside 0..130 degC (water) or -5..100 degC (glycols).

    Raises: ValueError for an unknown fluid. Source: physics.md 4.1.
    """
    properties = fluid_named(fluid)
    return polynomial(properties.density, within(temp_c, *properties.range_c))


@overload
def heat_capacity_j_kg_k(temp_c: float, fluid: str = ...) -> float: ...
@overload
def heat_capacity_j_kg_k(temp_c: ColumnT, fluid: str = ...) -> ColumnT: ...
def heat_capacity_j_kg_k(temp_c: Any, fluid: str = "water") -> Any:
    """Heat capacity at 3 bar, J/(kg K); NaN outside 0..130 degC (water) or -5..100 (glycols).

    Raises: ValueError for an unknown fluid. Source: physics.md 4.1.
    """
    properties = fluid_named(fluid)
    return polynomial(properties.heat_capacity, within(temp_c, *properties.range_c))
