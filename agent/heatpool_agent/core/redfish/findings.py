"""What was found in one pass: figures with their rank, until the last word on each is spoken.

An excerpt and the Sensor at its `DataSourceUri` are one thing and one finding. Its channel is the
Sensor's path, whether the Sensor was read or not, so that a document that fails once moves nothing;
a coolant circuit's channels are all its connector's.
"""

from dataclasses import dataclass, field
from typing import Any

from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.reading import Node, Reading, ReadingKind
from heatpool_agent.core.redfish import flags
from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.figures import (
    Measure,
    in_unit,
    number,
    standard_u,
    whole_count,
)
from heatpool_agent.core.redfish.service import Resource, Service
from heatpool_agent.core.redfish.shapes import inside, table, text

# States in which a device keeps an old figure or a zero that means nothing.
GONE = frozenset({"Absent", "Disabled", "UnavailableOffline", "UnavailableRecovery", "Deferring"})
# Two looks at a busy machine differ by less than this; more is a quarrel.
_QUARREL_FRAC = 0.10
_SAME_FRAC = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where figures belong: node and loop, the thing of which they are, and how well they say it.

    Within a group (one chassis' input, all supplies' inputs) only the lowest rank is added.
    """

    node: Node
    loop: str = ""
    group: str = ""
    rank: int = 0
    part: str = ""
    label: str = ""
    flags: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class Finding:
    """One figure on its way to a reading."""

    channel: str
    measure: Measure
    value: float
    place: Place
    raw: int | None = None
    u: float | None = None
    generation: str = ""
    flags: list[str] = field(default_factory=list)

    def flag(self, *words: str) -> None:
        """Marks the figure, each word once."""
        self.flags += [word for word in words if word not in self.flags]

    @property
    def is_refused(self) -> bool:
        """Whether the figure may not enter an estimate."""
        return not flags.REFUSED.isdisjoint(self.flags)

    @property
    def is_added(self) -> bool:
        """Whether a sum may hold the figure."""
        return not self.is_refused and flags.NOT_ADDED.isdisjoint(self.flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One of the two that may tell a figure."""

    value: float
    written: Any
    unit: str = ""
    u: float | None = None
    generation: str = ""
    is_dated: bool = False

    @property
    def is_text(self) -> bool:
        return isinstance(self.written, str)


