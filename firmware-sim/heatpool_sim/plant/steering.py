"""What the local operator sets at the cooling loop: its cold pipe and its flow."""

from dataclasses import dataclass, replace
from typing import Literal

from heatpool_sim.plant.loop import Loop

Wished = Literal["cold_c", "volume_flow_m3_h"]
_COLDER_K = 4.0  # below that the dry cooler would need a chiller
_WARMER_K = 6.0  # above that chips throttle


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Settings at the unit's panel; None: as it was commissioned."""

    cold_c: float | None = None
    volume_flow_m3_h: float | None = None


COMMISSIONED = Wishes()


def limits(loop: Loop) -> dict[Wished, tuple[float, float]]:
    """Least and most of each setting: degC of the cold pipe, m3/h of the flow."""
    floor_m3_h = loop.pump_floor_frac * loop.volume_flow_m3_h
    return {
        "cold_c": (loop.cold_c - _COLDER_K, loop.cold_c + _WARMER_K),
        "volume_flow_m3_h": (floor_m3_h, loop.volume_flow_m3_h),
    }


def adjusted(loop: Loop, wishes: Wishes, name: Wished, value: float | None) -> Wishes | None:
    """The settings with one of them changed, or None where the value is beyond its limits."""
    least, most = limits(loop)[name]
    if value is not None and not least <= value <= most:
        return None
    return (
        replace(wishes, cold_c=value)
        if name == "cold_c"
        else replace(wishes, volume_flow_m3_h=value)
    )


def steered(loop: Loop, wishes: Wishes) -> Loop:
    """The loop as it behaves under these settings: a set flow leaves the pump nothing to seek."""
    if wishes.cold_c is not None:
        loop = replace(loop, cold_c=wishes.cold_c)
    if wishes.volume_flow_m3_h is not None:
        loop = replace(loop, volume_flow_m3_h=wishes.volume_flow_m3_h, pump_floor_frac=1.0)
    return loop
