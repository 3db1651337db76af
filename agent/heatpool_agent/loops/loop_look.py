"""One loop at one tick: its readings become power, three heats and what they say of each other."""

from collections.abc import Callable, Mapping, Sequence

from heatpool.sample import Estimate
from heatpool_agent.board import LoopView
from heatpool_agent.core import (
    contradictions,
    estimate,
    heat_checks,
    heat_tree,
    levels,
    plausible,
    tree,
    twins,
)
from heatpool_agent.core.air_heat import air_heat
from heatpool_agent.core.loop_record import SavedEstimator
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.safety_look import SafetyLook
from heatpool_agent.loops.air_look import look_of
from heatpool_agent.loops.loop_pass import LoopSettings as LoopSettings
from heatpool_agent.loops.loop_pass import Pass as Pass

# A sensor's channel and quantity, and the marks it earned from the whole loop.
Marks = dict[tuple[str, str, str], tuple[str, ...]]

_WATER = frozenset({"hot_c", "cold_c", "volume_flow_m3_h"})
_POWER = frozenset({"power_w", "energy_j", "energy_wh"})


class LoopLook:
    """One loop with what it remembers from tick to tick.

    The first loop (`is_first`) is warmed by what names none. `saved` is what its estimator left,
    in the life `boot_id` of the kernel or before.
    """

    def __init__(
        self,
        loop: LoopSettings,
        *,
        is_first: bool,
        saved: Mapping[str, SavedEstimator] | None = None,
        boot_id: str = "",
    ) -> None:
        self.loop = loop
        self._is_first = is_first
        self.heat = look_of(loop, saved=saved, boot_id=boot_id)
        self._tree = tree.TreeState()
        self._twins = twins.Twins()
        self._repeats: frozenset[str] = frozenset()
        self._known: dict[levels.Source, int] = {}
        self._branches: frozenset[heat_tree.Branch] = frozenset()
        self._meters: set[str] = set()
        self._safety = SafetyLook(loop.loop_id, is_first=is_first)

    def power(self, tick: Pass) -> tree.Tree:
        """Power that warms this loop, W, by host."""
        own = [r for r in tick.usable if self._warms(r)]
        powers = levels.node_powers(own, tick.steps, tick.hosts)
        now = levels.seen(powers, (r for r in tick.judged if self._warms(r)))
        self._known |= {s: count for s, count in now.items() if count > self._known.get(s, 0)}
        told = self._told_once(powers, tick)
        found, self._tree = tree.grow(
            told.powers,
            self._tree,
            loads=levels.host_loads(own, tick.hosts),
            known=told.known,
            hosts=tick.hosts,
            mirrored=tick.mirrored,
            learned=tick.learned,
            boot_ns=tick.boot_ns,
        )
        return found

    def _told_once(self, powers: Sequence[levels.NodePower], tick: Pass) -> twins.Told:
        """The powers without meters that repeat another."""

        def below(host: str) -> Estimate | None:
            return tree.metered_power(powers, host, known=self._known, hosts=tick.hosts)

        self._twins = twins.observe(self._twins, powers, below)
        told = twins.told(self._twins, powers, self._known)
        self._repeats = told.repeats
        return told

    def view(self, tick: Pass, power: tree.Tree) -> LoopView:
        """Heat of this loop, W, three ways and fused, with every quarrel among them."""
        own = [r for r in tick.usable if self._is_coolant(r)]
        refused = [r for r in tick.judged if r.quantity in _WATER and self._is_refused(r)]
        found = heat_tree.branches(own, tick.hosts, refused)
        self._branches = heat_tree.remembered(self._branches, found)
        circuit = heat_tree.joined(found, self._branches)
        inputs = self._inputs(circuit, power)
        # One meter of all hosts misses none; hosts that are added up may be some of many.
        is_whole = power.power is not None and power.power.level != contradictions.HOSTS
        single = _single(found, circuit, power)
        leak = _worst(own, "leak", max)
        heat = self.heat.look(
            inputs, circuit, tick, is_whole=is_whole, is_leaking=leak, single=single
        )
        return LoopView(
            loop_id=self.loop.loop_id,
            electric=heat.electric,
            computed=heat.computed,
            fused=heat.fused,
            reported_heat_w=circuit.reported_heat_w,
            reported_heat_w_u=self._reported_w_u(circuit),
            delivered_heat_w=self._delivered_w(tick),
            hot_c=circuit.hot_c,
            cold_c=circuit.cold_c,
            volume_flow_m3_h=circuit.volume_flow_m3_h,
            rejection_capacity_w=self.loop.rejection_capacity_w,
            leak=leak,
            pump_runs=_worst(own, "pump_runs", min),
            safety=self._safety.state(tick.judged, boot_ns=tick.boot_ns),
            disagreements=self.heat.disagreements,
            power=power.power,
            contradictions=power.contradictions,
            fused_s=self.heat.fused_s,
            has_coolant=self.loop.has_coolant,
            air=self._air(inputs, heat),
            capture=self.heat.capture,
            phase=self.heat.phase,
            faults=self.heat.faults,
        )

    def marks(self, tick: Pass, power: tree.Tree) -> Marks:
        """What readings earn that nothing but the whole loop can tell."""
        water = self.heat.flags(tick.boot_ns)
        if not water and not power.refused and not self._repeats:
            return {}
        found: Marks = {}
        for r in tick.judged:
            if water and r.quantity in _WATER and self._is_coolant(r):
                found[r.sensor, r.channel, r.quantity] = water
            place = (tick.hosts.get(r.sensor, ""), contradictions.level_of(r.node))
            if place in power.refused and r.quantity in _POWER and self._warms(r):
                found[r.sensor, r.channel, r.quantity] = (power.refused[place],)
            elif r.sensor in self._repeats and self._repeats_power(r):
                found[r.sensor, r.channel, r.quantity] = (levels.TWIN,)
        return found

    def _repeats_power(self, reading: Reading) -> bool:
        is_power = reading.quantity in _POWER and reading.node is Node.SITE_METER
        return is_power and self._warms(reading)

    def _is_refused(self, reading: Reading) -> bool:
        return self._is_coolant(reading) and not plausible.is_admitted(reading)

    def _warms(self, reading: Reading) -> bool:
        return reading.loop == self.loop.loop_id or (self._is_first and not reading.loop)

    def _is_coolant(self, reading: Reading) -> bool:
        return reading.loop == self.loop.loop_id and reading.node is not Node.HEAT_METER

    def _inputs(self, circuit: heat_tree.Circuit, power: tree.Tree) -> estimate.LoopInputs:
        # The site's own word on where the flow sensor sits comes before the device map's.
        told = self.loop.sensor_side
        return estimate.LoopInputs(
            electric=power.power.whole if power.power else None,
            volume_flow_m3_h=circuit.volume_flow_m3_h,
            hot_c=circuit.hot_c,
            cold_c=circuit.cold_c,
            fluid=self.loop.fluid,
            sensor_side=circuit.sensor_side or told if told == "unknown" else told,
        )

    def _reported_w_u(self, circuit: heat_tree.Circuit) -> float | None:
        told_w = circuit.reported_heat_w
        return None if told_w is None else self.loop.reported_u_frac * abs(told_w)

    def _air(self, inputs: estimate.LoopInputs, heat: estimate.LoopHeat) -> Estimate | None:
        """What is left of the power at the wall, W; None where that is not all of it."""
        if not self.loop.has_coolant:
            return heat.fused
        is_part = heat.fused is not None and heat_checks.ELECTRIC_PARTIAL in heat.fused.flags
        return None if is_part else air_heat(inputs.electric, heat.fused)

    def _delivered_w(self, tick: Pass) -> float | None:
        """Heat that the meters of this loop show together, W; None while one of them is silent."""
        metered = [
            r for r in tick.usable
            if r.node is Node.HEAT_METER and r.loop == self.loop.loop_id
        ]  # fmt: skip
        told = heat_tree.per_unit(metered, "delivered_heat_w", tick.hosts)
        self._meters |= told.keys()
        return sum(told.values()) if told and told.keys() == self._meters else None


def _single(
    found: Mapping[heat_tree.Branch, heat_tree.Circuit],
    circuit: heat_tree.Circuit,
    power: tree.Tree,
) -> frozenset[str]:
    """The heats that are one device's own figure, neither a sum nor in doubt by their like."""
    told = [] if len(found) > 1 else ["reported"]
    told += [] if len(found) > 1 or circuit.flags else ["computed"]
    is_own = power.power is not None and power.power.is_single and not power.contradictions
    return frozenset((*told, "electric") if is_own else told)


def _worst(
    own: Sequence[Reading], quantity: str, of: Callable[[Sequence[float]], float]
) -> bool | None:
    values = [r.value for r in own if r.quantity == quantity]
    return bool(of(values)) if values else None
