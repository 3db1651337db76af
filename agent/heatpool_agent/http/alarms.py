"""What a person at the site must know first, in one sentence each."""

from collections.abc import Iterator

from heatpool.setpoint import SetpointState
from heatpool_agent.board import LoopView
from heatpool_agent.core.fault import FAULTS
from heatpool_agent.core.identity_view import IdentityState, IdentityView
from heatpool_agent.http.figures import rate, stamp, with_doubt
from heatpool_agent.http.loop_status import active, half_width_95, margin_w
from heatpool_agent.http.seen import Seen, unhealthy

_POOR = frozenset({IdentityState.UNRENEWED, IdentityState.EXPIRED, IdentityState.UNUSABLE})
_UNWELL = frozenset({"gone", "busy"})
# What makes a figure doubtful; other flags only say what it was made from.
_WRONG = {
    "mismatch": "{pair}: two heats have disagreed for ten minutes; all stay shown",
    "unit_slip": "{pair}: the factor between two units; check scale and unit of both",
    "heat_above_electricity": "more heat than electricity, {pair}; a meter is wrong or missing",
    "no_flow_frozen": "no flow and frozen temperatures while power is drawn; sensors dead",
    "twin_suspected": "{pair}: meters that show the same are added; leave one out if they are one",
    "mixed_sensors": "flow and temperatures pieced together from several sensors",
    "swapped_sensors": "hot pipe colder than the cold one; sensors swapped, or heat flows back",
}
_UNDONE = frozenset({SetpointState.REFUSED, SetpointState.OVERRIDDEN, SetpointState.EXPIRED})


def alarms(seen: Seen) -> Iterator[str]:
    """All of them, the most dangerous first."""
    for view in seen.loops:
        yield from _loop_alarms(view)
    for loop_id, reason in seen.board.actuator_errors.items():
        yield f"The actuator of loop {loop_id} does not confirm: {reason}"
    yield from _meter_alarms(seen)
    for reason in unhealthy(seen):
        yield f"Figures are not live: {reason}"
    if seen.board.spool_error:
        yield f"The spool takes no rows: {seen.board.spool_error}"
    yield from _identity_alarms(seen.board.identity)
    if seen.board.uplink.state == "refused":
        mend = f"; {seen.board.uplink.fix}" if seen.board.uplink.fix else ""
        yield f"The aggregator does not let this site in: {seen.board.uplink.detail}{mend}"
    yield from _setpoint_alarms(seen)
    for sensor in seen.board.sensors.values():
        if sensor.state in _UNWELL:
            mend = f"; {sensor.fix}" if sensor.fix else ""
            yield f"Sensor {sensor.id} is {sensor.state}: {sensor.detail}{mend}"


def _loop_alarms(view: LoopView) -> Iterator[str]:
    if view.leak:
        yield f"Leak in loop {view.loop_id}"
    yield from _above_capacity(view)
    faults = active(view)
    for fault in faults:
        told = FAULTS.get(fault.fault, fault.fault)
        yield f"Loop {view.loop_id}: {told}, since {stamp(fault.start_ns)}. {fault.evidence}"
    named = {fault.fault for fault in faults}
    for flag in view.fused.flags if view.fused else ():
        kind, _, pair = flag.partition(":")
        if kind in _WRONG and kind not in named:
            told = pair.replace("_", " ").replace(":", " by ")
            yield f"Loop {view.loop_id}: {_WRONG[kind].format(pair=told)}"


def _above_capacity(view: LoopView) -> Iterator[str]:
    """Heat beyond what can be rejected, as sure as it is; the interlock has a rule of its own."""
    left_w = margin_w(view)
    if view.fused is None or left_w is None or not left_w < 0:
        return
    if -left_w > half_width_95(view.fused.u):
        yield f"Heat of loop {view.loop_id} is {rate(-left_w)} above its proven rejection capacity"
        return
    value, half = with_doubt(view.fused.value, half_width_95(view.fused.u))
    yield (
        f"Heat of loop {view.loop_id} may be above its proven rejection capacity: "
        f"{value} {half} of {rate(view.rejection_capacity_w)}"
    )


def _meter_alarms(seen: Seen) -> Iterator[str]:
    """Heat meters whose register may stand still or be wrong, though they answer."""
    found = {
        reading.sensor: reading.meter_id
        for reading in (() if seen.is_stale else seen.board.judged)
        if "permanent_error" in reading.flags
    }
    for sensor, meter_id in found.items():
        number = f" (meter {meter_id})" if meter_id else ""
        yield (
            f"Heat meter {sensor}{number} reports an error of its own that stays: its register may "
            "stand still; read the code on its display, and call who installed it"
        )


def _identity_alarms(identity: IdentityView) -> Iterator[str]:
    if identity.state in _POOR:
        yield f"This site's identity is {identity.state}: {identity.detail}; {identity.fix}"


def _setpoint_alarms(seen: Seen) -> Iterator[str]:
    wish = seen.board.setpoint
    if wish is not None and wish.state in _UNDONE:
        why = f": {wish.reason}" if wish.reason else ""
        yield f"Setpoint {wish.setpoint_seq} is {wish.state.name.lower()}{why}"
