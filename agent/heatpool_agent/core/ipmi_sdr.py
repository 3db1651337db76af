"""The BMC's own list of sensors as `ipmitool sdr` prints it: which watts in it mean what.

Names are the maker's. Rules, kept as data, say which of them is a node; no rule, no reading.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heatpool_agent.core.reading import Node

# "110 Watts, Presence detected": a figure with states behind it is one.
# More digits are no figure, and hundreds of them would be infinite.
_WATTS = re.compile(r"(-?\d{1,9}(?:\.\d{1,9})?) Watts(?:,.*)?", re.ASCII)
_NO_READING = "ns"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """One sensor with watts; `key` tells it from others and outlives a new name."""

    key: str
    name: str
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Sensors whose name matches are this node; None: never used.

    `yields`: only where no other rule found this node, as the name says less.
    """

    name: re.Pattern[str]
    node: Node | None
    yields: bool = False


def rules(tables: Iterable[Mapping[str, object]]) -> tuple[Rule, ...]:
    """The rules of a data file, first match first.

    Raises:
        KeyError, ValueError: a rule that is none.
    """
    return tuple(
        Rule(
            name=re.compile(str(table["name"]), re.IGNORECASE),
            node=Node(table["node"]) if table["node"] else None,
            yields=bool(table.get("yields", False)),
        )
        for table in tables
    )


def sensors(text: bytes) -> tuple[Sensor, ...]:
    """Every sensor with watts, W, in the output of `sdr` or `sdr elist`.

    States in hexadecimal, words and "No Reading" are no figures.
    """
    rows = (line.split("|") for line in text.decode("utf-8", "replace").splitlines())
    return tuple(found for row in rows if (found := _sensor([cell.strip() for cell in row])))


def named(found: Sequence[Sensor], told: Sequence[Rule]) -> tuple[tuple[Sensor, Node], ...]:
    """The sensors that a rule knows, each with its node; a yielding rule's where it is alone."""
    matched = [
        (sensor, rule) for sensor in found if (rule := _rule(sensor.name, told)) and rule.node
    ]
    sure = {rule.node for _, rule in matched if not rule.yields}
    return tuple(
        (sensor, rule.node)
        for sensor, rule in matched
        if rule.node and not (rule.yields and rule.node in sure)
    )


def _rule(name: str, told: Sequence[Rule]) -> Rule | None:
    return next((rule for rule in told if rule.name.search(name)), None)


def _sensor(cells: Sequence[str]) -> Sensor | None:
    # name | value | status, or name | number | status | entity | value.
    if len(cells) == 3:
        name, value, status = cells
        key = name
    elif len(cells) == 5:
        name, number, status, entity, value = cells
        key = f"{number}@{entity}"
    else:
        return None
    watts = _WATTS.fullmatch(value)
    if watts is None or status == _NO_READING or not name:
        return None
    return Sensor(key=key, name=name, power_w=float(watts[1]))
