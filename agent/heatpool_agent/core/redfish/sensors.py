"""Sensors that no other resource told: by what they are attached to, never all of one type."""

from heatpool_agent.core.reading import Node
from heatpool_agent.core.redfish import flags
from heatpool_agent.core.redfish.chassis import CONTEXTS, SENSORS, chassis_place
from heatpool_agent.core.redfish.figures import AMBIENT, ENERGY_J, POWER, REGISTER, Measure
from heatpool_agent.core.redfish.findings import Findings, Place
from heatpool_agent.core.redfish.service import Resource
from heatpool_agent.core.redfish.shapes import inside, table, text, words_of

_MEASURES = {
    "Power": POWER,
    "EnergykWh": REGISTER,
    "EnergyWh": REGISTER,
    "EnergyJoules": ENERGY_J,
    "Temperature": AMBIENT,
    # Some Sensors tell their unit only.
    "Cel": AMBIENT,
    "kW.h": REGISTER,
    "J": ENERGY_J,
}
_IN, _OUT = frozenset({"input", "in"}), frozenset({"output", "out"})
# What a name says of direction and quantity; the rest names the thing.
_QUALIFIERS = _IN | _OUT | {"power", "energy", "total", "standby", "watts"}
# Of the parts of a thing, its input is told before its own figure and that before its output.
_SUB_RANK = {"Input": 0, "": 1, "Output": 2}
_WHOLE, _OTHER = 0, 5
# Joules wrap where kWh do not.
_JOULE = 1


def by_context(found: Findings) -> None:
    """Power and energy of chassis, supplies and parts, each by its context."""
    service = found.service
    pointed = _controlled(found)
    sets = {words_of(text(sensor.body, "Id")) for sensor in service.of_kind("Sensor")}
    for sensor in service.of_kind("Sensor"):
        told = text(sensor.body, "ReadingType") or text(sensor.body, "ReadingUnits")
        measure = _MEASURES.get(told)
        if measure is None or found.is_claimed(sensor):
            continue
        place = _place(sensor, measure, found, pointed)
        if place and _is_twin(sensor, sets):
            place = _flagged(place, flags.SET_COPY)
        if place:
            found.sensor(sensor, measure, place)


def _controlled(found: Findings) -> frozenset[tuple[str, ...]]:
    """Things of which a control limits the power of a whole chassis: they are its input.

    A control names the power Sensor; the energy one beside it bears the same name and contexts.
    """
    things = set()
    for control in found.service.of_kind("Control"):
        if text(control.body, "PhysicalContext") != "Chassis":
            continue
        path = inside(table(control.body, "Sensor").get("DataSourceUri"))
        sensor = found.service.resources.get(path)
        if sensor and text(sensor.body, "ReadingType") == "Power":
            things.add(_thing(sensor, found))
    return frozenset(things)


def _thing(sensor: Resource, found: Findings) -> tuple[str, ...]:
    names = ("Name", "PhysicalContext", "PhysicalSubContext")
    chassis = found.service.chassis_of(sensor.path)
    return (chassis, *(text(sensor.body, name) for name in names))


def _place(
    sensor: Resource,
    measure: Measure,
    found: Findings,
    pointed: frozenset[tuple[str, ...]],
) -> Place | None:
    context = text(sensor.body, "PhysicalContext")
    chassis = found.service.chassis_of(sensor.path)
    if measure is AMBIENT:
        is_air = context == "Intake" and chassis not in found.service.cooling
        return Place(node=Node.CHASSIS, group=chassis) if is_air else None
    rank = SENSORS + (_JOULE if measure is ENERGY_J else 0)
    if _thing(sensor, found) in pointed:
        return chassis_place(chassis, found, rank=rank)
    if context == "Chassis":
        return _whole(sensor, chassis, rank, found)
    if context == "PowerSupply":
        # What a cooling unit's own supplies take in warms no loop of ours.
        return None if chassis in found.service.cooling else _psu(sensor, chassis, rank)
    if node := CONTEXTS.get(context):
        rank += 2 * _SUB_RANK.get(text(sensor.body, "PhysicalSubContext"), 1)
        label = text(sensor.body, "Name")
        return Place(node=node, group=node.value, rank=rank, label=label)
    return None


def _whole(sensor: Resource, chassis: str, rank: int, found: Findings) -> Place:
    words = set(words_of(text(sensor.body, "Id")))
    if _direction(sensor) == "Output":
        # What a shelf gives out is what its supplies give out.
        group = f"{chassis}#{Node.PSU_OUT.value}"
        return Place(node=Node.PSU_OUT, group=group, rank=rank + _OTHER)
    is_part = not words & {"total", "system", "chassis"} and bool(words - _QUALIFIERS)
    rank += _OTHER if is_part else _WHOLE
    return chassis_place(chassis, found, rank=rank)


def _psu(sensor: Resource, chassis: str, rank: int) -> Place | None:
    direction = _direction(sensor)
    # The energy of a supply is counted at its input unless it says otherwise.
    if not direction and text(sensor.body, "ReadingType") == "Power":
        return None
    node = Node.PSU_OUT if direction == "Output" else Node.PSU_IN
    words = words_of(text(sensor.body, "Id"))
    part = "".join(word for word in words if word not in _QUALIFIERS)
    group = f"{chassis}#{node.value}"
    label = text(sensor.body, "Name")
    return Place(node=node, group=group, rank=rank, part=f"{chassis}#{part}", label=label)


def _direction(sensor: Resource) -> str:
    """`Input` or `Output` by the Sensor's context, else by its name, else nothing."""
    if told := text(sensor.body, "PhysicalSubContext"):
        return told
    words = set(words_of(text(sensor.body, "Id")))
    if words & _OUT:
        return "Output"
    return "Input" if words & _IN else ""


def _is_twin(sensor: Resource, known: set[tuple[str, ...]]) -> bool:
    """Whether the name is another Sensor's and one letter: the share of one feed or phase."""
    words = words_of(text(sensor.body, "Id"))
    return len(words) > 1 and len(words[-1]) == 1 and words[-1].isalpha() and words[:-1] in known


def _flagged(place: Place, word: str) -> Place:
    return Place(
        node=place.node,
        loop=place.loop,
        group=place.group,
        rank=place.rank,
        part=place.part,
        label=place.label,
        flags=(*place.flags, word),
    )
