"""Power supplies: what goes in, what comes out, and figures that cannot be readings."""

from collections.abc import Iterator
from typing import Any

from heatpool_agent.core.reading import Node, ReadingKind
from heatpool_agent.core.redfish import flags
from heatpool_agent.core.redfish.chassis import LEGACY, METRICS
from heatpool_agent.core.redfish.document import Document
from heatpool_agent.core.redfish.figures import POWER, REGISTER, Measure, number
from heatpool_agent.core.redfish.findings import GONE, Finding, Findings, Place
from heatpool_agent.core.redfish.service import Resource
from heatpool_agent.core.redfish.shapes import inside, nested, rows, table, text

# A supply may carry more than its rating for moments, and takes in its own losses.
_CAPACITY_MARGIN = 1.2
# No supply under load loses this much: its input is no reading.
_LEAST_EFFICIENCY_FRAC = 0.6
_EFFICIENCY = Measure(quantity="efficiency_frac", unit="%", types=frozenset())


def supplies(found: Findings) -> None:
    """`PowerSupply` resources with their metrics, then the lists of the older `Power`."""
    metered = set()
    for resource in found.service.of_kind("PowerSupply"):
        path = inside(table(resource.body, "Metrics").get("@odata.id"))
        if metrics := found.service.resources.get(path):
            metered.add(path)
            _by_metrics(found, metrics, resource)
    for metrics in found.service.of_kind("PowerSupplyMetrics"):
        if metrics.path not in metered:
            _by_metrics(found, metrics, None)
    for resource in found.service.of_kind("Power"):
        for pointer, row in nested(resource.body, "PowerSupplies"):
            _legacy(found, resource, pointer, row)


def _by_metrics(found: Findings, metrics: Resource, plate: Resource | None) -> None:
    part = plate.path if plate else metrics.path
    body = plate.body if plate else {}
    if text(table(body, "Status"), "State") in GONE:
        return
    chassis = found.service.chassis_of(part)
    if chassis in found.service.cooling:
        return
    marks = (flags.COUNT_DIFFERS,) if found.service.is_miscounted(part) else ()
    into, out = (
        Place(
            node=node,
            group=f"{chassis}#{node.value}",
            rank=METRICS,
            part=part,
            label=text(body, "Name"),
            flags=marks,
        )
        for node in (Node.PSU_IN, Node.PSU_OUT)
    )
    put_in = found.excerpt(metrics, "InputPowerWatts", POWER, into)
    put_out = found.excerpt(metrics, "OutputPowerWatts", POWER, out)
    found.excerpt(metrics, "EnergykWh", REGISTER, into)
    _judged(found, put_in, put_out, body)


def _legacy(found: Findings, resource: Resource, pointer: str, row: Document) -> None:
    if text(table(row, "Status"), "State") in GONE:
        return
    chassis = found.service.chassis_of(resource.path) or resource.path
    if chassis in found.service.cooling:
        return
    part = f"{resource.path}#{pointer}"
    into, out = (
        Place(
            node=node,
            group=f"{chassis}#{node.value}",
            rank=LEGACY,
            part=part,
            label=text(row, "Name"),
        )
        for node in (Node.PSU_IN, Node.PSU_OUT)
    )
    put_in = found.excerpt(resource, "PowerInputWatts", POWER, into, pointer=pointer)
    put_out = found.excerpt(resource, "PowerOutputWatts", POWER, out, pointer=pointer)
    if put_out is None:
        put_out = found.excerpt(resource, "LastPowerOutputWatts", POWER, out, pointer=pointer)
    _efficiency(found, part, row, into)
    _judged(found, put_in, put_out, row)


def _efficiency(found: Findings, part: str, row: Document, place: Place) -> None:
    told = number(row.get("EfficiencyPercent"))
    if told is None or not 0 < told <= 100:
        return
    # Real supplies never fall to one percent under load; 0.91 is a fraction in the wrong place.
    is_fraction = told <= 1
    finding = Finding(
        channel=f"{part}/EfficiencyPercent",
        measure=_EFFICIENCY,
        value=told if is_fraction else told / 100,
        place=place,
    )
    if is_fraction:
        finding.flag(flags.FRACTION_MISLABELLED)
    found.all.append(finding)