class Findings:
    """All figures of one pass, and the documents that carry them."""

    def __init__(self, service: Service, stamp: Stamp) -> None:
        self.service = service
        self.stamp = stamp
        self.all: list[Finding] = []
        self.states: list[Reading] = []
        # Documents to read again; also where a figure is null today.
        self.sources: dict[str, None] = {}
        self.intervals: list[Any] = []
        self._claimed: set[tuple[str, str]] = set()

    def is_claimed(self, sensor: Resource) -> bool:
        """Whether an excerpt has told this Sensor's figure already."""
        return any((sensor.path, word) in self._claimed for word in ("power", "energy"))

    def excerpt(
        self, resource: Resource, name: str, measure: Measure, place: Place, *, pointer: str = ""
    ) -> Finding | None:
        """The figure of a property, told by its own document or by its Sensor; None if absent."""
        body = _at(resource.body, pointer)
        if body.get(name) is None:
            return None
        self.sources[resource.source] = None
        inner = table(body, name)
        path = inside(inner.get("DataSourceUri"))
        own_channel = f"{resource.path}{'' if '#' in resource.path else '#'}{pointer}/{name}"
        if not self._claim(path or own_channel, measure):
            return None
        channels = (path or own_channel, own_channel)
        own = _own_word(inner.get("Reading") if inner else body[name], measure)
        sensor = self.service.resources.get(path)
        theirs = self._sensor_word(sensor, measure) if sensor else None
        # The figures of a coolant circuit belong to one moment and so to one document.
        ordered = channels[::-1] if place.node is Node.CDU else channels
        return self._settled(own, theirs, ordered, measure=measure, place=place)

    def sensor(self, resource: Resource, measure: Measure, place: Place) -> Finding | None:
        """The figure of a Sensor that no excerpt told."""
        theirs = self._sensor_word(resource, measure)
        if not self._claim(resource.path, measure) or theirs is None:
            return None
        return self._kept(theirs, resource.path, measure=measure, place=place)

    def state(self, channel: str, quantity: str, value: float, place: Place) -> None:
        """A state that holds: 1 or 0, or what a type plate says."""
        self.states.append(
            Reading(
                sensor=self.stamp.sensor,
                channel=channel,
                quantity=quantity,
                kind=ReadingKind.STATE,
                value=value,
                event_ns=self.stamp.event_ns,
                boot_ns=self.stamp.boot_ns,
                node=place.node,
                loop=loop_of(place, self.stamp),
                label=place.label,
                flags=place.flags,
            )
        )

    def _claim(self, channel: str, measure: Measure) -> bool:
        key = (channel, measure.family or measure.quantity)
        if key in self._claimed:
            return False
        self._claimed.add(key)
        return True

    def _sensor_word(self, sensor: Resource, measure: Measure) -> _Told | None:
        body = sensor.body
        if (told := text(body, "ReadingType")) and told not in measure.types:
            return None
        self.sources[sensor.source] = None
        self.intervals.append(body.get("SensingInterval"))
        reading = number(body.get("Reading"))
        if reading is None or text(table(body, "Status"), "State") in GONE:
            return None
        unit = text(body, "ReadingUnits")
        value = in_unit(reading, measure, unit)
        if value is None:
            return None
        return _Told(
            value=value,
            written=body.get("Reading"),
            unit=unit,
            u=standard_u(body, reading, value),
            generation=text(body, "SensorResetTime"),
            is_dated=bool(text(body, "ReadingTime")),
        )

    def _settled(
        self,
        own: _Told | None,
        theirs: _Told | None,
        channels: tuple[str, str],
        *,
        measure: Measure,
        place: Place,
    ) -> Finding | None:
        channel, second_channel = channels
        first, second = _order(own, theirs, place.node)
        if first is None:
            return None
        kept = self._kept(first, channel, measure=measure, place=place)
        if second is None or _apart(first, second) <= _SAME_FRAC:
            return kept
        kept.flag(flags.EXCERPT_DIFFERS)
        if _apart(first, second) > _QUARREL_FRAC and channel != second_channel:
            self._kept(second, second_channel, measure=measure, place=place).flag(
                flags.EXCERPT_DIFFERS, flags.METRICS_CONTRADICTED
            )
        return kept

    def _kept(self, told: _Told, channel: str, *, measure: Measure, place: Place) -> Finding:
        is_counter = measure.kind is ReadingKind.COUNTER
        finding = Finding(
            channel=channel,
            measure=measure,
            value=told.value,
            place=place,
            raw=whole_count(told.written, measure, told.unit) if is_counter else None,
            u=told.u,
            generation=told.generation,
            flags=list(place.flags),
        )
        if told.is_text:
            finding.flag(flags.NUMBER_AS_TEXT)
        self.all.append(finding)
        return finding


def loop_of(place: Place, stamp: Stamp) -> str:
    """A circuit is of its own loop or none; power and all else warm the sensor's loop."""
    return place.loop if place.loop or place.node is Node.CDU else stamp.loop


def _at(body: Document, pointer: str) -> Document:
    """The object at a pointer of ours, `/PowerSupplies/0`."""
    for step in pointer.split("/")[1:]:
        inner: Any = body[int(step)] if isinstance(body, list) else body[step]
        body = inner
    return body


def _own_word(written: Any, measure: Measure) -> _Told | None:
    value = number(written)
    told = None if value is None else in_unit(value, measure)
    return None if told is None else _Told(value=told, written=written)


def _order(
    own: _Told | None, theirs: _Told | None, node: Node
) -> tuple[_Told | None, _Told | None]:
    """Who is believed first: the Sensor; of a coolant circuit only if it knows its own time."""
    if own is None or theirs is None:
        return own or theirs, None
    if node is Node.CDU and not theirs.is_dated:
        return own, theirs
    return theirs, own


def _apart(one: _Told, other: _Told) -> float:
    largest = max(abs(one.value), abs(other.value))
    return abs(one.value - other.value) / largest if largest else 0.0
