"""What became of a reading, for people: believed, doubted, said better elsewhere, or refused."""

from enum import Enum

from heatpool.units import SUFFIXES
from heatpool_agent.core.levels import NOT_ADDED
from heatpool_agent.core.plausible import FLAGS, REFUSED_BY_DRIVERS, is_admitted
from heatpool_agent.core.reading import Reading


class Verdict(Enum):
    """Whether a reading may enter estimates; an overlapping one may, and is still never added."""

    BELIEVED = "believed"
    DOUBTED = "doubted"
    REPEATED = "repeated"
    REFUSED = "refused"


# Words of drivers that `FLAGS` does not explain.
_WORDS = {
    "above_capacity": "more than the supply can deliver",
    "counter_contradicted": "another counter of the same thing says otherwise",
    "metrics_contradicted": "the sensor that it is taken from says otherwise",
    "lower_rank": "another reading says the same better",
    "set_copy": "the sum of others",
    "twin": "a second door to the same counter",
    "outputs_below_half": "not all of its level is shown",
    "permanent_error": "its meter reports an error that stays",
    "no_temperature": "its meter shows a temperature sensor that is broken or missing",
}
# Words of drivers that let a reading pass, and still ask for a look.
_DOUBTFUL = FLAGS.keys() | {"no_temperature", "permanent_error"}
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
        return Verdict.REPEATED
    return Verdict.BELIEVED if _DOUBTFUL.isdisjoint(reading.flags) else Verdict.DOUBTED


def reasons(reading: Reading) -> tuple[str, ...]:
    """Why it is not simply believed, in words; nothing if it is."""
    judged = _DOUBTFUL | REFUSED_BY_DRIVERS | NOT_ADDED
    return tuple(_words(flag) for flag in reading.flags if flag in judged)


def unit(quantity: str) -> str:
    """The unit as a sign, such as W; "1" for shares and counts, states and the like."""
    found = [suffix for suffix in SUFFIXES if quantity.endswith(suffix)]
    return _SYMBOLS.get(max(found, key=len), "1") if found else "1"


def _words(flag: str) -> str:
    if flag in FLAGS:
        return FLAGS[flag][1]
    return _WORDS.get(flag, flag.replace("_", " "))
