"""Which channels stand for each level of a host: one witness of each thing, none silent.

A level of which one channel fell silent would under-report, so it is no level until that channel
speaks again. Two feeds are two meters; two ways to one chassis are one.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heatpool.units import J_PER_WH
from heatpool_agent.core import mute_cards
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.totals import Step

TWIN = "twin"
# Another reading says the same better, this one is the sum of others, or its level is not whole.
NOT_ADDED = frozenset({TWIN, "lower_rank", "set_copy", "outputs_below_half"})
# Adds up with another meter that shows the same, and nothing tells whether it is the same.
TWIN_SUSPECTED = "twin_suspected"
# Cards are listed beside a module, and nothing tells which of them lie in it.
CARDS_UNASSIGNED = "cards_unassigned"
# Refused for what they say; another reading of the same thing is there.
SAID_ELSEWHERE = frozenset({"metrics_contradicted", "counter_contradicted"}) | NOT_ADDED
# A counter of coarser steps shows no power from one pass to the next.
FINE_COUNT_J = 1.0
# A card that sleeps is not asked: waking one costs 5 to 25 W.
ASLEEP_CARD_W = 6.0
ASLEEP_CARD_W_U = 4.0

_COUNT_J = {"energy_j": 1.0, "energy_wh": float(J_PER_WH)}
# Feeds A and B, rows and racks: each meter of these measures something else.
_ADDED = frozenset({Node.SITE_METER, Node.PDU})
# What is known of a host that shows no power: its load, and the ratings of its cards.
_OF_LOAD = frozenset({Node.HOST, Node.GPU, Node.MODULE})
# Of these there is one set per host: two sensors, or two doors of one, see the same.
_ONE_WITNESS = frozenset(
    {Node.CHASSIS, Node.PSU_IN, Node.PSU_OUT, Node.PSYS, Node.PACKAGE, Node.DRAM}
)
# Doors of the machine itself, best first. Cards of two makers are two drivers' cards, while a
# BMC that also lists them repeats both.
_LOCAL = ("powercap", "perf", "perf_event", "nvml", "hwmon")


@dataclass(frozen=True, slots=True, order=True)
class Witness:
    """The reading that a figure was taken from."""

    sensor: str
    channel: str
    quantity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePower:
    """Mean electric power of one node, W, over the span that the estimate is for."""

    node: Node
    channel: str
    power_w: float
    power_w_u: float | None = None
    flags: tuple[str, ...] = ()
    sensor: str = ""
    host: str = ""
    is_counted: bool = False
    quantity: str = "power_w"

    @property
    def witness(self) -> Witness:
        """The reading that it was taken from: a counter where that is fine enough, else a gauge."""
        return Witness(self.sensor, self.channel, self.quantity)

    @property
    def is_local(self) -> bool:
        """Whether it is seen through one of the machine's own doors, as no other device is."""
        return bool(_door(self.channel))

    @property
    def name(self) -> str:
        """Sensor and channel: two controllers of one make name their channels alike."""
        return f"{self.sensor} {self.channel}" if self.sensor else self.channel


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLoad:
    """What is known of a host without any power sensor; absent share of busy time is None.

    `mute_rated_w` is what those of its cards that show no power may draw at most.
    """

    busy_frac: float | None
    logical_cpu_count: int
    witnesses: tuple[Witness, ...] = ()
    mute_rated_w: float = 0.0


Levels = Mapping[Node, Sequence[NodePower]]
# A sensor at a node, and the door of the machine that it looks through, if it is one.
Source = tuple[Node, str, str]


