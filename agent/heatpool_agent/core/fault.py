"""A fault of a loop as people hear of it: what, since when, and the evidence; one per cause."""

from dataclasses import dataclass

# Identifier of a fault, and what it means for a person. Source: physics.md 9.
FAULTS: dict[str, str] = {
    "swapped_sensors": "hot and cold sensor are swapped, or the water runs backwards",
    "stuck_sensor": "a temperature or flow sensor shows the same while the load moves",
    "sensor_drift": "a temperature sensor drifts",
    "pair_offset": "hot and cold sensor no longer agree at equal temperature",
    "fouling": "the flow sensor shows less and less of the flow: dirt or a clogged strainer",
    "air_in_loop": "air in the loop: the flow is restless and less heat is carried",
    "leak": "coolant is lost",
    "wrong_fluid": "the coolant is not what the settings say",
    "wrong_sensor_side": "the flow sensor sits in the other pipe",
    "unit_error": "a reading is off by the factor between two units",
    "dead_meter": "a meter no longer moves although heat flows",
    "power_meter": "the power meter shows another share of the power than before",
    "residual": "flow and power tell different heats, and no cause stands out",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One cause, with when it began (ns since 1970), when it ended (None: it lasts), and why.

    `evidence` is one sentence with the figures seen and what to do.
    """

    fault: str
    start_ns: int
    end_ns: int | None
    evidence: str
