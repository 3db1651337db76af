"""One GPU as its driver tells it: which answers are values, which power comes first.

Energy is counted by the card or by its module; power is a mean of a second, or of this moment.
What is asked of the module is used only where the GPU itself tells nothing, as on Grace Hopper.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heatpool.errors import WireError

# Field ids: energy in mJ since the driver was loaded, the same by scope; power in mW as a mean of
# a second, power at this moment, highest power that may be set.
ENERGY, ENERGY_SCOPED = 83, 191
POWER_MEAN, POWER_NOW, POWER_MOST = 185, 186, 188
GPU_SCOPE, MODULE_SCOPE = 0, 1
GPU_FIELDS = ((ENERGY, GPU_SCOPE), (ENERGY_SCOPED, GPU_SCOPE), (POWER_MEAN, GPU_SCOPE),
              (POWER_NOW, GPU_SCOPE))  # fmt: skip
MODULE_FIELDS = ((ENERGY_SCOPED, MODULE_SCOPE), (POWER_MEAN, MODULE_SCOPE),
                 (POWER_NOW, MODULE_SCOPE))  # fmt: skip
LIMIT_FIELDS = ((POWER_MOST, GPU_SCOPE),)
POWER_FIELDS = frozenset({(POWER_MEAN, GPU_SCOPE), (POWER_NOW, GPU_SCOPE)})
POWER_USAGE = "power_usage"
# The library marks "no value" by the topmost numbers of either width.
_BLANK_64 = 2**63 - 16
_BLANK_32 = 2**31 - 16

Field = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What one card tells; absent is None. `power_source` names what answered for power."""

    name: str
    energy_mj: int | None = None
    power_w: float | None = None
    power_source: str = ""
    power_most_w: float | None = None
    is_module: bool = False


def encoded(
    name: str, fields: Mapping[Field, tuple[int, int]], *, usage: int | None
) -> bytes:  # fmt: skip
    """A card's answers as text, blanks and all: field and scope -> number and its bits."""
    rows = [[*field, *value] for field, value in fields.items()]
    return json.dumps({"name": name, "fields": rows, "usage": usage}).encode()


def told(fields: Mapping[Field, tuple[int, int]]) -> frozenset[Field]:
    """Which of these answers are values."""
    return frozenset(field for field, value in fields.items() if _value(*value) is not None)


def card(answer: bytes) -> Card:
    """The card that such a text describes.

    Raises:
        WireError: it is no such text.
    """
    try:
        tree = json.loads(answer)
        fields = _values(tree["fields"])
        name, usage = str(tree["name"]), _value(tree["usage"], 32)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise WireError("nvml: a card's answer is not the text of one") from error
    gpu = _scoped(fields, name, GPU_SCOPE, usage=usage)
    if gpu.energy_mj is None and gpu.power_w is None:
        module = _scoped(fields, name, MODULE_SCOPE, usage=None)
        if module.energy_mj is not None or module.power_w is not None:
            return module
    return gpu


def _scoped(
    fields: Mapping[Field, int], name: str, scope: int, *, usage: int | None
) -> Card:  # fmt: skip
    energies = [fields.get((ENERGY, scope)), fields.get((ENERGY_SCOPED, scope))]
    powers = [
        (f"field:{field}", fields[field, scope])
        for field in (POWER_MEAN, POWER_NOW)
        if (field, scope) in fields
    ]
    source, milliwatts = powers[0] if powers else (POWER_USAGE, usage)
    return Card(
        name=name,
        energy_mj=next((energy for energy in energies if energy is not None), None),
        power_w=_watts(milliwatts),
        power_source=source if milliwatts is not None else "",
        power_most_w=_watts(fields.get((POWER_MOST, scope))),
        is_module=scope == MODULE_SCOPE,
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _values(rows: Sequence[Any]) -> dict[Field, int]:
    found = {(int(f), int(scope)): _value(number, bits) for f, scope, number, bits in rows}
    return {field: number for field, number in found.items() if number is not None}


def _value(number: Any, bits: Any) -> int | None:
    if number is None:
        return None
    return int(number) if 0 <= int(number) < (_BLANK_64 if bits == 64 else _BLANK_32) else None
