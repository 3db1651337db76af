"""What the kernel's files say of its energy events: config, unit, CPUs; counts become uJ.

An event counts in steps of 2**-32 J in 64 bits, so it begins anew only after 4.29 GJ, which is 99
days at 500 W: the range is told, and no step is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from heatpool_agent.core.reading import Node

NODES: Mapping[str, Node] = {
    "energy-pkg": Node.PACKAGE,
    "energy-ram": Node.DRAM,
    "energy-psys": Node.PSYS,
    "energy-cores": Node.CORE,
    "energy-gpu": Node.UNCORE,
}
_UJ_PER_J = 10**6
_COUNTS = 2**64
# Far beyond any machine: a damaged list must not become a million descriptors.
_MOST_CPUS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyEvent:
    """One event of the kernel's `power` unit, and how many uJ one count is."""

    name: str
    node: Node
    config: int
    unit_uj: Fraction

    @property
    def modulus_uj(self) -> int:
        """Where the count begins anew, uJ."""
        return int(_COUNTS * self.unit_uj)

    def energy_uj(self, count: int) -> int:
        """Energy of a count, whole uJ; what is cut off comes with a later count."""
        return int(count * self.unit_uj)


def energy_event(
    name: str, *, config: str | None, scale: str | None, unit: str | None
) -> EnergyEvent | None:
    """The event that these files describe; None if it is none of ours or not in joules.

    Source: Documentation/ABI/testing/sysfs-bus-event_source-devices-events.
    """
    number, unit_j = _config(config), _scale(scale)
    if name not in NODES or number is None or unit_j is None or unit not in (None, "Joules"):
        return None
    return EnergyEvent(
        name=name, node=NODES[name], config=number, unit_uj=unit_j * _UJ_PER_J
    )  # fmt: skip


def cpus(mask: str | None) -> tuple[int, ...]:
    """CPU numbers of a list such as `0,28-29`; empty if it is no such list."""
    found: list[int] = []
    for part in (mask or "").split(","):
        first, _, last = part.strip().partition("-")
        last = last or first
        if not (_is_number(first) and _is_number(last)) or int(last) - int(first) >= _MOST_CPUS:
            return ()
        if len(found) < _MOST_CPUS:
            found += range(int(first), int(last) + 1)
    return tuple(found[:_MOST_CPUS])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6


def _config(text: str | None) -> int | None:
    """`event=0x02` -> 2; another term means another layout of the event's number."""
    key, _, value = (text or "").partition("=")
    try:
        number = int(value, 0)
    except ValueError:
        return None
    return number if key == "event" and 0 <= number < _COUNTS else None


def _scale(text: str | None) -> Fraction | None:
    # The exponent of a longer text could take for ever to be made exact.
    if not text or len(text) > 64 or int("0" + _exponent(text)) > 30:
        return None
    try:
        scale = Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
    return scale if 0 < scale <= 1 else None


def _exponent(text: str) -> str:
    tail = text.lower().partition("e")[2].lstrip("+-")
    return tail if tail.isascii() and tail.isdigit() else ""