def node_powers(
    readings: Sequence[Reading],
    steps: Mapping[tuple[str, str], Step],
    hosts: Mapping[str, str] | None = None,
) -> tuple[NodePower, ...]:
    """Power of each channel, W: from its counter's step where that is fine enough, else its gauge.

    `steps` are those of `totals`, by sensor and channel; `hosts` says which server each sensor
    measures. Refused readings, and those that another one says better, are left out.
    """
    found: dict[tuple[str, str], NodePower] = {}
    for reading in readings:
        is_counter = reading.kind is ReadingKind.COUNTER
        key = (reading.sensor, reading.channel)
        if is_counter:
            power_w, power_w_u = _counter_w(reading, steps.get(key)), None
        else:
            power_w, power_w_u = _gauge_or_asleep_w(reading)
        if power_w is None or not is_admitted(reading) or not NOT_ADDED.isdisjoint(reading.flags):
            continue
        if is_counter or key not in found:
            found[key] = NodePower(
                sensor=reading.sensor,
                host=hosts.get(reading.sensor, "") if hosts else "",
                node=reading.node,
                channel=reading.channel,
                power_w=power_w,
                power_w_u=power_w_u,
                flags=reading.flags,
                is_counted=is_counter,
                quantity=reading.quantity,
            )
    return _one_way(found.values())


def _gauge_or_asleep_w(reading: Reading) -> tuple[float | None, float | None]:
    if reading.quantity == "is_suspended" and reading.value == 1.0:
        return ASLEEP_CARD_W, ASLEEP_CARD_W_U
    return gauge_w(reading), reading.u


def _one_way(powers: Iterable[NodePower]) -> tuple[NodePower, ...]:
    """Without counters of what the same device also shows as power, under another channel.

    Drivers of the machine itself keep both under one channel.
    """
    told = tuple(powers)
    shown = {
        (p.sensor, p.node) for p in told if not p.is_counted and not _door(p.channel)
    }  # fmt: skip
    if not shown:
        return told
    return tuple(
        p
        for p in told
        if not p.is_counted or _door(p.channel) or (p.sensor, p.node) not in shown
    )  # fmt: skip


def host_load(readings: Sequence[Reading]) -> HostLoad | None:
    """What the readings of `host` say; None without the number of logical CPUs."""
    told = {r.quantity: r for r in readings if r.node is Node.HOST and is_admitted(r)}
    if "logical_cpu_count" not in told:
        return None
    used = [told[name] for name in ("logical_cpu_count", "busy_frac") if name in told]
    return HostLoad(
        busy_frac=told["busy_frac"].value if "busy_frac" in told else None,
        logical_cpu_count=int(told["logical_cpu_count"].value),
        witnesses=tuple(Witness(r.sensor, r.channel, r.quantity) for r in used),
        mute_rated_w=mute_cards.rated_w(readings),
    )


def host_loads(readings: Sequence[Reading], hosts: Mapping[str, str]) -> dict[str, HostLoad]:
    """What is known of each host's load, by host."""
    told: dict[str, list[Reading]] = {}
    for reading in readings:
        if reading.node in _OF_LOAD:
            told.setdefault(hosts.get(reading.sensor, ""), []).append(reading)
    loads = {host: host_load(own) for host, own in told.items()}
    return {host: load for host, load in loads.items() if load is not None}


def gauge_w(reading: Reading) -> float | None:
    """The power that a gauge shows, W; None for any other reading."""
    is_power = reading.quantity == "power_w" and reading.kind is ReadingKind.GAUGE
    return reading.value if is_power else None


def _counter_w(reading: Reading, step: Step | None) -> float | None:
    unit_j = _COUNT_J.get(reading.quantity)
    if step is None or unit_j is None or unit_j * 10.0**reading.exponent > FINE_COUNT_J:
        return None
    return step.power_w


def seen(powers: Iterable[NodePower], readings: Iterable[Reading] = ()) -> dict[Source, int]:
    """How many channels of each source carry power now, those of `readings` that are refused too.

    Counted and not named: which of two excerpts of one thing leads may change from pass to pass.
    """
    counts = Counter(
        _source(r.node, r.sensor, r.channel)
        for r in readings
        if gauge_w(r) is not None and not is_admitted(r) and SAID_ELSEWHERE.isdisjoint(r.flags)
    )
    refused = set(counts)
    for p in powers:
        source = _source(p.node, p.sensor, p.channel)
        # A register of a thing whose gauge is refused is no second thing.
        is_repeat = p.is_counted and not source[2] and source in refused
        if NOT_ADDED.isdisjoint(p.flags) and not is_repeat:
            counts[source] += 1
    return counts