def _judged(
    found: Findings, put_in: Finding | None, put_out: Finding | None, plate: Document
) -> None:
    capacity_w = number(plate.get("PowerCapacityWatts"))
    for finding in (put_in, put_out):
        if finding and capacity_w:
            found.state(finding.channel, "rated_w", capacity_w, finding.place)
            if finding.value > _CAPACITY_MARGIN * capacity_w:
                finding.flag(flags.ABOVE_CAPACITY)
    if put_in and put_out and put_in.value == put_out.value > 0:
        put_in.flag(flags.IN_EQUALS_OUT)
        put_out.flag(flags.IN_EQUALS_OUT)
    elif put_in and _is_rating(put_in, put_out, plate, capacity_w):
        put_in.flag(flags.RATING_AS_READING)


def _is_rating(
    put_in: Finding, put_out: Finding | None, plate: Document, capacity_w: float | None
) -> bool:
    if put_in.value in set(_plate_figures(plate)):
        return True
    if not capacity_w or put_in.value < capacity_w or put_out is None:
        return False
    return put_out.value < _LEAST_EFFICIENCY_FRAC * put_in.value


def _plate_figures(plate: Document) -> Iterator[float]:
    found = [plate.get("PowerCapacityWatts")]
    for row in rows(plate, "InputRanges"):
        found += [row.get("OutputWattage"), row.get("CapacityWatts")]
    found += _largest_inputs(table(plate, "Oem"), 4)
    for value in found:
        if figure := number(value):
            yield figure


def _largest_inputs(body: Document, depth: int) -> list[Any]:
    """Makers' own names for the largest input, such as `Range1MaxInputPowerWatts`."""
    found: list[Any] = []
    for name, value in body.items():
        if isinstance(value, dict) and depth:
            found += _largest_inputs(value, depth - 1)
        elif "Max" in name and "InputPower" in name:
            found.append(value)
    return found


def counters_judged(found: Findings) -> None:
    """Joule counters of supplies beside better ones: a kind that fails in one supply is disabled.

    Some wrap early: more comes out than went in, or the kWh register says another amount.
    """
    groups: dict[str, list[Finding]] = {}
    for finding in found.all:
        if finding.measure.kind is ReadingKind.COUNTER and finding.place.part:
            groups.setdefault(finding.place.group.partition("#")[0], []).append(finding)
    for findings in groups.values():
        joules = [one for one in findings if one.measure.quantity == "energy_j"]
        if any(_fails(one, findings) for one in joules):
            for one in joules:
                one.flag(flags.COUNTER_CONTRADICTED)


def _fails(joule: Finding, findings: list[Finding]) -> bool:
    for other in findings:
        if other is joule or other.place.part != joule.place.part:
            continue
        if other.measure.quantity == "energy_j":
            is_pair = (joule.place.node, other.place.node) == (Node.PSU_IN, Node.PSU_OUT)
            if is_pair and other.value > joule.value:
                return True
        elif other.place.node is joule.place.node and _quarrels(other.value * 3600, joule.value):
            return True
    return False


def _quarrels(register_j: float, joule: float) -> bool:
    # One step of the coarser register is no quarrel.
    return abs(register_j - joule) > max(0.1 * register_j, 2 * 3.6e6)


def outputs_judged(found: Findings) -> None:
    """Outputs that add up to less than half of what their chassis takes in."""
    inputs = {
        one.place.group: one.value
        for one in reversed(found.all)
        if one.place.node is Node.CHASSIS and one.measure is POWER and one.is_added
    }
    outputs: dict[str, list[Finding]] = {}
    for one in found.all:
        if one.place.node is Node.PSU_OUT and one.measure is POWER:
            outputs.setdefault(one.place.group.partition("#")[0], []).append(one)
    for chassis, findings in outputs.items():
        if sum(one.value for one in findings) < inputs.get(chassis, 0.0) / 2:
            for one in findings:
                one.flag(flags.OUTPUTS_BELOW_HALF)
