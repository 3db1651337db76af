"""The quantities that live state keeps, with the range in which each can be believed.

A schema may hold others: they are stored, not used, and said so.
"""

RATE_LIMIT_W = 1e9  # an edge site has kilowatts; beyond a gigawatt a unit is wrong
FLOW_LIMIT_M3_H = 1e5
# Liquid coolants: below -100 or above 400 degC a sensor is broken or a unit is wrong.
COLDEST_C, HOTTEST_C = -100.0, 400.0

_RATE = (-RATE_LIMIT_W, RATE_LIMIT_W)
_DOUBT = (0.0, RATE_LIMIT_W)
_TEMPERATURE = (COLDEST_C, HOTTEST_C)

# Lowest and highest value, both included.
LIMITS: dict[str, tuple[float, float]] = {
    "electric_w": _RATE,
    "electric_w_u": _DOUBT,
    "electric_heat_w": _RATE,
    "electric_heat_w_u": _DOUBT,
    "computed_heat_w": _RATE,
    "computed_heat_w_u": _DOUBT,
    "reported_heat_w": _RATE,
    "heat_rate_w": _RATE,
    "heat_rate_w_u": _DOUBT,
    "delivered_heat_w": _RATE,
    "hot_c": _TEMPERATURE,
    "cold_c": _TEMPERATURE,
    "volume_flow_m3_h": (-FLOW_LIMIT_M3_H, FLOW_LIMIT_M3_H),
    "quality": (1.0, 5.0),
    "provenance": (1.0, 7.0),
    "rejection_capacity_w": _DOUBT,
}
QUANTITIES = tuple(LIMITS)
INDEX = {quantity: index for index, quantity in enumerate(QUANTITIES)}
