"""Electric power of all hosts of one loop: shared meters, else each host's best cover.

site_meter and pdu of no named host cover every host of their loop. Without them the hosts add up,
each by the best of its own levels. Levels of one host that contradict each other for long lose the
one that more others speak against. Packages that look like one are two where the wall says so.
Source: physics.md 5.1; agent.md 5.1, 6 A, B.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import hypot

from heatpool.sample import Estimate, Provenance, QualityClass
from heatpool.units import NS_PER_S
from heatpool_agent.core import walls
from heatpool_agent.core.attribution import (
    HOST_U_FRAC,
    LEAST_U_W,
    Cover,
    Part,
    Witness,
    cover,
    input_power,
    witnesses,
)
from heatpool_agent.core.coefficients import Learned
from heatpool_agent.core.contradictions import (
    ALL,
    COMPONENTS,
    HOSTS,
    SHARED,
    Contradiction,
    Pair,
    above_hosts,
    contradictions,
    lasting,
    level_of,
    pair_of,
    refused_levels,
)
from heatpool_agent.core.learned_power import improved
from heatpool_agent.core.levels import HostLoad, Levels, NodePower, Source, levels
from heatpool_agent.core.reading import Node

# psys has been seen below its packages: it must hold for long before it is believed.
PSYS_LASTS_S = 600.0
LAST = "last"
# Meters of one server.
_METERS = frozenset({Node.CHASSIS, Node.PSU_IN, Node.PSU_OUT})
# Hosts that are less of the sum than this do not set its class.
MINOR_FRAC = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPower:
    """One server: power at the wall, W, and its parts; the empty name is this machine."""

    host: str
    cover: Cover


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPower:
    """Electric power of a loop's hosts, W: the whole, the hosts in it, and what no host shows.

    `unseen` is there only under a shared meter; hosts and unseen then add up to the whole.
    `is_single`: the whole is one channel of one device and no sum. `witnesses` are the readings
    that the whole was taken from.
    """

    whole: Estimate
    level: str
    hosts: tuple[HostPower, ...] = ()
    unseen: Part | None = None
    is_single: bool = False
    witnesses: tuple[Witness, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeState:
    """Since when, ns of boot time, levels contradict each other, psys holds, walls deny mirrors.

    `last` is the last power, W, that each host's sensors showed.
    """

    since_ns: Mapping[Pair, int] = field(default_factory=dict)
    psys_ns: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, float] = field(default_factory=dict)
    two_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """One look at the hosts of a loop.

    `refused` are the levels that lasting contradictions cost, by host and level, each with its
    mark (`plausible`).
    """

    power: LoopPower | None
    contradictions: tuple[Contradiction, ...] = ()
    refused: Mapping[tuple[str, str], str] = field(default_factory=dict)


def grow(
    powers: Sequence[NodePower],
    state: TreeState,
    *,
    loads: Mapping[str, HostLoad],
    known: Mapping[Source, int] | None = None,
    hosts: Mapping[str, str] | None = None,
    mirrored: Collection[tuple[str, str]] = (),
    learned: Mapping[str, Learned] | None = None,
    boot_ns: int,
) -> tuple[Tree, TreeState]:
    """The tree of one loop now, and what it leaves for the next look.

    `loads` and what is `learned` are by host, `hosts` names the host of each sensor.
    """
    known_of = learned or {}
    two_ns, kept = walls.denied(powers, state.two_ns, mirrored, boot_ns)
    shared, own = _split(powers, known or {}, hosts or {}, kept)
    psys_ns = {
        name: state.psys_ns.get(name, boot_ns) for name in own if _psys_holds(own[name])
    }  # fmt: skip
    proven = {name for name, ns in psys_ns.items() if boot_ns - ns >= PSYS_LASTS_S * NS_PER_S}
    inside = [clash for name in own for clash in contradictions(name, own[name])]
    refused = refused_levels(lasting(inside, state.since_ns, boot_ns))
    plain = {
        name: best
        for name in sorted({*own, *loads})
        if (best := _cover(own.get(name, {}), name, loads.get(name), refused, proven))
    }
    covers = [
        HostPower(host=name, cover=improved(best, loads.get(name), known_of.get(name)))
        for name, best in plain.items()
    ]
    covers = _with_silent(covers, own, state.last)
    above = above_hosts(shared, summed(_told(covers)))
    refused |= refused_levels(lasting(above, state.since_ns, boot_ns))
    found = (*inside, *above)
    power = _loop_power(
        {n: level for n, level in shared.items() if (ALL, n.value) not in refused}, covers
    )
    since_ns = {key: state.since_ns.get(key, boot_ns) for key in map(pair_of, found)}
    return (
        Tree(power=power, contradictions=found, refused=refused),
        TreeState(since_ns=since_ns, psys_ns=psys_ns, last=_last(covers), two_ns=two_ns),
    )


def summed(hosts: Sequence[HostPower]) -> Estimate | None:
    """Power of several hosts, W; doubts of one kind of meter or prior add up, kinds do not."""
    wholes = [host.cover.whole for host in hosts]
    if len(wholes) < 2:
        return wholes[0] if wholes else None
    doubts: dict[str, float] = {}
    for host in hosts:
        doubts[host.cover.level] = doubts.get(host.cover.level, 0.0) + host.cover.whole.u
    return Estimate(
        value=sum(whole.value for whole in wholes),
        u=hypot(*doubts.values()),
        quality=_class(wholes),
        provenance=Provenance.ELECTRIC,
        flags=tuple(dict.fromkeys(flag for host in hosts for flag in _flags(host))),
    )


def metered_power(
    powers: Sequence[NodePower],
    host: str,
    *,
    known: Mapping[Source, int],
    hosts: Mapping[str, str],
) -> Estimate | None:
    """What the servers' own meters show together, W, of one host or, without a name, of all.

    None where a server is silent or seen by its components alone: the figure must be whole.
    """
    counts = Counter((p.node, p.sensor) for p in powers)
    inner = [
        p
        for p in powers
        if p.node in _METERS
        and host in ("", p.host)
        # Of two supplies on two feeds one alone is half a server.
        and (p.node is Node.CHASSIS or counts[p.node, p.sensor] > 1)
    ]
    if not inner:
        return None
    expected = {hosts.get(sensor, "") for _, sensor, _ in known} if not host else {host}
    expected &= {p.host for p in powers if p.node not in SHARED} | {
        hosts.get(sensor, "") for node, sensor, _ in known if node not in SHARED
    }
    found, _ = grow(inner, TreeState(), loads={}, known=_inner(known), hosts=hosts, boot_ns=0)
    told = _told(found.power.hosts) if found.power is not None else []
    if not told or expected - {one.host for one in told}:
        return None
    return summed(told)


def _inner(known: Mapping[Source, int]) -> dict[Source, int]:
    return {source: count for source, count in known.items() if source[0] in _METERS}


def _split(
    powers: Sequence[NodePower],
    known: Mapping[Source, int],
    hosts: Mapping[str, str],
    mirrored: Collection[tuple[str, str]],
) -> tuple[Levels, dict[str, dict[Node, Sequence[NodePower]]]]:
    """The levels that cover all hosts, and those of each host."""
    at: dict[str | None, list[NodePower]] = {}
    for power in powers:
        is_shared = power.node in SHARED and not power.host
        at.setdefault(None if is_shared else power.host, []).append(power)
    known_at: dict[str | None, dict[Source, int]] = {}
    for source, count in known.items():
        host = hosts.get(source[1], "")
        is_shared = source[0] in SHARED and not host
        known_at.setdefault(None if is_shared else host, {})[source] = count
    every = {
        name: levels(at.get(name, ()), mirrored=mirrored, known=known_at.get(name))
        for name in {*at, *known_at}
    }
    shared = every.pop(None, {})
    return shared, {name: dict(found) for name, found in every.items() if name is not None}


def _cover(
    own: Levels,
    name: str,
    load: HostLoad | None,
    refused: Collection[tuple[str, str]],
    proven: Collection[str],
) -> Cover | None:
    kept = {node: level for node, level in own.items() if (name, node.value) not in refused}
    if name not in proven:
        kept[Node.PSYS] = ()
    if (name, COMPONENTS) in refused:
        kept = {node: level for node, level in kept.items() if level_of(node) != COMPONENTS}
    return cover(kept, load=load)


def _loop_power(shared: Levels, hosts: Sequence[HostPower]) -> LoopPower | None:
    for node in SHARED:
        if shared.get(node):
            whole = input_power(node, shared[node])
            told = tuple(_told(hosts))
            wholes = [h.cover.whole for h in told]
            rest_w = whole.value - sum(w.value for w in wholes)
            rest_w_u = hypot(whole.u, *(w.u for w in wholes))
            unseen = Part("unseen", rest_w, rest_w_u, is_measured=False)
            return LoopPower(
                whole=whole,
                level=node.value,
                hosts=told,
                unseen=unseen,
                is_single=len(shared[node]) == 1,
                witnesses=witnesses(shared[node]),
            )
    whole_of_hosts = summed(hosts)
    if whole_of_hosts is None:
        return None
    is_single = len(hosts) == 1 and hosts[0].cover.is_single
    return LoopPower(
        whole=whole_of_hosts,
        level=HOSTS,
        hosts=tuple(hosts),
        is_single=is_single,
        witnesses=tuple(witness for host in hosts for witness in host.cover.witnesses),
    )


def _with_silent(
    covers: Sequence[HostPower], known: Collection[str], last: Mapping[str, float]
) -> list[HostPower]:
    """The hosts, and for those that fell silent beside others what they drew last.

    Without it the sum of many would under-report for the silence of one.
    """
    silent = set(known) - {host.host for host in covers}
    held = [_held(name, last[name]) for name in sorted(silent & last.keys())] if covers else []
    return [*covers, *held]


def _held(name: str, power_w: float) -> HostPower:
    u_w = HOST_U_FRAC * power_w
    whole = Estimate(
        value=power_w,
        u=max(u_w, LEAST_U_W),
        quality=QualityClass.E,
        provenance=Provenance.ELECTRIC,
        flags=(f"nodes:{LAST}",),
    )
    part = Part(LAST, power_w, whole.u, is_measured=False)
    return HostPower(host=name, cover=Cover(level=LAST, whole=whole, parts=(part,)))


def _last(covers: Iterable[HostPower]) -> dict[str, float]:
    return {
        host.host: host.cover.whole.value for host in covers if host.cover.level != Node.HOST.value
    }  # fmt: skip


def _told(hosts: Iterable[HostPower]) -> list[HostPower]:
    """Hosts that a sensor shows something of; a model of the load, learnt or not, shows nothing."""
    return [
        host
        for host in hosts
        if host.cover.whole.quality < QualityClass.E and host.cover.level != Node.HOST.value
    ]


def _class(wholes: Iterable[Estimate]) -> QualityClass:
    """The worst class but that of hosts which together are a minor share."""
    worst_first = sorted(wholes, key=lambda whole: -whole.quality)
    total_w = sum(whole.value for whole in worst_first)
    passed_w = 0.0
    for whole in worst_first:
        passed_w += whole.value
        if passed_w > MINOR_FRAC * total_w:
            return whole.quality
    return worst_first[0].quality


def _flags(host: HostPower) -> list[str]:
    if not host.host:
        return list(host.cover.whole.flags)
    named = (flag.partition(":") for flag in host.cover.whole.flags)
    return [f"{what}:{host.host}/{of}" for what, _, of in named]


def _psys_holds(own: Levels) -> bool:
    inner_w = sum(p.power_w for node in (Node.PACKAGE, Node.DRAM) for p in own.get(node, ()))
    psys = own.get(Node.PSYS)
    return bool(psys) and sum(p.power_w for p in psys or ()) >= inner_w > 0
