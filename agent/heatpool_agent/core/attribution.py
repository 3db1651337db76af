"""Electric power of one host at the wall: the best cover of one tree, no node counted twice.

site_meter > pdu > psu_in > psu_out > components > model of the host. Overlapping nodes are never
added: core lies in package, a twin or mirrored zone repeats one, psys repeats both. What no node
covers is a named remainder with its own doubt. Constants equal `data/priors.toml` (tested).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step

TWIN = "twin"

# Standard, relative to the reading: physics.md 5.3 and 5.4.
INPUT_U_FRAC = 0.03
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
# Fans and the losses of the regulators rise with what they serve.
FANS_FRAC = 0.15
FANS_FRAC_U = 0.08
# At the wall, per logical CPU.
IDLE_PER_CPU_W = 0.63
FULL_PER_CPU_W = 3.35
# Anything between idle and full is possible where the load is not known.
LOAD_UNKNOWN_U_FRAC = 0.40
# Power meters of boards and supplies resolve 1 W: no doubt is smaller.
LEAST_U_W = 1.0

_INPUTS = (Node.SITE_METER, Node.PDU, Node.PSU_IN)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePower:
    """Mean electric power of one node, W, over the span that the estimate is for."""

    node: Node
    channel: str
    power_w: float
    power_w_u: float | None = None
    flags: tuple[str, ...] = ()
    sensor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """What is known of a host without any power sensor; absent share of busy time is None."""

    busy_frac: float | None
    logical_cpu_count: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One covered or assumed share behind the power supply, W."""

    name: str
    power_w: float
    power_w_u: float


def node_powers(
    readings: Sequence[Reading], steps: Mapping[tuple[str, str], Step]
) -> tuple[NodePower, ...]:
    """Power of each channel, W: from its counter's step where there is one, else its gauge.

    `steps` are those of `totals`, by sensor and channel. Refused readings are left out.
    """
    found: dict[tuple[str, str], NodePower] = {}
    for reading in readings:
        key = (reading.sensor, reading.channel)
        step = steps.get(key)
        is_counter = reading.kind is ReadingKind.COUNTER and step is not None
        power_w = step.power_w if is_counter and step else _gauge_w(reading)
        if power_w is None or not is_admitted(reading):
            continue
        if is_counter or key not in found:
            found[key] = NodePower(
                sensor=reading.sensor,
                node=reading.node,
                channel=reading.channel,
                power_w=power_w,
                power_w_u=None if is_counter else reading.u,
                flags=reading.flags,
            )
    return tuple(found.values())


def host_load(readings: Sequence[Reading]) -> HostLoad | None:
    """What the readings of `host` say; None without the number of logical CPUs."""
    told = {r.quantity: r.value for r in readings if r.node is Node.HOST and is_admitted(r)}
    if "logical_cpu_count" not in told:
        return None
    return HostLoad(
        busy_frac=told.get("busy_frac"), logical_cpu_count=int(told["logical_cpu_count"])
    )


def electric_power(
    powers: Sequence[NodePower],
    *,
    load: HostLoad | None = None,
    mirrored: Collection[tuple[str, str]] = (),
    known: Mapping[Node, int] | None = None,
) -> Estimate | None:
    """Electric power at the wall, W, with its doubt, class and the nodes used; None: no idea.

    `mirrored` are pairs of channels that show one thing (`mirrors`); `known` is how many channels
    each node has: a level of which one is silent is passed over instead of under-reporting.
    Source: physics.md 5.1, 5.3, 5.4; agent.md 6 B.
    """
    counted = _without_mirrors(_without_repeats(powers), mirrored)
    at = {node: [p for p in counted if p.node is node] for node in Node}
    speaking = Counter(p.node for p in powers)
    whole = {node for node in Node if speaking[node] >= (known or {}).get(node, 0)}
    for node in _INPUTS:
        if at[node] and node in whole:
            return _input(node, at[node])
    if at[Node.PSU_OUT] and Node.PSU_OUT in whole:
        return _output(at[Node.PSU_OUT])
    parts = (Node.PACKAGE, Node.DRAM, Node.GPU, Node.CHIP, Node.BOARD)
    if any(at[node] for node in parts) and whole.issuperset(parts):
        return _components(at, load)
    return _host(load)


def host_power_w(load: HostLoad) -> float:
    """Power at the wall of a server without accelerators, W; half busy where load is unknown."""
    busy_frac = 0.5 if load.busy_frac is None else load.busy_frac
    per_cpu_w = IDLE_PER_CPU_W + (FULL_PER_CPU_W - IDLE_PER_CPU_W) * busy_frac
    return load.logical_cpu_count * per_cpu_w


def _gauge_w(reading: Reading) -> float | None:
    is_power = reading.quantity == "power_w" and reading.kind is ReadingKind.GAUGE
    return reading.value if is_power else None


