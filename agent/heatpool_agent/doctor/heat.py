"""What the settings and the readings say of heat: loops, meters, and figures that must agree."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heatpool.sample import Estimate, QualityClass
from heatpool_agent.board import LoopView
from heatpool_agent.config import Config, Loop
from heatpool_agent.core.heat_checks import ABOVE_U
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.doctor.verdict import Verdict, fail, ok, skip, warn
from heatpool_agent.looks import Look, powers_w

# Power in a moment against the mean between two reads: only gross contradictions count.
_GROSS_FRAC, _GROSS_W = 0.5, 20.0
# Valid TOML as it stands, indented or not.
_LOOP_BLOCK = '[[loop]]\nid = "rack"\nfluid = "water"\nsensor_side = "cold"'
# A board that draws less than its own CPUs shows something else.
_PSYS_LEAST_FRAC = 0.9


def loop_settings(config: Config, *, told: frozenset[str]) -> Iterator[Verdict]:
    """Whether each loop says its coolant and where its flow sensor sits.

    `told` holds the keys that the settings write down, such as `loop[0].fluid`.
    """
    if not config.loop:
        yield warn(
            "loop",
            "no [[loop]] in the settings",
            why="without a coolant circuit all heat is taken to leave with the air",
            fix="if there is one, add to the settings:\n" + _LOOP_BLOCK,
        )
    for index, loop in enumerate(config.loop):
        yield _loop(loop, is_fluid_told=f"loop[{index}].fluid" in told)


def _loop(loop: Loop, *, is_fluid_told: bool) -> Verdict:
    name = f"loop:{loop.id}"
    found = f"fluid {loop.fluid}, flow sensor in the {loop.sensor_side} pipe"
    if loop.sensor_side == "unknown":
        return warn(
            name,
            f"fluid {loop.fluid}, side of the flow sensor unknown",
            why="hot and cold coolant differ in density by 1 % and more, and so does the heat",
            fix=f'look at the pipe and set sensor_side = "hot" or "cold" in loop {loop.id!r}',
        )
    if not is_fluid_told:
        return warn(
            name,
            f"fluid {loop.fluid} by default, flow sensor in the {loop.sensor_side} pipe",
            why="a quarter of glycol carries some 6 % less heat than water",
            fix=f"ask who filled the loop, or use a refractometer; set fluid in loop {loop.id!r}",
        )
    return ok(name, found)


def counter_against_gauge(looks: Sequence[Look]) -> Verdict:
    """Whether energy counters run as fast as the power beside them says."""
    pairs = [pair for look in looks for pair in _pairs(look)]
    if not pairs:
        return skip("counter_gauge", "no channel shows both an energy counter and its power")
    for channel, counted_w, gauge_w in pairs:
        if abs(counted_w - gauge_w) > _GROSS_FRAC * gauge_w + _GROSS_W:
            return warn(
                "counter_gauge",
                f"{channel}: its counter says {counted_w:.0f} W, its power {gauge_w:.0f} W",
                why="one of the two is in another unit, stuck, or mixed up with another part",
                fix="let the agent run for a minute: it compares over a longer time and leaves "
                "the wrong one out (flag in /v1/status); else update the driver or firmware",
            )
    return ok("counter_gauge", f"{len(pairs)} counters run as their power says")


def _pairs(look: Look) -> Iterator[tuple[str, float, float]]:
    gauges = {r.channel: r.value for r in look.readings if r.quantity == "power_w"}
    for channel, counted_w in powers_w(look).items():
        if channel in gauges:
            yield channel, counted_w, gauges[channel]


def psys(looks: Sequence[Look]) -> Verdict:
    """Whether the board's own counter covers at least its CPUs."""
    boards = packages = 0.0
    has_board = False
    for look in looks:
        node_of = {r.channel: r for r in look.readings if r.quantity == "energy_j"}
        for channel, power_w in powers_w(look).items():
            has_board |= node_of[channel].node is Node.PSYS
            boards += power_w if node_of[channel].node is Node.PSYS else 0.0
            is_package = node_of[channel].node is Node.PACKAGE and not node_of[channel].flags
            packages += power_w if is_package else 0.0
    if not has_board:
        return skip("psys", "no counter of the whole board")
    if boards < _PSYS_LEAST_FRAC * packages:
        return warn(
            "psys",
            f"psys {boards:.0f} W, its CPUs {packages:.0f} W",
            why="makers connect psys as they like; here it does not cover the board",
            fix="nothing to set: it is left out while it contradicts its parts; "
            "do not take it for the machine's power elsewhere either",
        )
    return ok("psys", f"psys {boards:.0f} W covers its CPUs' {packages:.0f} W")


def meter_identity(blocks: Sequence[Mapping[str, Any]], looks: Sequence[Look]) -> Iterator[Verdict]:
    """Whether each meter is the one that the settings expect."""
    by_id = {look.id: look for look in looks}
    meters = [block for block in blocks if block.get("kind") == "mbus" or block.get("meter_id")]
    if not meters:
        yield skip("meter", "no heat meter in the settings")
    for block in meters:
        yield _identity(block, by_id.get(str(block.get("id"))))


