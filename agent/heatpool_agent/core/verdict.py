"""What became of a reading, for people: believed, doubted, said elsewhere, partial, or refused."""

from enum import Enum

from heatpool.units import SUFFIXES
from heatpool_agent.core.levels import NOT_ADDED
from heatpool_agent.core.marks import words
from heatpool_agent.core.plausible import FLAGS, REFUSED_BY_DRIVERS, is_admitted
from heatpool_agent.core.reading import Reading


class Verdict(Enum):
    """Whether a reading may enter estimates; a repeated or partial one is never added."""

    BELIEVED = "believed"
    DOUBTED = "doubted"
    REPEATED = "repeated"
    PARTIAL = "partial"
    REFUSED = "refused"


# Says nothing that another reading says, and still too little to be added.
_PARTIAL = "outputs_below_half"
# Marks of drivers that let a reading pass, and still ask for a look.
_DOUBTFUL = FLAGS.keys() | {"no_temperature", "permanent_error"}
# States that are 0 or 1; others, such as a device's status, are codes.
_YES_OR_NO = frozenset({"leak", "pump_runs", "watchdog_ran_out", "remote_control"})
_SYMBOLS = {
    "_w": "W",
    "_wh": "Wh",
    "_j": "J",
    "_c": "°C",
    "_m3_h": "m³/h",
    "_m3": "m³",
    "_bar": "bar",
    "_s": "s",
    "_frac": "1",
    "_count": "1",
}


def verdict(reading: Reading) -> Verdict:
    """The reading's fate after admission."""
    if not is_admitted(reading):
        return Verdict.REFUSED
    if not NOT_ADDED.isdisjoint(reading.flags):
        is_repeat = not (NOT_ADDED - {_PARTIAL}).isdisjoint(reading.flags)
        return Verdict.REPEATED if is_repeat else Verdict.PARTIAL
    return Verdict.BELIEVED if _DOUBTFUL.isdisjoint(reading.flags) else Verdict.DOUBTED


def reasons(reading: Reading) -> tuple[str, ...]:
    """Why it is not simply believed, in words; nothing if it is."""
    judged = _DOUBTFUL | REFUSED_BY_DRIVERS | NOT_ADDED
    return tuple(words(flag) for flag in reading.flags if flag in judged)


def unit(quantity: str) -> str:
    """The unit as a sign, such as W; "1" for shares and counts, states and the like."""
    found = [suffix for suffix in SUFFIXES if quantity.endswith(suffix)]
    return _SYMBOLS.get(max(found, key=len), "1") if found else "1"


def is_yes_or_no(quantity: str) -> bool:
    """Whether 1 means that it is so and 0 that it is not."""
    return quantity in _YES_OR_NO or quantity.startswith(("is_", "has_"))
