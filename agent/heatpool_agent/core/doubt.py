"""How far one reading may be off, its class by where it was read, and what computed heat used.

What a device states of itself comes first, else what `attribution` and the priors of a loop
assume of its kind; of what neither knows nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from heatpool.sample import QualityClass
from heatpool_agent.core import heat_tree
from heatpool_agent.core.attribution import INPUTS, LEAST_U_W, U_FRAC
from heatpool_agent.core.estimate import LoopPriors
from heatpool_agent.core.levels import Witness
from heatpool_agent.core.plausible import is_admitted
from heatpool_agent.core.reading import Node, Reading, ReadingKind

_ENERGIES = frozenset({"energy_j", "energy_wh"})
_HEATS = frozenset({"reported_heat_w", "delivered_heat_w"})
_WATER = frozenset({"hot_c", "cold_c", "volume_flow_m3_h"})
_LOAD = frozenset({"busy_frac", "logical_cpu_count"})
_ELECTRIC = frozenset({"power_w"}) | _ENERGIES
_COOLANT = frozenset({"volume_m3"}) | _HEATS | _WATER
# Zones of the counter that also shows the package.
_ZONES = frozenset({Node.CORE, Node.UNCORE})


@dataclass(frozen=True, slots=True)
class Doubt:
    """Standard uncertainty in the reading's own unit: the device's word, or a prior."""

    u: float
    is_prior: bool


def doubt(reading: Reading, priors: LoopPriors, *, reported_u_frac: float) -> Doubt | None:
    """Standard uncertainty of one reading, in its unit; None: nothing is known of it.

    Of a counter it is the gain's: the same share holds for each of its differences. Of a
    temperature it is what a pair of sensors differ by; what both err alike is not in it.
    """
    if reading.u is not None:
        return Doubt(reading.u, is_prior=False)
    is_state = reading.kind is ReadingKind.STATE
    if is_state or not isfinite(reading.value) or not is_admitted(reading):
        return None
    u = _prior_u(reading, priors, reported_u_frac)
    return None if u is None else Doubt(u, is_prior=True)


def quality_class(reading: Reading, *, is_doubted: bool = False) -> QualityClass | None:
    """The best class that a figure from this reading alone could have; None where none fits.

    A heat meter that something speaks against (`is_doubted`) is no better than a CDU, and so are
    its flow and temperatures by themselves. Source: agent.md 6.
    """
    node, quantity = reading.node, reading.quantity
    if node is Node.HOST:
        return QualityClass.E if quantity in _LOAD and is_admitted(reading) else None
    if reading.kind is ReadingKind.STATE or not is_admitted(reading):
        return None
    if _is_heat(reading):
        is_best = node is Node.HEAT_METER and not is_doubted
        return QualityClass.A if is_best else QualityClass.B
    if quantity in _COOLANT:
        return QualityClass.B
    return _electric_class(node) if quantity in _ELECTRIC else None


def computed_from(
    readings: Sequence[Reading], loop_id: str, hosts: Mapping[str, str]
) -> frozenset[Witness]:
    """The readings that a loop's computed heat is taken from; empty without flow or a side."""
    own = [r for r in readings if r.loop == loop_id and r.node is not Node.HEAT_METER]
    # The tree chooses by rank and never by value: where it is told numbers it says which it chose.
    numbered = [replace(r, value=float(number)) for number, r in enumerate(own)]
    refused = [r for r in numbered if r.quantity in _WATER and not is_admitted(r)]
    found = heat_tree.branches([r for r in numbered if is_admitted(r)], hosts, refused)
    chosen = (found[branch] for branch in heat_tree.complete(found))
    numbers = (number for c in chosen for number in (c.volume_flow_m3_h, c.hot_c, c.cold_c))
    used = (own[int(number)] for number in numbers if number is not None)
    return frozenset(Witness(r.sensor, r.channel, r.quantity) for r in used)


def _prior_u(reading: Reading, priors: LoopPriors, reported_u_frac: float) -> float | None:
    size, quantity = abs(reading.value), reading.quantity
    if quantity == "volume_flow_m3_h":
        return max(priors.flow_u_frac * size, priors.flow_u_m3_h)
    if quantity in ("hot_c", "cold_c"):
        return priors.delta_k_u
    if _is_heat(reading):
        return reported_u_frac * size
    if quantity == "volume_m3":
        return priors.flow_u_frac * size
    return _electric_u(reading) if quantity in _ELECTRIC else None


def _is_heat(reading: Reading) -> bool:
    is_register = reading.node is Node.HEAT_METER and reading.quantity in _ENERGIES
    return is_register or reading.quantity in _HEATS


def _electric_class(node: Node) -> QualityClass | None:
    # What a CDU takes for its pumps warms no server.
    if node not in U_FRAC and node not in _ZONES:
        return None
    if node in INPUTS:
        return QualityClass.B
    return QualityClass.C if node is Node.PSU_OUT else QualityClass.D


def _electric_u(reading: Reading) -> float | None:
    node = Node.PACKAGE if reading.node in _ZONES else reading.node
    if node not in U_FRAC:
        return None
    u = U_FRAC[node] * abs(reading.value)
    is_board_meter = node in (*INPUTS, Node.PSU_OUT) and reading.quantity == "power_w"
    return max(u, LEAST_U_W) if is_board_meter else u