def _without_repeats(powers: Sequence[NodePower]) -> list[NodePower]:
    """Without twins, and with the packages of one witness: powercap, or else the board's chips."""
    counted = [p for p in powers if TWIN not in p.flags]
    packages = [p for p in counted if p.node is Node.PACKAGE]
    if not any(p.channel.startswith("powercap/") for p in packages):
        return counted
    return [
        p for p in counted if p.node is not Node.PACKAGE or p.channel.startswith("powercap/")
    ]  # fmt: skip


def _without_mirrors(
    powers: Sequence[NodePower], mirrored: Collection[tuple[str, str]]
) -> list[NodePower]:
    # A channel is dropped for one that counts, never for one that was itself left out.
    counted = {p.channel for p in powers}
    dropped = {repeat for kept, repeat in mirrored if kept in counted}
    return [p for p in powers if p.channel not in dropped]


def _input(node: Node, powers: Sequence[NodePower]) -> Estimate:
    power_w = sum(p.power_w for p in powers)
    # Meters of one make err alike: their doubts add up, they do not average out.
    power_w_u = sum(p.power_w_u or INPUT_U_FRAC * abs(p.power_w) for p in powers)
    return _estimate(power_w, power_w_u, QualityClass.B, (f"nodes:{node.value}",))


def _output(powers: Sequence[NodePower]) -> Estimate:
    power_w = sum(p.power_w for p in powers) / PSU_EFFICIENCY
    return _estimate(power_w, PSU_OUT_U_FRAC * power_w, QualityClass.C, ("nodes:psu_out",))


def _components(at: Mapping[Node, Sequence[NodePower]], load: HostLoad | None) -> Estimate | None:
    cpu_is_seen = bool(at[Node.PACKAGE] or at[Node.CHIP])
    covered = [
        *_covered(at, Node.PACKAGE, CPU_U_FRAC),
        *_covered(at, Node.DRAM, CPU_U_FRAC),
        *_covered(at, Node.GPU, GPU_U_FRAC),
        *_covered(at, Node.CHIP, RAIL_U_FRAC),
        *_covered(at, Node.BOARD, RAIL_U_FRAC),
    ]
    dc_w = sum(part.power_w for part in covered)
    if dc_w <= 0 or not (cpu_is_seen or load):
        return _host(load)
    rest = _rest(at, covered) if cpu_is_seen else _unseen_cpu(load)
    dc_w += sum(part.power_w for part in rest)
    dc_w_u = hypot(*(part.power_w_u for part in (*covered, *rest)))
    power_w = dc_w / PSU_EFFICIENCY
    power_w_u = power_w * hypot(dc_w_u / dc_w, PSU_EFFICIENCY_U / PSU_EFFICIENCY)
    power_w_u = max(power_w_u, COMPONENTS_U_FRAC * power_w)
    is_d = cpu_is_seen or power_w_u <= COMPONENTS_U_FRAC * power_w
    flags = [
        f"{what}:" + "+".join(part.name for part in parts)
        for what, parts in (("nodes", covered), ("remainder", rest))
        if parts
    ]
    return _estimate(power_w, power_w_u, QualityClass.D if is_d else QualityClass.E, tuple(flags))


def _covered(at: Mapping[Node, Sequence[NodePower]], node: Node, u_frac: float) -> list[_Part]:
    if not at[node]:
        return []
    power_w = sum(p.power_w for p in at[node])
    return [_Part(node.value, power_w, sum(p.power_w_u or u_frac * p.power_w for p in at[node]))]


def _rest(at: Mapping[Node, Sequence[NodePower]], covered: Sequence[_Part]) -> list[_Part]:
    # A board measured by its own rails has no second board around it.
    if not at[Node.PACKAGE]:
        return []
    count = len(at[Node.PACKAGE])
    served_w = sum(part.power_w for part in covered)
    dram = _Part("dram", count * DRAM_PER_PACKAGE_W, count * DRAM_PER_PACKAGE_W_U)
    return [
        *([] if at[Node.DRAM] else [dram]),
        _Part("board", count * BOARD_PER_PACKAGE_W, count * BOARD_PER_PACKAGE_W_U),
        _Part("fans", FANS_FRAC * served_w, FANS_FRAC_U * served_w),
    ]


def _unseen_cpu(load: HostLoad | None) -> list[_Part]:
    if load is None:
        return []
    power_w = host_power_w(load) * PSU_EFFICIENCY
    return [_Part("host", power_w, HOST_U_FRAC * power_w)]


def _host(load: HostLoad | None) -> Estimate | None:
    if load is None:
        return None
    power_w = host_power_w(load)
    is_known = load.busy_frac is not None
    u_frac = HOST_U_FRAC if is_known else hypot(HOST_U_FRAC, LOAD_UNKNOWN_U_FRAC)
    flags = ("nodes:host",) if is_known else ("nodes:host", "load:unknown")
    return _estimate(power_w, u_frac * power_w, QualityClass.E, flags)


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