def levels(
    powers: Sequence[NodePower],
    *,
    mirrored: Collection[tuple[str, str]] = (),
    known: Mapping[Source, int] | None = None,
) -> dict[Node, tuple[NodePower, ...]]:
    """The channels of each level of one host that is whole; none of them shows another's watts.

    `mirrored` are pairs of names that show one thing (`mirrors`); `known` is how many channels
    of each source ever carried power at once: a level without one of them is empty.
    """
    grouped: dict[Source, list[NodePower]] = {}
    for power in powers:
        if NOT_ADDED.isdisjoint(power.flags):
            source = _source(power.node, power.sensor, power.channel)
            grouped.setdefault(source, []).append(power)
    mute = {s for s, count in (known or {}).items() if len(grouped.get(s, ())) < count}
    if any(source[0] is Node.MODULE for source in grouped):
        _part_cards(grouped, mute)
    return {
        node: _without_mirrors(_chosen(node, grouped, mute), mirrored)
        for node in dict.fromkeys(source[0] for source in (*grouped, *mute))
    }


def _source(node: Node, sensor: str, channel: str) -> Source:
    return node, sensor, _door(channel)


def _door(channel: str) -> str:
    """The machine's own door that a channel looks through; empty for another device."""
    door = channel.partition("/")[0]
    return door if door in _LOCAL else ""


def _part_cards(grouped: dict[Source, list[NodePower]], mute: set[Source]) -> None:
    """Leaves the cards that lie in no module; a list that shows no address cannot tell them."""
    modules = {s: powers for s, powers in grouped.items() if s[0] is Node.MODULE}
    inside = {_address(p.channel) for powers in modules.values() for p in powers}
    outside = [s for s in {*grouped, *mute} if s[0] is Node.GPU and not s[2]]
    has_cards = any(s[0] is Node.GPU and s[2] for s in {*grouped, *mute})
    for source in outside:
        grouped.pop(source, None)
        mute.discard(source)
    for source in [s for s in grouped if s[0] is Node.GPU]:
        beside = [p for p in grouped[source] if _address(p.channel) not in inside]
        grouped[source] = beside
        if not beside:
            del grouped[source]
    if outside and not has_cards:
        for source, powers in modules.items():
            grouped[source] = [replace(p, flags=(*p.flags, CARDS_UNASSIGNED)) for p in powers]


def _address(channel: str) -> str:
    """The card that a channel belongs to: its door and the step behind."""
    return "/".join(channel.split("/")[:2])


def _chosen(
    node: Node, grouped: Mapping[Source, list[NodePower]], silent: Collection[Source]
) -> tuple[NodePower, ...]:
    mute = [source for source in silent if source[0] is node]
    own = {source: powers for source, powers in grouped.items() if source[0] is node}
    if node in _ADDED:
        return () if mute else _joined(own.values())
    whole = {source: powers for source, powers in own.items() if source not in mute}
    if node not in _ONE_WITNESS:
        local = [powers for (_, _, door), powers in whole.items() if door]
        if local and not any(door for _, _, door in mute):
            return _joined(local)
        whole = {source: powers for source, powers in whole.items() if not source[2]}
    if not whole:
        return ()
    return tuple(whole[min(whole, key=lambda source: _rank(source, whole[source]))])


def _joined(sources: Iterable[Sequence[NodePower]]) -> tuple[NodePower, ...]:
    return tuple(power for powers in sources for power in powers)


def _rank(source: Source, powers: Sequence[NodePower]) -> tuple[int, int, float, str]:
    place = _LOCAL.index(source[2]) if source[2] else len(_LOCAL)
    doubt = max(p.power_w_u / p.power_w if p.power_w_u and p.power_w > 0 else 1.0 for p in powers)
    return place, -len(powers), doubt, source[1]


def _without_mirrors(
    powers: tuple[NodePower, ...], mirrored: Collection[tuple[str, str]]
) -> tuple[NodePower, ...]:
    if not mirrored:
        return powers
    # A channel is dropped for one that counts, never for one that was itself left out.
    counted = {p.name for p in powers}
    dropped = {repeat for kept, repeat in mirrored if kept in counted}
    return tuple(p for p in powers if p.name not in dropped)