def _identity(block: Mapping[str, Any], look: Look | None) -> Verdict:
    name, expected = f"meter:{block.get('id')}", str(block.get("meter_id") or "")
    if look is None or look.state != "up":
        return skip(name, "it does not answer")
    shown = next((r.meter_id for r in look.readings if r.meter_id), "")
    if any("other_meter" in reading.flags for reading in look.readings):
        return fail(
            name,
            f"meter {shown} answers, {expected} is expected",
            why="heat of another meter would be booked here",
            fix=f'if the meter was exchanged, set meter_id = "{shown}"; else check address and '
            "wiring with who installed it",
        )
    if any("permanent_error" in reading.flags for reading in look.readings):
        return warn(
            name,
            f"meter {shown or expected} reports an error of its own that stays",
            why="its register may stand still or be wrong, and is still read",
            fix="read the error code on its display, and call who installed the meter",
        )
    if not expected and block.get("role") == "billing":
        return warn(
            name,
            f"meter {shown or 'without a number'} answers, none is expected",
            why="after a change on the bus another meter could be billed unnoticed",
            fix=f'compare with the plate, then set meter_id = "{shown or "NUMBER"}"',
        )
    return ok(name, f"meter {shown or expected}")


def billing_meter(config: Config, looks: Sequence[Look]) -> Verdict:
    """Whether some meter's register goes to the accounts."""
    billing = [look for look in looks if look.is_billing]
    if not billing:
        if not config.loop:
            return skip("billing_meter", "this site has no loop whose heat could be sold")
        return warn(
            "billing_meter",
            'no sensor has role = "billing"',
            why="heat is settled by a verified heat meter's register alone",
            fix='add role = "billing" to the [[sensor]] block of the heat meter',
        )
    without = [look.id for look in billing if look.state == "up" and not _register(look)]
    if without:
        return fail(
            "billing_meter",
            f"{without[0]} answers without an energy register",
            why="only a register that counts on can be billed",
            fix=f"check the map or address of {without[0]!r}; call who installed the meter",
        )
    names = ", ".join(look.id for look in billing)
    return ok("billing_meter", f"{names}; see its plate for the end of its verification")


def _register(look: Look) -> Reading | None:
    found = (r for r in look.readings if r.quantity == "energy_wh" and r.raw is not None)
    return next(found, None)


def heat_balance(loops: Sequence[LoopView]) -> Verdict:
    """Whether no loop carries more heat than all the electricity that went in."""
    known = [(loop.loop_id, *pair) for loop in loops if (pair := _heat_and_power(loop))]
    if not known:
        return skip("heat_balance", "no loop has both a computed heat and measured power")
    for name, computed, wall in known:
        if computed.value - wall.value > ABOVE_U * math.hypot(computed.u, wall.u):
            return warn(
                "heat_balance",
                f"loop {name}: {computed.value:.0f} W of heat from {wall.value:.0f} W of "
                "electricity",
                why="a loop cannot give more than goes in for long: a load is not metered, a "
                "temperature pair is off, or the flow is scaled wrong",
                fix="name every load of the loop as a sensor; then let an installer compare both "
                "temperature sensors in one bath and the flow with a clamp-on meter",
            )
    shown = ", ".join(
        f"{name} {computed.value:.0f} of {wall.value:.0f} W" for name, computed, wall in known
    )
    return ok("heat_balance", f"no more heat than electricity: {shown}")


def _heat_and_power(loop: LoopView) -> tuple[Estimate, Estimate] | None:
    """Computed heat and measured power, W; a modelled power says nothing of what warms a loop."""
    if loop.computed is None or loop.power is None:
        return None
    wall = loop.power.whole
    return None if wall.quality is QualityClass.E else (loop.computed, wall)


def rejection(config: Config, loops: Sequence[LoopView]) -> Verdict:
    """Whether every loop that can be commanded can also get rid of its heat alone."""
    commanded = {str(b.get("loop") or _only(config)): b.get("armed") for b in config.actuator}
    if not commanded:
        return skip("rejection", "no actuator: nobody can keep this site from rejecting its heat")
    for loop in config.loop:
        if loop.id in commanded and loop.rejection_capacity_w is None:
            make = fail if commanded[loop.id] else warn
            return make(
                "rejection",
                f"loop {loop.id}: rejection_capacity_w is not set",
                why="an offtaker may stop taking heat at any moment",
                fix="prove it with full load and the network valve shut, then set "
                f"rejection_capacity_w in loop {loop.id!r} to what was reached",
            )
    return _margin(config, loops)


def _margin(config: Config, loops: Sequence[LoopView]) -> Verdict:
    now_w = {loop.loop_id: loop.fused.value for loop in loops if loop.fused is not None}
    for loop in config.loop:
        capacity_w = loop.rejection_capacity_w
        if capacity_w is not None and now_w.get(loop.id, 0.0) > capacity_w:
            return fail(
                "rejection",
                f"loop {loop.id}: {now_w[loop.id]:.0f} W now, proven {capacity_w:.0f} W",
                why="if the network stops taking heat, this load cannot be cooled",
                fix="lower the load now, and call who runs the dry cooler",
            )
    shown = ", ".join(
        f"{loop.id} {loop.rejection_capacity_w:.0f} W"
        for loop in config.loop
        if loop.rejection_capacity_w is not None
    )
    return ok("rejection", f"proven: {shown}")


def _only(config: Config) -> str:
    return config.loop[0].id if len(config.loop) == 1 else ""
