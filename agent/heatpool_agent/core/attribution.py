"""Electric power of one host at the wall: the best cover of one tree, no node counted twice.

site_meter > pdu > chassis > psu_in > psu_out > components > model of the host. Overlapping nodes
are never added: core lies in package, package and GPU lie in a module, a twin or mirrored zone
repeats one, psys repeats packages and board. What no node covers is a named remainder with its
own doubt. Constants equal `data/priors.toml` (tested).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import hypot

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core import calibrate, mute_cards
from heatpool_agent.core.levels import CARDS_UNASSIGNED, TWIN_SUSPECTED, Levels
from heatpool_agent.core.levels import HostLoad as HostLoad
from heatpool_agent.core.levels import NodePower as NodePower
from heatpool_agent.core.levels import Witness as Witness
from heatpool_agent.core.reading import Node

# Standard, relative to the reading: physics.md 5.3 and 5.4.
INPUT_U_FRAC = 0.03
CHASSIS_U_FRAC = 0.05
COMPONENTS_U_FRAC = 0.15
HOST_U_FRAC = 0.40
CPU_U_FRAC = 0.06
GPU_U_FRAC = 0.08
RAIL_U_FRAC = 0.05
# Output over input of a server's power supply.
PSU_EFFICIENCY = 0.93
PSU_EFFICIENCY_U = 0.0173
PSU_OUT_U_FRAC = 0.08
# Behind the power supply and seen by no counter.
DRAM_PER_PACKAGE_W = 15.0
DRAM_PER_PACKAGE_W_U = 10.0
BOARD_PER_PACKAGE_W = 40.0
BOARD_PER_PACKAGE_W_U = 20.0
# The same without its drives, where these are measured.
BARE_BOARD_PER_PACKAGE_W = 30.0
BARE_BOARD_PER_PACKAGE_W_U = 15.0
# Fans and the losses of the regulators rise with what they serve.
FANS_FRAC = 0.15
FANS_FRAC_U = 0.08
# The regulators alone, where fans are measured.
REGULATORS_FRAC = 0.075
REGULATORS_FRAC_U = 0.015
# At the wall, per logical CPU.
IDLE_PER_CPU_W = 0.63
FULL_PER_CPU_W = 3.35
# Anything between idle and full is possible where the load is not known.
LOAD_UNKNOWN_U_FRAC = 0.40
# The level of a sum of components.
COMPONENTS = "components"
# Power meters of boards and supplies resolve 1 W: no doubt is smaller.
LEAST_U_W = 1.0

INPUTS = (Node.SITE_METER, Node.PDU, Node.CHASSIS, Node.PSU_IN)
_METERS = (*INPUTS, Node.PSU_OUT)
# Behind the supply, outermost first; what lies in a module or in psys is left out with it.
_BEHIND = {
    Node.MODULE: GPU_U_FRAC,
    Node.PSYS: CPU_U_FRAC,
    Node.PACKAGE: CPU_U_FRAC,
    Node.DRAM: CPU_U_FRAC,
    Node.GPU: GPU_U_FRAC,
    Node.CHIP: RAIL_U_FRAC,
    Node.BOARD: RAIL_U_FRAC,
    Node.FAN: RAIL_U_FRAC,
    Node.DRIVE: RAIL_U_FRAC,
}
# Standard doubt of one meter's power, relative to it; of other nodes nothing is known.
U_FRAC: Mapping[Node, float] = {
    **dict.fromkeys(INPUTS, INPUT_U_FRAC),
    Node.CHASSIS: CHASSIS_U_FRAC,
    Node.PSU_OUT: PSU_OUT_U_FRAC,
    **_BEHIND,
}
_INSIDE = {
    # Which cards are beside it is told by their addresses (`levels`).
    Node.MODULE: (Node.PSYS, Node.PACKAGE),
    Node.PSYS: (Node.PACKAGE, Node.DRAM, Node.BOARD),
}
# Without one of these that is known to exist the sum of components would under-report.
_NEEDED = frozenset({Node.MODULE, Node.PACKAGE, Node.DRAM, Node.GPU, Node.CHIP, Node.BOARD})


@dataclass(frozen=True, slots=True)
class Part:
    """One share of a whole, W: measured where it lies, assumed, or what is left over.

    `witnesses` are the readings that it was taken from.
    """

    name: str
    power_w: float
    power_w_u: float
    is_measured: bool = True
    witnesses: tuple[Witness, ...] = ()

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors that show it."""
        return tuple(dict.fromkeys(witness.sensor for witness in self.witnesses))


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What would still be seen of a host without its meters, and what it would be assumed to draw.

    `assumed_w` is what these components alone would make it, by what is assumed of every host.
    """

    parts: tuple[Part, ...]
    assumed_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """A host's power at the wall, the level that it was taken from, and what it consists of.

    The parts add up to the whole. `is_single`: it is one channel of one device and no sum.
    `witnesses` are the readings that the whole was taken from; its parts have their own.
    `left` is what stays when its meters go: other devices and the machine's own counters, or
    these counters alone.
    """

    level: str
    whole: Estimate
    parts: tuple[Part, ...] = ()
    is_single: bool = False
    witnesses: tuple[Witness, ...] = ()
    left: tuple[Left, ...] = ()


def cover(levels: Levels, *, load: HostLoad | None = None) -> Cover | None:
    """The best cover of one host, W, with its parts; None: no idea.

    `levels` are empty where a channel is silent. Source: physics.md 5.1, 5.3, 5.4.
    """
    for node in INPUTS:
        if levels.get(node):
            whole = input_power(node, levels[node])
            parts = _inside(levels, whole)
            return Cover(
                level=node.value,
                whole=whole,
                parts=parts,
                is_single=len(levels[node]) == 1,
                witnesses=witnesses(levels[node]),
                left=_left(levels, load),
            )
    if levels.get(Node.PSU_OUT):
        return replace(_output(levels), left=_left(levels, load))
    if below := _components(levels, load):
        return replace(below, left=_left(levels, load))
    return _host(levels, load)


def _left(levels: Levels, load: HostLoad | None) -> tuple[Left, ...]:
    """What stays of a host when the devices that hold its meters go, and what is its own.

    A BMC on loan takes its board and its fans with it, through whichever door they were read.
    """
    gone = {p.sensor for node in _METERS for p in levels.get(node, ())} - {""}
    beside = {n: [p for p in level if p.sensor not in gone] for n, level in levels.items()}
    own = {n: [p for p in level if p.is_local] for n, level in beside.items()}
    found = [_left_of(levels, kept, load) for kept in (beside, own)]
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _left_of(levels: Levels, kept: Levels, load: HostLoad | None) -> Left | None:
    # A level that is silent now is missing then too, one that goes as a whole was never there.
    below = {node: kept[node] for node, level in levels.items() if kept[node] or not level}
    found = _components(below, load)
    return found.left[0] if found else None


def witnesses(powers: Sequence[NodePower]) -> tuple[Witness, ...]:
    """The readings that these powers were taken from."""
    return tuple(power.witness for power in powers)


def input_power(node: Node, powers: Sequence[NodePower]) -> Estimate:
    """Power that meters before the supplies show together, W.

    Class B; C where two of them may be one thing.
    """
    u_frac = U_FRAC[node]
    power_w = sum(p.power_w for p in powers)
    # Meters of one make err alike: their doubts add up, they do not average out.
    power_w_u = sum(p.power_w_u or u_frac * abs(p.power_w) for p in powers)
    suspected = _told_of(powers, TWIN_SUSPECTED)
    quality = QualityClass.C if suspected else QualityClass.B
    return _estimate(power_w, power_w_u, quality, (f"nodes:{node.value}", *suspected))


def covered_parts(levels: Levels) -> tuple[Part, ...]:
    """What is measured behind the supply, W, each thing once: modules before what lies in them."""
    open_levels = dict(_open(levels))
    return tuple(
        Part(
            node.value,
            sum(p.power_w for p in open_levels[node]),
            sum(p.power_w_u or u_frac * abs(p.power_w) for p in open_levels[node]),
            witnesses=witnesses(open_levels[node]),
        )
        for node, u_frac in _BEHIND.items()
        if open_levels.get(node)
    )


def host_power_w(load: HostLoad) -> float:
    """Power at the wall of a server without accelerators, W; half busy where load is unknown."""
    busy_frac = 0.5 if load.busy_frac is None else load.busy_frac
    per_cpu_w = IDLE_PER_CPU_W + (FULL_PER_CPU_W - IDLE_PER_CPU_W) * busy_frac
    return load.logical_cpu_count * per_cpu_w


def _open(levels: Levels) -> list[tuple[Node, Sequence[NodePower]]]:
    """The levels that do not lie inside another one that speaks."""
    hidden = {inner for outer, within in _INSIDE.items() if levels.get(outer) for inner in within}
    return [(node, level) for node, level in levels.items() if node not in hidden]


def _inside(levels: Levels, whole: Estimate) -> tuple[Part, ...]:
    """The parts of what comes in: the supply's loss, what is measured behind it, and the rest."""
    if out := levels.get(Node.PSU_OUT):
        out_w = sum(p.power_w for p in out)
        loss_w_u = hypot(whole.u, PSU_OUT_U_FRAC * out_w)
        loss = Part("psu_loss", whole.value - out_w, loss_w_u, is_measured=False)
    else:
        loss = _assumed_loss(whole.value)
    return _with_rest(whole, (*covered_parts(levels), loss))


