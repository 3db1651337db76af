"""All readings of one pass over a service, each thing once or marked."""

from collections.abc import Mapping

from heatpool_agent.core.decode import Stamp
from heatpool_agent.core.reading import Node, Reading
from heatpool_agent.core.redfish import chassis, coolant, flags, psu, sensors
from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.findings import Finding, Findings, loop_of
from heatpool_agent.core.redfish.service import Service, linked_paths, service_of
from heatpool_agent.core.redfish.shapes import duration_s

_NOBODY = Stamp(sensor="", loop="", event_ns=0, boot_ns=0)
_MAX_STEPS = 8


def redfish_readings(
    documents: Mapping[str, Document], stamp: Stamp, *, primary_loop: str = ""
) -> tuple[Reading, ...]:
    """What the documents say now; channels are their paths, `#/pointer` where one holds many.

    Refused figures (`flags.REFUSED`) and those that no sum may hold (`flags.NOT_ADDED`) are among
    them, marked. Documents that discovery read and no pass reads again belong in, too: they tell
    owners and ratings.
    """
    found = _found(documents, stamp, primary_loop=primary_loop)
    return (*(_reading(finding, stamp) for finding in found.all), *found.states)


def polled(documents: Mapping[str, Document]) -> tuple[str, ...]:
    """Paths of the documents that carry readings, to be read again in each pass.

    Those of a figure that is null today are among them.
    """
    sources = _found(documents, _NOBODY).sources
    return tuple(path for path in documents if path.partition("#")[0].rstrip("/") in sources)


def sensing_interval_s(documents: Mapping[str, Document]) -> float | None:
    """How often the quickest Sensor that is read measures, in s; absent if none says."""
    spans_s = [duration_s(told) for told in _found(documents, _NOBODY).intervals]
    return min((span_s for span_s in spans_s if span_s is not None), default=None)


def _found(documents: Mapping[str, Document], stamp: Stamp, *, primary_loop: str = "") -> Findings:
    service = service_of(documents)
    found = Findings(service, stamp)
    coolant.connectors(found, primary_loop=primary_loop)
    chassis.environment(found)
    psu.supplies(found)
    chassis.distribution(found)
    chassis.fans(found)
    chassis.legacy_input(found)
    sensors.by_context(found)
    psu.counters_judged(found)
    _ranked(found.all)
    _nested(service, found.all)
    psu.outputs_judged(found)
    coolant.pumps(found)
    coolant.leaks(found)
    return found


def _ranked(findings: list[Finding]) -> None:
    """Of the sources of one thing, the best that is not refused stays; the others are marked."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.measure.family:
            key = (finding.place.group, finding.measure.family)
            groups.setdefault(key, []).append(finding)
    for group in groups.values():
        best = min((one.place.rank for one in group if one.is_added), default=None)
        for one in group:
            if best is not None and one.place.rank > best:
                one.flag(flags.LOWER_RANK)


def _nested(service: Service, findings: list[Finding]) -> None:
    """A chassis within one that measures itself is in there already."""
    wholes = [one for one in findings if one.place.node is Node.CHASSIS and one.measure.family]
    told = {(one.place.group, one.measure.family) for one in wholes if one.is_added}
    for one in wholes:
        around = _around(service, one.place.group)
        if any((path, one.measure.family) in told for path in around):
            one.flag(flags.LOWER_RANK)


def _around(service: Service, path: str) -> list[str]:
    found: list[str] = []
    while len(found) < _MAX_STEPS and (resource := service.resources.get(path)):
        outer = linked_paths(resource.body, "ContainedBy")
        if not outer or outer[0] in found or outer[0] == path:
            break
        path = outer[0]
        found.append(path)
    return found


def _reading(finding: Finding, stamp: Stamp) -> Reading:
    place = finding.place
    return Reading(
        sensor=stamp.sensor,
        channel=finding.channel,
        quantity=finding.measure.quantity,
        kind=finding.measure.kind,
        value=finding.value,
        event_ns=stamp.event_ns,
        boot_ns=stamp.boot_ns,
        node=place.node,
        u=finding.u,
        label=place.label,
        loop=loop_of(place, stamp),
        flags=tuple(finding.flags),
        raw=finding.raw,
        generation=finding.generation,
    )
