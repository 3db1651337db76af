"""Faults of a trace over its whole length: the estimator's, and what its sensors plainly show.

An estimator forgets a fault a day after its end; here none is forgotten.
"""

from collections.abc import Iterable

from heatpool_agent.core.fault import Fault
from heatpool_agent.core.plausible import NO_FLOW_FROZEN, SWAPPED_SENSORS

SWAPPED_FAULT, DEAD_FAULT, UNIT_FAULT = "swapped_sensors", "dead_meter", "unit_error"
# What the marks of the water sensors mean as a fault.
_OF_MARKS = {SWAPPED_SENSORS: SWAPPED_FAULT, NO_FLOW_FROZEN: DEAD_FAULT}


class Faults:
    """Every fault seen, by cause and begin; a newer word on one replaces the older."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Fault] = {}
        self._open: dict[str, Fault] = {}

    def add(self, fault: Fault) -> None:
        """One fault, unless the same cause was told of the same time already."""
        known = [one for one in self._found.values() if one.fault == fault.fault]
        same = next((one for one in known if _overlaps(one, fault)), None)
        key = (fault.fault, same.start_ns if same else fault.start_ns)
        if same is None or same.start_ns == fault.start_ns:
            self._found[key] = fault

    def collect(self, faults: Iterable[Fault]) -> None:
        """The faults that the estimator tells now; what it takes back, or renames, is none."""
        told = tuple(faults)
        for key, known in tuple(self._found.items()):
            is_lasting = known.end_ns is None and known.fault not in self._open
            if is_lasting and not any(_is_same(known, one) for one in told):
                del self._found[key]
        for fault in told:
            self.add(fault)

    def marked(self, marks: tuple[str, ...], at_ns: int, *, since_ns: int, evidence: str) -> None:
        """What the marks of the water sensors say at this row; `since_ns` is when one began."""
        if not marks and not self._open:
            return
        names = {_OF_MARKS[mark] for mark in marks if mark in _OF_MARKS}
        for name in names - self._open.keys():
            fault = Fault(fault=name, start_ns=since_ns, end_ns=None, evidence=evidence)
            self._open[name] = fault
            self.add(fault)
        for name in self._open.keys() - names:
            begun = self._open.pop(name)
            ended = Fault(
                fault=name, start_ns=begun.start_ns, end_ns=at_ns, evidence=begun.evidence
            )
            self._found[name, begun.start_ns] = ended

    def told(self) -> tuple[Fault, ...]:
        """All of them in the order of their begin."""
        return tuple(sorted(self._found.values(), key=lambda one: (one.start_ns, one.fault)))


def _is_same(one: Fault, other: Fault) -> bool:
    return one.fault == other.fault and one.start_ns == other.start_ns


def _overlaps(one: Fault, other: Fault) -> bool:
    one_end = float("inf") if one.end_ns is None else one.end_ns
    other_end = float("inf") if other.end_ns is None else other.end_ns
    return one.start_ns <= other_end and other.start_ns <= one_end
