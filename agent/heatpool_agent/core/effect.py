"""Whether an order's effect is seen: the meter came to what was applied, and was not there before.

A meter that showed the wished figure already says nothing about the order, and one that gets there
long after it is moved by something else.
"""

from dataclasses import dataclass

from heatpool.units import NS_PER_S

# The meter moved by more than its noise towards what was wished.
EFFECT_FRAC = 0.10
# Where a loop's own lag is not known: slow water, and a meter that is asked once a minute.
EFFECT_DEFAULT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What the device confirmed, W, and what the meter showed until then; None: nothing."""

    heat_rate_w: float
    before_w: float | None
    boot_ns: int


def is_awaited(applied: Applied) -> bool:
    """Whether the order can have an effect that the meter tells from what was there before."""
    return applied.before_w is not None and not _is_there(applied, applied.before_w)


def is_seen(applied: Applied, delivered_w: float | None, *, boot_ns: int, within_s: float) -> bool:
    """Whether the meter shows the effect of the order now."""
    if delivered_w is None or not is_awaited(applied) or is_past(applied, boot_ns, within_s):
        return False
    return _is_there(applied, delivered_w)


def is_past(applied: Applied, boot_ns: int, within_s: float) -> bool:
    """Whether the time in which the loop answers is over."""
    return boot_ns - applied.boot_ns > within_s * NS_PER_S


def _is_there(applied: Applied, delivered_w: float) -> bool:
    # On the way down to nothing, a share of nothing would be asked for.
    scale_w = max(applied.heat_rate_w, applied.before_w or 0.0, 1.0)
    return abs(delivered_w - applied.heat_rate_w) <= EFFECT_FRAC * scale_w
