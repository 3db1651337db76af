"""Density and heat capacity of water with 25 % propylene glycol by volume, the simulator's table.

Written apart from the contract's polynomials, as `water` is, so that the two can contradict.
"""

from bisect import bisect_right

# degC, kg/m3, J/(kg K) at 3 bar. Source: physics.md 4.2, column pg25_vol.
_TABLE = (
    (20.0, 1023.87, 3912.9),
    (30.0, 1019.43, 3937.6),
    (40.0, 1014.47, 3962.2),
    (50.0, 1009.01, 3986.9),
    (60.0, 1003.05, 4011.6),
)
_TEMPS_C = tuple(row[0] for row in _TABLE)


def density_kg_m3(temp_c: float) -> float:
    """Density of the mixture, kg/m3; straight lines between the rows, also beyond their ends."""
    return _between(temp_c, column=1)


def heat_capacity_j_kg_k(hot_c: float, cold_c: float) -> float:
    """Heat capacity between two temperatures, J/(kg K): it rises in a straight line with both."""
    return _between((hot_c + cold_c) / 2.0, column=2)


def _between(temp_c: float, *, column: int) -> float:
    upper = min(max(bisect_right(_TEMPS_C, temp_c), 1), len(_TABLE) - 1)
    left, right = _TABLE[upper - 1], _TABLE[upper]
    share = (temp_c - left[0]) / (right[0] - left[0])
    return left[column] + share * (right[column] - left[column])
