"""Heat of one loop as it stands in the status: every figure with its doubt, none mixed in."""

from collections.abc import Sequence

import msgspec

from heatpool.sample import Estimate
from heatpool_agent.board import LoopView
from heatpool_agent.core.fault import FAULTS
from heatpool_agent.core.fault import Fault as LoopFault

# Half of the interval that holds 95 % of a normal distribution, in standard uncertainties.
COVERAGE_95 = 1.96


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A power or heat rate with its doubt: between `lo95_w` and `hi95_w` in 95 of 100 cases."""

    value_w: float
    value_w_u: float
    lo95_w: float
    hi95_w: float
    quality_class: str
    provenance: str
    flags: tuple[str, ...]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One cause of a fault: what it means, since when, until when (null: it lasts), and why."""

    fault: str
    meaning: str
    start_ns: int
    end_ns: int | None
    evidence: str


class LoopHeat(msgspec.Struct, frozen=True, kw_only=True):
    """Heat of one loop: the fused figure whole, the others beside it and never mixed in.

    A device states no doubt of its own figure: `reported_heat_w_u` is assumed. `wall`, the electric
    power that warms the loop, splits into `coolant` and `air`.
    """

    loop_id: str
    heat_rate_w: float | None
    heat_rate_w_u: float | None
    lo95_w: float | None
    hi95_w: float | None
    hot_c: float | None
    cold_c: float | None
    volume_flow_m3_h: float | None
    quality_class: str | None
    provenance: str | None
    flags: tuple[str, ...]
    reported_heat_w: float | None
    reported_heat_w_u: float | None
    delivered_heat_w: float | None
    computed: Figure | None
    electric: Figure | None
    wall: Figure | None
    coolant: Figure | None
    air: Figure | None
    capture_frac: float | None
    capture_frac_u: float | None
    phase: str | None
    faults: tuple[Fault, ...]
    rejection_capacity_w: float | None
    leak: bool | None


def half_width_95(u: float) -> float:
    """Half of the 95 % interval, in the unit of `u`."""
    return COVERAGE_95 * u


def margin_w(view: LoopView) -> float | None:
    """Rejection capacity that heat now leaves unused, W."""
    if view.fused is None or view.rejection_capacity_w is None:
        return None
    return view.rejection_capacity_w - view.fused.value


def active(view: LoopView) -> list[LoopFault]:
    """The faults of a loop that last."""
    return [fault for fault in view.faults if fault.end_ns is None]


def figure(estimate: Estimate | None) -> Figure | None:
    """An estimate as it is told; None stays None."""
    if estimate is None:
        return None
    half_w = half_width_95(estimate.u)
    return Figure(
        value_w=estimate.value,
        value_w_u=estimate.u,
        lo95_w=estimate.value - half_w,
        hi95_w=estimate.value + half_w,
        quality_class=estimate.quality.name,
        provenance=estimate.provenance.name.lower(),
        flags=estimate.flags,
    )


def loop_heat(view: LoopView) -> LoopHeat:
    """One loop of the board."""
    best, capture = figure(view.fused), view.capture
    return LoopHeat(
        loop_id=view.loop_id,
        heat_rate_w=best.value_w if best else None,
        heat_rate_w_u=best.value_w_u if best else None,
        lo95_w=best.lo95_w if best else None,
        hi95_w=best.hi95_w if best else None,
        hot_c=view.hot_c,
        cold_c=view.cold_c,
        volume_flow_m3_h=view.volume_flow_m3_h,
        quality_class=best.quality_class if best else None,
        provenance=best.provenance if best else None,
        flags=best.flags if best else (),
        reported_heat_w=view.reported_heat_w,
        reported_heat_w_u=view.reported_heat_w_u,
        delivered_heat_w=view.delivered_heat_w,
        computed=figure(view.computed),
        electric=figure(view.electric),
        wall=figure(view.power.whole if view.power else None),
        coolant=best if view.has_coolant else None,
        air=figure(view.air),
        capture_frac=capture.frac if capture else None,
        capture_frac_u=capture.frac_u if capture else None,
        phase=view.phase or None,
        faults=told_faults(view.faults),
        rejection_capacity_w=view.rejection_capacity_w,
        leak=view.leak,
    )


def told_faults(faults: Sequence[LoopFault]) -> tuple[Fault, ...]:
    """Faults with what they mean."""
    return tuple(
        Fault(
            fault=one.fault,
            meaning=FAULTS.get(one.fault, one.fault),
            start_ns=one.start_ns,
            end_ns=one.end_ns,
            evidence=one.evidence,
        )
        for one in faults
    )