def _assumed_loss(input_w: float) -> Part:
    loss_w, loss_w_u = (1 - PSU_EFFICIENCY) * input_w, PSU_EFFICIENCY_U * input_w
    return Part("psu_loss", loss_w, loss_w_u, is_measured=False)


def _with_rest(whole: Estimate, parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts and what they leave of the whole; its doubt is that of all of them."""
    rest_w = whole.value - sum(part.power_w for part in parts)
    rest_w_u = hypot(whole.u, *(part.power_w_u for part in parts))
    return (*parts, Part("rest", rest_w, rest_w_u, is_measured=False))


def _output(levels: Levels) -> Cover:
    power_w = sum(p.power_w for p in levels[Node.PSU_OUT]) / PSU_EFFICIENCY
    u_w = PSU_OUT_U_FRAC * power_w
    whole = _estimate(power_w, u_w, QualityClass.C, ("nodes:psu_out",))
    parts = _with_rest(whole, (*covered_parts(levels), _assumed_loss(power_w)))
    seen = witnesses(levels[Node.PSU_OUT])
    return Cover(level=Node.PSU_OUT.value, whole=whole, parts=parts, witnesses=seen)


def _components(levels: Levels, load: HostLoad | None) -> Cover | None:
    covered = covered_parts(levels)
    names = {part.name for part in covered}
    cpu_is_seen = not names.isdisjoint({"module", "psys", "package", "chip"})
    # A board around packages that are seen is assumed where its rails fell silent with their BMC.
    needed = _NEEDED - {Node.BOARD} if "package" in names else _NEEDED
    if any(node in needed and not level for node, level in _open(levels)):
        return None
    is_worth = not names.isdisjoint({"module", "psys", "package", "chip", "gpu", "dram", "board"})
    dc_w = sum(part.power_w for part in covered)
    if dc_w <= 0 or not is_worth or not (cpu_is_seen or load):
        return None
    cards = _mute_cards(levels, load)
    rest = [*(_rest(levels, covered) if cpu_is_seen else _unseen_cpu(load)), *cards]
    dc_w += sum(part.power_w for part in rest)
    dc_w_u = hypot(*(part.power_w_u for part in (*covered, *rest)))
    power_w = dc_w / PSU_EFFICIENCY
    power_w_u = power_w * hypot(dc_w_u / dc_w, PSU_EFFICIENCY_U / PSU_EFFICIENCY)
    power_w_u = max(power_w_u, COMPONENTS_U_FRAC * power_w)
    is_d = (cpu_is_seen and not cards) or power_w_u <= COMPONENTS_U_FRAC * power_w
    flags = [
        f"{what}:" + "+".join(part.name for part in some)
        for what, some in (("nodes", covered), ("remainder", rest))
        if some
    ]
    flags += _told_of(levels.get(Node.MODULE, ()), CARDS_UNASSIGNED)
    quality = QualityClass.D if is_d else QualityClass.E
    whole = _estimate(power_w, power_w_u, quality, tuple(flags))
    loss = Part("psu_loss", power_w - dc_w, PSU_EFFICIENCY_U * power_w, is_measured=False)
    parts = (*covered, *rest, loss)
    seen = tuple(witness for part in parts for witness in part.witnesses)
    left = (Left(parts=covered, assumed_w=power_w),)
    return Cover(level=COMPONENTS, whole=whole, parts=parts, witnesses=seen, left=left)


def _rest(levels: Levels, covered: Sequence[Part]) -> list[Part]:
    """What no counter shows, from priors; it grows with the number of sockets or modules."""
    names = {part.name for part in covered}
    count = len(levels.get(Node.MODULE) or levels.get(Node.PACKAGE) or ())
    # A board measured by its own rails has no second board around it.
    if not count and "psys" not in names:
        return []
    served_w = sum(part.power_w for part in covered if part.name not in ("fan", "drive"))
    rest = []
    if names.isdisjoint({"dram", "module", "psys"}):
        rest.append(_prior("dram", count * DRAM_PER_PACKAGE_W, count * DRAM_PER_PACKAGE_W_U))
    if "psys" not in names:
        is_bare = "drive" in names
        each_w = BARE_BOARD_PER_PACKAGE_W if is_bare else BOARD_PER_PACKAGE_W
        each_w_u = BARE_BOARD_PER_PACKAGE_W_U if is_bare else BOARD_PER_PACKAGE_W_U
        rest.append(_prior("board", count * each_w, count * each_w_u))
    if "fan" in names:
        regulators_w_u = REGULATORS_FRAC_U * served_w
        rest.append(_prior("regulators", REGULATORS_FRAC * served_w, regulators_w_u))
    else:
        rest.append(_prior("fans", FANS_FRAC * served_w, FANS_FRAC_U * served_w))
    return rest


def _prior(name: str, power_w: float, power_w_u: float) -> Part:
    return Part(name, power_w, power_w_u, is_measured=False)


def _unseen_cpu(load: HostLoad | None) -> list[Part]:
    if load is None:
        return []
    power_w, power_w_u = host_power_w(load), _host_w_u(load)
    behind = _prior("host", power_w * PSU_EFFICIENCY, power_w_u * PSU_EFFICIENCY)
    return [replace(behind, witnesses=load.witnesses)]


def _host_w_u(load: HostLoad) -> float:
    """Doubt of a host's model, W.

    Machines of as many CPUs differ by their own size, as one that is to be learnt does: eight
    threads are a small server's, and a package of 200 W.
    """
    power_w, is_known = host_power_w(load), load.busy_frac is not None
    unknown_u_frac = 0.0 if is_known else LOAD_UNKNOWN_U_FRAC
    span_w_u = calibrate.SPAN_LEAST_W_U * (load.busy_frac if load.busy_frac is not None else 0.5)
    size_w_u = hypot(calibrate.IDLE_LEAST_W_U, span_w_u)
    return hypot(HOST_U_FRAC * power_w, unknown_u_frac * power_w, size_w_u)


def _mute_cards(levels: Levels, load: HostLoad | None) -> list[Part]:
    """The cards that are known to be there and show no power, behind the supply."""
    # Their node is left over, without a channel, from when they spoke.
    are_silent = any(node in levels and not levels[node] for node in (Node.GPU, Node.MODULE))
    rated_w = load.mute_rated_w if load else 0.0
    power_w, power_w_u = mute_cards.assumed_w(rated_w, are_silent=are_silent)
    return [_prior("cards", power_w, power_w_u)] if power_w > 0 else []


def _host(levels: Levels, load: HostLoad | None) -> Cover | None:
    if load is None:
        return None
    flags = ["nodes:host"] if load.busy_frac is not None else ["nodes:host", "load:unknown"]
    host = replace(_prior("host", host_power_w(load), _host_w_u(load)), witnesses=load.witnesses)
    parts = [host]
    for cards in _mute_cards(levels, load):
        flags.append(f"remainder:{cards.name}")
        at_wall_w, at_wall_w_u = cards.power_w / PSU_EFFICIENCY, cards.power_w_u / PSU_EFFICIENCY
        parts.append(_prior(cards.name, at_wall_w, at_wall_w_u))
    power_w = sum(part.power_w for part in parts)
    power_w_u = hypot(*(part.power_w_u for part in parts))
    whole = _estimate(power_w, power_w_u, QualityClass.E, tuple(flags))
    return Cover(level="host", whole=whole, parts=tuple(parts), witnesses=load.witnesses)


def _told_of(powers: Sequence[NodePower], mark: str) -> tuple[str, ...]:
    """The mark with the sensors that bear it, or nothing."""
    sensors = dict.fromkeys(p.sensor for p in powers if mark in p.flags)
    return (f"{mark}:" + "+".join(sensors),) if sensors else ()


def _estimate(
    power_w: float, power_w_u: float, quality: QualityClass, flags: tuple[str, ...]
) -> Estimate:
    return Estimate(
        value=power_w,
        u=max(power_w_u, LEAST_U_W),
        quality=quality,
        provenance=Provenance.ELECTRIC,
        flags=flags,
    )
