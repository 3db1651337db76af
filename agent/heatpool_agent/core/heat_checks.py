"""What power says of a loop's own sensors: swapped pipes, a flow of nothing, too much heat.

Each finding must last; a computed heat whose sensors are swapped or dead stays visible and is not
fused until they are mended. Source: agent.md 6 A; physics.md 9.
"""

from dataclasses import dataclass, replace
from math import hypot

from heatpool.sample import Estimate, QualityClass
from heatpool.units import NS_PER_S
from heatpool_agent.core.estimate import LoopHeat, LoopInputs, LoopPriors
from heatpool_agent.core.plausible import NO_FLOW_FROZEN, SWAPPED_SENSORS

HEAT_ABOVE_ELECTRICITY = "heat_above_electricity"
ELECTRIC_PARTIAL = "electric_partial"
# A start from cold shows a cold hot pipe for a while; a loop turns round in one to three minutes.
SWAPPED_S = 180.0
# Without flow the water at the IT warms within a minute.
FROZEN_S = 120.0
# As long as any loop stores heat of a load that is gone: physics.md 3.6.
ABOVE_S = 600.0
ABOVE_U = 3.0
# Less is the doubt of the pair and of the power, not a fault.
LEAST_U = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksState:
    """Since when, ns of boot time, each suspicion stands; None: it does not."""

    swapped_ns: int | None = None
    mended_ns: int | None = None
    is_swapped: bool = False
    frozen_ns: int | None = None
    pipes_c: tuple[float | None, float | None] = (None, None)
    above_ns: int | None = None


def sensors_state(
    state: ChecksState, inputs: LoopInputs, priors: LoopPriors, *, boot_ns: int
) -> ChecksState:
    """The state after one tick of a loop's flow and temperatures."""
    state = _swapped(state, inputs, priors, boot_ns)
    pipes_c = (inputs.hot_c, inputs.cold_c)
    is_still = None not in pipes_c and pipes_c == state.pipes_c
    is_dry = inputs.volume_flow_m3_h is not None and abs(inputs.volume_flow_m3_h) <= 1e-9
    is_dead = is_still and is_dry and _draws(inputs.electric)
    frozen_ns = (state.frozen_ns if state.frozen_ns is not None else boot_ns) if is_dead else None
    return replace(state, frozen_ns=frozen_ns, pipes_c=pipes_c)


def sensor_flags(state: ChecksState, *, boot_ns: int) -> tuple[str, ...]:
    """The marks that flow and temperatures have earned; with any, computed heat is not fused."""
    is_frozen = _lasts(state.frozen_ns, boot_ns, FROZEN_S)
    found = ((SWAPPED_SENSORS, state.is_swapped), (NO_FLOW_FROZEN, is_frozen))
    return tuple(flag for flag, stands in found if stands)


def with_flags(heat: LoopHeat, computed: Estimate | None, flags: tuple[str, ...]) -> LoopHeat:
    """The heats with a computed one beside them that its own sensors discredit."""
    shown = computed and replace(computed, flags=tuple(dict.fromkeys((*computed.flags, *flags))))
    fused = heat.fused and replace(heat.fused, flags=(*heat.fused.flags, *flags))
    return replace(heat, computed=shown, fused=fused)


def is_partial(computed: Estimate | None, wall: Estimate | None) -> bool:
    """Whether the coolant carries more than these hosts draw: there are others in the loop."""
    if computed is None or wall is None:
        return False
    return computed.value - wall.value > ABOVE_U * hypot(computed.u, wall.u)


def with_partial(heat: LoopHeat, electric: Estimate | None) -> LoopHeat:
    """The heats with an electric one beside them that is only a part of what warms the loop."""
    fused = heat.fused and replace(heat.fused, flags=(*heat.fused.flags, ELECTRIC_PARTIAL))
    return replace(heat, electric=electric, fused=fused)


def against_wall(
    heat: LoopHeat,
    state: ChecksState,
    *,
    wall: Estimate | None,
    reported: tuple[float, float] | None,
    boot_ns: int,
) -> tuple[LoopHeat, ChecksState]:
    """The heats, the fused one flagged with the size while more heat than electricity is shown.

    `wall` is all electric power of the loop, `reported` the device's own heat and its doubt, W.
    """
    excess_frac = _excess_frac(heat.computed, wall, reported)
    if excess_frac is None:
        return heat, replace(state, above_ns=None)
    state = replace(state, above_ns=boot_ns if state.above_ns is None else state.above_ns)
    if heat.fused is None or not _lasts(state.above_ns, boot_ns, ABOVE_S):
        return heat, state
    flag = f"{HEAT_ABOVE_ELECTRICITY}:{excess_frac:+.0%}"
    fused = replace(
        heat.fused,
        quality=max(heat.fused.quality, QualityClass.C),
        flags=(*heat.fused.flags, flag),
    )
    return replace(heat, fused=fused), state


def _excess_frac(
    computed: Estimate | None, wall: Estimate | None, reported: tuple[float, float] | None
) -> float | None:
    # A rating model of one machine says nothing of what else warms the loop.
    if wall is None or wall.value <= 0 or wall.quality is QualityClass.E:
        return None
    told = [(computed.value, computed.u)] if computed else []
    told += [reported] if reported else []
    excess_w = [w - wall.value for w, u in told if w - wall.value > ABOVE_U * hypot(u, wall.u)]
    return max(excess_w) / wall.value if excess_w else None


def _swapped(
    state: ChecksState, inputs: LoopInputs, priors: LoopPriors, boot_ns: int
) -> ChecksState:
    hot_c, cold_c, flow_m3_h = inputs.hot_c, inputs.cold_c, inputs.volume_flow_m3_h
    if hot_c is None or cold_c is None:
        return state
    least_k = LEAST_U * priors.delta_k_u
    # No flow at all says nothing of the pipes; an unread one does not excuse them.
    is_odd = hot_c < cold_c - least_k and flow_m3_h != 0 and _draws(inputs.electric)
    is_right = hot_c > cold_c + least_k
    swapped_ns = (boot_ns if state.swapped_ns is None else state.swapped_ns) if is_odd else None
    mended_ns = (boot_ns if state.mended_ns is None else state.mended_ns) if is_right else None
    is_swapped = _lasts(swapped_ns, boot_ns, SWAPPED_S) or (
        state.is_swapped and not _lasts(mended_ns, boot_ns, SWAPPED_S)
    )
    return replace(state, swapped_ns=swapped_ns, mended_ns=mended_ns, is_swapped=is_swapped)


def _draws(electric: Estimate | None) -> bool:
    return electric is not None and electric.value > LEAST_U * electric.u


def _lasts(since_ns: int | None, boot_ns: int, least_s: float) -> bool:
    return since_ns is not None and boot_ns - since_ns >= least_s * NS_PER_S
