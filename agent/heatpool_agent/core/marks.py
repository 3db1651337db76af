"""What every mark of a reading says, in words: those of admission and those of drivers."""

from collections.abc import Iterable

from heatpool_agent.core.plausible import FLAGS

# What drivers say of their own documents; a mark of admission keeps the words that it has there.
OF_DRIVERS: dict[str, str] = {
    "above_capacity": "more than the supply can deliver",
    "counter_contradicted": "another counter of the same thing says otherwise",
    "metrics_contradicted": "the sensor that it is taken from says otherwise",
    "lower_rank": "another reading says the same better: kept, never added",
    "set_copy": "the sum of others of this pass: kept, never added",
    "twin": "a second door to the same counter: kept, never added",
    "excerpt_differs": "a short form shows something else than the sensor that it names",
    "number_as_text": "a number that was sent as text",
    "fraction_mislabelled": "called percent, and is a share of one",
    "count_differs": "a collection counts other members than it holds",
    "outputs_below_half": "not all of its level is shown",
    "state_not_listed": "a state that the standard does not list",
    "reported_differs": "the reported heat is not flow times difference",
    "coolant_differs": "the unit and its connector name different coolants",
    "pressure_reversed": "more pressure in the hot pipe than in the cold one",
    "permanent_error": "its meter reports an error that stays",
    "temporary_error": "its meter reports an error that may pass",
    "low_power": "its meter's battery is nearly empty",
    "no_temperature": "its meter shows a temperature sensor that is broken or missing",
    "other_meter": "another meter answers than the settings expect",
    "not_heat": "the meter says that it measures no heat",
    "medium_unknown": "the meter does not say what it measures",
    "map_unverified": "its map was made from a manual, and seen at no device yet",
}


def words(flag: str) -> str:
    """One mark in words; a mark of another package is its own name."""
    if flag in FLAGS:
        return FLAGS[flag][1]
    return OF_DRIVERS.get(flag, flag.replace("_", " "))


def told(flags: Iterable[str]) -> str:
    """Several marks in one line, each once and in the order of their coming."""
    return "; ".join(dict.fromkeys(words(flag) for flag in flags))
