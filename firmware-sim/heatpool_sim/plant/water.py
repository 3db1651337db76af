"""Density and enthalpy of liquid water, from the simulator's own table.

Written apart from the contract's `heatpool.water`, so that the two can contradict each other.
"""

from bisect import bisect_right

# degC, kg/m3, kJ/kg: saturated liquid, IAPWS Formulation 1995 as printed in steam tables.
_TABLE = (
    (0.01, 999.79, 0.00),
    (5.0, 999.92, 21.02),
    (10.0, 999.65, 42.02),
    (15.0, 999.06, 62.98),
    (20.0, 998.16, 83.91),
    (25.0, 997.00, 104.83),
    (30.0, 995.61, 125.73),
    (35.0, 993.99, 146.63),
    (40.0, 992.18, 167.53),
    (45.0, 990.17, 188.43),
    (50.0, 988.00, 209.34),
    (55.0, 985.66, 230.26),
    (60.0, 983.16, 251.18),
    (65.0, 980.52, 272.12),
    (70.0, 977.73, 293.07),
    (75.0, 974.81, 314.03),
    (80.0, 971.77, 335.01),
    (85.0, 968.59, 356.01),
    (90.0, 965.30, 377.04),
    (95.0, 961.89, 398.09),
    (100.0, 958.35, 419.17),
)
_TEMPS_C = tuple(row[0] for row in _TABLE)


def density_kg_m3(temp_c: float) -> float:
    """Density of water, kg/m3; straight lines between the table's rows, also beyond its ends."""
    return _between(temp_c, column=1)


def enthalpy_j_kg(temp_c: float) -> float:
    """Specific enthalpy of water, J/kg, zero at the triple point."""
    return _between(temp_c, column=2) * 1000.0


def heat_capacity_j_kg_k(hot_c: float, cold_c: float) -> float:
    """Heat capacity between two temperatures, J/(kg K): the slope of enthalpy from one to other."""
    if abs(hot_c - cold_c) < 0.1:  # the slope of so short a chord drowns in rounding
        hot_c, cold_c = cold_c + 0.5, cold_c - 0.5
    return (enthalpy_j_kg(hot_c) - enthalpy_j_kg(cold_c)) / (hot_c - cold_c)


def _between(temp_c: float, *, column: int) -> float:
    upper = min(max(bisect_right(_TEMPS_C, temp_c), 1), len(_TABLE) - 1)
    left, right = _TABLE[upper - 1], _TABLE[upper]
    share = (temp_c - left[0]) / (right[0] - left[0])
    return left[column] + share * (right[column] - left[column])
