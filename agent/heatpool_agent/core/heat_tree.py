"""One circuit of a loop out of all that reads it: duplicates are chosen from, parallel units add.

Sensors of one `host` are one unit: the same CDU read over two protocols, or a flow meter beside a
temperature pair. Flow and temperatures are one sensor's wherever one tells all three: two maps of
one unit must not be mixed. Sensors of different hosts are units side by side, and so are the
connectors of one unit that each show flow and both temperatures.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heatpool_agent.core.consistency import stem
from heatpool_agent.core.levels import NOT_ADDED
from heatpool_agent.core.reading import Reading

_NEEDED = ("volume_flow_m3_h", "hot_c", "cold_c")

# Flow and temperatures of a unit had to be pieced together from sensors that each show some.
MIXED_SENSORS = "mixed_sensors"
# How much more doubtful these are than a sensor's own.
MIXED_U = 2.0

# A unit and, where it has several, its connector.
Branch = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """What flows through a loop and how warm; temperatures are weighted by flow."""

    volume_flow_m3_h: float | None = None
    hot_c: float | None = None
    cold_c: float | None = None
    reported_heat_w: float | None = None
    sensor_side: str = ""
    flags: tuple[str, ...] = ()


def branches(
    readings: Sequence[Reading], hosts: Mapping[str, str], refused: Iterable[Reading] = ()
) -> dict[Branch, Circuit]:
    """Each unit, or each connector of a unit, by itself.

    A sensor of which one of the three is among the `refused` is believed in nothing while another
    one of its unit tells all three.
    """
    lost = {r.sensor for r in refused if r.quantity in _NEEDED}
    by_host: dict[str, list[Reading]] = {}
    for reading in readings:
        if NOT_ADDED.isdisjoint(reading.flags):
            by_host.setdefault(hosts.get(reading.sensor, ""), []).append(reading)
    found: dict[Branch, Circuit] = {}
    for host, own in by_host.items():
        connectors = _connectors(own)
        found |= {(host, path): _circuit(group, lost) for path, group in connectors.items()}
        if not connectors:
            found[host, ""] = _circuit(own, lost)
    return found


def complete(found: Mapping[Branch, Circuit]) -> set[Branch]:
    """The branches that show flow and both temperatures."""
    return {branch for branch, circuit in found.items() if _is_complete(circuit)}


def remembered(known: Collection[Branch], found: Mapping[Branch, Circuit]) -> frozenset[Branch]:
    """The branches that were ever complete; a unit that showed its connectors is no branch."""
    every = {*known, *complete(found)}
    split = {host for host, path in every if path}
    return frozenset((host, path) for host, path in every if path or host not in split)


def per_unit(
    readings: Iterable[Reading], quantity: str, hosts: Mapping[str, str]
) -> dict[str, float]:
    """The best value of a quantity of each unit."""
    by_host: dict[str, list[Reading]] = {}
    for reading in readings:
        if reading.quantity == quantity:
            by_host.setdefault(hosts.get(reading.sensor, ""), []).append(reading)
    values = {host: best(own, quantity) for host, own in by_host.items()}
    return {host: value for host, value in values.items() if value is not None}


def joined(found: Mapping[Branch, Circuit], known: Collection[Branch] = ()) -> Circuit:
    """All branches as one circuit.

    Branches without flow add none. While a branch of `known` is silent there is no flow and no
    reported heat: the others alone would under-report.
    """
    whole = complete(found)
    if len(found) == 1 and found.keys() >= set(known):
        (only,) = found.values()
        return only
    told = [found[branch] for branch in sorted(whole)]
    reported = [c.reported_heat_w for c in found.values() if c.reported_heat_w is not None]
    flows = [circuit.volume_flow_m3_h or 0.0 for circuit in told]
    merged = Circuit(
        volume_flow_m3_h=sum(flows) if told else _first(found.values(), "volume_flow_m3_h"),
        hot_c=_weighted(told, flows, "hot_c") if told else _first(found.values(), "hot_c"),
        cold_c=_weighted(told, flows, "cold_c") if told else _first(found.values(), "cold_c"),
        reported_heat_w=sum(reported) if reported else None,
        sensor_side=_side(told or list(found.values())),
        flags=tuple(dict.fromkeys(flag for circuit in told for flag in circuit.flags)),
    )
    return merged if whole.issuperset(known) else _without_flow(merged)


def best(readings: Iterable[Reading], quantity: str) -> float | None:
    """The value of the least doubtful reading of a quantity; of equals the first."""
    told = [r for r in readings if r.quantity == quantity and NOT_ADDED.isdisjoint(r.flags)]
    chosen = min(told, key=_rank, default=None)
    return chosen.value if chosen else None


def _rank(reading: Reading) -> tuple[int, bool, float]:
    return len(reading.flags), reading.u is None, reading.u or 0.0


def _connectors(own: Sequence[Reading]) -> dict[str, list[Reading]]:
    """The connectors of the sensor that tells most of them; none where it is fewer than two."""
    groups: dict[str, dict[str, list[Reading]]] = {}
    for reading in own:
        path = reading.channel.partition("#")[0] if "#" in reading.channel else ""
        groups.setdefault(reading.sensor, {}).setdefault(
            path or stem(reading.channel), []
        ).append(reading)  # fmt: skip
    whole = [
        {path: group for path, group in paths.items() if _tells_all(group)}
        for paths in groups.values()
    ]
    most = max(whole, key=len, default={})
    return most if len(most) > 1 else {}


def _tells_all(group: Sequence[Reading]) -> bool:
    return {r.quantity for r in group}.issuperset(_NEEDED)


def _circuit(group: Sequence[Reading], lost: Collection[str]) -> Circuit:
    by_sensor: dict[str, list[Reading]] = {}
    for reading in group:
        by_sensor.setdefault(reading.sensor, []).append(reading)
    whole = {sensor: own for sensor, own in by_sensor.items() if _tells_all(own)}
    if not whole:
        # What lost a part is asked last; without it nothing would be known.
        trusted = [reading for reading in group if reading.sensor not in lost]
        pieced = _taken(trusted, group)
        is_mixed = _is_complete(pieced) and not _are_parts(by_sensor, lost)
        return replace(pieced, flags=(MIXED_SENSORS,)) if is_mixed else pieced
    chosen = min(whole, key=lambda sensor: (sensor in lost, _doubt(whole[sensor])))
    return _taken(whole[chosen], [reading for reading in group if reading.sensor not in lost])


def _taken(first: Sequence[Reading], others: Sequence[Reading]) -> Circuit:
    """Each quantity of the `first`, and of the `others` where these do not tell it."""
    flows = (r for r in (*first, *others) if r.quantity == "volume_flow_m3_h" and r.sensor_side)
    told = [_either(first, others, quantity) for quantity in (*_NEEDED, "reported_heat_w")]
    flow_m3_h, hot_c, cold_c, heat_w = told
    return Circuit(
        volume_flow_m3_h=flow_m3_h,
        hot_c=hot_c,
        cold_c=cold_c,
        reported_heat_w=heat_w,
        sensor_side=next((r.sensor_side for r in flows), ""),
    )


def _either(first: Sequence[Reading], others: Sequence[Reading], quantity: str) -> float | None:
    value = best(first, quantity)
    return best(others, quantity) if value is None else value


def _are_parts(by_sensor: Mapping[str, Sequence[Reading]], lost: Collection[str]) -> bool:
    """Whether these are made to stand together: flow sensors, and pairs of temperatures."""
    shown = [{r.quantity for r in own}.intersection(_NEEDED) for own in by_sensor.values()]
    made = ({"volume_flow_m3_h"}, {"hot_c", "cold_c"}, set[str]())
    return all(one in made for one in shown) and not any(name in lost for name in by_sensor)


def _doubt(own: Sequence[Reading]) -> tuple[int, int, float, float]:
    """What one complete sensor is ranked by; of equals the first is taken."""
    told = [min((r for r in own if r.quantity == name), key=_rank) for name in _NEEDED]
    u = [reading.u or 0.0 for reading in told]
    unknown = sum(reading.u is None for reading in told)
    return sum(len(reading.flags) for reading in told), unknown, u[0], u[1] + u[2]


def _is_complete(circuit: Circuit) -> bool:
    return None not in (circuit.volume_flow_m3_h, circuit.hot_c, circuit.cold_c)


def _without_flow(circuit: Circuit) -> Circuit:
    return Circuit(
        hot_c=circuit.hot_c, cold_c=circuit.cold_c, sensor_side=circuit.sensor_side
    )  # fmt: skip


def _weighted(told: Sequence[Circuit], flows: Sequence[float], name: str) -> float:
    # Where one runs backwards nothing is mixed: a weight must not be negative.
    weights = [abs(m3_h) for m3_h in flows] if any(flows) else [1.0] * len(told)
    shares = zip(weights, (getattr(circuit, name) for circuit in told), strict=True)
    return float(sum(weight * value for weight, value in shares) / sum(weights))


def _first(found: Iterable[Circuit], name: str) -> float | None:
    return next((v for c in found if (v := getattr(c, name)) is not None), None)


def _side(told: Sequence[Circuit]) -> str:
    sides = {circuit.sensor_side for circuit in told}
    return sides.pop() if len(sides) == 1 else ""
