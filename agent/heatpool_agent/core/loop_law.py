"""What a loop of coolant does with heat: electricity, loss to the room, and thermal mass."""

from math import exp, expm1, nan
from sys import float_info

from heatpool.units import within

# Wider than any coolant and any room that people enter; devices send -273, 243 and 6553 for none.
COOLANT_C = (-5.0, 150.0)
ROOM_C = (-50.0, 80.0)


def loop_step(value: float, target: float, *, dt_s: float, tau_s: float) -> float:
    """The state after `dt_s` of a first-order loop driven towards `target`, same unit.

    Exact for an input held over the step; NaN for a time below 0. Source: physics.md 6.2.
    """
    if dt_s < 0 or tau_s < 0:
        return nan
    if tau_s == 0:
        return target
    return target + (value - target) * exp(-dt_s / tau_s)


def electric_heat_w(
    power_w: float, capture_frac: float, *, loss_w_k: float, loop_c: float, room_c: float
) -> float:
    """Heat of electric power that stays in the coolant, W: `capture·P - UA·(T_loop - T_room)`.

    Negative where a warm loop loses more than it is given. NaN for an input that cannot be: no
    number, power or loss below 0, a share above 1, a temperature that no loop or room has.
    Source: physics.md 5.2.
    """
    kept_w = within(power_w, 0.0, float_info.max) * within(capture_frac, 0.0, 1.0)
    rise_k = within(loop_c, *COOLANT_C) - within(room_c, *ROOM_C)
    return float(kept_w - within(loss_w_k, 0.0, float_info.max) * rise_k)


def first_order_mean(value: float, target: float, *, dt_s: float, tau_s: float) -> float:
    """The mean over `dt_s` of a first-order loop driven towards `target`, same unit.

    The integral of `loop_step`; NaN for a time below 0. Source: physics.md 6.2.
    """
    if dt_s < 0 or tau_s < 0:
        return nan
    if tau_s == 0:
        return target
    if dt_s == 0:
        return value
    return target - (value - target) * expm1(-dt_s / tau_s) * tau_s / dt_s
